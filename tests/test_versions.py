"""Versions of a feature: what is listed, what is read back, what a rollback brings back, and who may be faster."""

import datetime as dt
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlforge as mlf
from mlforge import Definitions, RequestError, StoreError
from mlforge.build import BuildReport
from mlforge.online import OnlineStore, RedisStore
from mlforge.rollback import rollback
from mlforge.store import LocalStore, Snapshot, Store
from mlforge.store.history import versions
from mlforge.store.record import FIELD

START = dt.datetime(2026, 1, 10, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
LABELS = pl.DataFrame({"user": ["ann", "bob"], "at": [START + 90 * DAY] * 2})
SUM = mlf.Rolling(windows=["3d", "300d"], aggregations={"amount": ["sum"]})


def amounts(value: float, *, users: str = "ann bob", column: str = "amount") -> pl.DataFrame:
    """Two events of every user, in different months."""
    names = users.split() * 2
    times = [START] * (len(names) // 2) + [START + 40 * DAY] * (len(names) // 2)
    return pl.DataFrame({"user": names, "ts": times, column: [value] * len(names)})


class Untold(mlf.Source):
    """Data of which it cannot be told cheaply whether it has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def scan(self) -> pl.LazyFrame:
        return pl.scan_parquet(self.path)


class Shop:
    """A feature over a file of events, and its table."""

    def __init__(self, folder: Path, online_store: OnlineStore | None = None, kind: str = "rows") -> None:
        self.source = folder / "events.parquet"
        self.store = LocalStore(folder / "store")
        self.online_store = online_store
        self.kind = kind
        self.fingerprints = True

    def definitions(self, change: Callable[[pl.LazyFrame], pl.LazyFrame] = lambda rows: rows) -> Definitions:
        def spend(df: pl.LazyFrame) -> pl.LazyFrame:
            return change(df.unique(["user"], keep="first").drop("ts") if self.kind == "snapshot" else df)

        source = self.source if self.fingerprints else Untold(self.source)
        timestamp = None if self.kind == "snapshot" else "ts"
        windows: dict[str, Any] = {"metrics": [SUM], "interval": "1d"} if self.kind == "windows" else {}
        feature = mlf.feature(keys=["user"], source=source, timestamp=timestamp, **windows)(spend)
        as_of = START + 90 * DAY
        return Definitions("shop", features=[feature], store=self.store, online_store=self.online_store, as_of=as_of)

    def write(self, events: pl.DataFrame) -> None:
        before = self.source.stat().st_mtime_ns if self.source.exists() else 0
        # The fingerprint tells files apart by the time of writing, which a file system may count in ticks.
        while not self.source.exists() or self.source.stat().st_mtime_ns == before:
            events.write_parquet(self.source)

    def build(self, events: pl.DataFrame | None = None, **options: Any) -> BuildReport:
        if events is not None:
            self.write(events)
        (report,) = self.definitions().build(**options)
        return report

    def table(self) -> Path:
        return self.store.path / "spend"

    def rows(self, version: str | None = None) -> pl.DataFrame:
        snapshot = self.store.require("spend") if version is None else self.store.open_version("spend", version)
        return read(snapshot)

    def trained(self) -> pl.DataFrame:
        timestamp = None if self.kind == "snapshot" else "at"
        return self.definitions().get_training_data(["spend"], LABELS, timestamp=timestamp)


def read(snapshot: Snapshot) -> pl.DataFrame:
    return snapshot.collect(snapshot.scan()).sort(snapshot.record.index)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def listed(shop: Shop) -> list[tuple[str, int, str, int]]:
    return [(v.version, v.delta_version, v.kind, v.rows) for v in shop.definitions().versions("spend")]


def test_versions_are_listed_from_the_newest_on(shop: Shop) -> None:
    began = dt.datetime.now(dt.UTC) - dt.timedelta(milliseconds=1)
    shop.build(amounts(1.0))
    shop.build(amounts(2.0, users="ann bob cid"))
    (after,) = shop.definitions(lambda df: df.with_columns(twice=pl.col("amount") * 2)).build()
    assert listed(shop) == [("1.1.0", 2, "full", 6), ("1.0.1", 1, "full", 6), ("1.0.0", 0, "full", 4)]
    found = shop.definitions().versions("spend")
    times = [version.committed_at for version in reversed(found)]
    assert times == sorted(times)
    assert began <= times[0] <= times[-1] <= dt.datetime.now(dt.UTC)
    assert found[1].definition_hash == found[2].definition_hash != found[0].definition_hash
    assert after.version == "1.1.0"


def test_what_others_commit_is_a_version_with_the_rows_before(shop: Shop) -> None:
    shop.build(amounts(1.0))
    DeltaTable(shop.table()).alter.set_table_properties({"delta.checkpointInterval": "7"})
    shop.build(amounts(2.0))
    assert listed(shop) == [
        ("1.0.2", 2, "full", 4),
        ("1.0.1", 1, "set tblproperties", 4),
        ("1.0.0", 0, "full", 4),
    ]
    assert shop.rows("1.0.1").equals(shop.rows("1.0.0"))


def test_versions_keep_their_numbers_while_others_commit(shop: Shop) -> None:
    for value in range(4):
        shop.build(amounts(float(value)))
    # Opened before the last two were committed: delta-rs then counts the numbers of the commits wrongly.
    found = versions(DeltaTable(shop.table(), version=1))
    assert [(version.version, version.delta_version) for version in found] == [("1.0.1", 1), ("1.0.0", 0)]
    assert [replace(version, readable=True) for version in found] == shop.store.versions("spend")[2:]


def test_a_version_is_opened_by_its_text(shop: Shop) -> None:
    for value in (1.0, 2.0, 3.0):
        shop.build(amounts(value))
    for patch, value in enumerate((1.0, 2.0, 3.0)):
        opened = shop.store.open_version("spend", f"1.0.{patch}")
        assert opened.version == f"1.0.{patch}"
        assert read(opened)["amount"].unique().to_list() == [value]


@pytest.mark.parametrize("version", ["1.0.7", "1.0", "", "newest", None, 1.0])
def test_a_version_that_is_none_is_an_error_with_some_that_are(version: Any, shop: Shop) -> None:
    for value in range(12):
        shop.build(amounts(float(value)), force=True)
    shop.build(amounts(99.0))
    with pytest.raises(RequestError) as caught:
        shop.store.open_version("spend", "1.0.77" if version == "1.0.7" else version)
    assert "Feature 'spend' has no version" in str(caught.value)
    assert "'1.0." in str(caught.value)
    assert len(str(caught.value)) < 150


def test_a_version_that_has_stayed_is_opened_as_it_is_now(shop: Shop) -> None:
    shop.build(amounts(1.0))
    shop.build(amounts(2.0))
    assert shop.build(amounts(2.0)).outcome == "unchanged"
    assert [row[:2] for row in listed(shop)] == [("1.0.1", 2), ("1.0.1", 1), ("1.0.0", 0)]
    assert shop.store.open_version("spend", "1.0.1").delta_version == 2


def test_versions_near_one_that_is_none_are_named_from_the_newest_on(shop: Shop) -> None:
    for value in range(3):
        shop.build(amounts(float(value)))
    for version in ("1.0.00", "newest"):
        with pytest.raises(RequestError, match=r"; there is '1\.0\.2', '1\.0\.1', '1\.0\.0', and `mlforge versions"):
            shop.store.open_version("spend", version)


def test_a_feature_that_is_not_built_has_no_versions(shop: Shop) -> None:
    asks: list[Callable[[], object]] = [
        lambda: shop.definitions().versions("spend"),
        lambda: shop.definitions().diff("spend", "1.0.0", "1.0.1"),
        lambda: shop.definitions().rollback("spend", "1.0.0"),
        lambda: shop.definitions().vacuum(["spend"]),
    ]
    for ask in asks:
        with pytest.raises(RequestError, match="'spend' has not been built: run `mlforge build --features spend`"):
            ask()
    assert shop.definitions().vacuum() == []
    with pytest.raises(RequestError, match="There is no feature 'spent'; did you mean 'spend'"):
        shop.definitions().versions("spent")


@pytest.mark.parametrize("kind", ["rows", "windows", "snapshot"])
def test_a_rollback_brings_back_rows_everywhere(kind: str, tmp_path: Path, redis_store: RedisStore) -> None:
    shop = Shop(tmp_path, redis_store, kind)
    shop.build(amounts(1.0), online=True)
    rows, trained = shop.rows(), shop.trained()
    shop.build(amounts(2.0, users="ann cid"), online=True)
    assert not shop.trained().equals(trained)
    report = shop.definitions().rollback("spend", "1.0.0")
    assert (report.outcome, report.restored, report.left, report.version) == ("rolled back", "1.0.0", "1.0.1", "1.0.2")
    assert report.rows == rows.height
    assert shop.rows().equals(rows)
    assert shop.trained().equals(trained)
    assert listed(shop)[0] == ("1.0.2", 2, "rollback", rows.height)
    assert shop.definitions().versions("spend")[0].restored == "1.0.0"
    synced = shop.build(online=True)
    assert synced.outcome == "rolled back"
    assert synced.online is not None
    # Ann has other values, bob is back, cid goes.
    assert (synced.online.mode, synced.online.written, synced.online.deleted) == ("difference", 2, 1)
    assert synced.online.version == "1.0.2"
    assert [verified.agrees for verified in shop.definitions().verify()] == [True]
    found = shop.definitions().get_online_features(["spend"], LABELS.drop("at"))
    assert found.equals(trained.drop("at"))


def test_a_build_leaves_what_was_rolled_back_until_something_changes(shop: Shop) -> None:
    shop.build(amounts(1.0))
    shop.build(amounts(2.0))
    shop.definitions().rollback("spend", "1.0.0")
    for _ in range(2):
        report = shop.build()
        assert (report.outcome, report.version) == ("rolled back", "1.0.2")
    report = shop.build(amounts(3.0))
    assert (report.outcome, report.version) == ("built", "1.0.3")
    assert shop.build().outcome == "skipped"


def test_a_rollback_is_undone_by_force(shop: Shop) -> None:
    shop.build(amounts(1.0))
    shop.build(amounts(2.0))
    shop.definitions().rollback("spend", "1.0.0")
    report = shop.build(force=True)
    assert (report.outcome, report.version) == ("built", "1.0.3")
    assert shop.rows()["amount"].unique().to_list() == [2.0]


def test_another_definition_is_built_after_a_rollback(shop: Shop) -> None:
    shop.build(amounts(1.0))
    shop.build(amounts(2.0))
    shop.definitions().rollback("spend", "1.0.0")
    (report,) = shop.definitions(lambda df: df.filter(pl.col("amount") > 0)).build()
    assert (report.outcome, report.version) == ("built", "1.1.0")


@pytest.mark.parametrize("untold", [True, False], ids=["no fingerprint", "touched"])
def test_what_was_rolled_back_is_known_by_its_rows_as_well(untold: bool, shop: Shop) -> None:
    shop.fingerprints = not untold
    shop.build(amounts(1.0))
    shop.build(amounts(2.0))
    shop.definitions().rollback("spend", "1.0.0")
    shop.write(amounts(2.0))
    report = shop.build()
    assert (report.outcome, report.version, len(shop.definitions().versions("spend"))) == ("rolled back", "1.0.2", 3)
    assert shop.build(amounts(3.0)).outcome == "built"


def test_data_that_is_again_what_was_rolled_back_to_is_no_new_version(shop: Shop) -> None:
    shop.build(amounts(1.0))
    shop.build(amounts(2.0))
    shop.definitions().rollback("spend", "1.0.0")
    report = shop.build(amounts(1.0))
    assert (report.outcome, report.version) == ("unchanged", "1.0.2")
    assert shop.build(amounts(2.0)).outcome == "built"


def test_a_partial_build_that_is_brought_back_is_not_taken_for_all_of_the_source(shop: Shop) -> None:
    shop.build(amounts(1.0))
    # All of it has changed, and only the last day is looked at.
    assert shop.build(amounts(2.0), incremental=True).version == "1.0.1"
    partial = shop.rows()
    content, written = shop.source.read_bytes(), shop.source.stat().st_mtime_ns
    shop.build(amounts(3.0))
    assert shop.definitions().rollback("spend", "1.0.1").version == "1.0.3"
    assert shop.rows().equals(partial)
    assert sorted(partial["amount"].to_list()) == [1.0, 1.0, 2.0, 2.0]
    assert shop.build().outcome == "rolled back"
    shop.source.write_bytes(content)
    os.utime(shop.source, ns=(written, written))
    assert shop.build().outcome == "built"
    assert shop.rows()["amount"].unique().to_list() == [2.0]


def test_the_same_rows_of_another_definition_are_rolled_back_to(shop: Shop) -> None:
    shop.build(amounts(1.0))
    other = shop.definitions(lambda df: df.filter(pl.lit(value=True)))
    assert other.build()[0].version == "1.1.0"
    report = shop.definitions().rollback("spend", "1.0.0")
    assert (report.outcome, report.version) == ("rolled back", "1.2.0")
    assert shop.build().outcome == "skipped"
    assert other.build()[0].outcome == "rolled back"


def test_incremental_builds_leave_what_was_rolled_back(shop: Shop) -> None:
    shop.build(amounts(1.0))
    shop.build(amounts(2.0), incremental=True, look_back="60d")
    shop.definitions().rollback("spend", "1.0.0")
    assert shop.build(incremental=True).outcome == "rolled back"
    assert shop.build(amounts(3.0), incremental=True, look_back="60d").outcome == "built"
    assert shop.rows()["amount"].unique().to_list() == [3.0]


def test_rollbacks_after_one_another_leave_what_was_built(shop: Shop) -> None:
    for value in (1.0, 2.0, 3.0):
        shop.build(amounts(value))
    shop.definitions().rollback("spend", "1.0.1")
    assert shop.definitions().rollback("spend", "1.0.0").version == "1.0.4"
    assert shop.build().outcome == "rolled back"
    # Back to where it began: nothing is rolled back any more.
    assert shop.definitions().rollback("spend", "1.0.2").version == "1.0.5"
    assert shop.build().outcome == "skipped"
    assert [shop.rows(f"1.0.{patch}")["amount"][0] for patch in range(6)] == [1.0, 2.0, 3.0, 2.0, 1.0, 3.0]


def test_a_rollback_to_what_is_there_does_nothing(shop: Shop) -> None:
    shop.build(amounts(1.0))
    shop.build(amounts(2.0))
    report = shop.definitions().rollback("spend", "1.0.1")
    assert (report.outcome, report.version) == ("current", "1.0.1")
    shop.definitions().rollback("spend", "1.0.0")
    report = shop.definitions().rollback("spend", "1.0.0")
    assert (report.outcome, report.version) == ("current", "1.0.2")
    assert DeltaTable(shop.table()).version() == 2


def test_the_number_says_what_a_rollback_changes(shop: Shop) -> None:
    wider = shop.definitions(lambda df: df.with_columns(twice=pl.col("amount") * 2))
    shop.build(amounts(1.0))
    assert wider.build()[0].version == "1.1.0"
    # A column goes away.
    assert shop.definitions().rollback("spend", "1.0.0").version == "2.0.0"
    # It comes back.
    assert shop.definitions().rollback("spend", "1.1.0").version == "2.1.0"
    assert shop.rows().columns == ["user", "ts", "amount", "twice"]
    filtered = shop.definitions(lambda df: df.with_columns(twice=pl.col("amount") * 3))
    assert filtered.build()[0].version == "2.2.0"
    # The definition only.
    assert shop.definitions().rollback("spend", "2.1.0").version == "2.3.0"
    assert wider.build()[0].outcome == "skipped"
    assert filtered.build()[0].outcome == "rolled back"
    assert shop.build().version == "3.0.0"


def test_a_rollback_is_recorded_beside_the_build_it_brings_back(shop: Shop) -> None:
    shop.build(amounts(1.0))
    shop.build(amounts(2.0))
    shop.definitions().rollback("spend", "1.0.0")
    (newest,) = DeltaTable(shop.table()).history(1)
    assert newest["operation"] == "RESTORE"
    restored, built = shop.store.require("spend").record, shop.store.open_version("spend", "1.0.0").record
    assert (restored.kind, restored.left, restored.restored) == ("rollback", 1, "1.0.0")
    assert (restored.fingerprint, restored.definition_hash) == (built.fingerprint, built.definition_hash)
    assert '"kind":"rollback"' in newest[FIELD]
    assert '"left"' not in DeltaTable(shop.table(), version=1).history(1)[-1][FIELD]


def test_other_columns_go_online_as_with_any_version(tmp_path: Path, redis_store: RedisStore) -> None:
    shop = Shop(tmp_path, redis_store)
    wider = shop.definitions(lambda df: df.with_columns(twice=pl.col("amount") * 2))
    shop.build(amounts(1.0), online=True)
    wider.build(online=True)
    shop.definitions().rollback("spend", "1.0.0")
    with pytest.raises(RequestError, match="'twice' is no longer there"):
        wider.build(online=True)
    (report,) = wider.build(online=True, allow_breaking=True)
    assert report.outcome == "rolled back"
    assert report.online is not None
    assert (report.online.mode, report.online.reason) == ("full", "the definition has changed")
    assert redis_store.read("spend", {"user": "ann"}) == {"amount": 1.0}
    assert [verified.agrees for verified in wider.verify()] == [True]


def test_a_breaking_version_that_never_went_online_is_rolled_back_without_a_question(
    tmp_path: Path, redis_store: RedisStore
) -> None:
    shop = Shop(tmp_path, redis_store)
    shop.build(amounts(1.0), online=True)
    renamed = shop.definitions(lambda df: df.rename({"amount": "price"}))
    with pytest.raises(RequestError, match=r"version 2.0.0 cannot stand in for 1.0.0"):
        renamed.build(online=True)
    assert shop.definitions().rollback("spend", "1.0.0").version == "3.0.0"
    (report,) = renamed.build(online=True)
    assert report.online is not None
    assert (report.outcome, report.online.mode, report.online.version) == ("rolled back", "unchanged", "3.0.0")


def test_a_version_whose_files_are_gone_is_not_rolled_back_to(shop: Shop) -> None:
    shop.build(amounts(1.0))
    shop.build(amounts(2.0))
    shop.definitions().vacuum(keep=dt.timedelta())
    before = DeltaTable(shop.table()).version()
    with pytest.raises(StoreError, match=r"Version 1.0.0 of feature 'spend' cannot be read from the table"):
        shop.definitions().rollback("spend", "1.0.0")
    assert DeltaTable(shop.table()).version() == before


def test_a_rollback_mends_a_newest_version_that_is_damaged(shop: Shop) -> None:
    shop.build(amounts(1.0))
    shop.build(amounts(2.0))
    for file in shop.store.require("spend").files["2026-01"]:
        (shop.table() / file).unlink()
    shop.definitions().rollback("spend", "1.0.0")
    assert shop.rows()["amount"].unique().to_list() == [1.0]


class Overtaken(Store):
    """Somebody commits just before a rollback does."""

    def restore(self, *arguments: Any) -> Snapshot:
        DeltaTable(self.table_uri("spend")).alter.set_table_properties({"delta.checkpointInterval": "7"})
        return super().restore(*arguments)


def test_a_rollback_that_is_overtaken_does_nothing(shop: Shop) -> None:
    shop.build(amounts(1.0))
    shop.build(amounts(2.0))
    with pytest.raises(StoreError, match="is not rolled back, since somebody else committed to its table"):
        rollback("spend", "1.0.0", Overtaken(str(shop.store.path)))
    assert shop.rows()["amount"].unique().to_list() == [2.0]
    assert listed(shop)[0] == ("1.0.2", 2, "set tblproperties", 4)


class Gone(Store):
    """The table goes away just before a rollback commits."""

    def restore(self, *arguments: Any) -> Snapshot:
        shutil.rmtree(self.table_uri("spend"))
        return super().restore(*arguments)


def test_a_table_that_goes_away_during_a_rollback_is_one_line(shop: Shop) -> None:
    shop.build(amounts(1.0))
    shop.build(amounts(2.0))
    with pytest.raises(StoreError, match=f"The table '{shop.table()}' of feature 'spend' cannot be written: "):
        rollback("spend", "1.0.0", Gone(str(shop.store.path)))


# Rolls back and builds in turns, until it has done so many; says what came of each.
WORKER = """
import sys
from pathlib import Path
import polars as pl
import mlforge as mlf
from mlforge import Definitions, StoreError
from mlforge.store import LocalStore, Store

class Made(mlf.Source):
    def __init__(self, value):
        self.value = value

    def scan(self):
        time = pl.lit(10**15).cast(pl.Datetime("us"))
        return pl.LazyFrame({"k": pl.int_range(20_000, eager=True)}).with_columns(ts=time, n=pl.lit(self.value))

def f(df):
    return df

kind, folder, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = LocalStore(folder) if kind == "lock" else Store(folder)
for turn in range(6):
    feature = mlf.feature(keys=["k"], source=Made(100 * number + turn), timestamp="ts")(f)
    definitions = Definitions(features=[feature], store=store)
    try:
        report = definitions.rollback("f", "1.0.0") if turn % 2 else definitions.build()[0]
        print(report.version, 1 if turn % 2 else 100 * number + turn, report.outcome)
    except StoreError as error:
        assert "somebody else committed" in str(error) or "others committed" in str(error), error
        print("- - overtaken")
"""


@pytest.mark.parametrize("kind", ["lock", "no-lock"])
def test_processes_that_build_and_roll_back_at_once_never_mix(kind: str, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    moment = pl.lit(10**15).cast(pl.Datetime("us"))
    first = pl.DataFrame({"k": pl.int_range(20_000, eager=True)}).with_columns(ts=moment, n=pl.lit(1))
    first.write_parquet(tmp_path / "first.parquet")
    feature = mlf.feature(keys=["k"], source=tmp_path / "first.parquet", timestamp="ts", name="f")(lambda df: df)
    Definitions(features=[feature], store=store).build()
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, kind, str(tmp_path), str(n)], stdout=subprocess.PIPE, text=True)
        for n in (2, 3)
    ]
    said = [line.split(maxsplit=2) for worker in workers for line in worker.communicate(timeout=120)[0].splitlines()]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert len(said) == 12
    if kind == "lock":
        assert "overtaken" not in [outcome for _, _, outcome in said]
    made = {version: int(value) for version, value, outcome in said if outcome in ("built", "rolled back")}
    assert len(made) == len([outcome for _, _, outcome in said if outcome in ("built", "rolled back")])
    assert made.keys() == {version.version for version in store.versions("f")} - {"1.0.0"}
    for version, value in made.items():
        rows = read(store.open_version("f", version))
        assert rows["k"].to_list() == list(range(20_000))
        assert rows["n"].unique().to_list() == [value]


def test_a_rollback_waits_for_a_build_on_the_same_machine(shop: Shop, tmp_path: Path) -> None:
    shop.build(amounts(1.0))
    shop.build(amounts(2.0))
    program = (
        "import sys; from mlforge.rollback import rollback; from mlforge.store import LocalStore;"
        "print('begins', flush=True); print(rollback('spend', '1.0.0', LocalStore(sys.argv[1])).version)"
    )
    with shop.store.building("spend"):
        other = subprocess.Popen(
            [sys.executable, "-c", program, str(shop.store.path)], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "begins\n"
        time.sleep(0.5)
        assert DeltaTable(shop.table()).version() == 1
    assert other.communicate(timeout=60)[0] == "1.0.2\n"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("build"), st.integers(0, 3), st.booleans()),
        st.tuples(st.just("back"), st.integers(0, 9), st.just(value=False)),
        st.tuples(st.just("upkeep"), st.just(0), st.just(value=False)),
    ),
    min_size=2,
    max_size=9,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_every_version_is_read_back_as_it_was(steps: list[tuple[str, int, bool]], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    shop = Shop(tmp_path)
    expected = {shop.build(amounts(0.0), force=True).version: amounts(0.0)}
    for step, number, other_column in steps:
        known = list(expected)
        if step == "build":
            # Only the second month differs between some of them, so that files are shared.
            events = amounts(0.0).with_columns(amount=pl.when(pl.col("ts") > START).then(float(number)).otherwise(0.0))
            events = events.rename({"amount": "price"}) if other_column else events
            expected[shop.build(events, force=True).version] = events
        elif step == "back":
            version = known[number % len(known)]
            expected[shop.definitions().rollback("spend", version).version] = expected[version]
        else:
            DeltaTable(shop.table()).alter.set_table_properties({"delta.checkpointInterval": "3"})
            expected[shop.store.require("spend").version] = expected[known[-1]]
        newest = shop.store.require("spend").version
        assert shop.rows().equals(expected[newest].sort("user", "ts"))
        # Dicts keep the place of a key that is set again: what is newest comes last.
        expected[newest] = expected.pop(newest)
    for version, events in expected.items():
        assert shop.rows(version).equals(events.sort("user", "ts"))
    assert {version.version for version in shop.store.versions("spend")} == set(expected)
