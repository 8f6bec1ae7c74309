"""How reads use connections, and what they ask a server for."""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fakeredis
import orjson
import polars as pl
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from mlforge.errors import RequestError, StoreError, UnavailableError
from mlforge.online import RedisStore
from mlforge.online.flight import KEYS_PER_COMMAND
from mlforge.online.keys import entity_key_hash, redis_key, status_key
from mlforge.online.line import packed
from mlforge.online.pool import Pool
from proxy import Proxy
from servers import RedisServer, until
from slamming import Slamming

USERS = [{"user_id": f"u{number}"} for number in range(20)]
SCHEMA = {"n": pl.Int64(), "text": pl.String()}


def values(number: int) -> dict[str, Any]:
    return {"n": number, "text": f"é{number}"}


def put(server: RedisServer, prefix: str, *features: str, **status: str) -> None:
    """Values for all users as a sync leaves them, and a status that says so."""
    said = {"key_columns": '["user_id"]', "schema": '{"n":"Int64","text":"String"}', "state": "complete", "token": "t"}
    with server.client() as client:
        for feature in features:
            for number, user in enumerate(USERS):
                client.set(redis_key(prefix, feature, entity_key_hash(user)), orjson.dumps(values(number)))
            client.hset(status_key(prefix, feature), mapping=said | status)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that nobody else talks to, with feature `f` under the prefix `p`."""
    with RedisServer() as own:
        put(own, "p", "f")
        yield own


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    with RedisStore(server.host, server.port, prefix="p", timeout=1) as reader:
        yield reader


def connected(server: RedisServer) -> int:
    """How many connections there are over TCP: this question comes through the socket."""
    return sum("unix" not in line and ":0 " not in line for line in str(server.command("CLIENT", "LIST")).splitlines())


def accepted(server: RedisServer) -> int:
    """How many connections there ever were, but for those of the questions."""
    return int(server.command("INFO", "stats")["total_connections_received"])


def commands(server: RedisServer, work: Callable[[], object]) -> dict[str, int]:
    """How often which commands ran meanwhile."""
    server.command("CONFIG", "RESETSTAT")
    work()
    stats = server.command("INFO", "commandstats")
    return {name.removeprefix("cmdstat_"): told["calls"] for name, told in stats.items() if "get" in name}


def read_all(store: RedisStore) -> bool:
    return all(store.read("f", user) == values(number) for number, user in enumerate(USERS))


def test_reads_one_after_the_other_take_one_connection(store: RedisStore, server: RedisServer) -> None:
    assert read_all(store)
    assert store.read_batch("f", USERS) == [values(number) for number in range(20)]
    assert connected(server) == 1


def test_reads_at_once_take_a_connection_each_and_leave_it_for_others(store: RedisStore, server: RedisServer) -> None:
    before = accepted(server)
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(lambda _: read_all(store), range(80)))
    assert 1 <= connected(server) <= 8
    assert accepted(server) - before <= 8 + 2


def test_as_many_connections_as_are_allowed_serve_any_number_of_readers(server: RedisServer) -> None:
    before = accepted(server)
    with (
        RedisStore(server.host, server.port, prefix="p", max_connections=2) as store,
        ThreadPoolExecutor(12) as threads,
    ):
        assert all(threads.map(lambda _: read_all(store), range(60)))
        assert connected(server) <= 2
    assert accepted(server) - before <= 2 + 2


def test_who_waits_too_long_for_a_connection_is_told_so(server: RedisServer) -> None:
    client = redis.Redis(server.host, server.port, socket_timeout=0.4)
    pool = Pool(client, max_connections=1)
    # Each of the replies comes in time, all of them do not.
    busy = threading.Thread(target=pool.ask, args=([packed(("BLPOP", "nothing", "0.25"))] * 6, 6))
    busy.start()
    until(lambda: connected(server) == 1, "the connection is in use")
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"All 1 connections for reads were in use for 0\.4 s.*max_connections"):
        pool.ask([packed(("GET", "nothing"))], 1)
    assert time.monotonic() - started < 1
    busy.join()
    assert pool.ask([packed(("GET", "nothing"))], 1) == [None]
    pool.close()
    client.close()


def test_who_waits_for_a_connection_gets_it_as_soon_as_it_is_free(server: RedisServer) -> None:
    client = redis.Redis(server.host, server.port, socket_timeout=20)
    pool = Pool(client, max_connections=1)
    busy = threading.Thread(target=pool.ask, args=([packed(("BLPOP", "nothing", "0.5"))], 1))
    busy.start()
    until(lambda: connected(server) == 1, "the connection is in use")
    started = time.monotonic()
    assert pool.ask([packed(("GET", "nothing"))], 1) == [None]
    assert time.monotonic() - started < 10
    busy.join()
    pool.close()
    client.close()


def test_a_place_that_a_lost_connection_had_is_free_again(server: RedisServer) -> None:
    with RedisStore(server.host, server.port, prefix="p", timeout=0.2, max_connections=1) as store:
        for _ in range(2):
            server.pause()
            with pytest.raises(UnavailableError, match="did not answer in time"):
                store.read("f", USERS[0])
            server.resume()
            assert read_all(store)
        server.kill()
        with pytest.raises(UnavailableError, match="cannot be reached"):
            store.read("f", USERS[0])
        server.start()
        put(server, "p", "f")
        assert read_all(store)


def test_a_connection_that_the_server_closed_is_made_again_unnoticed(store: RedisStore, server: RedisServer) -> None:
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda _: read_all(store), range(20)))
        for _ in range(3):
            server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert all(threads.map(lambda _: read_all(store), range(8)))
            assert store.lookup({"f": pl.DataFrame(USERS)}, primary=True)["f"].rows[3] == values(3)


def test_a_server_that_was_restarted_is_read_at_once(store: RedisStore, server: RedisServer) -> None:
    assert read_all(store)
    server.kill()
    server.start()
    put(server, "p", "f")
    assert read_all(store)


@pytest.mark.parametrize(("retries", "tries"), [(0, 2), (3, 5)])
def test_a_read_is_sent_again_once_and_then_as_often_as_the_client_tries(retries: int, tries: int) -> None:
    with Slamming() as listener:
        client = redis.Redis("127.0.0.1", listener.port, retry=Retry(NoBackoff(), retries), protocol=2)
        with RedisStore(client=client) as store, pytest.raises(UnavailableError, match="cannot be reached"):
            store.read("f", USERS[0])
        assert listener.commands == tries
        client.close()


def test_an_answer_that_came_too_late_is_nobodys(server: RedisServer) -> None:
    with RedisStore(server.host, server.port, prefix="p", timeout=0.2) as store:
        assert read_all(store)
        for number in (1, 2, 3):
            server.pause()
            with pytest.raises(UnavailableError, match=r"did not answer in time \(connect 5.0 s, answer 0.2 s\)"):
                store.read("f", USERS[number])
            server.resume()
            assert read_all(store)


def test_a_refused_read_leaves_a_connection_that_can_be_used(store: RedisStore, server: RedisServer) -> None:
    server.command("RPUSH", redis_key("p", "list", entity_key_hash(USERS[0])), "x")
    assert read_all(store)
    before = accepted(server)
    for _ in range(5):
        with pytest.raises(StoreError, match="WRONGTYPE"):
            store.read("list", USERS[0])
        assert read_all(store)
    assert accepted(server) - before == 1
    assert connected(server) == 1


def test_a_refused_command_takes_its_neighbours_answers_with_it(server: RedisServer) -> None:
    server.command("ACL", "SETUSER", "reader", "on", "nopass", "~*", "+get", "+mget")
    with RedisStore(server.host, server.port, prefix="p", username="reader", password="x") as store:
        for _ in range(3):
            with pytest.raises(StoreError, match="does not allow this user the command hmget"):
                store.lookup({"f": pl.DataFrame(USERS)})
            assert read_all(store)
        assert connected(server) == 1


def test_a_closed_store_has_no_connections_and_may_be_used_again(store: RedisStore, server: RedisServer) -> None:
    for _ in range(2):
        assert read_all(store)
        assert connected(server) == 1
        store.close()
        until(lambda: connected(server) == 0, "the connection is closed")


def test_a_store_that_is_dropped_closes_its_connections(server: RedisServer) -> None:
    dropped = RedisStore(server.host, server.port, prefix="p")
    assert read_all(dropped)
    del dropped
    gc.collect()
    until(lambda: connected(server) == 0, "the connection is closed")


def test_a_close_while_reads_run_fails_none_of_them(store: RedisStore, server: RedisServer) -> None:
    done = threading.Event()

    def close() -> None:
        while not done.wait(0.001):
            store.close()

    closing = threading.Thread(target=close)
    closing.start()
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda _: read_all(store), range(40)))
    done.set()
    closing.join()
    store.close()
    gc.collect()
    until(lambda: connected(server) == 0, "all connections are closed")


@pytest.mark.parametrize("given", [False, True], ids=["own client", "given client"])
def test_a_forked_child_and_its_parent_never_get_each_others_answers(server: RedisServer, given: bool) -> None:
    client = redis.Redis(server.host, server.port)
    store = RedisStore(client=client, prefix="p") if given else RedisStore(server.host, server.port, prefix="p")
    assert read_all(store)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            os._exit(0 if all(read_all(store) for _ in range(20)) else 1)
        children.append(child)
    assert all(read_all(store) for _ in range(20))
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    store.close()
    client.close()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"decode_responses": True},
        {"protocol": 3, "decode_responses": True},
        {"health_check_interval": 1},
        {"single_connection_client": True},
    ],
    ids=str,
)
def test_a_client_of_ones_own_reads_as_an_own_one(server: RedisServer, settings: dict[str, Any]) -> None:
    check_client(redis.Redis(server.host, server.port, **settings), server)


def test_a_client_around_a_blocking_pool_reads_as_an_own_one(server: RedisServer) -> None:
    pool = redis.BlockingConnectionPool(max_connections=1, timeout=1, host=server.host, port=server.port)
    check_client(redis.Redis(connection_pool=pool), server)


def check_client(client: redis.Redis, server: RedisServer) -> None:
    with RedisStore(client=client, prefix="p") as store:
        assert read_all(store)
        assert store.read("f", {"user_id": "nobody"}) is None
        assert store.read_batch("f", [*USERS[:2], {"user_id": "nobody"}]) == [values(0), values(1), None]
        found = store.lookup({"f": pl.DataFrame(USERS[:2])})["f"]
        assert (found.rows, found.schema, found.settled) == ([values(0), values(1)], SCHEMA, True)
    assert client.ping()
    client.connection_pool.disconnect()
    client.close()
    until(lambda: connected(server) == 0, "all connections are closed")


@pytest.mark.parametrize("text", [False, True], ids=["bytes", "text"])
def test_a_client_in_memory_reads_as_an_own_one(text: bool) -> None:
    with RedisStore(client=fakeredis.FakeRedis(decode_responses=text)) as store:
        store.write("f", USERS[0], values(0))
        assert store.read("f", USERS[0]) == values(0)
        assert store.read_features({"f": USERS[:2], "g": USERS[:1]}) == {"f": [values(0), None], "g": [None]}
        assert store.lookup({"f": pl.DataFrame(USERS[:1])})["f"].rows == [values(0)]


def test_one_flight_reads_all_features_and_what_is_said_of_them(store: RedisStore, server: RedisServer) -> None:
    put(server, "p", "g")
    asked = {"f": pl.DataFrame(USERS), "g": pl.DataFrame(USERS[:3])}
    assert commands(server, lambda: store.lookup(asked)) == {"mget": 1, "hmget": 2}
    assert commands(server, lambda: store.read_features({"f": USERS, "g": USERS})) == {"mget": 1}
    assert commands(server, lambda: store.read("f", USERS[0])) == {"get": 1}
    assert commands(server, lambda: store.lookup({})) == {}


MANY = [{"user_id": f"u{number}"} for number in range(2 * KEYS_PER_COMMAND + 1)]
FOUND = [values(number) if number < len(USERS) else None for number in range(len(MANY))]


def test_many_entities_are_split_into_commands_that_keep_nobody_waiting(store: RedisStore, server: RedisServer) -> None:
    found: list[Any] = []
    assert commands(server, lambda: found.extend(store.read_batch("f", MANY))) == {"mget": 3, "hmget": 1}
    assert found == FOUND
    asked = {"f": MANY[:200], "g": MANY[:200], "h": MANY[:3]}
    assert commands(server, lambda: store.read_features(asked)) == {"mget": 2, "hmget": 2}
    assert store.read_features(asked) == {"f": FOUND[:200], "g": [None] * 200, "h": [None] * 3}


def test_a_flight_that_is_lost_on_the_way_is_sent_again_from_its_beginning(server: RedisServer) -> None:
    for after in (10_000, 20_000, 27_000):
        with (
            Proxy(server=server, after=after, act=lambda: None, cut=True, connections=2) as proxy,
            RedisStore(proxy.host, proxy.port, prefix="p") as store,
        ):
            assert store.read_batch("f", MANY) == FOUND


def test_an_entity_that_is_wrong_far_behind_is_an_error_and_leaves_no_answers_behind(store: RedisStore) -> None:
    wrong: list[Any] = [*MANY, {"user_id": 1.5}]
    for _ in range(3):
        with pytest.raises(RequestError, match=r"Entity keys \{'user_id': 1\.5\}: 1\.5 cannot be an entity key"):
            store.read_batch("f", wrong)
        assert read_all(store)
        assert store.read_batch("f", MANY) == FOUND


def test_a_lookup_says_whether_a_sync_is_rewriting_the_values(server: RedisServer) -> None:
    asked = {"f": pl.DataFrame(USERS[:1])}
    for state, settled in (("complete", True), ("dirty", True), ("writing", False)):
        put(server, "p", "f", state=state)
        with RedisStore(server.host, server.port, prefix="p") as store:
            assert store.lookup(asked)["f"].settled is settled
    with RedisStore(server.host, server.port, prefix="nothing") as store:
        found = store.lookup(asked)["f"]
        assert (found.rows, found.schema, found.settled) == ([None], None, True)


def test_an_entity_that_is_missed_is_compared_with_the_key_columns_once(store: RedisStore, server: RedisServer) -> None:
    nobody = [{"user_id": "nobody"}]
    assert commands(server, lambda: store.read("f", nobody[0])) == {"get": 1, "hmget": 1}
    assert commands(server, lambda: store.read("f", nobody[0])) == {"get": 1}
    assert commands(server, lambda: store.read_batch("f", nobody)) == {"mget": 1}
    assert commands(server, lambda: store.lookup({"f": pl.DataFrame(nobody)})) == {"mget": 1, "hmget": 1}


def test_what_is_known_of_the_key_columns_is_not_believed_for_ever(
    store: RedisStore, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.read("f", {"user_id": "nobody"}) is None
    server.client().hset("p:f:status", "key_columns", '["shop"]')
    assert store.read("f", {"user_id": "nobody"}) is None
    monkeypatch.setattr("mlforge.online.catalog.KNOWN_SECONDS", 0.0)
    with pytest.raises(RequestError, match="keyed by shop"):
        store.read("f", {"user_id": "nobody"})


def test_entities_by_other_columns_are_a_mistake_in_every_way_of_reading(store: RedisStore) -> None:
    other: list[dict[str, Any]] = [{"user_id": "u1", "shop": 1}]
    for read in (
        lambda: store.read("f", other[0]),
        lambda: store.read_batch("f", [*USERS, *other]),
        lambda: store.read_features({"none": other, "f": other}),
        lambda: store.lookup({"f": pl.DataFrame(other)}),
        lambda: store.lookup({"f": pl.DataFrame(other)}, primary=True),
    ):
        with pytest.raises(
            RequestError, match=r"f is keyed by user_id, not by shop, user_id\.|'' is not a feature name"
        ):
            read()


@pytest.mark.parametrize("number", [7, len(MANY) - 1])
def test_a_damaged_value_among_many_is_an_error_that_names_its_key(
    store: RedisStore, server: RedisServer, number: int
) -> None:
    key = redis_key("p", "f", entity_key_hash(MANY[number]))
    for damage in ("", "{", "null", "[]", "1", '{"a":1},{"a":2}', '{"a":1'):
        server.command("SET", key, damage)
        for read in (lambda: store.read_batch("f", MANY), lambda: store.lookup({"f": pl.DataFrame(MANY)})):
            with pytest.raises(StoreError, match=f"{key} holds no JSON"):
                read()
    assert connected(server) == 1


def test_a_prefix_of_any_characters_is_counted_in_bytes(server: RedisServer) -> None:
    put(server, "é:🎉", "f", "a_longer_name")
    with RedisStore(server.host, server.port, prefix="é:🎉") as store:
        assert read_all(store)
        found = store.read_features({"f": USERS, "a_longer_name": USERS})
        assert found == {"f": [values(number) for number in range(20)]} | {"a_longer_name": found["f"]}
        assert store.lookup({"f": pl.DataFrame(USERS)})["f"].schema == SCHEMA


def test_entities_that_are_equal_in_python_only_are_told_apart(store: RedisStore) -> None:
    for feature, value in (("a", 1), ("b", True)):
        store.write(feature, {"k": value}, {"x": value})  # type: ignore[dict-item]
    assert store.read_features({"a": [{"k": 1}], "b": [{"k": True}]}) == {"a": [{"x": 1}], "b": [{"x": True}]}
    assert store.read_features({"a": [{"k": True}], "b": [{"k": 1}]}) == {"a": [None], "b": [None]}


def test_a_write_of_ones_own_is_known_at_once(store: RedisStore, server: RedisServer) -> None:
    asked = {"f": pl.DataFrame(USERS[:1])}
    assert store.lookup(asked)["f"].schema == SCHEMA
    assert store.clear("f") == len(USERS)
    assert store.lookup(asked)["f"].schema is None
