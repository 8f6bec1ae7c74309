import datetime as dt
import json
import math
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any

import fakeredis
import polars as pl
import pytest
import redis

from mlforge.errors import DataError, DefinitionError, RequestError, StoreError, UnavailableError
from mlforge.online import OnlineStore, RedisStore, Status
from mlforge.online.codec import decode, to_frame
from mlforge.online.keys import entity_key_hash, redis_key, status_key
from publishing import publish
from servers import Proxy, RedisServer, free_port

USER = {"user_id": "user_123"}
SPEND = {"amount__sum__7d": 1500.0, "amount__mean__7d": 214.28, "amount__count__7d": 7}
SECRET = "hunter2-top-secret"


def raw(server: RedisServer) -> "redis.Redis":
    return redis.Redis(server.host, server.port)


def spend(rows: int) -> pl.DataFrame:
    """Every offline dtype, with nulls, and text that JSON and RESP have to escape or count."""
    user = pl.int_range(rows, eager=True).alias("user_id")
    return pl.DataFrame({"user_id": user}).with_columns(
        pl.format("s\r\n{}é", pl.col("user_id") % 7).alias("store_id"),
        (pl.col("user_id") / 7).alias("amount__mean__7d"),
        pl.when(pl.col("user_id") % 3 > 0).then(pl.col("user_id") * 10**15 - 2**60).alias("amount__count__7d"),
        (pl.col("user_id") / 3).cast(pl.Float32).alias("ratio"),
        pl.format('"🎉"\\\n{}', pl.col("user_id")).alias("name"),
        (pl.col("user_id") % 2 == 0).alias("member"),
        (pl.date(1969, 12, 1) + pl.duration(days=pl.col("user_id") % 99)).alias("day"),
        pl.from_epoch(pl.col("user_id") * 1_000_003 - 10**9, "us").dt.replace_time_zone("UTC").alias("seen"),
        (pl.col("user_id") * 3).cast(pl.Decimal(20, 2)).alias("price"),
        pl.concat_list("user_id", pl.lit(None, pl.Int64)).alias("recent"),
        pl.struct(pl.from_epoch("user_id", "d").alias("d"), pl.lit("x").alias("t")).alias("home"),
    )


def status_of(frame: pl.DataFrame, *keys: str) -> Status:
    return Status(
        key_columns=keys,
        schema=dict(frame.drop(keys).schema),
        table_id="table",
        delta_version=3,
        version="1.0.3",
        location="/store/user_spend",
        definition_hash="abc",
        as_of=dt.datetime(2026, 1, 31, tzinfo=dt.UTC),
    )


def contents(client: "redis.Redis", prefix: str, feature_name: str) -> dict[str, bytes]:
    """What a server holds under a prefix, by entity key hash."""
    start = f"{prefix}:{feature_name}:"
    keys = [key.decode() for key in client.scan_iter(f"{start}*", count=10_000)]
    data = [key for key in keys if key != status_key(prefix, feature_name)]
    values = client.mget(data) if data else []
    return {key.removeprefix(start): value for key, value in zip(data, values, strict=True)}


class DictStore(OnlineStore):
    """A store with just the four methods."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], dict[str, Any]] = {}

    def write(self, feature_name: str, entity_keys: dict[str, str], values: dict[str, Any]) -> None:
        self.values[feature_name, entity_key_hash(entity_keys)] = dict(values)

    def write_batch(self, feature_name: str, records: list[dict[str, Any]], entity_key_columns: list[str]) -> None:
        for record in records:
            keys = {column: record[column] for column in entity_key_columns}
            self.write(feature_name, keys, {c: v for c, v in record.items() if c not in keys})

    def read(self, feature_name: str, entity_keys: dict[str, str]) -> dict[str, Any] | None:
        return self.values.get((feature_name, entity_key_hash(entity_keys)))

    def read_batch(self, feature_name: str, entity_keys: list[dict[str, str]]) -> list[dict[str, Any] | None]:
        return [self.read(feature_name, keys) for keys in entity_keys]


def test_redis_store_write_read(redis_store: RedisStore, redis_server: RedisServer, redis_prefix: str) -> None:
    redis_store.write(feature_name="user_spend", entity_keys=USER, values=SPEND)
    assert redis_store.read(feature_name="user_spend", entity_keys=USER) == SPEND
    stored = raw(redis_server).get(redis_key(redis_prefix, "user_spend", entity_key_hash(USER)))
    assert stored == b'{"amount__sum__7d":1500.0,"amount__mean__7d":214.28,"amount__count__7d":7}'
    redis_store.write("user_spend", USER, {"amount__sum__7d": 1.0})
    assert redis_store.read("user_spend", USER) == {"amount__sum__7d": 1.0}


def test_redis_store_batch_operations(redis_store: RedisStore) -> None:
    records: list[dict[str, Any]] = [{"user_id": f"u{i}", "day": dt.date(2026, 1, 1), "x": i} for i in range(1_234)]
    redis_store.write_batch("f", records, ["user_id", "day"])
    asked: list[dict[str, Any]] = [{"day": "2026-01-01", "user_id": f"u{i}"} for i in (1233, 0, 5000, 500, 0)]
    assert redis_store.read_batch("f", asked) == [{"x": 1233}, {"x": 0}, None, {"x": 500}, {"x": 0}]
    assert redis_store.read_batch("f", []) == []


def test_redis_store_ttl(redis_server: RedisServer, redis_prefix: str) -> None:
    frame = spend(1_100)
    with RedisStore(redis_server.host, redis_server.port, ttl=1, prefix=redis_prefix) as store:
        store.write("one", USER, SPEND)
        store.write_batch("many", [{**USER, "x": 1}], ["user_id"])
        assert publish(store, "whole", frame, status_of(frame, "user_id", "store_id")).written == 1_100
        client = raw(redis_server)
        whole = contents(client, redis_prefix, "whole")
        assert len(whole) == 1_100
        assert all(0 < client.pttl(redis_key(redis_prefix, "whole", key_hash)) <= 1_000 for key_hash in whole)
        assert store.read("one", USER) == SPEND
        time.sleep(1.1)
        assert store.read("one", USER) is None
        assert store.read_batch("many", [USER]) == [None]
        assert contents(client, redis_prefix, "whole") == {}
        assert store.status("whole") is not None


def test_redis_store_missing_key(redis_store: RedisStore) -> None:
    assert redis_store.read("user_spend", USER) is None
    redis_store.write("user_spend", USER, SPEND)
    assert redis_store.read("user_spend", {"user_id": "unknown"}) is None
    assert redis_store.read_batch("user_spend", [{"user_id": "unknown"}, USER]) == [None, SPEND]


def test_the_dtype_of_a_key_does_not_matter(redis_store: RedisStore) -> None:
    redis_store.write("f", {"user_id": "123"}, {"x": 1})
    assert redis_store.read("f", {"user_id": 123}) == {"x": 1}  # type: ignore[dict-item]


def test_values_come_back_exactly(redis_store: RedisStore) -> None:
    values = {
        "max": 2**63 - 1,
        "zero": -0.0,
        "tiny": 5e-324,
        "inf": math.inf,
        "price": Decimal("12345678901234567890.10"),
        "null": None,
        "text": "é\x00🎉",
        "list": [1, [None]],
    }
    redis_store.write("f", USER, values)
    found = redis_store.read("f", USER)
    assert repr(found) == repr(values | {"inf": None, "price": "12345678901234567890.10"})


def test_the_last_of_two_records_for_one_entity_counts(redis_store: RedisStore) -> None:
    redis_store.write_batch("f", [{"user_id": 1, "x": 1}, {"user_id": "1", "x": 2}], ["user_id"])
    assert redis_store.read("f", {"user_id": "1"}) == {"x": 2}


@pytest.mark.parametrize(
    "bad", [{"x": 1}, {"user_id": None, "x": 1}, {"user_id": 1.5, "x": 1}, {"user_id": 1, "x": b"bytes"}], ids=str
)
def test_one_bad_record_and_nothing_is_written(redis_store: RedisStore, bad: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"user_id|'x'"):
        redis_store.write_batch("f", [{"user_id": 1, "x": 1}, bad], ["user_id"])
    assert redis_store.read("f", {"user_id": "1"}) is None
    assert redis_store.status("f") is None


@pytest.mark.parametrize("keys", [{}, {"user_id": None}, {"user_id": 1.0}], ids=str)
def test_entity_keys_that_cannot_be_are_refused(redis_store: RedisStore, keys: dict[str, Any]) -> None:
    for call in (
        lambda: redis_store.read("f", keys),
        lambda: redis_store.read_batch("f", [USER, keys]),
        lambda: redis_store.write("f", keys, SPEND),
    ):
        with pytest.raises(RequestError, match="key"):
            call()


def test_no_records_are_no_write(redis_store: RedisStore) -> None:
    redis_store.write_batch("f", [], ["user_id"])
    assert redis_store.status("f") is None


def test_writes_by_hand_leave_a_dirty_status(redis_store: RedisStore) -> None:
    redis_store.write("f", USER, SPEND)
    assert redis_store.status("f") == Status(state="dirty", key_columns=("user_id",))
    frame = spend(10)
    publish(redis_store, "f", frame, status_of(frame, "user_id", "store_id"))
    redis_store.write_batch("f", [{"user_id": 1, "x": 2}], ["user_id"])
    status = redis_store.status("f")
    assert status is not None
    assert (status.state, status.version, status.key_columns) == ("dirty", "1.0.3", ("user_id", "store_id"))


def test_a_miss_with_other_key_columns_is_a_mistake(redis_store: RedisStore) -> None:
    redis_store.write("f", {"user_id": "1", "store_id": "2"}, SPEND)
    for _ in range(2):
        assert redis_store.read("f", {"store_id": "3", "user_id": "1"}) is None
        with pytest.raises(RequestError, match=r"f is keyed by store_id, user_id, not by user_id\."):
            redis_store.read("f", {"user_id": "1"})
        with pytest.raises(RequestError, match="not by shop"):
            redis_store.read_batch("f", [{"user_id": "1", "store_id": "2"}, {"shop": "1"}])


def test_key_columns_that_changed_are_noticed(redis_server: RedisServer, redis_prefix: str) -> None:
    stores = [RedisStore(redis_server.host, redis_server.port, prefix=redis_prefix) for _ in range(2)]
    with stores[0] as reader, stores[1] as writer:
        writer.write("f", USER, SPEND)
        assert reader.read("f", {"user_id": "x"}) is None
        frame = spend(5)
        publish(writer, "f", frame, status_of(frame, "user_id", "store_id"))
        assert reader.read("f", {"user_id": "x", "store_id": "y"}) is None


@pytest.mark.parametrize("damage", [b"{", b"[]", b"\xff\xfe", b""])
def test_a_damaged_value_is_an_error_that_names_its_key(
    redis_store: RedisStore, redis_server: RedisServer, redis_prefix: str, damage: bytes
) -> None:
    redis_store.write("f", USER, SPEND)
    key = redis_key(redis_prefix, "f", entity_key_hash(USER))
    raw(redis_server).set(key, damage)
    with pytest.raises(StoreError, match=key):
        redis_store.read("f", USER)
    with pytest.raises(StoreError, match=key):
        redis_store.read_batch("f", [USER])


def test_a_key_of_another_type_is_an_error(
    redis_store: RedisStore, redis_server: RedisServer, redis_prefix: str
) -> None:
    raw(redis_server).rpush(redis_key(redis_prefix, "f", entity_key_hash(USER)), "x")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        redis_store.read("f", USER)


def test_prefixes_and_features_do_not_see_each_other(redis_server: RedisServer, redis_prefix: str) -> None:
    stores = [RedisStore(redis_server.host, redis_server.port, prefix=redis_prefix + end) for end in ("", ":b")]
    with stores[0] as one, stores[1] as other:
        one.write("f", USER, {"x": 1})
        other.write("f", USER, {"x": 2})
        one.write("g", USER, {"x": 3})
        assert [one.read("f", USER), other.read("f", USER), one.read("g", USER)] == [{"x": 1}, {"x": 2}, {"x": 3}]
        assert other.read("g", USER) is None


def test_several_features_take_one_command(redis_store: RedisStore, redis_server: RedisServer) -> None:
    redis_store.write("f", {"user_id": "1"}, {"x": 1})
    redis_store.write("g", {"store_id": "2"}, {"y": 2})
    client = raw(redis_server)
    before = client.info("stats")["total_commands_processed"]
    found = redis_store.read_features({"f": [{"user_id": "1"}], "none": [], "g": [{"store_id": "2"}, {"store_id": 2}]})
    assert found == {"f": [{"x": 1}], "none": [], "g": [{"y": 2}, {"y": 2}]}
    assert client.info("stats")["total_commands_processed"] - before == 2
    assert redis_store.read_features({}) == {}


def test_a_published_frame_equals_writing_row_by_row(
    redis_store: RedisStore, redis_server: RedisServer, redis_prefix: str
) -> None:
    frame = spend(50_000)
    keys = ["user_id", "store_id"]
    assert publish(redis_store, "published", frame, status_of(frame, *keys)).written == 50_000
    redis_store.write_batch("batch", frame.to_dicts(), keys)
    client = raw(redis_server)
    published = contents(client, redis_prefix, "published")
    assert len(published) == 50_000
    assert published == contents(client, redis_prefix, "batch")
    for row in frame[::100].to_dicts():
        redis_store.write("single", {key: row[key] for key in keys}, {k: v for k, v in row.items() if k not in keys})
    single = contents(client, redis_prefix, "single")
    assert single == {key_hash: published[key_hash] for key_hash in single}
    assert len(single) == 500


def test_a_published_frame_is_read_back_in_its_dtypes(redis_store: RedisStore) -> None:
    frame = spend(50)
    publish(redis_store, "f", frame, status_of(frame, "user_id", "store_id"))
    found = redis_store.lookup({"f": frame.select("user_id", "store_id")})["f"]
    assert found.schema is not None
    assert to_frame(found.rows, found.schema).equals(frame.drop("user_id", "store_id"))


def test_publishing_tells_all_about_itself(redis_store: RedisStore, redis_server: RedisServer) -> None:
    frame = spend(10)
    change = dt.datetime(2026, 2, 1, tzinfo=dt.UTC)
    publish(redis_store, "f", frame, replace(status_of(frame, "user_id", "store_id"), next_change=change))
    status = redis_store.status("f")
    assert status is not None
    assert (status.state, status.version, status.next_change) == ("complete", "1.0.3", change)
    assert status.rows == 10
    assert status.token.startswith(f"{socket.gethostname()}:{os.getpid()}:")
    assert status.run_id == raw(redis_server).info("server")["run_id"]
    assert status.finished_at is not None
    assert status.started_at <= status.finished_at
    assert abs(status.started_at - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    publish(redis_store, "f", frame, replace(status, next_change=None))
    again = redis_store.status("f")
    assert again is not None
    assert again.token != status.token
    assert again.next_change is None


def test_rows_with_a_null_key_are_not_published(
    redis_store: RedisStore, redis_server: RedisServer, redis_prefix: str
) -> None:
    frame = pl.DataFrame({"a": ["x", None, "y"], "b": [1, 2, None], "v": [1, 2, 3]})
    assert publish(redis_store, "f", frame, status_of(frame, "a", "b")).written == 1
    assert list(contents(raw(redis_server), redis_prefix, "f").values()) == [b'{"v":1}']


@pytest.mark.parametrize("rows", [0, 1, 500, 501])
def test_frames_of_any_height_and_without_values_are_published(redis_store: RedisStore, rows: int) -> None:
    frame = pl.DataFrame({"user_id": pl.int_range(rows, eager=True)})
    assert publish(redis_store, "f", frame, status_of(frame, "user_id")).written == rows
    status = redis_store.status("f")
    assert status is not None
    assert (status.state, status.rows) == ("complete", rows)
    asked: list[dict[str, Any]] = [{"user_id": i} for i in range(rows + 1)]
    assert redis_store.read_batch("f", asked) == [*({} for _ in range(rows)), None]


def test_a_frame_that_is_not_what_its_status_says_is_refused_before_anything_is_sent(redis_store: RedisStore) -> None:
    frame = pl.DataFrame({"a": ["x"], "f": [1.5], "v": [1]})
    with pytest.raises(RequestError, match="no column w"):
        publish(redis_store, "f", frame, Status(key_columns=("a",), schema={"w": pl.Int64()}))
    with pytest.raises(RequestError, match="'v' of f is Int64, not Float64"):
        publish(redis_store, "f", frame, Status(key_columns=("a",), schema={"v": pl.Float64()}))
    with pytest.raises(RequestError, match="'f' cannot be an entity key"):
        publish(redis_store, "f", frame, Status(key_columns=("f",), schema={"v": pl.Int64()}))
    with pytest.raises(DataError, match="'v' is Int32"):
        publish(redis_store, "f", frame.cast({"v": pl.Int32}), Status(key_columns=("a",), schema={"v": pl.Int32()}))
    assert redis_store.status("f") is None


def test_a_connection_lost_while_publishing_leaves_the_status_writing(
    redis_store: RedisStore, redis_server: RedisServer, redis_prefix: str
) -> None:
    frame = spend(30_000)
    states: list[str] = []

    def look() -> None:
        status = redis_store.status("f")
        states.append("none" if status is None else status.state)

    with (
        Proxy(server=redis_server, after=3_000_000, act=look, cut=True) as proxy,
        RedisStore(proxy.host, proxy.port, prefix=redis_prefix) as store,
        pytest.raises(StoreError, match=f"127.0.0.1:{proxy.port} cannot be reached"),
    ):
        publish(store, "f", frame, status_of(frame, "user_id", "store_id"))
    assert states == ["writing"]
    status = redis_store.status("f")
    assert status is not None
    assert (status.state, status.finished_at, status.rows) == ("writing", None, 30_000)
    assert 0 < len(contents(raw(redis_server), redis_prefix, "f")) < 30_000
    publish(redis_store, "f", frame, status_of(frame, "user_id", "store_id"))
    status = redis_store.status("f")
    assert status is not None
    assert status.state == "complete"


def test_a_server_that_comes_back_empty_while_publishing_never_has_a_complete_status(redis_prefix: str) -> None:
    frame = spend(30_000)
    with RedisServer() as server:

        def restart() -> None:
            server.kill()
            server.start()

        with (
            Proxy(server=server, after=3_000_000, act=restart) as proxy,
            RedisStore(proxy.host, proxy.port, prefix=redis_prefix) as store,
            pytest.raises(StoreError, match="cannot be reached"),
        ):
            publish(store, "f", frame, status_of(frame, "user_id", "store_id"))
        with RedisStore(server.host, server.port, prefix=redis_prefix) as direct:
            assert direct.status("f") is None


def test_a_publish_does_not_complete_what_somebody_has_written_by_hand(
    redis_store: RedisStore, redis_server: RedisServer, redis_prefix: str
) -> None:
    frame = spend(30_000)
    seen: list[Status | None] = []

    def act() -> None:
        redis_store.write("f", {"user_id": 1, "store_id": "x"}, {"x": 1})  # type: ignore[dict-item]
        seen.append(redis_store.status("f"))

    with (
        Proxy(server=redis_server, after=3_000_000, act=act) as proxy,
        RedisStore(proxy.host, proxy.port, prefix=redis_prefix) as store,
        pytest.raises(UnavailableError, match="just changed: somebody wrote the feature by hand"),
    ):
        publish(store, "f", frame, status_of(frame, "user_id", "store_id"))
    # What was written by hand may be overwritten in part: complete is what it must not be called.
    left = redis_store.status("f")
    assert left is not None
    assert left.state == "dirty"
    assert [status and replace(status, state="dirty") for status in seen] == [left]


def test_a_server_that_is_full_is_an_error_and_nothing_is_complete(redis_prefix: str) -> None:
    frame = spend(30_000)
    with (
        RedisServer(arguments=["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]) as server,
        RedisStore(server.host, server.port, prefix=redis_prefix) as store,
    ):
        with pytest.raises(StoreError, match=r"refused: .*(OOM|memory)"):
            publish(store, "f", frame, status_of(frame, "user_id", "store_id"))
        status = store.status("f")
        assert status is not None
        assert status.state == "writing"


def test_a_schema_that_another_process_has_changed_is_seen_at_once(
    redis_server: RedisServer, redis_prefix: str
) -> None:
    stores = [RedisStore(redis_server.host, redis_server.port, prefix=redis_prefix) for _ in range(2)]
    asked = {"f": pl.DataFrame({"a": ["x"]})}
    with stores[0] as reader, stores[1] as writer:
        assert reader.lookup(asked)["f"].schema is None
        for dtype in (pl.Int64(), pl.Float64()):
            frame = pl.DataFrame({"a": ["x"], "v": pl.Series([1], dtype=dtype)})
            publish(writer, "f", frame, status_of(frame, "a"))
            assert writer.lookup(asked)["f"].schema == {"v": dtype}
            assert reader.lookup(asked)["f"].schema == {"v": dtype}


def test_redis_down_is_an_error_with_host_and_port_within_the_connect_timeout() -> None:
    port = free_port()
    frame = spend(1)
    with RedisStore("127.0.0.1", port, connect_timeout=1, password=SECRET) as store:
        for call in (
            lambda: store.read("f", USER),
            lambda: store.write("f", USER, SPEND),
            lambda: store.status("f"),
            lambda: publish(store, "f", frame, status_of(frame, "user_id", "store_id")),
        ):
            started = time.monotonic()
            with pytest.raises(StoreError, match=f"127.0.0.1:{port} cannot be reached") as caught:
                call()
            assert time.monotonic() - started < 1
            assert SECRET not in str(caught.value)


def test_a_server_that_does_not_answer_is_an_error_within_the_timeout() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        RedisStore("127.0.0.1", mute.getsockname()[1], timeout=0.2) as store,
    ):
        started = time.monotonic()
        with pytest.raises(StoreError, match=r"did not answer in time \(connect 5.0 s, answer 0.2 s\)"):
            store.read("f", USER)
        assert time.monotonic() - started < 1


def test_a_socket_that_is_not_there_is_an_error_with_its_path() -> None:
    with RedisStore(unix_socket_path="/nowhere/redis.sock") as store:
        assert repr(store) == "RedisStore(unix_socket_path='/nowhere/redis.sock', db=0, prefix='mlforge')"
        with pytest.raises(StoreError, match=r"Redis at /nowhere/redis\.sock cannot be reached"):
            store.read("f", USER)


def test_passwords_are_never_shown() -> None:
    frame = spend(1)
    with RedisServer(requirepass="right") as server:
        stores = [
            RedisStore(server.host, server.port, password=SECRET),
            RedisStore(server.host, server.port, username="somebody", password=SECRET),
            RedisStore.from_url(f"redis://somebody:{SECRET}@{server.host}:{server.port}/2"),
            RedisStore(server.host, server.port),
        ]
        for store in stores:
            with store:
                for call in (
                    lambda store=store: store.read("f", USER),
                    lambda store=store: publish(store, "f", frame, status_of(frame, "user_id", "store_id")),
                ):
                    said = "refused the user" if store is not stores[-1] else "asks for a password, and none was"
                    with pytest.raises(StoreError, match=f"{server.host}:{server.port} {said}") as caught:
                        call()
                    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"
                assert caught.value.__suppress_context__
                assert f"port={server.port}" in repr(store)
                assert SECRET not in repr(store)
                assert "somebody" not in repr(store)
        with RedisStore.from_url(f"redis://:right@{server.host}:{server.port}/2") as store:
            store.write("f", USER, SPEND)
            assert store.read("f", USER) == SPEND
            assert repr(store) == f"RedisStore(host='{server.host}', port={server.port}, db=2, prefix='mlforge')"


def test_a_password_that_a_server_echoes_is_not_shown() -> None:
    with (
        RedisServer(arguments=["--rename-command", "AUTH", ""]) as server,
        RedisStore(server.host, server.port, password=SECRET) as store,
    ):
        with pytest.raises(StoreError, match=f"{server.host}:{server.port} refused") as caught:
            store.read("f", USER)
        assert SECRET not in str(caught.value)


def test_a_user_without_rights_is_an_error_that_names_the_command(redis_server: RedisServer, redis_prefix: str) -> None:
    client = redis.Redis(redis_server.host, redis_server.port)
    client.execute_command("ACL", "SETUSER", "reader", "on", f">{SECRET}", "+get", f"~{redis_prefix}:*")
    with RedisStore(
        redis_server.host, redis_server.port, prefix=redis_prefix, username="reader", password=SECRET
    ) as store:
        with pytest.raises(StoreError, match="does not allow this user the command mget"):
            store.read_batch("f", [USER])
        with pytest.raises(StoreError, match="does not allow this user the command set"):
            publish(store, "f", spend(1), status_of(spend(1), "user_id", "store_id"))
    with (
        RedisStore(redis_server.host, redis_server.port, prefix="x", username="reader", password=SECRET) as store,
        pytest.raises(StoreError, match="does not allow this user keys of this prefix"),
    ):
        store.read("f", USER)
    client.acl_deluser("reader")


@pytest.mark.parametrize(
    "url",
    [
        f"http://:{SECRET}@host",
        f"redis://:{SECRET}/more@host:6379",
        f"redis://:12/{SECRET}@host",
        f"redis://:12#{SECRET}@host",
        f"redis://:12?{SECRET}@host",
        f"redis://:{SECRET}@host:port",
        f"redis://:{SECRET}@host/db",
        f"redis://:{SECRET}@",
        f"redis://[{SECRET}",
        f"unix://:{SECRET}@",
        f"redis://:{SECRET}@host?socket_timeout=soon",
        SECRET,
        "",
        None,
    ],
)
def test_a_bad_url_is_an_error_that_does_not_quote_it(url: Any) -> None:
    with pytest.raises(DefinitionError, match="not the URL of a Redis") as caught:
        RedisStore.from_url(url)
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_urls_say_all_that_arguments_do() -> None:
    plain = RedisStore.from_url(
        "redis://cache.example:7000/3?socket_timeout=2&socket_connect_timeout=1", ttl=5, prefix="p"
    )
    assert repr(plain) == "RedisStore(host='cache.example', port=7000, db=3, ttl=5, prefix='p')"
    assert (
        repr(RedisStore.from_url("redis://cache.example"))
        == "RedisStore(host='cache.example', port=6379, db=0, prefix='mlforge')"
    )
    tls = RedisStore.from_url("rediss://cache.example:7000/?ssl_ca_certs=ca.pem")
    assert "cache.example" in repr(tls)
    assert "unix_socket_path='/run/redis.sock'" in repr(RedisStore.from_url("unix:///run/redis.sock"))
    with pytest.raises(DefinitionError, match="'shards' is not an option"):
        RedisStore.from_url("redis://cache.example?shards=3")


@pytest.mark.parametrize(
    "arguments",
    [
        {"host": ""},
        {"host": None},
        {"port": 0},
        {"port": "6379"},
        {"db": -1},
        {"ttl": 0},
        {"ttl": 1.5},
        {"ttl": True},
        {"ttl": "7d"},
        {"ttl": dt.timedelta(milliseconds=1)},
        {"timeout": 0},
        {"connect_timeout": math.inf},
        {"prefix": "a*"},
        {"ssl_options": {"ssl_ca_certs": "x"}},
        {"ssl": True, "ssl_options": {"ca": "x"}},
        {"client": ...},
    ],
    ids=str,
)
def test_arguments_that_cannot_be_right_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        RedisStore(**arguments)


def test_a_timedelta_is_a_ttl() -> None:
    assert "ttl=604800" in repr(RedisStore(ttl=dt.timedelta(days=7)))


def test_a_restarted_server_is_found_again(redis_prefix: str) -> None:
    with RedisServer() as server, RedisStore(server.host, server.port, prefix=redis_prefix) as store:
        for _ in range(2):
            store.write("f", USER, SPEND)
            assert store.read("f", USER) == SPEND
            server.kill()
            with pytest.raises(StoreError, match="cannot be reached"):
                store.read("f", USER)
            server.start()
            assert store.read("f", USER) is None
            server.kill()
            server.start()
            assert store.read("f", USER) is None


def test_readers_in_other_threads_see_whole_values_only(redis_store: RedisStore) -> None:
    versions = [{f"c{i}": version for i in range(50)} for version in range(2)]
    redis_store.write("f", USER, versions[0])
    done = threading.Event()

    def read() -> int:
        reads = 0
        while not done.is_set():
            assert redis_store.read("f", USER) in versions
            assert redis_store.read_batch("f", [USER, USER])[0] in versions
            reads += 1
        return reads

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for turn in range(200):
            redis_store.write("f", USER, versions[turn % 2])
        done.set()
        assert all(reader.result() > 0 for reader in readers)


def test_a_store_works_on_both_sides_of_a_fork(redis_store: RedisStore) -> None:
    redis_store.write("f", USER, SPEND)
    child = os.fork()
    if child == 0:
        right = all(redis_store.read("f", USER) == SPEND for _ in range(100))
        os._exit(0 if right else 1)
    assert all(redis_store.read("f", USER) == SPEND for _ in range(100))
    assert os.waitpid(child, 0)[1] == 0


def test_a_pickled_store_reads_the_same(redis_store: RedisStore) -> None:
    redis_store.write("f", USER, SPEND)
    with pickle.loads(pickle.dumps(redis_store)) as copy:
        assert repr(copy) == repr(redis_store)
        assert copy.read("f", USER) == SPEND
    with pytest.raises(TypeError, match="client of your own"):
        pickle.dumps(RedisStore(client=fakeredis.FakeRedis()))


@pytest.mark.parametrize("text", [False, True], ids=["bytes", "decoded"])
def test_a_client_of_ones_own_is_used_and_left_open(redis_server: RedisServer, redis_prefix: str, text: bool) -> None:
    client = redis.Redis(redis_server.host, redis_server.port, decode_responses=text)
    frame = spend(600)
    with RedisStore(client=client, prefix=redis_prefix) as store:
        publish(store, "f", frame, status_of(frame, "user_id", "store_id"))
        status = store.status("f")
        assert status is not None
        assert status.state == "complete"
        assert store.lookup({"f": frame.select("user_id", "store_id")})["f"].schema == status.schema
        assert store.read("f", {"user_id": 1, "store_id": "s\r\n1é"}) is not None  # type: ignore[dict-item]
        assert store.read("f", {"user_id": "x", "store_id": "y"}) is None
    assert client.ping()
    client.close()


@pytest.mark.parametrize("ttl", [None, 60])
def test_an_in_memory_client_holds_what_a_server_holds(
    redis_server: RedisServer, redis_prefix: str, ttl: int | None
) -> None:
    frame = spend(1_234)
    fake = fakeredis.FakeRedis()
    with (
        RedisStore(redis_server.host, redis_server.port, ttl=ttl, prefix=redis_prefix) as real,
        RedisStore(client=fake, ttl=ttl, prefix=redis_prefix) as imitated,
    ):
        for store in (real, imitated):
            publish(store, "f", frame, status_of(frame, "user_id", "store_id"))
            store.write("f", {"user_id": "x", "store_id": "y"}, SPEND)
        assert contents(fake, redis_prefix, "f") == contents(raw(redis_server), redis_prefix, "f")
        assert (imitated.status("f") or Status()).state == "dirty"


def test_four_methods_make_a_whole_store() -> None:
    store = DictStore()
    frame = spend(25_000).with_columns(pl.when(pl.col("user_id") != 7).then("user_id").alias("user_id"))
    assert publish(store, "f", frame, status_of(frame, "user_id", "store_id")).written == 24_999
    row = frame.row(20_001, named=True)
    keys = {"user_id": row.pop("user_id"), "store_id": row.pop("store_id")}
    assert store.read("f", keys) == row
    assert store.read_features({"f": [keys, USER], "g": []}) == {"f": [row, None], "g": []}
    assert store.status("f") is None


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


def test_importing_online_does_not_import_redis() -> None:
    done = run(
        "import sys, mlforge.online\n"
        "from mlforge.online import OnlineStore, RedisStore\n"
        "assert 'redis' not in sys.modules\n"
        "assert dir(mlforge.online) == ['ClusterStore', 'EmbeddedStore', 'OnlineStore', 'RedisStore', 'Status']"
    )
    assert done.returncode == 0, done.stderr


def test_a_redis_store_without_redis_names_the_extra() -> None:
    done = run(
        "import sys\n"
        "sys.modules['redis'] = None\n"
        "from mlforge.errors import MlforgeError\n"
        "from mlforge.online import RedisStore\n"
        "for make in (RedisStore, lambda: RedisStore.from_url('redis://localhost')):\n"
        "    try:\n"
        "        make()\n"
        "    except MlforgeError as error:\n"
        "        assert \"pip install 'mlforge[redis]'\" in str(error), error\n"
        "    else:\n"
        "        raise AssertionError\n"
    )
    assert done.returncode == 0, done.stderr


def test_values_are_readable_with_nothing_but_a_json_parser(
    redis_store: RedisStore, redis_server: RedisServer, redis_prefix: str
) -> None:
    frame = spend(3)
    publish(redis_store, "f", frame, status_of(frame, "user_id", "store_id"))
    for value in contents(raw(redis_server), redis_prefix, "f").values():
        assert json.loads(value) == decode(value, what="value")
