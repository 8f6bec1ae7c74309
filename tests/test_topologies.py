"""Every Redis that a company has: ACL users, sockets, replicas; TLS, Sentinels and clusters."""

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis

from mlforge import DefinitionError, StoreError, UnavailableError
from mlforge.online import ClusterStore, RedisStore
from mlforge.online.cluster_turn import ClusterTurn, slot
from mlforge.online.keys import redis_key, status_key
from mlforge.online.lock import Lock
from mlforge.online.status import Status
from mlforge.testing import OnlineStoreSuite
from servers import Certificates, RedisServer, valkey_binary
from test_faults import ENTITIES, Crowd, state
from topologies import ClusterServers, SentinelServers

PAGE = Path(__file__).parent.parent / "docs" / "guide" / "operations.md"
USER = {"entity": "7"}


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Crowd:
    crowd = Crowd(tmp_path_factory.mktemp("crowd"))
    crowd.definitions(RedisStore()).build()
    return crowd


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterServers]:
    with ClusterServers() as servers:
        yield servers


@pytest.fixture(scope="module")
def sentinels() -> Iterator[SentinelServers]:
    with SentinelServers() as servers:
        yield servers


def rules() -> list[list[str]]:
    """The words of the ACL rules in the documentation, as they stand there."""
    return [line.split() for line in re.findall(r"^ACL SETUSER .*$", PAGE.read_text(), re.MULTILINE)]


def test_the_documented_acl_rules_are_enough_and_none_of_their_commands_is_too_many(crowd: Crowd) -> None:
    writer, reader = rules()
    with RedisServer() as server:
        for rule in (writer, reader):
            server.command(*rule)
        where: dict[str, Any] = {"host": server.host, "port": server.port, "password": "secret", "db": 1}
        with (
            RedisStore(**where, username="mlforge-writer") as store,
            RedisStore(**where, username="mlforge-reader") as service,
            RedisStore(**where, username="mlforge-writer", ttl=1000, wait_replicas=0) as expiring,
        ):
            crowd.sync(store, 0)
            assert crowd.sync(store).mode == "difference"
            assert crowd.differences(store) == (0, 0, 0)
            assert service.read("crowd", USER) == store.read("crowd", USER) is not None
            assert service.read("crowd", {"entity": "nobody"}) is None
            assert len(service.read_batch("crowd", [USER, USER])) == 2
            assert asyncio.run(aread(service)) == store.read("crowd", USER)
            frame = crowd.definitions(service).get_online_features(["crowd"], [USER])
            assert frame.height == 1
            assert state(service) == "complete"
            with pytest.raises(StoreError, match="does not allow this user"):
                service.write("crowd", USER, {})
            store.write("crowd", USER, {"x": 1})
            store.write_batch("crowd", [{**USER, "x": 1}], ["entity"])
            assert crowd.definitions(store).status()[0].state == "dirty"
            status = store.status("crowd")
            assert status is not None
            assert store.distrust("crowd", status.token)
            crowd.sync(expiring)
            crowd.heals(store)
            (fresh,) = crowd.definitions(store).status()
            assert fresh.bytes_per_entity is not None
            assert store.clear("crowd") == ENTITIES
        used = {name.removeprefix("cmdstat_") for name in server.client().info("commandstats")}
    allowed = {word.removeprefix("+") for rule in (writer, reader) for word in rule if word.startswith("+")}
    # WAIT is for those who fail over.
    assert allowed - used == {"wait"}


async def aread(store: RedisStore) -> Any:
    try:
        return await store.aread("crowd", USER)
    finally:
        await store.aclose()


def test_a_unix_socket_is_synced_and_read(crowd: Crowd) -> None:
    with RedisServer() as server, RedisStore(unix_socket_path=str(server.socket_path)) as store:
        crowd.heals(store)
        assert store.read("crowd", USER) is not None


def test_valkey_is_synced_by_difference(crowd: Crowd) -> None:
    with RedisServer(binary=valkey_binary()) as server, RedisStore(server.host, server.port) as store:
        crowd.sync(store, 0)
        assert crowd.sync(store).mode == "difference"
        assert crowd.differences(store) == (0, 0, 0)


def test_reads_go_to_a_replica_where_that_is_asked_for(crowd: Crowd) -> None:
    with (
        RedisServer() as master,
        RedisServer(replica_of=master) as replica,
        RedisStore(master.host, master.port, replicas=(replica.host, replica.port), wait_replicas=1) as store,
    ):
        replica.wait_for(master)
        crowd.sync(store)
        before = int(replica.client().info("stats")["total_commands_processed"])
        assert store.read("crowd", USER) is not None
        assert all(store.read_batch("crowd", [USER]))
        assert int(replica.client().info("stats")["total_commands_processed"]) >= before + 3
        assert crowd.differences(store) == (0, 0, 0)


def test_a_replica_that_is_behind_does_not_make_verify_doubt_the_master(crowd: Crowd) -> None:
    with (
        RedisServer() as master,
        RedisServer() as stranger,
        RedisStore(master.host, master.port, replicas=(stranger.host, stranger.port)) as store,
    ):
        crowd.sync(store)
        assert store.read("crowd", USER) is None
        assert crowd.differences(store) == (0, 0, 0)
        assert asyncio.run(store.alookup({"crowd": pl.DataFrame([USER])}, primary=True))["crowd"].rows[0] is not None


def test_what_cannot_be_read_is_not_called_different(crowd: Crowd) -> None:
    with RedisServer() as server, RedisStore(server.host, server.port) as store:
        crowd.sync(store)
        server.client().execute_command("ACL", "SETUSER", "blind", "on", ">secret", "~*", "+@all", "-mget")
        with RedisStore(server.host, server.port, username="blind", password="secret") as blind:
            with pytest.raises(StoreError, match="does not allow this user the command mget"):
                crowd.definitions(blind).verify()
            status = store.status("crowd")
    assert status is not None
    assert status.state == "complete"


def test_a_sync_that_too_few_replicas_have_is_an_error(crowd: Crowd) -> None:
    with (
        RedisServer() as server,
        RedisStore(server.host, server.port, wait_replicas=1, timeout=0.4, retry_seconds=0.2) as store,
        pytest.raises(UnavailableError, match=r"0 of 1 replicas have what was written to mlforge:crowd:status"),
    ):
        crowd.sync(store)
    with pytest.raises(DefinitionError, match="wait_replicas"):
        RedisStore(wait_replicas=-1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"sentinels": [("host", 26379)]},
        {"service": "mymaster"},
        {"sentinels": ["host"], "service": "mymaster"},
        {"sentinels": [5], "service": "mymaster"},
        {"client": redis.Redis(), "replicas": ("host", 1)},
        {"client": redis.Redis(), "lock_seconds": -5},
        {"host": "host:6379"},
        {"sentinels": [("host", 0)], "service": "mymaster"},
        {"sentinels": [("host", 1)], "service": "x", "replicas": ("host", 1)},
        {"replicas": True},
        {"replicas": ("host",)},
        {"max_connections": 0},
        {"lock_seconds": 0},
        {"retry_seconds": -1},
    ],
    ids="-".join,
)
def test_topologies_that_cannot_be_right_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        RedisStore(**arguments)


@pytest.mark.slow
@pytest.mark.parametrize("client_certificate", [False, True])
def test_tls_with_a_ca_and_client_certificates(crowd: Crowd, tmp_path: Path, client_certificate: bool) -> None:
    certificates = Certificates(tmp_path)
    options: dict[str, Any] = {"ssl_ca_certs": str(certificates.ca)}
    with RedisServer(certificates=certificates, client_certificate=client_certificate) as server:
        if client_certificate:
            with (
                RedisStore(server.host, server.port, ssl=True, ssl_options=options) as bare,
                pytest.raises(UnavailableError),
            ):
                bare.read("crowd", USER)
            options |= {"ssl_certfile": str(certificates.client), "ssl_keyfile": str(certificates.client_key)}
        with RedisStore(server.host, server.port, ssl=True, ssl_options=options) as store:
            crowd.heals(store)
            assert asyncio.run(aread(store)) == store.read("crowd", USER) is not None
        with (
            RedisStore(server.host, server.port, ssl=True) as stranger,
            pytest.raises(UnavailableError, match="certif"),
        ):
            stranger.read("crowd", USER)
        with RedisStore.from_url(f"rediss://{server.host}:{server.port}?ssl_ca_certs={certificates.ca}") as by_url:
            assert client_certificate or by_url.read("crowd", USER) is not None
        with RedisStore.from_url(f"rediss://{server.host}:{server.port}", ssl_options=options) as by_url:
            assert by_url.read("crowd", USER) is not None


@pytest.mark.slow
def test_sentinels_say_where_the_master_is_before_during_and_after_a_fail_over(
    crowd: Crowd, sentinels: SentinelServers
) -> None:
    where: dict[str, Any] = {"sentinels": sentinels.addresses, "service": sentinels.name, "timeout": 1.0}
    with RedisStore(**where, retry_seconds=60, lock_seconds=3) as store, RedisStore(**where, replicas=True) as reader:
        crowd.sync(store, 0)
        assert crowd.sync(store).mode == "difference"
        assert reader.read("crowd", {"entity": "nobody"}) is None
        old = sentinels.master
        assert store.redis_cli() == ["redis-cli", "-h", old.host, "-p", str(old.port), "-n", "0"]
        over = threading.Event()

        def kill() -> None:
            over.wait()
            time.sleep(0.05)
            old.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        over.set()
        crowd.sync(store, full=True)
        thread.join()
        sentinels.wait_for_master_other_than(old)
        crowd.heals(store)
        assert crowd.differences(reader) == (0, 0, 0)
        assert asyncio.run(aread(store)) is not None


@pytest.mark.slow
class TestClusterStore(OnlineStoreSuite):
    examples = 5

    @pytest.fixture
    def store(self, cluster: ClusterServers) -> Iterator[ClusterStore]:
        with ClusterStore(cluster.masters[0].host, cluster.masters[0].port) as store:
            yield store


@pytest.mark.slow
def test_a_cluster_is_synced_by_difference_and_verified(crowd: Crowd, cluster: ClusterServers) -> None:
    node = cluster.masters[0]
    with ClusterStore(node.host, node.port, prefix="p") as store, ClusterStore.from_url(node.url, prefix="p") as other:
        crowd.sync(store, 0)
        assert crowd.sync(store).mode == "difference"
        assert crowd.differences(other) == (0, 0, 0)
        assert all(master.client().dbsize() > ENTITIES / 5 for master in cluster.masters)
        (fresh,) = crowd.definitions(store).status()
        assert fresh.bytes_per_entity is not None
        assert fresh.rows == ENTITIES
        assert asyncio.run(aread(store)) == other.read("crowd", USER)
        with (
            store.turn("crowd"),
            ClusterStore(node.host, node.port, prefix="p", lock_wait=0.1) as hasty,
            pytest.raises(UnavailableError, match="is held by"),
        ):
            crowd.sync(hasty)
        victim = cluster.masters[1]
        victim.client().flushall()
        assert crowd.differences(store)[0] > 0
        assert crowd.sync(store).mode == "full"
        assert crowd.differences(store) == (0, 0, 0)


def other_than_the_status(cluster: ClusterServers, prefix: str) -> RedisServer:
    """A master that has not the status, whose loss the status therefore does not show."""
    owner = cluster.owner(slot(status_key(prefix, "crowd")))
    return next(master for master in cluster.masters if master is not owner)


@pytest.mark.slow
def test_a_master_that_was_flushed_is_noticed_between_syncs_and_during_one(
    crowd: Crowd, cluster: ClusterServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, victim = cluster.masters[0], other_than_the_status(cluster, "flushed")
    complete, flushed = ClusterTurn._complete, []

    def lose(turn: ClusterTurn, lock: Lock, begun: Status) -> None:
        if not flushed:
            flushed.append(victim.client().flushall())
        complete(turn, lock, begun)

    with ClusterStore(node.host, node.port, prefix="flushed") as store:
        crowd.sync(store)
        victim.client().flushall()
        report = crowd.sync(store)
        assert (report.mode, report.reason) == ("full", "a server of the cluster has lost what it held")
        assert crowd.differences(store) == (0, 0, 0)
        monkeypatch.setattr(ClusterTurn, "_complete", lose)
        crowd.sync(store, full=True)
        assert flushed
        assert crowd.differences(store) == (0, 0, 0)
        assert crowd.sync(store).mode == "unchanged"
        store.clear("crowd")
        assert not [key for master in cluster.masters for key in master.client().scan_iter("flushed:*")]


@pytest.mark.slow
def test_a_master_that_comes_back_with_older_data_serves_none_of_it(crowd: Crowd, cluster: ClusterServers) -> None:
    node, victim = cluster.masters[0], other_than_the_status(cluster, "older")
    with ClusterStore(node.host, node.port, prefix="older", timeout=2) as store:
        crowd.sync(store)
        gone = next(
            key
            for key in (redis_key("older", "crowd", f"{number:032x}") for number in range(100))
            if cluster.owner(slot(key)) is victim
        )
        with victim.client() as client:
            client.set(gone, "{}")
            client.save()
        victim.kill()
        victim.start()
        cluster.wait_until_settled()
        assert crowd.sync(store).reason == "the server was started again, or is another one"
        assert crowd.differences(store) == (0, 0, 0)


@pytest.mark.slow
def test_slots_that_move_are_followed(crowd: Crowd, cluster: ClusterServers) -> None:
    node = cluster.masters[0]
    with ClusterStore(node.host, node.port, prefix="moving", retry_seconds=30) as store:
        crowd.sync(store, 0)
        source, target = cluster.masters[0], cluster.masters[1]
        with cluster.moving(range(100), source, target):
            asked = [{"entity": str(number)} for number in range(2_000)]
            assert None not in store.read_batch("crowd", asked)
        assert None not in store.read_batch("crowd", asked)
        crowd.heals(store)
        with cluster.moving(range(100), target, source):
            pass


@pytest.mark.slow
def test_a_master_that_fails_over_in_a_cluster_is_written_again(crowd: Crowd) -> None:
    with ClusterServers(replicas=True) as servers:
        node = servers.masters[0]
        others = [(master.host, master.port) for master in servers.masters[1:]]
        with ClusterStore(node.host, node.port, nodes=others, timeout=1, retry_seconds=60, wait_replicas=1) as store:
            crowd.sync(store, 0)
            victim = servers.masters[2]
            replica = servers.replica(victim)
            victim.kill()
            deadline = time.monotonic() + 30
            while replica.client().info("replication")["role"] != "master":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            servers_left = ClusterStore(node.host, node.port, nodes=others, timeout=1, retry_seconds=60)
            with servers_left:
                assert crowd.sync(servers_left).mode == "full"
                assert crowd.differences(servers_left) == (0, 0, 0)
                assert state(servers_left) == "complete"


def test_nobody_can_be_asked_for_a_cluster_that_is_away() -> None:
    with ClusterStore("127.0.0.1", 1) as store:
        assert repr(store) == "ClusterStore(host='127.0.0.1', port=1, prefix='mlforge')"
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 cannot be reached"):
            store.read("crowd", USER)
    with pytest.raises(DefinitionError, match="one database"):
        ClusterStore.from_url("redis://host:6379/3")
