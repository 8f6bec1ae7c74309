"""Features with partitions: runs of one, of a range, of several at once, and what jobs make of them."""

import datetime as dt
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import mlforge as mlf
from dagster_shop import DAY, START, Shop, keys_of, materialisations
from mlforge import DefinitionError, Definitions
from mlforge.store import LocalStore
from mlforge_dagster import (
    AssetData,
    MlforgeTranslator,
    build_definitions,
    feature_assets,
    feature_schedule,
    partition_schedule,
    report,
)
from mlforge_dagster.partitions import FIRST, LAST


def test_partitions_are_built_each_for_its_events(shop: Shop) -> None:
    shop.run()
    shop.save({0: 11.0, 40: 6.0, 65: 3.0})
    partitions = {"last": "2026-01-01"}
    assets = feature_assets(shop.defs(), partitions=partitions)
    last = dg.AssetSelection.assets(dg.AssetKey(["our_shop", "last"]))
    for month in ("2026-01-01", "2026-03-01"):
        assert dg.materialize(assets, selection=last, partition_key=month, instance=shop.instance).success
    snapshot = shop.defs().store.require("last")
    assert sorted(snapshot.collect(snapshot.scan())["amount"]) == [3.0, 5.0, 11.0]


def test_one_run_builds_a_range_of_partitions(shop: Shop) -> None:
    shop.run()
    shop.save({0: 11.0, 40: 6.0, 65: 3.0})
    definitions = build_definitions(shop.defs(), partitions={"last": "2026-01-01"})
    bounds = {"start": "2026-01-01", "end": "2026-02-01"}
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=shop.instance,
        asset_selection=[dg.AssetKey(["our_shop", "last"])],
        tags={f"dagster/asset_partition_range_{name}": day for name, day in bounds.items()},
    )
    assert result.success
    assert materialisations(result)["last"].metadata["events"].value == (
        "2026-01-01T00:00:00+00:00 to 2026-03-01T00:00:00+00:00"
    )
    snapshot = shop.defs().store.require("last")
    assert sorted(snapshot.collect(snapshot.scan())["amount"]) == [2.0, 6.0, 11.0]
    events = [event.materialization for event in result.get_asset_materialization_events()]
    assert {event.partition: of_the_partition(event) for event in events} == {
        "2026-01-01": (3, 1, 1, START, START),
        "2026-02-01": (3, 1, 1, START + 40 * DAY, START + 40 * DAY),
    }


def of_the_partition(event: dg.AssetMaterialization) -> tuple[Any, ...]:
    """How many rows the table has, and of the partition the rows, the entities, and the first and the last time."""
    shown = {name: each.value for name, each in event.metadata.items()}
    times = (dt.datetime.fromtimestamp(shown[f"partition/{name}"], dt.UTC) for name in ("first", "last"))
    return (shown["dagster/row_count"], shown["dagster/partition_row_count"], shown["partition/entities"], *times)


def test_days_and_weeks_in_a_time_zone_are_built_from_their_first_to_their_last_instant(shop: Shop) -> None:
    shop.run()
    berlin = dt.timezone(dt.timedelta(hours=1))
    times = [dt.datetime(2026, 1, 5, hour, tzinfo=berlin) for hour in (0, 23)]
    edges = [*times, times[0] - dt.timedelta(microseconds=1), times[0] + DAY]
    rows = pl.DataFrame({"user": [1] * 4, "ts": edges, "amount": [1.0, 2.0, 3.0, 4.0]})
    rows.with_columns(pl.col("ts").dt.convert_time_zone("UTC")).write_parquet(shop.folder / "events.parquet")
    last = dg.AssetSelection.assets(dg.AssetKey(["our_shop", "last"]))
    of = {
        "2026-01-05": dg.DailyPartitionsDefinition("2026-01-01", timezone="Europe/Berlin"),
        "2026-01-04": dg.WeeklyPartitionsDefinition("2026-01-04", timezone="Europe/Berlin"),
    }
    found = {}
    for key, partitions in of.items():
        assets = feature_assets(shop.defs(), partitions={"last": partitions})
        result = dg.materialize(assets, selection=last, partition_key=key, instance=shop.instance)
        (event,) = result.get_asset_materialization_events()
        found[key] = of_the_partition(event.materialization)[1:]
    assert found == {"2026-01-05": (2, 1, *times), "2026-01-04": (4, 1, edges[2], edges[3])}


def test_runs_of_different_partitions_at_once_all_land(shop: Shop) -> None:
    shop.run()
    shop.save({0: 11.0, 40: 6.0, 65: 3.0})
    last = dg.AssetSelection.assets(dg.AssetKey(["our_shop", "last"]))

    def build(month: str) -> bool:
        # Each run in an instance of its own, as runs in processes of their own have.
        with tempfile.TemporaryDirectory() as folder:
            assets = feature_assets(shop.defs(), partitions={"last": "2026-01-01"})
            with dg.DagsterInstance.ephemeral(tempdir=folder) as instance:
                return dg.materialize(assets, selection=last, partition_key=month, instance=instance).success

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(build, ["2026-01-01", "2026-02-01", "2026-03-01"]))
    snapshot = shop.defs().store.require("last")
    assert sorted(snapshot.collect(snapshot.scan())["amount"]) == [3.0, 6.0, 11.0]


def test_a_feature_without_times_has_no_partitions(tmp_path: Path) -> None:
    @mlf.feature(keys=["user"], source=tmp_path / "users.parquet")
    def user(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    defs = Definitions("p", features=[user], store=LocalStore(tmp_path))
    with pytest.raises(DefinitionError, match="Feature 'user' has no timestamp, so it cannot be partitioned"):
        build_definitions(defs, partitions={"user": "2026-01-01"})


def test_a_schedule_leaves_out_what_has_partitions(shop: Shop) -> None:
    partitions = {"last": "2026-01-01", "spend": dg.DailyPartitionsDefinition("2026-01-01")}
    definitions = build_definitions(
        shop.defs(), partitions=partitions, schedules=[feature_schedule(shop.defs(), "0 2 * * *")]
    )
    job = definitions.resolve_job_def("our_shop_features")
    assert keys_of(job) == {"double", "spend_online", "last_online", "double_online"}
    shop.defs().build()
    assert job.execute_in_process(instance=shop.instance).success


def test_a_schedule_that_names_what_has_partitions_is_refused(shop: Shop) -> None:
    schedule = feature_schedule(shop.defs(), "0 2 * * *", ["spend", "last"])
    assert build_definitions(shop.defs(), schedules=[schedule])
    with pytest.raises(DefinitionError, match="'last' has partitions, and a run of feature_job would not know which"):
        build_definitions(shop.defs(), partitions={"last": "2026-01-01"}, schedules=[schedule])


def test_partitions_of_a_translator_are_left_out_of_jobs_as_well(shop: Shop) -> None:
    class Monthly(MlforgeTranslator):
        def get_asset_spec(self, data: AssetData) -> dg.AssetSpec:
            spec = super().get_asset_spec(data)
            whole = data.kind != "offline" or spec.key.path[-1] != "last"
            return spec if whole else spec.replace_attributes(partitions_def=self.partitions)

        partitions: dg.PartitionsDefinition = dg.MonthlyPartitionsDefinition("2026-01-01")

    translator = Monthly()
    named = feature_schedule(shop.defs(), "0 2 * * *", ["spend", "last"], translator=translator)
    with pytest.raises(DefinitionError, match="'last' has partitions"):
        build_definitions(shop.defs(), translator=translator, schedules=[named])
    schedule = feature_schedule(shop.defs(), "0 2 * * *", translator=translator)
    definitions = build_definitions(shop.defs(), translator=translator, schedules=[schedule])
    assert "last" not in keys_of(definitions.resolve_job_def("our_shop_features"))
    translator.partitions = dg.StaticPartitionsDefinition(["a"])
    with pytest.raises(DefinitionError, match="Feature 'last' can have partitions of time only"):
        build_definitions(shop.defs(), translator=translator)


def test_months_are_whole_and_the_running_one_is_among_them(shop: Shop) -> None:
    definitions = build_definitions(shop.defs(), partitions={"last": "2026-01-15"})
    last = next(each for each in definitions.resolve_all_asset_specs() if each.key.path[-1] == "last")
    assert last.partitions_def is not None
    now = dt.datetime(2026, 3, 10, tzinfo=dt.UTC)
    assert list(last.partitions_def.get_partition_keys(now)) == ["2026-01-01", "2026-02-01", "2026-03-01"]
    with pytest.raises(DefinitionError, match="The first month of partitions: 'soon' is no instant"):
        build_definitions(shop.defs(), partitions={"last": "soon"})


def materialised(shop: Shop) -> set[str]:
    return set(shop.instance.get_materialized_partitions(dg.AssetKey(["our_shop", "last"])))


def test_a_run_that_had_to_build_everything_says_so_of_every_partition(shop: Shop) -> None:
    months = dg.MonthlyPartitionsDefinition("2026-01-01", end_date="2026-04-01")
    assets = feature_assets(shop.defs(), partitions={"last": months})
    last = dg.AssetSelection.assets(dg.AssetKey(["our_shop", "last"]))
    dg.materialize(assets, selection=last, partition_key="2026-02-01", instance=shop.instance)
    assert materialised(shop) == {"2026-01-01", "2026-02-01", "2026-03-01"}


def test_builds_elsewhere_are_told_of_the_partitions_that_they_have_built(shop: Shop) -> None:
    months = {"last": dg.MonthlyPartitionsDefinition("2026-01-01", end_date="2026-04-01")}
    shop.defs().build(["last"])
    shop.save({0: 11.0, 40: 6.0, 65: 3.0})
    some = shop.defs().build(["last"], start="2026-01-15", end="2026-03-15")
    report(shop.defs(), some, instance=shop.instance, partitions=months)
    assert materialised(shop) == {"2026-02-01"}
    report(shop.defs(), shop.defs().build(["last"], force=True), instance=shop.instance, partitions=months)
    assert materialised(shop) == {"2026-01-01", "2026-02-01", "2026-03-01"}


@pytest.mark.parametrize(
    ("last", "day", "asked"),
    [
        (2, dt.datetime(2026, 3, 1, tzinfo=dt.UTC), ("2026-02-01", "2026-03-01")),
        (1, dt.datetime(2026, 2, 28, tzinfo=dt.UTC), ("2026-02-01", "2026-02-01")),
        (9, dt.datetime(2026, 3, 10, tzinfo=dt.UTC), ("2026-01-01", "2026-03-01")),
    ],
)
def test_a_schedule_builds_the_newest_partitions_in_one_run(
    last: int, day: dt.datetime, asked: tuple[str, str], shop: Shop
) -> None:
    shop.defs().build()
    shop.save({0: 11.0, 40: 6.0, 65: 3.0})
    schedule = partition_schedule(shop.defs(), "last", "0 2 * * *", last=last)
    definitions = build_definitions(shop.defs(), partitions={"last": "2026-01-01"}, schedules=[schedule])
    with dg.build_schedule_context(
        instance=shop.instance, scheduled_execution_time=day, repository_def=definitions.get_repository_def()
    ) as context:
        (request,) = schedule.evaluate_tick(context).run_requests or []
    assert (request.tags[FIRST], request.tags[LAST]) == asked
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=shop.instance, asset_selection=[dg.AssetKey(["our_shop", "last"])], tags=request.tags
    )
    assert result.success
    assert (min(materialised(shop)), max(materialised(shop))) == asked


def test_a_schedule_of_partitions_that_there_are_not_is_one_line(shop: Shop) -> None:
    with pytest.raises(DefinitionError, match="0 is no number of partitions"):
        partition_schedule(shop.defs(), "last", "0 2 * * *", last=0)
    schedule = partition_schedule(shop.defs(), "last", "0 2 * * *")
    definitions = build_definitions(shop.defs(), schedules=[schedule])
    context = dg.build_schedule_context(repository_def=definitions.get_repository_def())
    with pytest.raises(dg.DagsterError), context:
        schedule.evaluate_tick(context)


def test_partitions_in_several_time_zones_are_refused_where_one_reads_the_other(shop: Shop) -> None:
    days = dg.DailyPartitionsDefinition("2026-01-01", timezone="Europe/Berlin")
    build_definitions(shop.defs(), partitions={"last": "2026-01-01", "spend": days})
    with pytest.raises(DefinitionError, match="'our_shop/double' are in the time zone Europe/Berlin, and those of"):
        build_definitions(shop.defs(), partitions={"last": "2026-01-01", "double": days})
