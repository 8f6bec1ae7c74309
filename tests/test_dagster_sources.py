"""What features read as assets, and builds elsewhere that are told to Dagster: what is unsynced, and when."""

import os
import subprocess
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

import mlforge as mlf
from command_line import process
from dagster_shop import START, Four, Shop, keys_of, versions
from mlforge import DefinitionError, Definitions
from mlforge.errors import CheckFailedError
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from mlforge_dagster import (
    RedisStoreResource,
    build_definitions,
    feature_assets,
    feature_schedule,
    online_reconcile_sensor,
    report,
)
from mlforge_dagster.sources import version
from servers import RedisServer


def test_sources_may_be_assets_of_somebody_else(shop: Shop) -> None:
    definitions = build_definitions(shop.defs(), sources={"events": ["dbt", "events"]})
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    assert [dep.asset_key.to_user_string() for dep in specs["our_shop/spend"].deps] == ["dbt/events"]
    assert "our_shop/sources/events" not in specs


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


def nothing_is_unsynced(shop: Shop) -> None:
    """Neither before the source is looked at nor after."""
    assert stale(shop) == set()
    observe(shop)
    assert stale(shop) == set()


@pytest.mark.filterwarnings("ignore:Function `Definitions.resolve_asset_graph`:DeprecationWarning")
def test_features_are_unsynced_from_a_change_of_their_source_to_the_next_run(shop: Shop) -> None:
    for _ in range(3):
        assert shop.run().success
        nothing_is_unsynced(shop)
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
    nothing_is_unsynced(shop)


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


def test_builds_outside_of_dagster_are_told_to_it(shop: Shop) -> None:
    report(shop.defs(), shop.defs().build(online=True), instance=shop.instance)
    for name, expected in (("spend", "1.0.0"), ("spend_online", "1.0.0@2026-03-10T00:00:00+00:00")):
        event = shop.instance.get_latest_materialization_event(dg.AssetKey(["our_shop", name]))
        assert event is not None
        assert event.asset_materialization is not None
        assert event.asset_materialization.tags is not None
        assert event.asset_materialization.tags["dagster/data_version"] == expected
    # Dagster's own run of the same data changes no version.
    assert versions(shop.run("spend", "spend_online"))["spend"] == "1.0.0"


@pytest.mark.filterwarnings("ignore:Function `Definitions.resolve_asset_graph`:DeprecationWarning")
def test_what_is_told_of_builds_elsewhere_is_in_sync_until_something_changes(shop: Shop) -> None:
    for _ in range(2):
        report(shop.defs(), shop.defs().build(online=True), instance=shop.instance)
        nothing_is_unsynced(shop)
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


PROJECT = """
import mlforge as mlf
from mlforge.online import RedisStore
from mlforge.store import LocalStore

@mlf.feature(keys=["user"], source="events.parquet", timestamp="ts")
def last(df):
    return df

defs = mlf.Definitions("shop", features=[last], store=LocalStore("store"), online_store=RedisStore(port={port}))
"""


def test_a_build_on_the_command_line_is_told_to_dagster(shop: Shop, redis_server: RedisServer) -> None:
    (shop.folder / "definitions.py").write_text(PROJECT.format(port=redis_server.port))
    (shop.folder / "home").mkdir()
    own = "def ours(defs):\n    return lambda reports: print(defs.name, [each.outcome for each in reports])\n"
    (shop.folder / "ours.py").write_text(own)

    def build(name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(shop.folder)} | variables
        return process("build", "--online", "--report", name, cwd=shop.folder, env=environment)

    home = {"DAGSTER_HOME": str(shop.folder / "home")}
    assert build("dagster", **home).returncode == 0
    found = build("ours:ours")
    assert (found.returncode, found.stdout.splitlines()[-1]) == (0, "shop ['skipped']")
    for name, says in {
        "dagster": "mlforge: Builds are told to the Dagster instance of DAGSTER_HOME: ",
        "nobody": "mlforge: Nobody is called 'nobody' to report to: there is dagster; or write module:function.",
        "ours.py:x": "mlforge: --report ours.py:x cannot be imported: No module named 'ours.py'",
        "ours:theirs": "mlforge: --report ours:theirs cannot be imported: module 'ours' has no attribute 'theirs'",
    }.items():
        refused = build(name)
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
        assert refused.stderr.startswith(says)
    with dg.DagsterInstance.from_config(home["DAGSTER_HOME"], "none.yaml") as instance:
        for key in ("last", "last_online"):
            assert instance.get_latest_materialization_event(dg.AssetKey(["shop", key])) is not None
    with RedisStore(port=redis_server.port) as store:
        store.clear("last")


def test_a_fingerprint_of_ones_own_is_another_version_wherever_it_differs() -> None:
    class Mine(mlf.Source):
        def __init__(self, text: str) -> None:
            self.text = text

        def fingerprint(self) -> str:
            return self.text

    one, other = (version(Mine(f"warehouse.table.of.ours@{number}")) for number in (1, 2))
    assert one is not None
    assert one != other
    assert "warehouse" not in one


def test_a_check_that_failed_elsewhere_is_told(shop: Shop) -> None:
    report(shop.defs(), shop.defs().build(["spend"]), instance=shop.instance)
    shop.save({0: -1.0})
    with pytest.raises(CheckFailedError) as failed:
        shop.defs().build(["spend"])
    report(shop.defs(), [failed.value], instance=shop.instance)
    key = dg.AssetCheckKey(dg.AssetKey(["our_shop", "spend"]), "amount_is_positive")
    latest = shop.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert latest.status.value == "FAILED"


def test_a_feature_that_is_not_in_the_project_cannot_be_read(shop: Shop) -> None:
    double = shop.defs().feature("double")
    with pytest.raises(DefinitionError, match="'double' reads feature 'last', which is not in Definitions"):
        build_definitions(Definitions("p", features=[double], store=LocalStore(shop.folder)))
