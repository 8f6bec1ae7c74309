"""Features as Dagster assets: real Dagster runs over real tables and a real Redis."""

import datetime as dt
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from dagster.components.testing import create_defs_folder_sandbox

import mlforge as mlf
from mlforge import DefinitionError, Definitions
from mlforge.online import OnlineStore, RedisStore
from mlforge.store import LocalStore
from mlforge_dagster import (
    AssetData,
    FeatureStoreComponent,
    MlforgeTranslator,
    RedisStoreResource,
    build_definitions,
    feature_assets,
    feature_schedule,
    online_reconcile_sensor,
    report,
    write_batch_op,
)
from servers import RedisServer

ROOT = Path(__file__).parent.parent
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
AS_OF = dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
ANN = {"user": "1"}


class Four(OnlineStore):
    """A store that has only what it must have."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}

    def write(self, feature_name: str, entity_keys: dict[str, str], values: dict[str, Any]) -> None:
        self.values[str((feature_name, {name: str(key) for name, key in entity_keys.items()}))] = values

    def write_batch(self, feature_name: str, records: list[dict[str, Any]], entity_key_columns: list[str]) -> None:
        for record in records:
            keys = {name: record[name] for name in entity_key_columns}
            self.write(feature_name, keys, {name: each for name, each in record.items() if name not in keys})

    def read(self, feature_name: str, entity_keys: dict[str, str]) -> dict[str, Any] | None:
        return self.values.get(str((feature_name, {name: str(key) for name, key in entity_keys.items()})))

    def read_batch(self, feature_name: str, entity_keys: list[dict[str, str]]) -> list[dict[str, Any] | None]:
        return [self.read(feature_name, keys) for keys in entity_keys]


class Shop:
    """A project of three features over one file, whose second reads the first."""

    def __init__(self, folder: Path, store: OnlineStore | None) -> None:
        self.folder = folder
        self.store = store
        self.as_of = AS_OF
        self.instance = dg.DagsterInstance.ephemeral(tempdir=str(folder))
        self.save({0: 10.0, 40: 5.0, 65: 2.0})

    def save(self, amounts: dict[float, float]) -> None:
        rows = {
            "user": [1] * len(amounts),
            "ts": [START + day * DAY for day in amounts],
            "amount": list(amounts.values()),
        }
        pl.DataFrame(rows).write_parquet(self.folder / "events.parquet")

    def defs(self) -> Definitions:
        @mlf.feature(
            keys=["user"],
            source=self.folder / "events.parquet",
            timestamp="ts",
            interval="1d",
            metrics=[mlf.Rolling(windows=["7d", "30d"], aggregations={"amount": ["sum"]})],
            checks={
                "amount is positive": pl.col("amount") > 0,
                "amount is small": mlf.Check(pl.col("amount") < 9, severity="warn"),
            },
            tags=["money"],
            owners=["team:ml", "Ann"],
        )
        def spend(df: pl.LazyFrame) -> pl.LazyFrame:
            """What is spent."""
            return df

        @mlf.feature(keys=["user"], source=self.folder / "events.parquet", timestamp="ts")
        def last(df: pl.LazyFrame) -> pl.LazyFrame:
            return df

        @mlf.feature(keys=["user"], source=last, timestamp="ts")
        def double(df: pl.LazyFrame) -> pl.LazyFrame:
            return df.with_columns(pl.col("amount") * 2)

        features = [spend, last, double]
        store = LocalStore(self.folder / "store")
        return Definitions("our-shop", features=features, store=store, online_store=self.store, as_of=self.as_of)

    def run(self, *keys: str, raises: bool = True, **options: Any) -> dg.ExecuteInProcessResult:
        chosen = [dg.AssetKey(["our_shop", key]) for key in keys]
        return dg.materialize(
            feature_assets(self.defs(), **options),
            selection=dg.AssetSelection.assets(*chosen) if keys else None,
            instance=self.instance,
            raise_on_error=raises,
        )


@pytest.fixture
def shop(tmp_path: Path, redis_store: RedisStore) -> Shop:
    return Shop(tmp_path, redis_store)


def materialisations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
    events = result.get_asset_materialization_events()
    return {event.materialization.asset_key.path[-1]: event.materialization for event in events}


def versions(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    found = materialisations(result).items()
    return {name: each.tags["dagster/data_version"] for name, each in found if each.tags is not None}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {f"{each.asset_key.path[-1]}:{each.check_name}": each for each in result.get_asset_check_evaluations()}


def test_every_feature_is_an_asset_with_what_is_online_downstream(shop: Shop) -> None:
    specs = {spec.key.to_user_string(): spec for spec in build_definitions(shop.defs()).resolve_all_asset_specs()}
    assert {key: [dep.asset_key.to_user_string() for dep in spec.deps] for key, spec in specs.items()} == {
        "our_shop/sources/events": [],
        "our_shop/spend": ["our_shop/sources/events"],
        "our_shop/spend_online": ["our_shop/spend"],
        "our_shop/last": ["our_shop/sources/events"],
        "our_shop/last_online": ["our_shop/last"],
        "our_shop/double": ["our_shop/last"],
        "our_shop/double_online": ["our_shop/double"],
    }
    spend = specs["our_shop/spend"]
    assert (spend.description, spend.kinds, spend.owners) == ("What is spent.", {"polars", "deltalake"}, ["team:ml"])
    assert spend.code_version
    assert "money" in spend.tags
    assert specs["our_shop/spend_online"].kinds == {"redis"}


def test_tags_and_owners_that_dagster_does_not_take_are_metadata(tmp_path: Path) -> None:
    owners = ["team:ml", "ann@shop.example", "@risk", "Ann", "team:", "a b@shop.example", "a@b"]
    tags = ["two words", "x" * 64, "", "a/b"]

    @mlf.feature(keys=["user"], source="users.parquet", owners=owners, tags=tags)
    def user(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    specs = build_definitions(Definitions("p", features=[user], store=LocalStore(tmp_path))).resolve_all_asset_specs()
    spec = next(each for each in specs if each.key.path[-1] == "user")
    assert spec.owners == ["team:ml", "ann@shop.example"]
    assert {tag for tag in spec.tags if not tag.startswith("dagster/")} == {"two_words", "a_b"}
    assert spec.metadata["owners"] == "@risk, Ann, team:, a b@shop.example, a@b"
    assert "x" * 64 in spec.metadata["tags"]


def test_a_run_builds_and_puts_online_and_says_what_it_did(shop: Shop) -> None:
    result = shop.run()
    assert result.success
    assert shop.store is not None
    assert shop.store.read("spend", ANN) == {"amount__sum__7d": 2.0, "amount__sum__30d": 7.0}
    assert versions(result) == {
        "spend": "1.0.0",
        "spend_online": "1.0.0@2026-03-10T00:00:00+00:00",
        "last": "1.0.0",
        "last_online": "1.0.0@2026-03-07T00:00:00+00:00",
        "double": "1.0.0",
        "double_online": "1.0.0@2026-03-07T00:00:00+00:00",
    }
    shown = {name: value.value for name, value in materialisations(result)["spend"].metadata.items()}
    assert (shown["entities"], shown["outcome"], shown["version"]) == (1, "built", "1.0.0")
    assert shown["dagster/row_count"] == shop.defs().store.require("spend").row_count
    assert shown["null_rate/amount__sum__7d"] == 0.0
    assert "| user | ts |" in shown["preview"]
    assert [column.name for column in shown["dagster/column_schema"].columns][:2] == ["user", "ts"]
    written = {name: value.value for name, value in materialisations(result)["spend_online"].metadata.items()}
    assert (written["mode"], written["written"], written["deleted"], written["unchanged"]) == ("full", 1, 0, 0)
    found = checks(result)
    assert {name: (each.passed, each.severity.value) for name, each in found.items() if name.startswith("spend")} == {
        "spend:amount_is_positive": (True, "ERROR"),
        "spend:amount_is_small": (False, "WARN"),
        "spend_online:in_sync": (True, "ERROR"),
        "spend_online:parity": (True, "ERROR"),
    }


def test_the_same_data_built_again_leave_everything_downstream_as_it_is(shop: Shop) -> None:
    built = shop.run()
    first = versions(built)
    again = shop.run()
    assert versions(again) == first
    shown = materialisations(again)["spend"].metadata
    assert shown["outcome"].value == "skipped"
    assert shown["dagster/row_count"].value == materialisations(built)["spend"].metadata["dagster/row_count"].value
    # The history was not read for it.
    assert "entities" in materialisations(built)["spend"].metadata
    assert "entities" not in shown
    assert materialisations(again)["spend_online"].metadata["mode"].value == "unchanged"
    # Nothing is checked where nothing is computed.
    assert "spend:amount_is_small" not in checks(again)
    shop.save({0: 10.0, 40: 5.0, 65: 3.0})
    assert versions(shop.run())["spend"] == "1.0.1"


def test_a_check_that_fails_publishes_nothing_and_leaves_what_is_online(shop: Shop) -> None:
    shop.run()
    shop.save({0: 10.0, 65: -2.0})
    result = shop.run("spend", "spend_online", raises=False)
    assert not result.success
    assert materialisations(result) == {}
    failed = checks(result)["spend:amount_is_positive"]
    assert (failed.passed, failed.severity.value, failed.metadata["failed"].value) == (False, "ERROR", 1)
    assert shop.store is not None
    assert shop.store.read("spend", ANN) == {"amount__sum__7d": 2.0, "amount__sum__30d": 7.0}
    shop.save({0: 10.0, 65: 4.0})
    assert shop.run("spend", "spend_online").success
    assert shop.store.read("spend", ANN) == {"amount__sum__7d": 4.0, "amount__sum__30d": 4.0}


def test_checks_alone_read_the_source_and_fail_where_they_cannot_be_run(shop: Shop) -> None:
    only = dg.AssetSelection.checks_for_assets(dg.AssetKey(["our_shop", "spend"]))

    def alone() -> dg.ExecuteInProcessResult:
        assets = feature_assets(shop.defs())
        return dg.materialize(assets, selection=only, instance=shop.instance, raise_on_error=False)

    assert alone().success
    (shop.folder / "events.parquet").unlink()
    result = alone()
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "does not exist" in str(failure.step_failure_data.user_failure_data.description)


def test_a_check_of_what_is_online_sees_what_is_wrong(shop: Shop) -> None:
    shop.run()
    assert shop.store is not None
    shop.store.write("spend", ANN, {"amount__sum__7d": 3.0, "amount__sum__30d": 7.0})
    found = checks(shop.run("spend_online", raises=False))
    # The sync has mended it before the check was made.
    assert found["spend_online:parity"].passed
    shop.save({0: 10.0, 65: 4.0})
    shop.run("spend")
    only = dg.AssetSelection.checks_for_assets(dg.AssetKey(["our_shop", "spend_online"]))
    result = dg.materialize(feature_assets(shop.defs()), selection=only, instance=shop.instance, raise_on_error=False)
    assert materialisations(result) == {}
    late = checks(result)["spend_online:in_sync"]
    assert not late.passed
    assert (late.metadata["offline"].value, late.metadata["online"].value) == ("1.0.1", "1.0.0")
    assert late.description == "1.0.1 is built and 1.0.0 is online"


def test_what_is_online_of_a_table_that_was_made_again_is_not_in_sync(shop: Shop) -> None:
    shop.run()
    shutil.rmtree(shop.folder / "store" / "last")
    shop.defs().build(["last"])
    only = dg.AssetSelection.checks_for_assets(dg.AssetKey(["our_shop", "last_online"]))
    result = dg.materialize(feature_assets(shop.defs()), selection=only, instance=shop.instance)
    found = checks(result)["last_online:in_sync"]
    assert (found.passed, found.description) == (False, "the table was made again")
    assert evaluated(shop) == {"last_online"}


def test_a_store_of_four_methods_is_written_and_compared_but_never_in_sync(shop: Shop) -> None:
    result = shop.run("spend", "spend_online", online_store=Four())
    assert [name for name in checks(result) if name.startswith("spend_online")] == ["spend_online:parity"]
    assert checks(result)["spend_online:parity"].passed


def test_the_version_of_what_is_online_stays_for_as_long_as_the_values_do(shop: Shop) -> None:
    pl.DataFrame({"user": [1], "name": ["Ann"]}).write_parquet(shop.folder / "users.parquet")
    pl.DataFrame({"user": [1, 1], "ts": [START, START + 40 * DAY]}).write_parquet(shop.folder / "seen.parquet")

    @mlf.feature(keys=["user"], source=shop.folder / "users.parquet")
    def user(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    @mlf.feature(keys=["user"], source=shop.folder / "seen.parquet", timestamp="ts", max_age="10d")
    def seen(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.with_columns(day=pl.col("ts").dt.day())

    def found(day: int) -> dict[str, str]:
        defs = Definitions(
            "people",
            features=[user, seen],
            store=LocalStore(shop.folder / "store"),
            online_store=shop.store,
            as_of=START + day * DAY,
        )
        return versions(dg.materialize(feature_assets(defs), instance=shop.instance))

    # A row begins to hold, ceases to ten days later, and the next one begins.
    for days, version in [((1, 9), "01-01"), ((10, 39), "01-11"), ((40, 49), "02-10"), ((50, 99), "02-20")]:
        for day in days:
            assert found(day) == {
                "user": "1.0.0",
                "user_online": "1.0.0",
                "seen": "1.0.0",
                "seen_online": f"1.0.0@2026-{version}T00:00:00+00:00",
            }


def test_an_interval_of_seconds_is_an_interval(shop: Shop) -> None:
    @mlf.feature(
        keys=["user"],
        source=shop.folder / "events.parquet",
        timestamp="ts",
        interval="10s",
        metrics=[mlf.Rolling(windows=["1m"], aggregations={"amount": ["sum"]})],
    )
    def often(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    defs = Definitions("p", features=[often], store=LocalStore(shop.folder), online_store=shop.store)
    assert build_definitions(defs).resolve_all_asset_specs()


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


@pytest.mark.parametrize("kind", ["resource", "store"])
def test_a_resource_says_where_to_go_online(
    kind: str, tmp_path: Path, redis_server: RedisServer, redis_prefix: str
) -> None:
    resource = RedisStoreResource(host=redis_server.host, port=redis_server.port, prefix=redis_prefix)
    shop = Shop(tmp_path, None)
    given = resource if kind == "resource" else resource.get_store()
    definitions = build_definitions(shop.defs(), online_store=given)
    job = definitions.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=shop.instance).success
    assert resource.read("spend", ANN) == {"amount__sum__7d": 2.0, "amount__sum__30d": 7.0}
    assert resource.read_batch("spend", [ANN, {"user": "2"}])[1] is None
    resource.write_batch("hand", pl.DataFrame({"user": [1], "x": [2]}), ["user"])
    assert resource.read("hand", ANN) == {"x": 2}
    resource.get_store().close()


def test_a_job_composed_by_hand_has_an_op_that_goes_online(shop: Shop) -> None:
    defs = shop.defs()
    write = write_batch_op(defs, "spend")

    @dg.op(out=dg.Out(dg.Nothing))
    def build() -> None:
        defs.build(["spend"])

    @dg.job
    def publish() -> None:
        write(start=build())

    result = publish.execute_in_process(instance=shop.instance)
    (output,) = [event for event in result.all_events if event.is_successful_output and event.step_key == "write_spend"]
    assert output.step_output_data.metadata["written"].value == 1
    assert shop.store is not None
    assert shop.store.read("spend", ANN) == {"amount__sum__7d": 2.0, "amount__sum__30d": 7.0}


def test_an_unreachable_redis_fails_the_run_with_a_line_and_the_next_one_repairs(shop: Shop) -> None:
    with RedisServer() as server:
        gone = RedisStore(server.host, server.port, connect_timeout=1, timeout=1)
    result = shop.run("spend", "spend_online", raises=False, online_store=gone)
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "cannot be reached" in str(failure.step_failure_data.error)
    assert shop.run("spend_online").success


def test_what_is_called_the_same_is_refused(shop: Shop) -> None:
    class Clash(MlforgeTranslator):
        def get_asset_spec(self, data: AssetData) -> dg.AssetSpec:
            return super().get_asset_spec(data).replace_attributes(key="same")

    with pytest.raises(DefinitionError, match="have the same key, 'same'"):
        build_definitions(shop.defs(), translator=Clash())


def test_a_feature_without_times_has_no_partitions(tmp_path: Path) -> None:
    @mlf.feature(keys=["user"], source=tmp_path / "users.parquet")
    def user(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    defs = Definitions("p", features=[user], store=LocalStore(tmp_path))
    with pytest.raises(DefinitionError, match="Feature 'user' has no timestamp, so it cannot be partitioned"):
        build_definitions(defs, partitions={"user": "2026-01-01"})


def evaluated(shop: Shop, **options: Any) -> set[str] | str:
    sensor = online_reconcile_sensor(shop.defs(), **options)
    return looked(sensor, shop, build_definitions(shop.defs(), sensors=[sensor]))


def looked(sensor: dg.SensorDefinition, shop: Shop, definitions: dg.Definitions) -> set[str] | str:
    """What a sensor asks for, or why it asks for nothing."""
    found = tick(sensor, shop, definitions)
    return found if isinstance(found, str) else {key.path[-1] for key in found.asset_selection or ()}


def tick(sensor: dg.SensorDefinition, shop: Shop, definitions: dg.Definitions) -> dg.RunRequest | str:
    """The sensor looks, as the daemon has it look."""
    with dg.build_sensor_context(
        instance=shop.instance, repository_def=definitions.get_repository_def(), resources=definitions.resources
    ) as context:
        found = sensor.evaluate_tick(context)
    if found.skip_message is not None:
        return found.skip_message
    (request,) = found.run_requests or []
    return request


def test_the_sensor_asks_for_what_is_behind_and_for_nothing_else(shop: Shop) -> None:
    assert evaluated(shop) == "All is online."
    shop.defs().build()
    everything = {"spend_online", "last_online", "double_online"}
    assert evaluated(shop) == everything
    # It remembers nothing: what it has asked for and was not done, it asks for again.
    assert evaluated(shop) == everything
    shop.run(*everything)
    assert evaluated(shop) == "All is online."
    shop.save({0: 10.0, 40: 5.0, 65: 3.0})
    shop.defs().build(["spend"])
    assert evaluated(shop) == {"spend_online"}
    shop.run("spend_online")
    # Time has moved a window, and nothing else has happened.
    shop.as_of += 12 * DAY
    assert evaluated(shop) == {"spend_online"}
    assert shop.store is not None
    shop.store.write("last", ANN, {"amount": 1.0})
    assert evaluated(shop) == {"spend_online", "last_online"}


def test_the_sensor_waits_where_a_run_has_failed_until_there_is_something_newer(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run()
    whole = pl.read_parquet(shop.folder / "events.parquet").with_columns(pl.col("amount").cast(int))
    whole.write_parquet(shop.folder / "events.parquet")
    shop.defs().build(["last"])
    sensor = online_reconcile_sensor(shop.defs())
    definitions = build_definitions(shop.defs(), sensors=[sensor])
    job = definitions.resolve_implicit_global_asset_job_def()

    def run(request: dg.RunRequest | str, **options: Any) -> bool:
        assert isinstance(request, dg.RunRequest)
        return job.execute_in_process(
            instance=shop.instance,
            asset_selection=request.asset_selection,
            tags=request.tags,
            raise_on_error=False,
            **options,
        ).success

    request = tick(sensor, shop, definitions)
    # Another MAJOR version is waiting for somebody to allow it.
    assert not run(request)
    message = "last: 2.0.0 is built and 1.0.0 is online, and a run has just failed to mend it"
    assert looked(sensor, shop, definitions) == message
    shop.as_of += 12 * DAY
    later = online_reconcile_sensor(shop.defs())
    assert looked(later, shop, definitions) == {"spend_online"}
    monkeypatch.setattr("mlforge_dagster.sensor.RETRY_AFTER", dt.timedelta(0))
    assert looked(sensor, shop, definitions) == {"last_online"}
    allowed = {"ops": {"our_shop__last_online": {"config": {"allow_breaking": True}}}}
    assert run(request, run_config=allowed)
    assert looked(sensor, shop, definitions) == "All is online."


def test_what_was_mended_in_a_run_that_failed_does_not_wait(shop: Shop) -> None:
    shop.run()
    shop.as_of += 3 * DAY
    sensor = online_reconcile_sensor(shop.defs())
    definitions = build_definitions(shop.defs(), sensors=[sensor])
    request = tick(sensor, shop, definitions)
    assert isinstance(request, dg.RunRequest)
    shop.run("spend_online")
    job = definitions.resolve_implicit_global_asset_job_def()
    shop.instance.create_run_for_job(job, tags=request.tags, status=dg.DagsterRunStatus.FAILURE)
    shop.as_of += 2 * DAY
    assert evaluated(shop) == {"spend_online"}


def test_a_damaged_table_does_not_keep_the_sensor_from_the_others(shop: Shop) -> None:
    shop.run()
    (log,) = (shop.folder / "store" / "last" / "_delta_log").glob("*.json")
    log.write_text("{")
    assert str(evaluated(shop)).startswith("last: ")
    shop.as_of += 12 * DAY
    assert evaluated(shop) == {"spend_online"}


def test_a_run_of_one_sensor_does_not_keep_another_one_waiting(shop: Shop) -> None:
    shop.defs().build()
    sensors = [online_reconcile_sensor(shop.defs(), [each], name=each) for each in ("spend", "last")]
    definitions = build_definitions(shop.defs(), sensors=sensors)
    request = tick(sensors[0], shop, definitions)
    assert isinstance(request, dg.RunRequest)
    job = definitions.resolve_implicit_global_asset_job_def()
    shop.instance.create_run_for_job(job, tags=request.tags, status=dg.DagsterRunStatus.STARTED)
    assert looked(sensors[0], shop, definitions) == "A run is under way."
    assert looked(sensors[1], shop, definitions) == {"last_online"}


def test_a_store_that_keeps_no_status_has_no_sensor(shop: Shop) -> None:
    with pytest.raises(DefinitionError, match="A Four keeps no status"):
        online_reconcile_sensor(shop.defs(), online_store=Four())


def test_a_schedule_runs_a_job_of_features_and_what_is_online(shop: Shop) -> None:
    schedule = feature_schedule(shop.defs(), "0 2 * * *", ["spend"])
    assert schedule.cron_schedule == "0 2 * * *"
    definitions = build_definitions(shop.defs(), schedules=[schedule])
    resolved = definitions.resolve_job_def("our_shop_features")
    assert resolved.execute_in_process(instance=shop.instance).success
    assert shop.store is not None
    assert shop.store.read("spend", ANN) is not None
    assert shop.store.read("last", ANN) is None


def keys_of(job: dg.JobDefinition) -> set[str]:
    return {key.path[-1] for key in job.asset_layer.selected_asset_keys}


def test_a_schedule_goes_online_where_there_is_an_online_store(tmp_path: Path) -> None:
    defs = Shop(tmp_path, None).defs()
    schedule = feature_schedule(defs, "0 2 * * *", ["spend", "last"])
    for given, online in [(None, set()), (RedisStoreResource(), {"spend_online", "last_online"})]:
        definitions = build_definitions(defs, online_store=given, schedules=[schedule])
        assert keys_of(definitions.resolve_job_def("our_shop_features")) == {"spend", "last"} | online


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


def test_months_are_whole_and_the_running_one_is_among_them(shop: Shop) -> None:
    definitions = build_definitions(shop.defs(), partitions={"last": "2026-01-15"})
    last = next(each for each in definitions.resolve_all_asset_specs() if each.key.path[-1] == "last")
    assert last.partitions_def is not None
    now = dt.datetime(2026, 3, 10, tzinfo=dt.UTC)
    assert list(last.partitions_def.get_partition_keys(now)) == ["2026-01-01", "2026-02-01", "2026-03-01"]
    with pytest.raises(DefinitionError, match="The first month of partitions: 'soon' is no instant"):
        build_definitions(shop.defs(), partitions={"last": "soon"})


def test_a_schedule_a_sensor_and_reports_work_where_sources_are_assets_of_somebody_else(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pl.DataFrame({"user": [1], "ts": [START]}).write_parquet(tmp_path / name / "events.parquet")

        @mlf.feature(name=name, keys=["user"], source=tmp_path / name / "events.parquet", timestamp="ts")
        def last(df: pl.LazyFrame) -> pl.LazyFrame:
            return df.with_columns(day=pl.col("ts").dt.day())

        made.append(last)
    defs = Definitions("p", features=made, store=LocalStore(tmp_path), online_store=Four())
    with pytest.raises(DefinitionError, match="have the same key, 'p/sources/events'"):
        build_definitions(defs)
    sources = {"events": ["dbt", "events"]}
    definitions = build_definitions(defs, sources=sources, schedules=[feature_schedule(defs, "0 2 * * *")])
    assert keys_of(definitions.resolve_job_def("p_features")) == {"a", "b", "a_online", "b_online"}
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        report(defs, defs.build(), instance=instance, sources=sources)
        assert instance.get_latest_materialization_event(dg.AssetKey(["p", "a"])) is not None
    assert online_reconcile_sensor(defs, online_store=RedisStoreResource()).name == "p_online_reconcile"


def test_sources_may_be_assets_of_somebody_else(shop: Shop) -> None:
    definitions = build_definitions(shop.defs(), sources={"events": ["dbt", "events"]})
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    assert [dep.asset_key.to_user_string() for dep in specs["our_shop/spend"].deps] == ["dbt/events"]
    assert "our_shop/sources/events" not in specs


def stale(shop: Shop) -> set[str]:
    """What the UI shows as unsynced."""
    graph = build_definitions(shop.defs()).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(shop.instance, graph, LoadingContextForTest(shop.instance))
    keys = graph.materializable_asset_keys
    return {key.path[-1] for key in keys if resolver.get_status(key) == StaleStatus.STALE}


def observe(shop: Shop) -> None:
    """As the button of the UI does."""
    job = build_definitions(shop.defs()).resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(
        instance=shop.instance, asset_selection=[dg.AssetKey(["our_shop", "sources", "events"])]
    ).success


@pytest.mark.filterwarnings("ignore:Function `Definitions.resolve_asset_graph`:DeprecationWarning")
def test_features_are_unsynced_from_a_change_of_their_source_to_the_next_run(shop: Shop) -> None:
    for _ in range(3):
        assert shop.run().success
        assert stale(shop) == set()
        observe(shop)
        assert stale(shop) == set()
    shop.save({0: 10.0, 40: 5.0, 65: 3.0})
    observe(shop)
    assert stale(shop) == {"spend", "last"}
    # Before anybody has seen the change, its run knows what it has read.
    shop.save({0: 10.0, 40: 5.0, 65: 4.0})
    assert shop.run("spend", "spend_online").success
    assert stale(shop) == {"last"}
    assert shop.run("last").success
    assert stale(shop) == {"last_online", "double"}
    assert shop.run().success
    assert stale(shop) == set()
    observe(shop)
    assert stale(shop) == set()


def test_a_source_that_cannot_tell_whether_it_has_changed_is_not_observed(tmp_path: Path) -> None:
    class Mine(mlf.Source):
        def scan(self) -> pl.LazyFrame:
            return pl.LazyFrame({"user": [1], "ts": [START]})

    for number, source in enumerate([Mine(), "https://host/x.parquet"]):

        @mlf.feature(keys=["user"], source=source, timestamp="ts")
        def last(df: pl.LazyFrame) -> pl.LazyFrame:
            return df

        assets = feature_assets(Definitions(f"p{number}", features=[last], store=LocalStore(tmp_path)))
        assert [type(asset) for asset in assets] == [dg.AssetSpec, dg.AssetsDefinition]


def test_what_was_read_is_noted_as_the_version_of_the_source(shop: Shop) -> None:
    shop.run()
    events = dg.AssetKey(["our_shop", "sources", "events"])

    def noted() -> str:
        (record,) = shop.instance.fetch_observations(events, limit=1).records
        assert record.asset_observation is not None
        return record.asset_observation.tags["dagster/data_version"]

    first = noted()
    shop.run("spend")
    assert noted() == first
    shop.save({0: 1.0})
    shop.run("spend")
    assert noted() != first


def test_builds_outside_of_dagster_are_told_to_it(shop: Shop) -> None:
    report(shop.defs(), shop.defs().build(online=True), instance=shop.instance)
    for name, version in (("spend", "1.0.0"), ("spend_online", "1.0.0@2026-03-10T00:00:00+00:00")):
        event = shop.instance.get_latest_materialization_event(dg.AssetKey(["our_shop", name]))
        assert event is not None
        assert event.asset_materialization is not None
        assert event.asset_materialization.tags is not None
        assert event.asset_materialization.tags["dagster/data_version"] == version
    # Dagster's own run of the same data changes no version.
    assert versions(shop.run("spend", "spend_online"))["spend"] == "1.0.0"


@pytest.mark.filterwarnings("ignore:Function `Definitions.resolve_asset_graph`:DeprecationWarning")
def test_what_is_told_of_builds_elsewhere_is_in_sync_until_something_changes(shop: Shop) -> None:
    for _ in range(2):
        report(shop.defs(), shop.defs().build(online=True), instance=shop.instance)
        assert stale(shop) == set()
        observe(shop)
        assert stale(shop) == set()
    shop.save({0: 10.0, 40: 5.0, 65: 3.0})
    observe(shop)
    assert stale(shop) == {"spend", "last"}
    report(shop.defs(), shop.defs().build(["spend", "last"], online=True), instance=shop.instance)
    assert stale(shop) == {"double"}


def test_a_dry_run_is_not_told_to_dagster(shop: Shop) -> None:
    shop.defs().build()
    shop.save({0: 10.0, 40: 5.0, 65: 3.0})
    report(shop.defs(), shop.defs().build(online=True, dry_run=True), instance=shop.instance)
    assert shop.instance.get_latest_materialization_event(dg.AssetKey(["our_shop", "spend"])) is None


def test_the_workspace_of_the_example_loads() -> None:
    program = Path(sys.executable).with_name("dagster")
    found = subprocess.run([program, "job", "list", "-w", "workspace.yaml"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "Job: transactions_features" in found.stdout


# Dagster's own, where it reads defs.yaml.
@pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated", "ignore::dagster.BetaWarning")
def test_a_component_makes_the_definitions_of_a_file(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(
        f"""
import mlforge as mlf
from mlforge.store import LocalStore

@mlf.feature(keys=["user"], source={str(shop.folder / "events.parquet")!r}, timestamp="ts")
def last(df):
    return df

defs = mlf.Definitions("component", store=LocalStore({str(tmp_path / "own")!r}))
"""
    )
    with create_defs_folder_sandbox() as sandbox:
        attributes = {"definitions": str(tmp_path / "project.py"), "schedule": "0 2 * * *"}
        path = sandbox.scaffold_component(
            component_cls=FeatureStoreComponent,
            defs_yaml_contents={"type": "mlforge_dagster.FeatureStoreComponent", "attributes": attributes},
        )
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, definitions):
            assert isinstance(component, FeatureStoreComponent)
            keys = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
            assert {"component/last", "component/sources/events"} <= keys
            assert definitions.schedules is not None
            assert [schedule.name for schedule in definitions.schedules] == ["component_features_schedule"]
    context = dg.ComponentTree.for_test().load_context
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "project.py").write_text("")
    with pytest.raises(DefinitionError, match="One code location has components of several projects"):
        FeatureStoreComponent(definitions=str(tmp_path / "other" / "project.py")).build_defs(context)
    with pytest.raises(DefinitionError, match=r"there is no '/nowhere\.py'"):
        FeatureStoreComponent(definitions="/nowhere.py").build_defs(context)


@pytest.mark.parametrize(
    ("path", "name", "kinds"),
    [
        ("https://ann:s3cret@host/x.parquet?sig=abc.S3CRET", "x", {"parquet"}),
        ("https://host/x.csv?sig=a/b.S3CRET", "x", {"csv"}),
        ("data/2026-0?.ndjson", "data", {"json"}),
        ("data/table", "table", {"deltalake"}),
        ("data/x.other", "x", set()),
    ],
)
def test_a_source_is_called_and_shown_without_what_a_url_hides(path: str, name: str, kinds: set[str]) -> None:
    @mlf.feature(keys=["user"], source=path, timestamp="ts")
    def last(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    definitions = build_definitions(Definitions("p", features=[last]))
    (source,) = [spec for spec in definitions.resolve_all_asset_specs() if spec.key.path[-1] != "last"]
    assert (source.key.path[-1], source.kinds) == (name, kinds)
    assert "s3cret" not in repr(source).lower()


def test_a_resource_does_not_show_what_is_secret() -> None:
    resource = RedisStoreResource(password="s3cret", ssl_options={"ssl_password": "s3cret"})
    assert "s3cret" not in repr(resource) + str(resource)


def test_environment_variables_work_in_runs_in_the_sensor_and_in_a_script(
    tmp_path: Path, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer(requirepass="s3cret") as server:
        monkeypatch.setenv("REDIS_PASSWORD", "s3cret")
        monkeypatch.setenv("REDIS_PORT", str(server.port))
        online = RedisStoreResource(
            host=server.host,
            port=dg.EnvVar.int("REDIS_PORT"),
            password=dg.EnvVar("REDIS_PASSWORD"),
            prefix=redis_prefix,
        )
        shop = Shop(tmp_path, None)
        sensor = online_reconcile_sensor(shop.defs(), online_store=online)
        definitions = build_definitions(shop.defs(), online_store=online, sensors=[sensor])

        shop.defs().build()
        assert looked(sensor, shop, definitions) == {"spend_online", "last_online", "double_online"}
        assert definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=shop.instance).success
        assert looked(sensor, shop, definitions) == "All is online."
        assert online.read("spend", ANN) == {"amount__sum__7d": 2.0, "amount__sum__30d": 7.0}
        online.get_store().close()


@pytest.mark.parametrize(("value", "said"), [(None, "is not set"), ("a", "is no whole number")])
def test_an_environment_variable_that_leads_nowhere_is_one_line(
    value: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_PORT", raising=False)
    if value is not None:
        monkeypatch.setenv("REDIS_PORT", value)
    with pytest.raises(DefinitionError, match=f"'REDIS_PORT' {said}"):
        RedisStoreResource(port=dg.EnvVar.int("REDIS_PORT")).get_store()
