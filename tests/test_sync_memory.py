"""A sync in bounded memory, which works part by part, leaves and says exactly what one that does all at once does."""

import datetime as dt
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from deltalake import DeltaTable

import mlforge as mlf
from accounting_store import AccountingStore
from mlforge import Definitions, StoreError, shards
from mlforge.online import OnlineStore, RedisStore
from mlforge.online.base import Part, Published
from mlforge.online.keys import lock_key, status_key
from mlforge.online.turn import RedisTurn
from mlforge.shards import Shard
from mlforge.store import LocalStore
from mlforge.sync import SyncReport, SyncRequest, sync
from mlforge.testing import MemoryStore
from proxy import Proxy
from servers import RedisServer

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
ENTITIES, MONTHS = 3_000, 4
MANY = 5
# A limit that is over from the beginning: parts are as small as they may be.
SMALL = 1

KINDS: dict[str, dict[str, Any]] = {
    "newest row": {"timestamp": "ts"},
    "rows that cease to hold": {"timestamp": "ts", "max_age": "40d"},
    "windows": {
        "timestamp": "ts",
        "interval": "1d",
        "metrics": [mlf.Rolling(windows=["50d"], aggregations={"amount": ["sum", "count"]})],
    },
    "snapshot": {},
}
CASES = [
    ("newest row", ["user"]),
    ("newest row", ["user", "name"]),
    ("rows that cease to hold", ["name", "user"]),
    ("windows", ["name"]),
    ("snapshot", ["user"]),
]


@dataclass
class Side:
    """One of two stores that are to hold the same."""

    store: RedisStore
    prefix: str
    memory_limit: int | None


class Crowd:
    """A feature of many entities, synced to one store without a limit and to another one with a very small one."""

    def __init__(self, folder: Path, server: RedisServer, prefix: str, kind: str, keys: list[str]) -> None:
        self.folder = folder
        self.kind = kind
        self.keys = keys
        self.client = redis.Redis(server.host, server.port, decode_responses=True)
        self.sides = [
            Side(RedisStore(server.host, server.port, prefix=f"{prefix}{name}"), f"{prefix}{name}", limit)
            for name, limit in (("whole", None), ("parts", SMALL))
        ]
        self.store = LocalStore(folder / "store")

    def close(self) -> None:
        for side in self.sides:
            # Else each test would have to look through what those before it have left.
            self.client.delete("none", *self.client.scan_iter(f"{side.prefix}:*", count=10_000))
            side.store.close()

    def build(self, rows: pl.DataFrame) -> None:
        rows.write_parquet(self.folder / "rows.parquet")

        @mlf.feature(keys=self.keys, source=self.folder / "rows.parquet", **KINDS[self.kind])
        def crowd(df: pl.LazyFrame) -> pl.LazyFrame:
            if self.kind == "snapshot":
                return df.sort("ts").unique(self.keys, keep="last").select(*self.keys, "amount", "note")
            return df.select(*self.keys, "ts", "amount", *([] if self.kind == "windows" else ["note"]))

        Definitions("crowd", features=[crowd], store=self.store).build()

    def sync(self, day: float, **options: Any) -> SyncReport:
        """Plans and does it on both sides; what they say and hold has to be the same."""
        planned = [self.run(side, day, dry_run=True, **options) for side in self.sides]
        assert said(planned[0]) == said(planned[1])
        done = [self.run(side, day, **options) for side in self.sides]
        assert said(done[0]) == said(done[1])
        whole, parts = map(self.held, self.sides)
        assert whole == parts
        assert len(whole) == self.status(self.sides[1])["rows"] == done[1].written + done[1].unchanged
        assert self.status(self.sides[0]) == self.status(self.sides[1])
        return done[1]

    def run(self, side: Side, day: float, **options: Any) -> SyncReport:
        request = SyncRequest(feature_name="crowd", as_of=START + day * DAY, memory_limit=side.memory_limit, **options)
        return sync(request, self.store, side.store)

    def held(self, side: Side) -> dict[str, str]:
        """All values by what stands behind the prefix."""
        keys = sorted(set(self.client.scan_iter(f"{side.prefix}:*", count=10_000)) - {status_key(side.prefix, "crowd")})
        assert lock_key(side.prefix, "crowd") not in keys
        return dict(
            zip((key.removeprefix(side.prefix) for key in keys), self.client.mget(keys) if keys else [], strict=True)
        )

    def status(self, side: Side) -> dict[str, Any]:
        """The status but for who wrote it when."""
        status = side.store.status("crowd")
        assert status is not None
        assert status.finished_at is not None
        own: dict[str, Any] = {"token": "", "started_at": START, "finished_at": START}
        return asdict(replace(status, **own))

    def each(self, do: Callable[[Side], object]) -> None:
        for side in self.sides:
            do(side)


def said(report: SyncReport) -> dict[str, Any]:
    """A report but for how long it took, and the bytes, which have a few more words where there are more commands."""
    return asdict(replace(report, seconds=0.0, bytes=0))


def rows(users: range, months: range, amount: Callable[[pl.Expr], pl.Expr] = lambda amount: amount) -> pl.DataFrame:
    """A row an entity and month, on a day of its own."""
    user = pl.DataFrame({"user": users}, schema={"user": pl.Int64})
    frame = user.join(pl.DataFrame({"month": months}, schema={"month": pl.Int64}), how="cross")
    times = pl.lit(START).dt.offset_by(pl.format("{}mo", "month")) + pl.duration(hours=pl.col("user") % 650)
    return frame.select(
        "user",
        pl.format("name {}", pl.col("user") % 37 + pl.col("user") // 37 * 100).alias("name"),
        times.cast(pl.Datetime("us", "UTC")).alias("ts"),
        amount((pl.col("user") % 11 + pl.col("month")).cast(pl.Float64)).alias("amount"),
        pl.format("note {} é", "month").alias("note"),
    )


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """What has been written part by part; parts are small enough for there to be many."""
    found: list[Part] = []

    def noted(turn: RedisTurn, *arguments: Any, put: Any = RedisTurn._put) -> Published:
        found.append(arguments[1])
        published: Published = put(turn, *arguments)
        return published

    monkeypatch.setattr(shards, "LEAST_BYTES", 60_000)
    monkeypatch.setattr(shards, "SAMPLE", 4)
    monkeypatch.setattr(RedisTurn, "_put", noted)
    return found


@pytest.fixture
def crowds(tmp_path: Path, redis_server: RedisServer, redis_prefix: str) -> Iterator[Callable[..., Crowd]]:
    made: list[Crowd] = []

    def make(kind: str, keys: list[str]) -> Crowd:
        made.append(Crowd(tmp_path, redis_server, redis_prefix, kind, keys))
        return made[-1]

    yield make
    for crowd in made:
        crowd.close()


@pytest.mark.parametrize(("kind", "keys"), CASES, ids=str)
def test_with_a_limit_what_is_held_and_said_is_the_same(
    kind: str, keys: list[str], crowds: Callable[..., Crowd], parts: list[Part]
) -> None:
    crowd = crowds(kind, keys)
    timed = kind != "snapshot"
    old = rows(range(ENTITIES), range(MONTHS))
    crowd.build(old)

    first = crowd.sync(70)
    assert (first.mode, first.written) == ("full", ENTITIES)
    assert len(parts) > MANY, "one on the one side, and many on the other"
    assert 0 < min(part.rows.height for part in parts) < ENTITIES / 5

    moved = crowd.sync(100)
    assert moved.mode == ("difference" if timed else "unchanged")
    assert (moved.written > ENTITIES / 2) == timed

    # Some entities go, some come, some have other values, and most stay as they are, throughout the history.
    new = pl.concat(
        [
            rows(range(100, 2_800), range(MONTHS)),
            rows(range(2_800, 2_900), range(MONTHS), lambda amount: amount + 0.5),
            rows(range(ENTITIES, ENTITIES + 300), range(MONTHS)),
        ]
    )
    crowd.build(new)
    parts.clear()
    changed = crowd.sync(100)
    assert changed.mode == "difference"
    assert changed.written >= 400
    assert changed.deleted >= 200 - 200 * (kind == "rows that cease to hold")
    assert len(parts) > MANY

    # Only in the newest month: few of all rows.
    crowd.build(pl.concat([new, rows(range(800, 1_200), range(MONTHS, MONTHS + 1))]))
    assert crowd.sync(160).mode == "difference"
    assert crowd.sync(160).mode == "unchanged"

    # Only some entities may differ, which are told by their keys.
    crowd.build(pl.concat([new, rows(range(800, 1_200), range(MONTHS, MONTHS + 2))]))
    parts.clear()
    assert crowd.sync(185).written >= 400
    assert len(parts) > 2

    crowd.build(new.filter(pl.col("user") % 3 > 0))
    full = crowd.sync(190, full=True)
    assert (full.mode, full.reason) == ("full", "asked for")
    assert full.deleted > 0

    crowd.build(old)
    crowd.each(lambda side: crowd.client.delete(status_key(side.prefix, "crowd")))
    crowd.each(lambda side: side.store.write("crowd", dict.fromkeys(keys, "by hand"), {"amount": 1.0}))
    crowd.each(lambda side: crowd.client.delete(status_key(side.prefix, "crowd")))
    lost = crowd.sync(100)
    assert (lost.mode, lost.reason, lost.written) == ("full", "nothing says what is there", ENTITIES)
    # Of those that came, two in three were still there, if any were.
    assert lost.deleted == 1 + (0 if kind == "rows that cease to hold" else 200)
    assert crowd.sync(100).mode == "unchanged"


def test_a_key_that_is_text_now_and_was_a_number_is_the_same_entity(
    crowds: Callable[..., Crowd], parts: list[Part]
) -> None:
    crowd = crowds("newest row", ["user"])
    crowd.build(rows(range(ENTITIES), range(2)))
    crowd.sync(100)
    crowd.build(rows(range(500, ENTITIES + 200), range(2)).with_columns(pl.col("user").cast(pl.String)))
    parts.clear()
    report = crowd.sync(100, allow_breaking=True)
    assert (report.mode, report.written, report.deleted) == ("full", ENTITIES - 300, 500)
    assert len(parts) > MANY


def test_entities_of_other_key_columns_go(crowds: Callable[..., Crowd], parts: list[Part]) -> None:
    crowd = crowds("newest row", ["user"])
    crowd.build(rows(range(ENTITIES), range(2)))
    crowd.sync(100)
    crowd.keys = ["name", "user"]
    crowd.build(rows(range(ENTITIES), range(2)))
    report = crowd.sync(100, allow_breaking=True)
    assert (report.mode, report.written, report.deleted) == ("full", ENTITIES, ENTITIES)
    crowd.keys = ["user", "name"]
    crowd.build(rows(range(ENTITIES), range(2)))
    assert crowd.sync(100, allow_breaking=True).deleted == 0


def test_all_entities_may_go_and_come(crowds: Callable[..., Crowd], parts: list[Part]) -> None:
    crowd = crowds("newest row", ["user"])
    crowd.build(rows(range(ENTITIES), range(2)))
    assert crowd.sync(-1).written == 0
    assert crowd.sync(100).written == ENTITIES
    assert crowd.sync(-1, force=True).deleted == ENTITIES
    crowd.each(lambda side: crowd.client.delete(status_key(side.prefix, "crowd")))
    assert crowd.sync(-1, force=True).mode == "full"


@pytest.mark.parametrize("make", [MemoryStore, AccountingStore])
def test_stores_that_know_nothing_of_parts_hold_the_same(
    make: type[MemoryStore], crowds: Callable[..., Crowd], parts: list[Part]
) -> None:
    crowd = crowds("newest row", ["user", "name"])
    both: list[tuple[OnlineStore, int | None]] = [(make(), None), (make(), SMALL)]

    def synced(day: float, **options: Any) -> SyncReport:
        found = []
        for store, limit in both:
            request = SyncRequest(feature_name="crowd", as_of=START + day * DAY, memory_limit=limit, **options)
            found.append((sync(replace(request, dry_run=True), crowd.store, store), sync(request, crowd.store, store)))
        assert [*map(said, found[0])] == [*map(said, found[1])]
        assert both[0][0].__dict__["_values"] == both[1][0].__dict__["_values"]
        return found[1][1]

    crowd.build(rows(range(ENTITIES), range(MONTHS)))
    assert synced(70).written == ENTITIES
    assert synced(100).written > ENTITIES / 2
    crowd.build(rows(range(100, ENTITIES + 100), range(MONTHS)))
    gone = synced(100)
    whole, parts_of_it = (store.status("crowd") for store, _ in both)
    if whole is not None:
        assert parts_of_it is not None
        assert whole.rows == parts_of_it.rows == ENTITIES
    assert (gone.deleted, gone.mode) == ((100, "difference") if make is AccountingStore else (0, "full"))


def test_what_cannot_be_read_is_known_before_anything_is_written(
    crowds: Callable[..., Crowd], parts: list[Part]
) -> None:
    crowd = crowds("newest row", ["user"])
    crowd.build(rows(range(ENTITIES), range(2)))
    crowd.sync(100)
    before = [crowd.store.open("crowd")]
    crowd.build(rows(range(100, ENTITIES + 100), range(2)))
    assert before[0] is not None
    for path in DeltaTable(str(crowd.folder / "store/crowd"), version=0).file_uris():
        Path(path).unlink()
    report = crowd.sync(100)
    assert (report.mode, report.written, report.deleted) == ("full", ENTITIES, 100)
    assert report.reason == "version 1.0.0 cannot be compared with any more"
    for path in DeltaTable(str(crowd.folder / "store/crowd")).file_uris():
        Path(path).unlink()
    for side in crowd.sides:
        with pytest.raises(StoreError, match="cannot be read"):
            crowd.run(side, 100, full=True)
        status = side.store.status("crowd")
        assert status is not None
        assert status.state == "complete"


def test_a_part_that_cannot_be_made_leaves_it_unfinished_and_the_next_sync_mends_it(
    crowds: Callable[..., Crowd], parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = crowds("newest row", ["user"])
    crowd.build(rows(range(ENTITIES), range(2)))
    crowd.sync(25)
    limited = crowd.sides[1]
    unbroken = Shard.holds
    with monkeypatch.context() as patched:

        def broken(shard: Shard, keys: Any) -> pl.Expr | None:
            if shard.number == 3:
                raise StoreError("lost")
            return unbroken(shard, keys)

        patched.setattr(Shard, "holds", broken)
        parts.clear()
        with pytest.raises(StoreError, match="lost"):
            crowd.run(limited, 100, full=True)
    assert len(parts) == 3
    status = limited.store.status("crowd")
    assert status is not None
    assert status.state == "writing"
    assert crowd.run(limited, 100).reason == "the last sync did not finish"
    crowd.run(crowd.sides[0], 100)
    assert crowd.held(limited) == crowd.held(crowd.sides[0])


def test_a_connection_that_is_lost_on_the_way_is_a_sync_that_begins_again(
    crowds: Callable[..., Crowd], parts: list[Part], redis_server: RedisServer
) -> None:
    crowd = crowds("newest row", ["user"])
    crowd.build(rows(range(ENTITIES), range(2)))
    crowd.sync(25)
    limited = crowd.sides[1]
    with (
        Proxy(server=redis_server, after=150_000, cut=True, connections=9) as proxy,
        RedisStore(proxy.host, proxy.port, prefix=limited.prefix, lock_seconds=1) as store,
    ):
        report = crowd.run(replace(limited, store=store), 100)
    assert (report.mode, report.reason, report.written) == ("full", "the last sync did not finish", ENTITIES)
    crowd.run(crowd.sides[0], 100)
    assert crowd.held(limited) == crowd.held(crowd.sides[0])
    assert crowd.status(limited) == crowd.status(crowd.sides[0])


def test_a_lock_is_kept_while_a_part_is_made(
    crowds: Callable[..., Crowd], parts: list[Part], monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer
) -> None:
    crowd = crowds("newest row", ["user"])
    crowd.build(rows(range(ENTITIES), range(2)))
    unbroken = Shard.holds

    def slow(shard: Shard, keys: Any) -> pl.Expr | None:
        time.sleep(0.8 if shard.number == 2 else 0)
        return unbroken(shard, keys)

    monkeypatch.setattr(Shard, "holds", slow)
    where: dict[str, Any] = {"lock_seconds": 0.4, "retry_seconds": 0, "prefix": crowd.sides[1].prefix}
    with RedisStore(redis_server.host, redis_server.port, **where) as store:
        assert crowd.run(replace(crowd.sides[1], store=store), 100).written == ENTITIES
    assert len(parts) > MANY - 1


def test_entities_are_in_exactly_one_shard_whatever_the_dtype_and_order_of_their_keys() -> None:
    numbers = pl.DataFrame({"a": range(1_000), "b": [f"b{n}" for n in range(1_000)]})
    texts = numbers.select(pl.col("b").cast(pl.Categorical), pl.col("a").cast(pl.String))
    seen = []
    for number in range(7):
        shard = Shard(number=number, of=7)
        mine, theirs = (frame.filter(shard.holds(frame.schema)) for frame in (numbers, texts))
        assert mine["a"].cast(pl.String).to_list() == theirs["a"].to_list()
        assert 80 < mine.height < 220
        seen += mine["a"].to_list()
    assert sorted(seen) == list(range(1_000))
    assert Shard().holds(numbers.schema) is None


def test_without_a_limit_and_with_a_large_one_there_is_one_part(
    crowds: Callable[..., Crowd], parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = crowds("newest row", ["user"])
    crowd.sides[1].memory_limit = 2 * 10**9
    crowd.build(rows(range(ENTITIES), range(MONTHS)))
    for day in (70, 100):
        parts.clear()
        crowd.sync(day)
        assert len(parts) == 2
    crowd.build(rows(range(5, ENTITIES), range(MONTHS)))
    parts.clear()
    crowd.sync(100)
    assert len(parts) == 2
