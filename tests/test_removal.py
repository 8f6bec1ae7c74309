"""After a build exactly the entities of its frame are online, whatever was there before."""

import datetime as dt
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from deltalake import CommitProperties, DeltaTable

import mlforge as mlf
from mlforge import Definitions, RequestError, StoreError, UnavailableError
from mlforge.online import OnlineStore, RedisStore
from mlforge.online.keys import entity_key_hash, status_key
from mlforge.store import LocalStore
from mlforge.sync import SyncReport
from publishing import publish
from servers import Proxy, RedisServer

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
END = START + dt.timedelta(days=100)
LATER = START + dt.timedelta(days=5_000)
USERS = ["ann", "bob", "cid"]
BACK = {"force": True}
BREAKING = {"allow_breaking": True}


class Shop:
    """A source of one event a user, on days 0, 1, 2 and so on, and a feature over it."""

    def __init__(self, folder: Path, online_store: OnlineStore, server: RedisServer, prefix: str) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.online_store = online_store
        self.prefix = prefix
        self.client = redis.Redis(server.host, server.port, decode_responses=True)

    def source(self, users: list[Any]) -> None:
        days = [START + dt.timedelta(days=day) for day in range(len(users))]
        frame = pl.DataFrame({"user": users, "shop": ["s"] * len(users), "ts": days, "amount": [1.5] * len(users)})
        frame.write_parquet(self.folder / "events.parquet")

    def definitions(self, keys: list[str] | None = None, name: str = "spend", factor: float = 1.0) -> Definitions:
        chosen = keys or ["user"]

        @mlf.feature(name=name, keys=chosen, source=self.folder / "events.parquet", timestamp="ts")
        def feature(df: pl.LazyFrame) -> pl.LazyFrame:
            return df.select(*chosen, "ts", amount=pl.col("amount") * factor)

        store = LocalStore(self.store)
        return Definitions("shop", features=[feature], store=store, online_store=self.online_store)

    def build(
        self,
        users: list[Any] | None = None,
        *,
        as_of: dt.datetime = END,
        keys: list[str] | None = None,
        options: dict[str, bool] | None = None,
        **other: Any,
    ) -> SyncReport:
        if users is not None:
            self.source(users)
        (report,) = self.definitions(keys, **other).build(online=True, as_of=as_of, **(options or {}))
        assert report.online is not None
        return report.online

    def keys(self, feature_name: str = "spend") -> set[str]:
        """What stands behind the feature's name in all keys but the status and the lock."""
        start = f"{self.prefix}:{feature_name}:"
        return {str(key).removeprefix(start) for key in self.client.keys(f"{start}*")} - {"status", "lock"}

    def scans(self) -> int:
        """How many SCANs the server has seen."""
        return int(self.client.info("commandstats")["cmdstat_scan"]["calls"])


def hashes(users: list[Any]) -> set[str]:
    return {entity_key_hash({"user": user}) for user in users}


@pytest.fixture
def shop(tmp_path: Path, redis_store: RedisStore, redis_server: RedisServer, redis_prefix: str) -> Shop:
    return Shop(tmp_path, redis_store, redis_server, redis_prefix)


def state(shop: Shop) -> str:
    status = shop.online_store.status("spend")
    assert status is not None
    return status.state


def test_an_entity_whose_rows_left_the_source_goes(shop: Shop) -> None:
    first = shop.build(USERS)
    assert (first.written, first.deleted) == (3, 0)
    scans = shop.scans()
    second = shop.build(["ann", "cid"])
    assert (second.mode, second.written, second.deleted, second.unchanged) == ("difference", 0, 1, 2)
    assert shop.keys() == hashes(["ann", "cid"])
    assert shop.online_store.read("spend", {"user": "bob"}) is None
    assert state(shop) == "complete"
    assert shop.build(["ann", "dan", "cid"]).deleted == 0
    assert shop.keys() == hashes(["ann", "dan", "cid"])
    assert shop.scans() == scans


def test_all_entities_may_go(shop: Shop) -> None:
    users = [f"u{number}" for number in range(1_234)]
    shop.build(users, as_of=LATER)
    assert shop.keys() == hashes(users)
    assert shop.build(as_of=START - dt.timedelta(days=1), options=BACK).deleted == 1_234
    assert shop.keys() == set()


def test_entities_that_an_older_instant_does_not_show_go_and_come_back(shop: Shop) -> None:
    shop.build(USERS)
    scans = shop.scans()
    assert shop.build(as_of=START + dt.timedelta(hours=1), options=BACK).deleted == 2
    assert shop.keys() == hashes(["ann"])
    later = shop.build(as_of=END)
    assert (later.written, later.deleted, later.unchanged) == (2, 0, 1)
    assert shop.keys() == hashes(USERS)
    assert shop.scans() == scans


@pytest.mark.parametrize("users", [USERS, [1, 2, 3]], ids=["text", "numbers"])
def test_what_an_unfinished_sync_may_have_left_goes_without_a_scan(shop: Shop, users: list[Any]) -> None:
    shop.build(users)
    shop.source(users[:2])
    shop.definitions().build()
    shop.build()
    key = status_key(shop.prefix, "spend")
    before = f'[[0,"{shop.client.hget(key, "as_of")}"]]'
    shop.client.hset(key, mapping={"state": "writing", "earlier": before})
    scans = shop.scans()
    assert shop.build().reason == "the last sync did not finish"
    assert shop.keys() == hashes(users[:2])
    assert shop.scans() == scans


def test_what_was_online_is_told_from_its_own_version_and_instant(shop: Shop) -> None:
    shop.build(USERS, as_of=START + dt.timedelta(days=1))
    for users in (["bob", "eve"], ["eve", "fay"], ["fay"]):
        shop.source(users)
        shop.definitions().build()
    shop.build(["gus"])
    assert shop.keys() == hashes(["gus"])


def test_entities_of_other_key_columns_go(shop: Shop) -> None:
    shop.build(USERS)
    scans = shop.scans()
    assert shop.build(keys=["user", "shop"]).deleted == 3
    assert shop.keys() == {entity_key_hash({"user": user, "shop": "s"}) for user in USERS}
    assert shop.build(keys=["shop", "user"]).deleted == 0
    assert len(shop.keys()) == 3
    assert shop.build(options=BREAKING).deleted == 3
    assert shop.keys() == hashes(USERS)
    assert shop.scans() == scans


def test_entities_stay_when_only_the_dtype_of_their_key_changes(shop: Shop) -> None:
    shop.build([1, 2, 3])
    report = shop.build(["1", "3", "x"], options=BREAKING)
    assert (report.written, report.deleted) == (3, 1)
    assert shop.keys() == hashes(["1", "3", "x"])
    assert shop.build([3, 4], options=BREAKING).deleted == 2
    assert shop.keys() == hashes([3, 4])


def test_an_entity_that_went_is_null_in_a_frame_of_a_later_definition(shop: Shop) -> None:
    shop.build(USERS)
    shop.build(["ann"])
    defs = shop.definitions()
    defs.get_online_features(["spend"], [{"user": "bob"}])

    @mlf.feature(keys=["user"], source=shop.folder / "events.parquet", timestamp="ts")
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.select("user", "ts", total=pl.col("amount").cast(pl.String))

    changed = Definitions("shop", features=[spend], store=defs.store, online_store=shop.online_store)
    changed.build(online=True, as_of=END, allow_breaking=True)
    for project in (changed, defs):
        found = project.get_online_features(["spend"], [{"user": "bob"}, {"user": "ann"}])
        assert found.to_dicts() == [{"user": "bob", "total": None}, {"user": "ann", "total": "1.5"}]


def test_a_build_after_an_unfinished_one_leaves_exactly_its_entities(
    shop: Shop, redis_server: RedisServer, redis_prefix: str
) -> None:
    old = [f"old{number}" for number in range(3_000)]
    new = [f"new{number}" for number in range(3_000)]
    shop.build(old, as_of=LATER)
    direct = shop.online_store
    with (
        Proxy(server=redis_server, after=100_000, act=lambda: None, cut=True) as proxy,
        RedisStore(proxy.host, proxy.port, prefix=redis_prefix, retry_seconds=0, lock_seconds=1) as shop.online_store,
        pytest.raises(StoreError, match="cannot be reached"),
    ):
        shop.build(new, as_of=LATER)
    shop.online_store = direct
    assert state(shop) == "writing"
    assert hashes(old) < shop.keys() < hashes(old + new)
    report = shop.build(["ann", "new1"], as_of=LATER)
    assert report.written == 2
    assert report.deleted > 3_000
    assert shop.keys() == hashes(["ann", "new1"])
    assert state(shop) == "complete"


@pytest.mark.parametrize("built_before", [False, True])
def test_entities_written_by_hand_go(shop: Shop, built_before: bool) -> None:
    if built_before:
        shop.build(USERS)
    shop.online_store.write("spend", {"user": "zoe"}, {"amount": 9.0})
    shop.online_store.write_batch("spend", [{"user": "ann", "amount": 9.0}], ["user"])
    assert shop.build(USERS).deleted == 1
    assert shop.keys() == hashes(USERS)
    assert shop.online_store.read("spend", {"user": "ann"}) == {"amount": 1.5}
    assert state(shop) == "complete"


@pytest.mark.parametrize("damage", ["deleted", "damaged"])
def test_entities_go_where_the_status_says_nothing(shop: Shop, damage: str) -> None:
    shop.build(USERS)
    key = status_key(shop.prefix, "spend")
    if damage == "deleted":
        shop.client.delete(key)
    else:
        shop.client.hset(key, "delta_version", "x")
    scans = shop.scans()
    assert shop.build(["bob"], options={"force": damage == "damaged"}).deleted == 2
    assert shop.scans() > scans
    assert shop.keys() == hashes(["bob"])
    assert state(shop) == "complete"


def test_entities_of_a_table_that_was_deleted_and_made_again_go(shop: Shop) -> None:
    shop.build(["x"])
    shop.build(USERS)
    shutil.rmtree(shop.store)
    # Its version 1 is another one.
    for users in (["x"], ["bob"]):
        shop.source(users)
        shop.definitions().build()
    assert shop.build(["bob", "dan"]).deleted == 2
    assert shop.keys() == hashes(["bob", "dan"])


def test_entities_of_a_table_that_went_another_way_elsewhere_go(shop: Shop) -> None:
    shop.build(["x"])
    shutil.copytree(shop.store, shop.folder / "copy")
    shop.build(USERS)
    shop.store = shop.folder / "copy"
    shop.source(["bob"])
    shop.definitions().build()
    with pytest.raises(RequestError, match=r"'spend' is online from '.*/store/spend', not from '.*/copy/spend'"):
        shop.build(["bob", "dan"])
    report = shop.build(["bob", "dan"], options=BACK)
    assert (report.mode, report.reason, report.deleted) == ("full", "the table has moved", 2)
    assert shop.keys() == hashes(["bob", "dan"])


def test_entities_of_a_version_that_was_vacuumed_go(shop: Shop) -> None:
    shop.build(USERS)
    shop.source(["bob"])
    defs = shop.definitions()
    defs.build()
    DeltaTable(defs.store.table_uri("spend")).vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert shop.build().deleted == 2
    assert shop.keys() == hashes(["bob"])


def test_entities_of_a_version_whose_log_is_gone_go(shop: Shop) -> None:
    shop.build(USERS)
    shop.source(["bob"])
    defs = shop.definitions()
    defs.build()
    table = DeltaTable(defs.store.table_uri("spend"))
    table.create_checkpoint()
    (Path(defs.store.table_uri("spend")) / "_delta_log" / f"{0:020}.json").unlink()
    assert shop.build().deleted == 2
    assert shop.keys() == hashes(["bob"])


def test_a_write_by_hand_at_any_moment_of_a_sync_leaves_nothing_behind_unsaid(
    shop: Shop, redis_server: RedisServer
) -> None:
    direct, endings = shop.online_store, set()
    for after in range(100, 4_000, 150):
        shop.build(["ann"])
        with (
            Proxy(server=redis_server, after=after, act=lambda: direct.write("spend", {"user": "zoe"}, {})) as proxy,
            RedisStore(proxy.host, proxy.port, prefix=shop.prefix, retry_seconds=0) as shop.online_store,
        ):
            try:
                ending = shop.build(["bob"]).mode
            except UnavailableError:
                ending = "refused"
        shop.online_store = direct
        assert shop.keys() == hashes(["bob"]) if state(shop) == "complete" else state(shop) == "dirty"
        endings.add((ending, state(shop)))
    assert endings >= {("full", "complete"), ("difference", "complete"), ("refused", "dirty")}


def test_an_entity_that_is_published_is_never_taken_away(shop: Shop) -> None:
    shop.build(USERS)
    status = shop.online_store.status("spend")
    assert status is not None
    frame = pl.DataFrame({"user": USERS, "amount": [1.0, 2.0, 3.0]})
    vanished = pl.DataFrame({"user": [*USERS, None]})
    published = publish(shop.online_store, "spend", frame, status, vanished)
    assert (published.written, published.deleted) == (3, 0)
    assert shop.keys() == hashes(USERS)


@pytest.mark.parametrize("known", [True, False], ids=["known", "scanned"])
def test_keys_of_others_are_never_touched(shop: Shop, redis_server: RedisServer, known: bool) -> None:
    foreign = {
        f"{shop.prefix}:spend:{rest}"
        for rest in (
            "notahash",
            "0" * 31,
            "0" * 33,
            "0" * 32 + ":x",
            "x:" + "0" * 32,
            "G" * 32,
            "0" * 32 + "\n",
        )
    }
    foreign |= {f"{shop.prefix}:spend_x:{'0' * 32}", f"{shop.prefix}:spen:{'0' * 32}", f"{'0' * 32}"}
    foreign |= {f"x{shop.prefix}:spend:{'0' * 32}", f"{shop.prefix}:b:spend:{'0' * 32}"}
    for key in foreign:
        shop.client.set(key, "theirs")
    shop.build(USERS)
    shop.build(USERS, name="spend_x")
    others = [RedisStore(redis_server.host, redis_server.port, prefix=shop.prefix + end) for end in (":b", "b")]
    for other in others:
        with other:
            other.write("spend", {"user": "bob"}, {"amount": 1.0})
    if not known:
        shop.client.delete(status_key(shop.prefix, "spend"))
    assert shop.build(["ann"]).deleted == 2
    assert shop.client.exists(*foreign) == len(foreign) - 1
    assert shop.client.exists(f"{shop.prefix}:spend_x:{'0' * 32}") == 0
    assert shop.keys("spend_x") == hashes(USERS)
    assert hashes(["ann"]) < shop.keys()
    for other in others:
        with other:
            assert other.read("spend", {"user": "bob"}) == {"amount": 1.0}
    shop.client.delete(*foreign)


def test_entities_go_from_a_store_with_a_ttl(shop: Shop, redis_server: RedisServer) -> None:
    with RedisStore(redis_server.host, redis_server.port, ttl=1_000, prefix=shop.prefix) as shop.online_store:
        shop.build(USERS)
        shop.client.delete(f"{shop.prefix}:spend:{entity_key_hash({'user': 'cid'})}")
        # cid has expired by itself.
        assert shop.build(["ann"]).deleted == 1
        assert shop.keys() == hashes(["ann"])
        shop.client.delete(status_key(shop.prefix, "spend"))
        assert shop.build(["bob"]).deleted == 1
        assert shop.keys() == hashes(["bob"])


def test_a_store_that_cannot_delete_says_that_it_removed_nothing(shop: Shop, redis_store: RedisStore) -> None:
    class FourMethods(OnlineStore):
        write = redis_store.write
        write_batch = redis_store.write_batch
        read = redis_store.read
        read_batch = redis_store.read_batch

    shop.online_store = FourMethods()
    shop.build(USERS)
    report = shop.build(["ann"])
    assert (report.written, report.deleted) == (1, 0)
    assert shop.keys() == hashes(USERS)


def test_a_table_is_opened_at_an_older_version_with_the_record_of_that_version(shop: Shop) -> None:
    shop.source(USERS)
    first = shop.definitions()
    first.build()
    uri = first.store.table_uri("spend")
    for note in range(12):
        metadata = CommitProperties(custom_metadata={"note": str(note)})
        DeltaTable(uri).alter.set_table_properties({"delta.appendOnly": "false"}, commit_properties=metadata)
    shop.definitions(["user", "shop"]).build()
    shop.definitions(["user", "shop"], factor=2.0).build()
    opened = [first.store.open("spend", version) for version in (0, 5, 12, 13, 14, None)]
    found = [(each.record.keys, each.version, each.delta_version) for each in opened if each is not None]
    assert found == [
        (("user",), "1.0.0", 0),
        (("user",), "1.0.5", 5),
        (("user",), "1.0.12", 12),
        (("user", "shop"), "1.1.0", 13),
        (("user", "shop"), "1.2.0", 14),
        (("user", "shop"), "1.2.0", 14),
    ]
    with pytest.raises(StoreError, match="'spend' cannot be read"):
        first.store.open("spend", 15)
    assert first.store.open("nothing", 0) is None
