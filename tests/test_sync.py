"""A sync writes what differs, says why it writes more, and never goes backwards."""

import datetime as dt
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlforge as mlf
from mlforge import Definitions, RequestError, StoreError, UnavailableError
from mlforge.online import EmbeddedStore, OnlineStore, RedisStore
from mlforge.online.keys import lock_key, status_key
from mlforge.online.turn import RedisTurn
from mlforge.store import LocalStore
from mlforge.sync import SyncReport
from servers import RedisServer

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
USERS = ["ann", "bob", "cid"]


class Shop:
    """Events of users, a windowed feature over them, and what is online of it."""

    def __init__(self, folder: Path, online_store: OnlineStore, server: RedisServer, prefix: str) -> None:
        self.folder = folder
        self.online_store = online_store
        self.prefix = prefix
        self.client = redis.Redis(server.host, server.port, decode_responses=True)
        self.events({user: [float(day)] for day, user in enumerate(USERS)})

    def events(self, days: dict[str, list[float]]) -> None:
        """An event on every day given, counted from START."""
        rows = [{"user": user, "ts": START + day * DAY, "amount": day} for user, all_ in days.items() for day in all_]
        schema = {"user": pl.String, "ts": pl.Datetime("us", "UTC"), "amount": pl.Float64}
        pl.DataFrame(rows, schema=schema).write_parquet(self.folder / "events.parquet")

    def definitions(self, change: Callable[[pl.LazyFrame], pl.LazyFrame] = lambda rows: rows) -> Definitions:
        @mlf.feature(
            keys=["user"],
            source=self.folder / "events.parquet",
            timestamp="ts",
            interval="1d",
            metrics=[mlf.Rolling(windows=["3d"], aggregations={"amount": ["sum", "count"]})],
        )
        def spend(df: pl.LazyFrame) -> pl.LazyFrame:
            return change(df.select("user", "ts", "amount"))

        store = LocalStore(self.folder / "store")
        return Definitions("shop", features=[spend], store=store, online_store=self.online_store)

    def sync(self, day: float | None, **options: Any) -> SyncReport:
        as_of = None if day is None else START + day * DAY
        (report,) = self.definitions().build(online=True, as_of=as_of, **options)
        assert report.online is not None
        return report.online

    def agrees(self) -> bool:
        """Whether `verify` finds no difference."""
        (report,) = self.definitions().verify()
        return report.agrees

    def values(self) -> dict[str, Any]:
        """All that is in the server under the prefix but the status's own times and token."""
        keys = [key for key in self.client.keys(f"{self.prefix}:*") if self.client.type(key) == "string"]
        return {key: self.client.get(key) for key in keys}

    def commands(self, name: str) -> int:
        """How often the server has been asked for a command."""
        return int(self.client.info("commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"])


@pytest.fixture
def shop(tmp_path: Path, redis_store: RedisStore, redis_server: RedisServer, redis_prefix: str) -> Shop:
    return Shop(tmp_path, redis_store, redis_server, redis_prefix)


def numbers(report: SyncReport) -> tuple[str, int, int, int]:
    return report.mode, report.written, report.deleted, report.unchanged


def test_the_first_sync_writes_everything_and_says_why(shop: Shop) -> None:
    report = shop.sync(3)
    assert numbers(report) == ("full", 3, 0, 0)
    assert report.reason == "nothing says what is there"
    assert report.bytes > 100
    assert report.seconds > 0
    assert shop.agrees()


def test_nothing_is_written_where_nothing_changes(shop: Shop) -> None:
    shop.sync(5)
    sets, before = shop.commands("mset"), shop.values()
    report = shop.sync(5.5)
    assert numbers(report) == ("unchanged", 0, 0, 3)
    assert (report.bytes, report.reason) == (0, "")
    assert shop.commands("mset") == sets
    assert shop.values() == before
    status = shop.online_store.status("spend")
    assert status is not None
    assert (status.as_of, status.state, status.rows) == (START + 5.5 * DAY, "complete", 3)
    assert shop.agrees()


def test_only_what_time_has_moved_is_written(shop: Shop) -> None:
    shop.sync(3.5)
    # At the beginning of day 4 the event of day 0 leaves the window; those of bob and cid stay.
    report = shop.sync(4)
    assert numbers(report) == ("difference", 1, 0, 2)
    assert shop.online_store.read("spend", {"user": "ann"}) == {"amount__sum__3d": 0.0, "amount__count__3d": 0}
    assert shop.agrees()


def test_only_what_new_data_has_changed_is_written(shop: Shop) -> None:
    shop.sync(5)
    shop.events({"ann": [0.0], "bob": [1.0, 4.0], "dan": [3.0]})
    report = shop.sync(5)
    assert numbers(report) == ("difference", 2, 1, 1)
    assert shop.agrees()
    status = shop.online_store.status("spend")
    assert status is not None
    assert (status.rows, status.version) == (3, "1.0.1")


def test_new_rows_with_the_same_values_are_not_written(shop: Shop) -> None:
    shop.sync(40)
    shop.events({user: [day, day + 10] for day, user in enumerate(USERS)})
    report = shop.sync(40)
    assert numbers(report) == ("unchanged", 0, 0, 3)
    assert shop.agrees()
    status = shop.online_store.status("spend")
    assert status is not None
    assert status.version == "1.0.1"


def test_full_writes_everything(shop: Shop) -> None:
    shop.sync(5)
    report = shop.sync(5, full=True)
    assert numbers(report) == ("full", 3, 0, 0)
    assert report.reason == "asked for"


def test_a_dry_run_says_what_would_be_done_and_does_nothing(shop: Shop) -> None:
    with pytest.raises(RequestError, match="'spend' has not been built"):
        shop.sync(3, dry_run=True)
    shop.definitions().build()
    first = shop.sync(3, dry_run=True)
    assert numbers(first) == ("full", 3, 0, 0)
    assert first.dry_run
    assert shop.client.keys(f"{shop.prefix}:*") == []
    shop.sync(3.5)
    shop.events({"ann": [0.0], "bob": [1.0, 4.0], "dan": [3.0]})
    before = shop.values(), shop.client.hgetall(status_key(shop.prefix, "spend"))
    assert numbers(shop.sync(4, dry_run=True)) == ("difference", 1, 0, 2), "the version that is built is what counts"
    assert numbers(shop.sync(3.6, dry_run=True)) == ("unchanged", 0, 0, 3)
    shop.definitions().build()
    planned = shop.sync(5, dry_run=True)
    lost = shop.sync(5, dry_run=True, full=True)
    assert (shop.values(), shop.client.hgetall(status_key(shop.prefix, "spend"))) == before
    done = shop.sync(5)
    assert numbers(planned) == numbers(done)
    assert (lost.mode, lost.written, lost.deleted) == ("full", 3, done.deleted)
    shop.client.delete(status_key(shop.prefix, "spend"))
    shop.events({"ann": [0.0]})
    shop.definitions().build()
    assert numbers(shop.sync(5, dry_run=True)) == ("full", 1, 2, 0)
    with pytest.raises(RequestError, match="online=True"):
        shop.definitions().build(dry_run=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda shop: shop.client.hset(status_key(shop.prefix, "spend"), "codec", "0"), "another format"),
        (lambda shop: shop.client.hset(status_key(shop.prefix, "spend"), "run_id", "x"), "started again"),
        (lambda shop: shop.client.hset(status_key(shop.prefix, "spend"), "evicted_keys", "9"), "evicted keys"),
        (lambda shop: shop.client.hset(status_key(shop.prefix, "spend"), "state", "writing"), "did not finish"),
        (lambda shop: shop.client.hset(status_key(shop.prefix, "spend"), "definition_hash", "x"), "definition has"),
        (lambda shop: shop.client.delete(status_key(shop.prefix, "spend")), "nothing says"),
        (lambda shop: shop.client.flushall(), "nothing says"),
        (lambda shop: shop.online_store.write("spend", {"user": "ann"}, {"x": 1}), "written by hand"),
        (lambda shop: shutil.rmtree(shop.folder / "store"), "made again"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_everything_is_written_where_what_is_there_cannot_be_relied_on(
    shop: Shop, change: Callable[[Shop], object], reason: str
) -> None:
    shop.sync(5)
    change(shop)
    report = shop.sync(5)
    assert (report.mode, report.written) == ("full", 3)
    assert reason in report.reason
    assert shop.agrees()
    assert shop.sync(5).mode == "unchanged"


@pytest.mark.parametrize("damage", [{"rows": b"x"}, {"token": b"\xff\xfe"}, {"location": b""}])
def test_a_status_that_is_damaged_is_refused_unless_forced(shop: Shop, damage: dict[str, bytes]) -> None:
    shop.sync(5)
    key = status_key(shop.prefix, "spend")
    shop.client.hset(key, mapping=damage)
    if "location" in damage:
        shop.client.hdel(key, "location")
    if "token" not in damage:
        with pytest.raises(StoreError, match="--force"):
            shop.sync(5)
    report = shop.sync(5, force=True, full=True)
    assert numbers(report) == ("full", 3, 0, 0)
    assert shop.agrees()


def test_another_time_to_live_writes_everything(shop: Shop, redis_server: RedisServer, redis_prefix: str) -> None:
    lasting = shop.online_store
    with RedisStore(redis_server.host, redis_server.port, prefix=redis_prefix, ttl=2) as passing:
        shop.online_store = passing
        assert shop.sync(5).mode == "full"
        shop.online_store = lasting
        report = shop.sync(5)
        assert (report.mode, report.reason) == ("full", "the values expire")
        assert shop.client.ttl(next(iter(shop.values()))) == -1
        assert shop.sync(5).mode == "unchanged"


def test_values_that_have_expired_are_said_to(shop: Shop, redis_server: RedisServer, redis_prefix: str) -> None:
    with RedisStore(redis_server.host, redis_server.port, prefix=redis_prefix, ttl=1) as shop.online_store:
        shop.sync(5)
        (fresh,) = shop.definitions().status()
        while shop.values():
            time.sleep(0.05)
        (report,) = shop.definitions().verify()
        (over,) = shop.definitions().status()
    assert (report.missing, report.expired, report.agrees) == (0, 3, True)
    assert (fresh.state, over.state) == ("complete", "expired")


def test_forcing_goes_back_to_now(shop: Shop) -> None:
    shop.sync(400_000)
    assert shop.sync(None).as_of == START + 400_000 * DAY
    report = shop.sync(None, force=True)
    assert abs(report.as_of - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    assert shop.agrees()


def test_a_server_that_was_started_again_is_written_in_full(tmp_path: Path) -> None:
    with RedisServer() as server, RedisStore(server.host, server.port) as store:
        shop = Shop(tmp_path, store, server, "mlforge")
        shop.sync(5)
        raw = redis.Redis(server.host, server.port)
        kept = [(key, raw.dump(key)) for key in raw.scan_iter()]
        server.kill()
        server.start()
        for key, dump in kept:
            raw.restore(key, 0, dump)
        report = shop.sync(5)
        assert (report.mode, report.reason) == ("full", "the server was started again, or is another one")
        assert shop.agrees()


def test_an_embedded_store_is_synced_by_difference_in_the_next_process_too(tmp_path: Path, shop: Shop) -> None:
    for day, mode in ((3.5, "full"), (4, "difference"), (4.5, "unchanged")):
        with EmbeddedStore(tmp_path / "online") as shop.online_store:
            assert shop.sync(day).mode == mode
            assert shop.agrees()


def test_a_store_with_a_ttl_is_written_in_full_each_time(shop: Shop, redis_server: RedisServer) -> None:
    with RedisStore(redis_server.host, redis_server.port, prefix=shop.prefix, ttl=100) as shop.online_store:
        assert shop.sync(5).mode == "full"
        (key,) = [key for key in shop.values() if key.count(":") == 2][:1]
        shop.client.expire(key, 10)
        report = shop.sync(5)
        assert (report.mode, report.reason) == ("full", "the values expire")
        assert shop.client.ttl(key) > 90


def test_an_older_instant_is_refused_unless_forced(shop: Shop) -> None:
    shop.sync(5)
    before = shop.values()
    report = shop.sync(4)
    assert numbers(report) == ("stale", 0, 0, 0)
    assert "holds at 2026-01-06" in report.reason
    assert (report.as_of, shop.values()) == (START + 5 * DAY, before)
    assert numbers(shop.sync(4, force=True)) == ("difference", 1, 0, 2)
    assert shop.agrees()


def test_without_an_instant_time_never_goes_back(shop: Shop) -> None:
    future = dt.datetime.now(dt.UTC) + 10 * DAY
    (report,) = shop.definitions().build(online=True, as_of=future)
    report = shop.sync(None)
    assert (report.mode, report.as_of) == ("unchanged", future)


def test_an_older_version_is_refused_unless_forced(shop: Shop) -> None:
    shop.sync(5)
    shutil.copytree(shop.folder / "store", shop.folder / "older")
    shutil.copy2(shop.folder / "events.parquet", shop.folder / "older.parquet")
    shop.events({"ann": [4.0]})
    shop.sync(5)
    shutil.rmtree(shop.folder / "store")
    shutil.copytree(shop.folder / "older", shop.folder / "store")
    shutil.copy2(shop.folder / "older.parquet", shop.folder / "events.parquet")
    report = shop.sync(5)
    assert (report.mode, report.version) == ("stale", "1.0.1")
    assert "version 1.0.1 is online, which is later than 1.0.0" in report.reason
    report = shop.sync(5, force=True)
    assert (report.version, report.written, report.reason) == (
        "1.0.0",
        3,
        "version 1.0.1 cannot be compared with any more",
    )
    assert shop.agrees()


def test_a_version_that_was_given_to_other_rows_as_well_is_not_taken_for_the_same(shop: Shop) -> None:
    shop.sync(5)
    shutil.copytree(shop.folder / "store", shop.folder / "older")
    shop.events({"ann": [4.0]})
    assert shop.sync(5).version == "1.0.1"
    shutil.rmtree(shop.folder / "store")
    shutil.copytree(shop.folder / "older", shop.folder / "store")
    shop.events({"bob": [4.0], "cid": [3.0]})
    report = shop.sync(5)
    assert (report.version, report.written, report.deleted) == ("1.0.1", 2, 1)
    assert report.reason == "version 1.0.1 has been made again with other rows"
    assert shop.agrees()


def test_another_project_is_not_verified(shop: Shop) -> None:
    shop.sync(5)
    shop.client.hset(status_key(shop.prefix, "spend"), "location", "/elsewhere")
    with pytest.raises(RequestError, match="is online from '/elsewhere'"):
        shop.agrees()


@pytest.mark.parametrize("value", ['{"amount__sum__3d":3,"amount__count__3d":1}', "true"])
def test_numbers_of_another_type_are_different(shop: Shop, value: str) -> None:
    shop.events({"ann": [3.0]})
    shop.sync(5)
    (key,) = shop.values()
    shop.client.set(key, value)
    (report,) = shop.definitions().verify()
    assert (report.missing, report.extra, report.different) == (0, 0, 1)


def test_another_major_version_goes_online_only_where_that_is_allowed(shop: Shop) -> None:
    shop.sync(5)
    before = shop.values()
    change = shop.definitions(lambda rows: rows.with_columns(pl.col("amount").cast(pl.Int64)))
    for _ in range(2):
        with pytest.raises(
            RequestError, match=r"2\.0\.0 cannot stand in for 1\.0\.0, .*'amount__sum__3d' is Int64, was Float64"
        ) as caught:
            change.build(online=True, as_of=START + 5 * DAY)
        assert "is built offline as 2.0.0" in " ".join(caught.value.__notes__)
    assert shop.values() == before
    (report,) = change.build(online=True, as_of=START + 5 * DAY, allow_breaking=True)
    assert report.online is not None
    assert (report.online.mode, report.online.version) == ("full", "2.0.0")


def test_a_table_that_was_made_again_without_a_column_is_as_breaking(shop: Shop) -> None:
    shop.sync(5)
    shutil.rmtree(shop.folder / "store")
    change = shop.definitions(lambda rows: rows.with_columns(pl.col("amount").cast(pl.Int64)))
    with pytest.raises(RequestError, match="'amount__sum__3d' is Int64, was Float64"):
        change.build(online=True, as_of=START + 5 * DAY)
    assert shop.sync(5).reason == "the table was made again"


@pytest.mark.parametrize("option", ["full", "allow_breaking", "dry_run"])
def test_what_is_about_online_needs_online(shop: Shop, option: str) -> None:
    with pytest.raises(RequestError, match=f"{option} is about what goes online"):
        shop.definitions().build(**{option: True})


def test_backfilling_old_events_does_not_take_values_back(shop: Shop) -> None:
    shop.events({"ann": [10.0], "bob": [1.0]})
    shop.sync(11)
    held = shop.online_store.read("spend", {"user": "ann"})
    shop.events({"ann": [2.0, 10.0], "bob": [1.0]})
    report = shop.sync(11)
    assert numbers(report) == ("unchanged", 0, 0, 2)
    assert shop.online_store.read("spend", {"user": "ann"}) == held


def test_another_sync_waits_for_its_turn(shop: Shop, redis_server: RedisServer) -> None:
    shop.sync(3.5)
    where = {"host": redis_server.host, "port": redis_server.port, "prefix": shop.prefix}
    with RedisStore(**where) as first, RedisStore(**where, lock_wait=0.1) as hasty:
        with first.turn("spend"):
            assert shop.client.get(lock_key(shop.prefix, "spend")) is not None
            direct, shop.online_store = shop.online_store, hasty
            with pytest.raises(UnavailableError, match=r"is held by .*, whose sync has not ended within 0\.1 s"):
                shop.sync(4)
            shop.online_store = direct
            waiting = threading.Thread(target=shop.sync, args=(4,))
            waiting.start()
            time.sleep(0.3)
            assert waiting.is_alive()
            with first.turn("other"):
                pass
        waiting.join(10)
        assert not waiting.is_alive()
    assert shop.agrees()
    assert shop.client.get(lock_key(shop.prefix, "spend")) is None


def test_a_lock_is_kept_for_as_long_as_its_holder_works(shop: Shop, redis_server: RedisServer) -> None:
    with (
        RedisStore(redis_server.host, redis_server.port, prefix=shop.prefix, lock_seconds=0.3) as store,
        store.turn("spend"),
    ):
        token = shop.client.get(lock_key(shop.prefix, "spend"))
        time.sleep(1)
        assert shop.client.get(lock_key(shop.prefix, "spend")) == token


def test_a_lock_is_kept_while_it_is_found_out_what_goes(
    shop: Shop, redis_server: RedisServer, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(turn: RedisTurn, entities: pl.DataFrame, key: Any = RedisTurn._redis_key) -> pl.Expr:
        time.sleep(0.8)
        expression: pl.Expr = key(turn, entities)
        return expression

    where: dict[str, Any] = {"lock_seconds": 0.5, "retry_seconds": 0, "prefix": redis_prefix}
    with RedisStore(redis_server.host, redis_server.port, **where) as shop.online_store:
        shop.sync(5)
        shop.events({"ann": [0.0], "dan": [1.0]})
        monkeypatch.setattr(RedisTurn, "_redis_key", slowly)
        assert numbers(shop.sync(5)) == ("difference", 1, 2, 1)


def test_a_lock_whose_holder_has_gone_away_is_free_when_it_expires(shop: Shop, redis_server: RedisServer) -> None:
    shop.client.set(lock_key(shop.prefix, "spend"), "gone:1:x", px=400)
    began = time.monotonic()
    assert shop.sync(5).mode == "full"
    assert 0.3 < time.monotonic() - began < 5


def test_a_writer_whose_lock_was_taken_writes_nothing_more(shop: Shop) -> None:
    shop.sync(5)
    status = shop.online_store.status("spend")
    assert status is not None
    rows = pl.DataFrame({"user": ["ann"], "amount__sum__3d": [9.0], "amount__count__3d": [9]})
    before = shop.values()
    with shop.online_store.turn("spend") as turn:
        shop.client.set(lock_key(shop.prefix, "spend"), "another:1:x")
        with pytest.raises(UnavailableError, match="is no longer ours"):
            turn.publish(rows, rows[:0].select("user"), status)
    shop.client.delete(lock_key(shop.prefix, "spend"))
    assert shop.values() == before
    assert shop.agrees()


def test_a_turn_that_only_looks_locks_nothing_and_cannot_write(shop: Shop) -> None:
    shop.sync(5)
    status = shop.online_store.status("spend")
    assert status is not None
    with shop.online_store.turn("spend", writing=False) as turn:
        assert turn.status == status
        assert shop.client.get(lock_key(shop.prefix, "spend")) is None
        with pytest.raises(RequestError, match="only looks"):
            turn.confirm(status)


KINDS: dict[str, dict[str, Any]] = {
    "windowed": {
        "timestamp": "ts",
        "interval": "1d",
        "metrics": [mlf.Rolling(windows=["2d"], aggregations={"amount": ["sum", "last"]})],
    },
    "without an interval": {
        "timestamp": "ts",
        "metrics": [mlf.Rolling(windows=["36h"], aggregations={"amount": ["count"]})],
    },
    "timestamped": {"timestamp": "ts"},
    "snapshot": {},
}
EVENTS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 120), st.sampled_from([0.0, 1.5, None])), min_size=1, max_size=12
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(st.tuples(EVENTS, st.integers(0, 140)), min_size=2, max_size=4))
def test_any_history_of_syncs_leaves_what_a_full_one_would(
    kind: str, rounds: list[tuple[list[tuple[int, int, float | None]], int]], shop: Shop
) -> None:
    """Random data and instants, forwards and (forced) backwards; hours count from START and cross months."""
    shop.client.delete(*(shop.client.keys(f"{shop.prefix}:*") or ["none"]))
    shutil.rmtree(shop.folder / "store", ignore_errors=True)

    @mlf.feature(keys=["user"], source=shop.folder / "random.parquet", **KINDS[kind])
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        rows = df.unique("user", maintain_order=True) if kind == "snapshot" else df
        return rows.select(*(["user"] if kind == "snapshot" else ["user", "ts"]), "amount")

    store = LocalStore(shop.folder / "store")
    project = Definitions("shop", features=[spend], store=store, online_store=shop.online_store)
    modes = []
    for events, hour in rounds:
        schema = {"user": pl.Int64, "hour": pl.Int64, "amount": pl.Float64}
        frame = pl.DataFrame(events, schema=schema, orient="row")
        times = pl.lit(START - 2 * DAY) + pl.duration(hours="hour")
        frame.with_columns(ts=times.cast(pl.Datetime("us", "UTC"))).write_parquet(shop.folder / "random.parquet")
        at = START - 2 * DAY + dt.timedelta(hours=hour)
        (report,) = project.build(online=True, as_of=at, force=True)
        assert report.online is not None
        modes.append(report.online.mode)
        by_difference = shop.values()
        (check,) = project.verify()
        assert check.agrees, check
        project.build(online=True, as_of=at, force=True, full=True)
        assert shop.values() == by_difference
    assert modes[0] == "full"
    assert "full" not in modes[1:]
