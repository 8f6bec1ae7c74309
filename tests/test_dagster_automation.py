"""What sets features off: jobs, schedules, and the sensor that looks for what is behind."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import mlforge as mlf
from dagster_shop import ANN, DAY, Four, Shop, evaluated, keys_of, looked, materialisations, tick
from mlforge import DefinitionError, Definitions
from mlforge.store import LocalStore
from mlforge_dagster import (
    AssetData,
    MlforgeTranslator,
    RedisStoreResource,
    build_definitions,
    feature_job,
    feature_schedule,
    online_reconcile_sensor,
)
from servers import RedisServer, until


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
    shop.defs().require_online_store().write("last", ANN, {"amount": 1.0})
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
    assert str(looked(sensors[0], shop, definitions)).endswith("is under way.")
    assert looked(sensors[1], shop, definitions) == {"last_online"}


def test_a_store_that_keeps_no_status_has_no_sensor(shop: Shop) -> None:
    with pytest.raises(DefinitionError, match="A Four keeps no status"):
        online_reconcile_sensor(shop.defs(), online_store=Four())


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


def test_a_schedule_runs_a_job_of_features_and_what_is_online(shop: Shop) -> None:
    schedule = feature_schedule(shop.defs(), "0 2 * * *", ["spend"])
    assert schedule.cron_schedule == "0 2 * * *"
    definitions = build_definitions(shop.defs(), schedules=[schedule])
    resolved = definitions.resolve_job_def("our_shop_features")
    assert resolved.execute_in_process(instance=shop.instance).success
    assert shop.read("spend") is not None
    assert shop.read("last") is None


def test_a_schedule_goes_online_where_there_is_an_online_store(tmp_path: Path) -> None:
    defs = Shop(tmp_path, None).defs()
    schedule = feature_schedule(defs, "0 2 * * *", ["spend", "last"])
    for given, online in [(None, set()), (RedisStoreResource(), {"spend_online", "last_online"})]:
        definitions = build_definitions(defs, online_store=given, schedules=[schedule])
        assert keys_of(definitions.resolve_job_def("our_shop_features")) == {"spend", "last"} | online


def test_where_nothing_changes_there_is_a_look_once_an_interval(shop: Shop) -> None:
    shop.run()
    shop.as_of += DAY - dt.timedelta(seconds=1)
    assert evaluated(shop) == "All is online."
    shop.as_of += dt.timedelta(seconds=1)
    assert evaluated(shop) == {"spend_online"}
    assert materialisations(shop.run("spend_online"))["spend_online"].metadata["mode"].value == "unchanged"
    assert evaluated(shop) == "All is online."


def test_features_with_an_interval_have_to_be_looked_at_as_often(tmp_path: Path) -> None:
    project = Shop(tmp_path, Four()).defs()
    running = Definitions("our-shop", features=list(project.features.values()), online_store=Four())

    def policies(defs: Definitions, **options: Any) -> dict[str, dg.FreshnessPolicy | None]:
        specs = build_definitions(defs, **options).resolve_all_asset_specs()
        return {spec.key.path[-1]: spec.freshness_policy for spec in specs if spec.freshness_policy is not None}

    daily = dg.FreshnessPolicy.time_window(fail_window=3 * DAY, warn_window=2 * DAY)
    assert policies(running) == {"spend": daily, "spend_online": daily}
    assert policies(running, freshness=False) == {}
    # Where time stands still nothing gets old.
    assert policies(project) == {}

    class Ours(MlforgeTranslator):
        def get_asset_spec(self, data: AssetData) -> dg.AssetSpec:
            own = dg.FreshnessPolicy.time_window(fail_window=9 * DAY)
            return super().get_asset_spec(data).replace_attributes(freshness_policy=own)

    assert len(policies(running, translator=Ours())) == 7
    assert policies(running, translator=Ours())["spend"] == dg.FreshnessPolicy.time_window(fail_window=9 * DAY)


def test_a_retry_policy_waits_for_a_redis_that_comes_back(tmp_path: Path) -> None:
    with RedisServer() as server:
        port = server.port
    online = RedisStoreResource(host="127.0.0.1", port=port, connect_timeout=1)
    shop = Shop(tmp_path, None)
    shop.defs().build()
    job = feature_job(shop.defs(), ["spend"], retry_policy=dg.RetryPolicy(max_retries=20, delay=0.5))
    definitions = build_definitions(shop.defs(), online_store=online, jobs=[job])
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(definitions.resolve_job_def("our_shop_features").execute_in_process, instance=shop.instance)
        until(lambda: any(event.is_step_up_for_retry for event in logged(shop)), "a step waits to be tried again")
        with RedisServer(port=port):
            assert run.result().success
            assert online.read("spend", ANN) == {"amount__sum__7d": 2.0, "amount__sum__30d": 7.0}
            online.get_store().close()


def logged(shop: Shop) -> list[dg.DagsterEvent]:
    runs = shop.instance.get_runs()
    found = [entry.dagster_event for run in runs for entry in shop.instance.all_logs(run.run_id)]
    return [event for event in found if event is not None]


class Elsewhere(MlforgeTranslator):
    def get_asset_spec(self, data: AssetData) -> dg.AssetSpec:
        spec = super().get_asset_spec(data)
        return spec.replace_attributes(key=["elsewhere", *spec.key.path])


def test_jobs_schedules_and_sensors_have_the_translator_of_the_assets(shop: Shop) -> None:
    defs, translator = shop.defs(), Elsewhere()
    fitting = {
        "jobs": feature_job(defs, translator=translator),
        "schedules": feature_schedule(defs, "0 2 * * *", name="nightly", translator=translator),
        "sensors": online_reconcile_sensor(defs, translator=translator),
    }
    build_definitions(defs, translator=translator, **{name: [each] for name, each in fitting.items()})
    for name, each in {
        "jobs": feature_job(defs),
        "schedules": feature_schedule(defs, "0 2 * * *", name="nightly"),
        "sensors": online_reconcile_sensor(defs),
    }.items():
        with pytest.raises(DefinitionError, match=r"asks for 'our_shop/spend.*', and no asset is called so: give it"):
            build_definitions(defs, translator=translator, **{name: [each]})
    project = Definitions("our-shop", features=list(defs.features.values()), store=defs.store)
    with pytest.raises(DefinitionError, match="asks for 'our_shop/spend_online', and no asset is called so"):
        build_definitions(project, jobs=[feature_job(project, online=True)])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"online_store": "redis://x"}, "online_store is 'redis://x': write RedisStoreResource"),
        ({"translator": Elsewhere}, "translator is <class .*>: write MlforgeTranslator"),
        ({"sources": {"event": "x"}}, "sources: nothing that is read is called 'event'; did you mean 'events'"),
    ],
)
def test_what_is_not_what_it_should_be_is_one_line(arguments: dict[str, Any], says: str, shop: Shop) -> None:
    with pytest.raises(DefinitionError, match=says):
        build_definitions(shop.defs(), **arguments)


def test_a_translator_that_returns_nothing_is_one_line(shop: Shop) -> None:
    class Nothing(MlforgeTranslator):
        def get_asset_spec(self, data: AssetData) -> dg.AssetSpec:
            return None  # type: ignore[return-value]

    with pytest.raises(DefinitionError, match=r"Nothing\.get_asset_spec returns None: it has to return"):
        build_definitions(shop.defs(), translator=Nothing())


def test_a_run_that_is_lost_with_its_machine_keeps_nobody_waiting_for_long(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.defs().build()
    sensor = online_reconcile_sensor(shop.defs())
    definitions = build_definitions(shop.defs(), sensors=[sensor])
    request = tick(sensor, shop, definitions)
    assert isinstance(request, dg.RunRequest)
    job = definitions.resolve_implicit_global_asset_job_def()
    run = shop.instance.create_run_for_job(job, tags=request.tags, status=dg.DagsterRunStatus.STARTED)
    assert looked(sensor, shop, definitions) == f"Run {run.run_id} is under way."
    monkeypatch.setattr("mlforge_dagster.sensor.LOST_AFTER", dt.timedelta(0))
    assert looked(sensor, shop, definitions) == {"spend_online", "last_online", "double_online"}


def test_what_somebody_has_to_allow_is_not_tried_again(shop: Shop) -> None:
    shop.run()
    whole = pl.read_parquet(shop.folder / "events.parquet").with_columns(pl.col("amount").cast(int))
    whole.write_parquet(shop.folder / "events.parquet")
    job = feature_job(shop.defs(), ["last"], retry_policy=dg.RetryPolicy(max_retries=3))
    definitions = build_definitions(shop.defs(), jobs=[job])
    result = definitions.resolve_job_def("our_shop_features").execute_in_process(
        instance=shop.instance, raise_on_error=False
    )
    assert not result.success
    assert not any(event.is_step_up_for_retry for event in result.all_events)
