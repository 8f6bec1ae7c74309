"""Reads in an event loop."""

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import fakeredis
import polars as pl
import pytest

from mlforge.errors import RequestError, StoreError, UnavailableError
from mlforge.online import EmbeddedStore, RedisStore
from mlforge.testing import MemoryStore
from servers import Certificates, RedisServer, free_port, until
from slamming import Slamming
from topologies import SentinelServers

USERS = [{"user_id": f"u{number}"} for number in range(20)]
VALUES = [{"n": number, "text": f"é{number}"} for number in range(20)]
RECORDS: list[dict[str, Any]] = [{**user, **values} for user, values in zip(USERS, VALUES, strict=True)]
NOBODY = {"user_id": "nobody"}


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that nobody else talks to, with feature `f` under the prefix `p`."""
    with RedisServer() as own:
        fill(own)
        yield own


def fill(server: RedisServer) -> None:
    with RedisStore(unix_socket_path=str(server.socket_path), prefix="p") as store:
        store.write_batch("f", RECORDS, ["user_id"])


def run(work: Callable[[RedisStore], Coroutine[Any, Any, Any]], server: RedisServer, **settings: Any) -> Any:
    """What it gives with a store that is closed at the end of its event loop."""

    async def opened() -> Any:
        store = RedisStore(**({"host": server.host, "port": server.port, "prefix": "p"} | settings))
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(opened())


def connected(server: RedisServer) -> int:
    """How many connections there are over TCP: this question comes through the socket."""
    return sum(":0 " not in line for line in str(server.command("CLIENT", "LIST")).splitlines())


async def read_all(store: RedisStore) -> bool:
    return [await store.aread("f", user) for user in USERS] == VALUES


async def every_way(store: RedisStore) -> None:
    """All ways to read, beside those that hold up the event loop."""
    assert await read_all(store)
    assert await store.aread("f", NOBODY) is None
    asked = [*USERS[3:5], NOBODY, USERS[3]]
    found = [VALUES[3], VALUES[4], None, VALUES[3]]
    assert await store.aread_batch("f", asked) == found == store.read_batch("f", asked)
    assert await store.aread_features({"f": asked, "none": asked}) == {"f": found, "none": [None] * 4}
    for primary in (False, True):
        looked_up = await store.alookup({"f": pl.DataFrame(asked)}, primary=primary)
        assert looked_up == store.lookup({"f": pl.DataFrame(asked)}, primary=primary)
        assert looked_up["f"].rows == found
    many = [{"user_id": f"u{number}"} for number in range(1_000)]
    assert await store.aread_batch("f", many) == [*VALUES, *[None] * 980]
    for mistake in (store.aread("f", {"shop": "x"}), store.alookup({"f": pl.DataFrame({"shop": ["x"]})})):
        with pytest.raises(RequestError, match="f is keyed by user_id, not by shop"):
            await mistake
    with pytest.raises(RequestError, match="user_id"):
        await store.aread("f", {"user_id": 1.5})  # type: ignore[dict-item]


def test_all_ways_to_read_give_what_they_give_outside(server: RedisServer) -> None:
    run(every_way, server)
    assert connected(server) == 0


def test_one_event_loop_after_the_other_and_at_the_same_time(server: RedisServer) -> None:
    with RedisStore(server.host, server.port, prefix="p") as store:

        async def work() -> bool:
            try:
                return await read_all(store)
            finally:
                await store.aclose()

        assert all(asyncio.run(work()) for _ in range(3))

        async def other_loops() -> list[bool]:
            return await asyncio.gather(work(), *(asyncio.to_thread(asyncio.run, work()) for _ in range(3)))

        assert asyncio.run(other_loops()) == [True] * 4
    until(lambda: connected(server) == 0, "all connections are closed")


# Nobody has closed the connections.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_event_loop_that_was_closed_is_forgotten_with_its_connections(server: RedisServer) -> None:
    store = RedisStore(server.host, server.port, prefix="p")
    for _ in range(3):
        assert asyncio.run(read_all(store))
        gc.collect()
        assert connected(server) == 1
    del store
    gc.collect()
    assert connected(server) == 0


def test_a_closed_store_may_be_used_again(server: RedisServer) -> None:
    async def again(store: RedisStore) -> None:
        for _ in range(2):
            assert await read_all(store)
            assert connected(server) == 1
            await store.aclose()
            until(lambda: connected(server) == 0, "the connection is closed")

    run(again, server)


def test_reads_at_once_share_as_many_connections_as_are_allowed(server: RedisServer) -> None:
    async def many(store: RedisStore) -> tuple[bool, int]:
        found = await asyncio.gather(*(read_all(store) for _ in range(30)))
        return all(found), connected(server)

    assert run(many, server) == (True, 30)
    assert run(many, server, max_connections=3) == (True, 3)


def test_who_waits_too_long_for_a_connection_is_told_so(server: RedisServer) -> None:
    async def too_many(store: RedisStore) -> None:
        assert await read_all(store)
        server.pause()
        found = await asyncio.gather(*(store.aread("f", USERS[0]) for _ in range(3)), return_exceptions=True)
        server.resume()
        messages = sorted(str(error) for error in found)
        assert [type(error) for error in found] == [UnavailableError] * 3
        assert messages[0].startswith("All 1 connections for reads of this event loop were in use for 0.3 s")
        assert "did not answer in time" in messages[-1]
        assert await read_all(store)

    run(too_many, server, timeout=0.3, max_connections=1)


def test_an_answer_that_came_too_late_is_nobodys(server: RedisServer) -> None:
    async def late(store: RedisStore) -> None:
        for number in (1, 2):
            assert await read_all(store)
            server.pause()
            started = time.monotonic()
            with pytest.raises(UnavailableError, match=r"did not answer in time \(connect 5.0 s, answer 0.2 s\)"):
                await store.aread("f", USERS[number])
            assert time.monotonic() - started < 2
            server.resume()
        assert await read_all(store)

    run(late, server, timeout=0.2)


def test_a_server_that_accepts_but_never_answers_is_an_error_within_the_timeouts(server: RedisServer) -> None:
    async def mute(store: RedisStore) -> None:
        server.pause()
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="did not answer in time"):
            await store.aread("f", USERS[0])
        assert time.monotonic() - started < 2
        server.resume()

    run(mute, server, timeout=0.2, connect_timeout=0.2)


def test_a_read_that_is_cancelled_leaves_no_answer_to_the_next(server: RedisServer) -> None:
    async def cancelled(store: RedisStore) -> None:
        for pause in (0, 0.00005, 0.0001, 0.0003, 0.001) * 10:
            read = asyncio.ensure_future(store.aread("f", USERS[7]))
            await asyncio.sleep(pause)
            read.cancel()
            await asyncio.gather(read, return_exceptions=True)
            assert await store.aread("f", USERS[8]) == VALUES[8]
        server.pause()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await store.aread("f", USERS[7])
        server.resume()
        assert await read_all(store)

    run(cancelled, server, max_connections=2)


def test_a_connection_that_was_lost_is_made_again_unnoticed(server: RedisServer) -> None:
    async def lost(store: RedisStore) -> None:
        assert all(await asyncio.gather(*(read_all(store) for _ in range(4))))
        server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert all(await asyncio.gather(*(read_all(store) for _ in range(4))))
        server.kill()
        server.start()
        fill(server)
        assert await read_all(store)
        server.kill()
        with pytest.raises(UnavailableError, match=f"{server.host}:{server.port} cannot be reached"):
            await store.aread("f", USERS[0])
        server.start()
        fill(server)
        assert await read_all(store)

    run(lost, server)


def test_a_read_whose_connection_breaks_each_time_is_sent_twice(server: RedisServer) -> None:
    async def read(store: RedisStore) -> None:
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await store.aread("f", USERS[0])

    with Slamming() as listener:
        run(read, server, port=listener.port)
    assert listener.commands == 2


def test_a_refused_read_leaves_a_connection_that_can_be_used(server: RedisServer) -> None:
    server.command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+get", "+mget")

    async def refused(store: RedisStore) -> None:
        for _ in range(3):
            with pytest.raises(StoreError, match="does not allow this user the command hmget"):
                await store.alookup({"f": pl.DataFrame(USERS)})
            assert await read_all(store)
        assert connected(server) == 1

    run(refused, server, username="reader", password="secret")


def test_a_wrong_password_and_a_server_that_is_not_there_are_errors_that_say_so() -> None:
    async def read(store: RedisStore) -> None:
        await store.aread("f", USERS[0])

    with RedisServer(requirepass="right") as server:
        with pytest.raises(StoreError, match="refused the user name or the password") as caught:
            run(read, server, password="hunter2-top-secret")
        assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"
    port = free_port()
    with pytest.raises(UnavailableError, match=f"127.0.0.1:{port} cannot be reached"):
        run(read, server, port=port)


def test_a_socket_a_database_and_a_password_are_used_as_outside() -> None:
    with RedisServer(requirepass="right") as server:
        where = {"unix_socket_path": str(server.socket_path), "db": 3, "password": "right"}
        with RedisStore(prefix="p", **where) as store:  # type: ignore[arg-type]
            store.write_batch("f", RECORDS, ["user_id"])
        run(every_way, server, **where)


@pytest.mark.slow
def test_tls_with_a_client_certificate_is_used_as_outside(tmp_path: Path) -> None:
    files = Certificates(tmp_path)
    options = {"ssl_ca_certs": files.ca, "ssl_certfile": files.client, "ssl_keyfile": files.client_key}
    with RedisServer(certificates=files, client_certificate=True) as server:
        fill(server)
        run(every_way, server, ssl=True, ssl_options={name: str(path) for name, path in options.items()})
        with pytest.raises(UnavailableError, match="cannot be reached"):
            run(read_all, server, ssl=True, ssl_options={"ssl_ca_certs": str(files.ca)})


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [False, True], ids=["from the master", "from a replica"])
def test_sentinels_say_where_to_read_before_and_after_a_fail_over(replicas: bool) -> None:
    with SentinelServers(replicas=1) as servers:
        fill(servers.master)
        for server in servers.servers:
            if server is not servers.master:
                server.wait_for(servers.master)

        async def read(store: RedisStore) -> None:
            await every_way(store)
            before = servers.master
            assert servers.fail_over() is not before
            servers.wait_until_settled()
            # A server that is made a replica closes the connections that it has.
            assert await read_all(store)

        where = {"sentinels": servers.addresses, "service": servers.name, "replicas": replicas}
        run(read, servers.master, **where)


def test_a_client_of_ones_own_is_read_in_threads() -> None:
    with RedisStore(client=fakeredis.FakeRedis(), prefix="p") as store:
        store.write_batch("f", RECORDS, ["user_id"])
        asyncio.run(every_way(store))
        asyncio.run(store.aclose())
        assert store.read("f", USERS[0]) == VALUES[0]


def test_a_store_of_four_methods_does_not_hold_up_the_event_loop() -> None:
    class Slow(MemoryStore):
        def read_batch(self, feature_name: str, entity_keys: list[dict[str, str]]) -> list[dict[str, Any] | None]:
            time.sleep(0.3)
            return super().read_batch(feature_name, entity_keys)

    store = Slow()
    store.write_batch("f", RECORDS, ["user_id"])

    async def work() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        assert await store.aread("f", USERS[1]) == VALUES[1]
        assert await store.aread_batch("f", USERS[:2]) == VALUES[:2]
        assert await store.aread_features({"f": USERS[:2]}) == {"f": VALUES[:2]}
        assert (await store.alookup({"f": pl.DataFrame(USERS[:2])}))["f"].rows == VALUES[:2]
        ticking.cancel()
        return ticks

    assert asyncio.run(work()) > 10


def test_an_embedded_store_is_started_and_stopped_from_an_event_loop(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "online", prefix="p")
    store.write_batch("f", RECORDS, ["user_id"])
    store.close()

    async def work() -> None:
        await every_way(store)  # Starts the server.
        await store.aclose()

    for _ in range(2):
        asyncio.run(work())
        assert not (tmp_path / "online" / "valkey.sock").exists()
