"""A vacuum deletes what nothing needs, and nothing else."""

import datetime as dt
import fcntl
import json
import os
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import mlforge as mlf
from mlforge import Definitions, RequestError, StoreError, UnavailableError
from mlforge.online import OnlineStore, RedisStore
from mlforge.online.keys import status_key
from mlforge.store import LocalStore, Snapshot, Store
from mlforge.sync import SyncReport
from mlforge.vacuum import VacuumReport, vacuum
from servers import free_port

START = dt.datetime(2026, 1, 10, tzinfo=dt.UTC)
NOW = dt.timedelta()
DAY = dt.timedelta(days=1)


class Shop:
    """A feature with as many versions as a test wants, each with a file of its own."""

    def __init__(self, folder: Path, online_store: OnlineStore | None = None) -> None:
        self.source = folder / "users.parquet"
        self.store = LocalStore(folder / "store")
        self.table = self.store.path / "spend"
        feature = mlf.feature(keys=["user"], source=self.source, timestamp="ts")(spend)
        self.definitions = Definitions("shop", features=[feature], store=self.store, online_store=online_store)

    def build(self, *values: float, **options: Any) -> SyncReport | None:
        for value in values:
            events = {"user": ["ann", "bob"], "ts": [START, START], "n": [value, 0.0]}
            pl.DataFrame(events).write_parquet(self.source)
            (report,) = self.definitions.build(force=True, **options)
        return report.online

    def vacuum(self, keep: dt.timedelta = NOW, **options: Any) -> VacuumReport:
        (report,) = self.definitions.vacuum(keep=keep, **options)
        return report

    def readable(self) -> list[str]:
        """Which versions can be read, oldest first, as it is also said; not those that others made."""
        found = []
        for version in reversed(self.store.versions("spend")):
            snapshot = self.store.open("spend", version.delta_version)
            assert snapshot is not None
            try:
                snapshot.collect(snapshot.scan())
            except StoreError:
                assert version.readable is False
                continue
            assert version.readable
            if version.kind in ("full", "rollback"):
                found.append(version.version)
        return found

    def files(self) -> dict[str, int]:
        return {str(path): path.stat().st_size for path in self.table.rglob("*.parquet")}

    def age(self, days: float) -> None:
        """Makes all that there is so much older."""
        past = int(days * 86_400)
        for file in self.table.rglob("*.parquet"):
            then = file.stat().st_mtime - past
            os.utime(file, (then, then))
        for log in (self.table / "_delta_log").glob("*.json"):
            actions = [json.loads(line) for line in log.read_text().splitlines()]
            for action in actions:
                for kind, name in (("commitInfo", "timestamp"), ("remove", "deletionTimestamp")):
                    if kind in action:
                        action[kind][name] -= past * 1000
            log.write_text("".join(json.dumps(action) + "\n" for action in actions))


def spend(df: pl.LazyFrame) -> pl.LazyFrame:
    return df


@pytest.fixture
def shop(tmp_path: Path, redis_store: RedisStore) -> Shop:
    return Shop(tmp_path, redis_store)


def test_only_the_newest_version_is_needed_where_nothing_refers_to_others(shop: Shop) -> None:
    shop.build(1.0, 2.0, 3.0)
    before = shop.files()
    report = shop.vacuum()
    gone = before.keys() - shop.files().keys()
    assert (report.feature, report.versions, report.kept, report.files) == ("spend", 3, 1, 2)
    assert report.kept_versions == ["1.0.2"]
    assert len(gone) == 2
    assert report.bytes == sum(before[file] for file in gone) > 500
    assert shop.readable() == ["1.0.2"]
    assert [shop.vacuum().files, shop.store.require("spend").version] == [0, "1.0.4"]


def test_a_dry_run_says_what_would_be_and_deletes_nothing(shop: Shop) -> None:
    shop.build(1.0, 2.0, 3.0)
    planned = shop.vacuum(dry_run=True)
    assert shop.readable() == ["1.0.0", "1.0.1", "1.0.2"]
    assert DeltaTable(shop.table).version() == 2
    done = shop.vacuum()
    assert planned.dry_run
    assert (planned.files, planned.bytes, planned.kept) == (done.files, done.bytes, done.kept)


def test_versions_are_kept_for_thirty_days_after_they_were_replaced(shop: Shop) -> None:
    shop.build(1.0, 2.0)
    shop.age(20)
    shop.build(3.0)
    shop.age(20)
    shop.build(4.0)
    # 1.0.0 was replaced 40 days ago, 1.0.1 20 days ago.
    (report,) = shop.definitions.vacuum()
    assert (report.versions, report.kept, report.files) == (4, 3, 1)
    assert report.kept_versions == ["1.0.3", "1.0.2", "1.0.1"]
    assert shop.readable() == ["1.0.1", "1.0.2", "1.0.3"]
    assert shop.vacuum(19 * DAY).files == 1
    assert shop.readable() == ["1.0.2", "1.0.3"]


def test_versions_are_kept_of_which_the_log_forgets_when_they_were_replaced(shop: Shop) -> None:
    shop.build(1.0, 2.0)
    shop.age(40)
    shop.build(3.0)
    shop.age(10)
    # A checkpoint leaves out what was deleted more than a week before, and a full vacuum then goes by the file's age.
    DeltaTable(shop.table).create_checkpoint()
    assert shop.vacuum(30 * DAY).files == 1
    assert shop.readable() == ["1.0.1", "1.0.2"]


def test_files_that_were_written_long_before_their_commit_are_kept_with_their_version(shop: Shop) -> None:
    shop.build(1.0)
    shop.age(1)
    before = shop.files()
    shop.build(2.0)
    (file,) = shop.files().keys() - before.keys()
    written = Path(file).stat().st_mtime - 0.9 * 86_400
    os.utime(file, (written, written))
    shop.age(10.5)
    shop.build(3.0)
    shop.age(9)
    DeltaTable(shop.table).create_checkpoint()
    shop.vacuum(20 * DAY)
    assert shop.readable() == ["1.0.0", "1.0.1", "1.0.2"]


# What a test does to the table in turn, and how many days pass after each.
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["build", "rollback", "restore", "checkpoint", "optimize"]), st.sampled_from([0.0, 4, 9])
    ),
    min_size=4,
    max_size=9,
)

# A version that is young, with a file that is not, of which the log forgets when it was replaced.
BROUGHT_BACK = [("build", 9.0), ("build", 9.0), ("build", 9.0)]


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(events=[*BROUGHT_BACK[:2], ("rollback", 4), *BROUGHT_BACK[2:]], keep=20.0, which=3)
@example(events=[*BROUGHT_BACK[:2], ("restore", 4), *BROUGHT_BACK[2:]], keep=20.0, which=3)
@given(events=EVENTS, keep=st.sampled_from([0.5, 3.0, 10.0, 20.0]), which=st.integers(0, 99))
def test_whatever_happened_what_is_kept_can_be_read(
    events: list[tuple[str, float]], keep: float, which: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    shop.build(1.0, 2.0)
    shop.age(9)
    for number, (event, days) in enumerate(events):
        table = DeltaTable(shop.table)
        if event == "build":
            shop.build(number + 3.0)
        elif event == "rollback":
            versions = shop.store.versions("spend")
            shop.definitions.rollback("spend", versions[which % len(versions)].version)
        elif event == "restore":
            table.restore(which % table.version())
        elif event == "checkpoint":
            table.create_checkpoint()
        else:
            table.optimize.compact()
        shop.age(days)
    DeltaTable(shop.table).create_checkpoint()
    report = shop.vacuum(keep * DAY)
    for version in report.kept_versions:
        snapshot = shop.store.open_version("spend", version)
        assert snapshot.collect(snapshot.scan()).height == 2
    shop.readable()


def test_what_is_online_can_still_be_compared_with(shop: Shop) -> None:
    shop.build(1.0)
    shop.build(2.0, online=True, as_of=START)
    shop.build(3.0, 4.0)
    assert shop.vacuum().kept == 2
    assert shop.readable() == ["1.0.1", "1.0.3"]
    assert [report.agrees for report in shop.definitions.verify()] == [True]
    report = shop.build(4.0, online=True, as_of=START)
    assert report is not None
    assert (report.mode, report.written, report.unchanged) == ("difference", 1, 1)


def test_what_an_unfinished_sync_may_have_left_can_still_be_found(shop: Shop, redis_store: RedisStore) -> None:
    shop.build(1.0, 2.0)
    shop.build(3.0, online=True)
    shop.build(4.0, 5.0)
    client, key = redis_store.client, status_key(redis_store.prefix, "spend")
    client.hset(key, mapping={"state": "writing", "earlier": '[[1,"2026-01-10T00:00:00.000000Z"]]'})
    shop.vacuum()
    assert shop.readable() == ["1.0.1", "1.0.2", "1.0.4"]


def test_a_sync_after_its_base_was_vacuumed_writes_everything(tmp_path: Path, redis_store: RedisStore) -> None:
    shop = Shop(tmp_path, redis_store)
    shop.build(1.0, online=True, as_of=START)
    # By somebody who does not know what is online.
    Shop(tmp_path).build(2.0)
    Shop(tmp_path).vacuum()
    report = shop.build(2.0, online=True, as_of=START)
    assert report is not None
    assert (report.mode, report.written) == ("full", 2)
    assert report.reason == "version 1.0.0 cannot be compared with any more"
    assert [verified.agrees for verified in shop.definitions.verify()] == [True]


def test_what_is_pinned_is_kept(shop: Shop) -> None:
    shop.build(1.0, 2.0, 3.0, 4.0)
    shop.vacuum(pinned={"spend": ["1.0.0", "1.0.2"]})
    assert shop.readable() == ["1.0.0", "1.0.2", "1.0.3"]
    with pytest.raises(RequestError, match=r"'spend' has no version '1.0.77'"):
        shop.vacuum(pinned={"spend": ["1.0.77"]})


@pytest.mark.parametrize(
    ("pinned", "says"),
    [
        ({"spent": ["1.0.0"]}, r"There is no feature 'spent'; did you mean 'spend'\?"),
        ({"spend": "1.0.0"}, r"pinned names a list of versions of each feature: write \{'spend': \['1.0.0'\]\}\."),
        ({"spend": ["1.0.0"], "visits": ["1.0.7"]}, "'visits' has no version '1.0.7'"),
    ],
)
def test_pins_that_are_none_are_refused_before_anything_is_deleted(
    pinned: dict[str, Any], says: str, tmp_path: Path
) -> None:
    shop = Shop(tmp_path)
    visits = mlf.feature(keys=["user"], source=shop.source, timestamp="ts", name="visits")(spend)
    shop.definitions = Definitions("shop", features=[*shop.definitions.features.values(), visits], store=shop.store)
    for value in (1.0, 2.0, 3.0):
        pl.DataFrame({"user": ["ann"], "ts": [START], "n": [value]}).write_parquet(shop.source)
        shop.definitions.build(force=True)
    before = sorted(shop.store.path.rglob("*.parquet"))
    with pytest.raises(RequestError, match=says):
        shop.definitions.vacuum(keep=NOW, pinned=pinned)
    assert sorted(shop.store.path.rglob("*.parquet")) == before


def test_what_feature_sets_name_is_pinned(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.build(1.0, 2.0, 3.0, 4.0)
    fraud = mlf.FeatureSet("fraud", features=[mlf.FeatureRef("spend", version="1.0.1"), "other"])
    monkeypatch.setitem(globals(), "FRAUD", mlf.FeatureSet("fraud_too", features=[fraud]))
    monkeypatch.setitem(globals(), "OTHER", mlf.FeatureRef("other", version="1.0.0"))
    module = ModuleType("sets")
    module.churn = mlf.FeatureRef("spend", version="1.0.2")  # type: ignore[attr-defined]
    given = [*shop.definitions.features.values(), module]
    Definitions("shop", features=given, store=shop.store).vacuum(keep=NOW)
    assert shop.readable() == ["1.0.1", "1.0.2", "1.0.3"]


def test_what_was_rolled_back_is_still_known_by_its_rows(shop: Shop) -> None:
    shop.build(1.0, 2.0)
    shop.definitions.rollback("spend", "1.0.0")
    shop.vacuum()
    assert shop.readable() == ["1.0.0", "1.0.1", "1.0.2"]


def test_files_of_no_version_go_after_a_day(shop: Shop) -> None:
    shop.build(1.0, 2.0)
    killed = shop.table / "mlforge_month=2026-01" / "killed.parquet"
    killed.write_bytes(b"x" * 1000)
    assert shop.vacuum().files == 1
    assert killed.exists()
    shop.age(1.1)
    report = shop.vacuum()
    assert (report.files, report.bytes) == (1, 1000)
    assert not killed.exists()
    assert shop.readable() == ["1.0.1"]


def test_nothing_is_deleted_where_the_online_store_cannot_be_asked(tmp_path: Path) -> None:
    shop = Shop(tmp_path, RedisStore("localhost", free_port()))
    shop.build(1.0, 2.0)
    with pytest.raises(UnavailableError):
        shop.vacuum()
    assert shop.readable() == ["1.0.0", "1.0.1"]


def test_another_table_online_keeps_no_version(tmp_path: Path, redis_store: RedisStore) -> None:
    other = Shop(tmp_path / "other", redis_store)
    other.source.parent.mkdir()
    other.build(1.0, 2.0, online=True)
    shop = Shop(tmp_path, redis_store)
    shop.build(1.0, 2.0, 3.0)
    shop.vacuum()
    assert shop.readable() == ["1.0.2"]


class Overtaken(Store):
    """Somebody rolls back just before a vacuum deletes."""

    def sizes(self, feature_name: str) -> dict[str, int]:
        DeltaTable(self.table_uri(feature_name)).restore(0)
        return super().sizes(feature_name)


def test_a_vacuum_that_is_overtaken_deletes_nothing(shop: Shop) -> None:
    shop.build(1.0, 2.0)
    with pytest.raises(StoreError) as caught:
        vacuum("spend", Overtaken(str(shop.store.path)), None, keep=NOW)
    assert str(caught.value) == (
        f"The vacuum of '{shop.table}' was interrupted (somebody else committed to the table): nothing was deleted."
    )
    assert shop.readable() == ["1.0.0", "1.0.1"]


def test_a_vacuum_that_is_overtaken_after_it_began_says_that_files_may_be_gone(shop: Shop) -> None:
    shop.build(1.0, 2.0)
    # So many that there is time to commit while they are found and deleted.
    for number in range(3000):
        (shop.table / f"killed-{number}.parquet").touch()
    shop.age(2)
    log = shop.table / "_delta_log"
    info = {"commitInfo": {"timestamp": 0, "operation": "SET TBLPROPERTIES"}}

    def overtake() -> None:
        while not (log / f"{2:020}.json").exists():
            pass
        with (log / f"{3:020}.json").open("x") as commit:
            commit.write(json.dumps(info) + "\n")

    other = Thread(target=overtake)
    other.start()
    with pytest.raises(StoreError) as caught:
        vacuum("spend", shop.store, None, keep=DAY)
    other.join()
    assert str(caught.value) == (
        f"The vacuum of '{shop.table}' was interrupted (somebody else committed to the table): files of old versions "
        f"may be gone."
    )
    assert shop.readable() == ["1.0.1"]


def test_a_store_that_is_no_folder_finds_sizes_in_the_log(shop: Shop) -> None:
    shop.build(1.0, 2.0, 3.0)
    found = vacuum("spend", Store(str(shop.store.path)), None, keep=NOW, dry_run=True)
    assert found == vacuum("spend", shop.store, None, keep=NOW, dry_run=True)
    assert found.bytes > 500


@pytest.mark.parametrize("keep", [-DAY, 40_000 * DAY])
def test_a_time_that_is_none_is_refused(keep: dt.timedelta, shop: Shop) -> None:
    shop.build(1.0, 2.0)
    with pytest.raises(RequestError, match="is no time to keep versions for: write 0 to 36500 days"):
        shop.vacuum(keep)


class Watched(LocalStore):
    """Tries to take the lock of a feature while its table is looked at."""

    def require(self, feature_name: str) -> Snapshot:
        with (self.path / f".{feature_name}.lock").open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return super().require(feature_name)


def test_nobody_builds_during_a_vacuum(shop: Shop) -> None:
    shop.build(1.0, 2.0)
    assert vacuum("spend", Watched(shop.store.path), None, keep=NOW).files == 1
