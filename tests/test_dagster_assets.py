"""Features as Dagster assets: what a run builds and shows, its checks and its versions."""

import shutil
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

import mlforge as mlf
from dagster_shop import ANN, DAY, START, Four, Shop, checks, evaluated, materialisations, versions
from mlforge import DefinitionError, Definitions
from mlforge.store import LocalStore
from mlforge_dagster import (
    AssetData,
    MlforgeTranslator,
    build_definitions,
    feature_assets,
    report,
)


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
    assert shop.read("spend") == {"amount__sum__7d": 2.0, "amount__sum__30d": 7.0}
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
    # What is online comes column by column from the table; what a function makes of its source cannot be told.
    assert written["dagster/column_lineage"].deps_by_column["amount__sum__7d"] == [
        dg.TableColumnDep(dg.AssetKey(["our_shop", "spend"]), "amount__sum__7d")
    ]
    assert [column.name for column in written["dagster/column_schema"].columns] == [
        "amount__sum__7d",
        "amount__sum__30d",
    ]
    assert "dagster/column_lineage" not in shown
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
    assert shop.read("spend") == {"amount__sum__7d": 2.0, "amount__sum__30d": 7.0}
    shop.save({0: 10.0, 65: 4.0})
    assert shop.run("spend", "spend_online").success
    assert shop.read("spend") == {"amount__sum__7d": 4.0, "amount__sum__30d": 4.0}


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
    shop.defs().require_online_store().write("spend", ANN, {"amount__sum__7d": 3.0, "amount__sum__30d": 7.0})
    wrong = shop.check("spend_online")["spend_online:parity"]
    assert (wrong.passed, wrong.metadata["different"].value) == (False, 1)
    # The sync mends it before the check is made.
    assert checks(shop.run("spend_online"))["spend_online:parity"].passed
    shop.save({0: 10.0, 65: 4.0})
    shop.run("spend")
    late = shop.check("spend_online")["spend_online:in_sync"]
    assert not late.passed
    assert (late.metadata["offline"].value, late.metadata["online"].value) == ("1.0.1", "1.0.0")
    assert late.description == "1.0.1 is built and 1.0.0 is online"


def test_what_is_online_of_a_table_that_was_made_again_is_not_in_sync(shop: Shop) -> None:
    shop.run()
    shutil.rmtree(shop.folder / "store" / "last")
    shop.defs().build(["last"])
    found = shop.check("last_online")["last_online:in_sync"]
    assert (found.passed, found.description) == (False, "the table was made again")
    assert evaluated(shop) == {"last_online"}


def test_what_is_online_of_a_later_instant_is_not_written_over(shop: Shop) -> None:
    shop.run()
    shop.as_of -= 2 * DAY
    result = shop.run("spend_online", raises=False)
    assert not result.success
    assert materialisations(result) == {}
    before = shop.instance.get_latest_materialization_event(dg.AssetKey(["our_shop", "spend_online"]))
    report(shop.defs(), shop.defs().build(["spend"], online=True), instance=shop.instance)
    assert shop.instance.get_latest_materialization_event(dg.AssetKey(["our_shop", "spend_online"])) == before


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


def test_what_is_called_the_same_is_refused(shop: Shop) -> None:
    class Clash(MlforgeTranslator):
        def get_asset_spec(self, data: AssetData) -> dg.AssetSpec:
            return super().get_asset_spec(data).replace_attributes(key="same")

    with pytest.raises(DefinitionError, match="have the same key, 'same'"):
        build_definitions(shop.defs(), translator=Clash())


@pytest.mark.parametrize(("windows", "letters"), [(70, 0), (400, 0), (70, 100)])
def test_an_event_is_short_however_wide_the_feature_is(windows: int, letters: int, shop: Shop) -> None:
    long = "x" * 500
    name = "amount" + "x" * letters
    rows = pl.DataFrame({"user": [f"{n}{long}" for n in range(30)], "ts": [START] * 30, name: [1.0] * 30})
    rows = rows.with_columns(pl.lit(long).alias(f"column_{number}") for number in range(400))
    rows.write_parquet(shop.folder / "events.parquet")

    @mlf.feature(
        keys=["user"],
        source=shop.folder / "events.parquet",
        timestamp="ts",
        metrics=[mlf.Rolling(windows=[f"{n}d" for n in range(1, windows)], aggregations={name: ["sum"]})],
        checks={
            "small": mlf.Check(pl.all_horizontal(pl.col(each) == "" for each in rows.columns[3:]), severity="warn")
        },
    )
    def wide(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    defs = Definitions("p", features=[wide], store=LocalStore(shop.folder), online_store=shop.store)
    result = dg.materialize(feature_assets(defs), instance=shop.instance)
    events = [*result.get_asset_materialization_events(), *result.all_events]
    assert max(len(dg.serialize_value(event)) for event in events) < 30_000
    shown = materialisations(result)["wide"].metadata
    assert ("dagster/column_schema" in shown, "columns" in shown) == (windows + letters == 70, windows + letters != 70)


@pytest.mark.parametrize("name", ["input", "type", "config", "context", "List"])
def test_names_that_dagster_keeps_for_itself_are_names_of_features(name: str, shop: Shop) -> None:
    pl.DataFrame({"user": [1], "n": [2]}).write_parquet(shop.folder / "x.parquet")

    @mlf.feature(name=name, keys=["user"], source=shop.folder / "x.parquet")
    def known(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    defs = Definitions("p", features=[known], store=LocalStore(shop.folder / "store"), online_store=shop.store)
    assert dg.materialize(feature_assets(defs), instance=shop.instance).success
    assert shop.read(name) == {"n": 2}
