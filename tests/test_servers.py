"""The servers that other tests rely on do what they say."""

import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError
from redis.sentinel import Sentinel

from proxy import Proxy
from servers import Certificates, RedisServer, server_binary, until, valkey_binary
from topologies import ClusterServers, SentinelServers

# A connection that says nothing of its own, and is not made again.
plain: dict[str, Any] = {"protocol": 2, "driver_info": None, "retry": None}

both_binaries = pytest.mark.parametrize("binary", [server_binary, valkey_binary], ids=["redis", "valkey"])


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@both_binaries
def test_a_server_is_the_program_that_was_asked_for(binary: Callable[[], str]) -> None:
    with RedisServer(binary=binary()) as server:
        assert ("valkey_version" in server.command("INFO", "server")) == ("valkey" in binary())


def test_a_server_that_does_not_start_says_why_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server = RedisServer(arguments=["--maxmemory", "much"])
    with pytest.raises(RuntimeError, match=r"did not start on port [0-9]+: .*memory"), server:
        pass
    assert server.process.returncode is not None
    assert list(tmp_path.iterdir()) == []


def test_a_paused_server_takes_connections_and_answers_none_until_it_goes_on(server: RedisServer) -> None:
    with redis.Redis(port=server.port, socket_timeout=0.1, retry=None) as client:
        client.set("a", 1)
        server.pause()
        assert not server.running
        with pytest.raises(redis.TimeoutError):
            client.get("a")
        server.resume()
        assert server.running
        assert client.get("a") == b"1"


def test_a_paused_server_can_be_killed_and_comes_back_empty(server: RedisServer) -> None:
    server.command("SET", "a", 1)
    server.pause()
    server.kill()
    server.start()
    assert server.running
    assert server.command("GET", "a") is None


def test_an_append_only_server_that_was_killed_has_all_it_answered() -> None:
    with RedisServer(append_only=True) as server:
        for number in range(10):
            server.command("SET", number, number)
        server.kill()
        server.start()
        assert server.command("DBSIZE") == 10


def test_a_server_has_what_was_saved_before_it_was_killed(server: RedisServer) -> None:
    server.command("SET", "a", 1)
    server.command("SAVE")
    server.command("SET", "b", 1)
    server.kill()
    server.start()
    assert server.command("KEYS", "*") == ["a"]


def test_a_unix_socket_leads_to_a_server(server: RedisServer) -> None:
    server.command("SET", "a", 1)
    with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
        assert client.get("a") == b"1"


def test_a_replica_follows_keeps_nothing_and_is_promoted() -> None:
    with RedisServer(requirepass="secret") as master:
        master.command("SET", "a", 1)
        with RedisServer(requirepass="secret", replica_of=master) as replica:
            replica.wait_for(master)
            assert replica.command("GET", "a") == "1"
            replica.promote()
            master.command("SET", "a", 2)
            replica.command("SET", "a", 3)
            replica.follow(master)
            replica.wait_for(master)
            assert replica.command("GET", "a") == "2"
            master.kill()
            replica.kill()
            replica.start()
            assert replica.command("GET", "a") is None


def test_a_replica_behind_a_proxy_that_holds_lags(server: RedisServer) -> None:
    with Proxy(server=server) as proxy, RedisServer(replica_of=proxy) as replica:
        replica.wait_for(server)
        proxy.hold()
        server.command("SET", "a", 1)
        with server.client() as client:
            client.set("b", 1)
            assert client.wait(1, 50) == 0
        threading.Timer(0.1, proxy.release).start()
        replica.wait_for(server)
        assert replica.command("GET", "b") == "1"
        proxy.hold()
        server.command("SET", "a", 2)
        replica.promote()
        proxy.release()
        assert replica.command("GET", "a") == "1"


def test_a_proxy_counts_the_bytes_of_all_its_connections_and_cuts_one(server: RedisServer) -> None:
    seen: list[object] = []
    with (
        Proxy(
            server=server, after=42, act=lambda: seen.append(server.command("GET", "a")), cut=True, connections=2
        ) as proxy,
        redis.Redis(port=proxy.port, **plain) as first,
        redis.Redis(port=proxy.port, **plain) as second,
    ):
        # A SET is 27 bytes.
        first.set("a", 1)
        assert seen == []
        with pytest.raises(redis.ConnectionError):
            second.set("a", 2)
        assert seen == ["1"]
        first.set("a", 3)
    assert server.command("GET", "a") == "3"


def test_a_proxy_ends_with_the_server_and_lets_no_more_connections_through_than_it_should(server: RedisServer) -> None:
    with Proxy(server=server) as proxy:
        with socket.create_connection((proxy.host, proxy.port), timeout=20) as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(7) == b"+PONG\r\n"
            server.kill()
            assert connection.recv(1) == b""
        server.start()
        with socket.create_connection((proxy.host, proxy.port), timeout=0.1) as connection:
            connection.sendall(b"PING\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(1)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_with_certificates_speaks_only_tls(certificates: Certificates, host: str) -> None:
    with RedisServer(certificates=certificates) as server:
        with redis.Redis(host, server.port, ssl=True, ssl_ca_certs=str(certificates.ca)) as client:
            assert client.ping()
        with redis.Redis(host, server.port, ssl=True, retry=None) as stranger, pytest.raises(redis.ConnectionError):
            stranger.ping()
        with redis.Redis(host, server.port, retry=None) as plain, pytest.raises(redis.ConnectionError):
            plain.ping()


@pytest.mark.slow
def test_a_server_can_want_a_certificate_of_its_clients(certificates: Certificates) -> None:
    shown = {"ssl_certfile": str(certificates.client), "ssl_keyfile": str(certificates.client_key)}
    with RedisServer(certificates=certificates, client_certificate=True, requirepass="secret") as server:
        with redis.Redis.from_url(server.url, ssl_ca_certs=str(certificates.ca), **shown) as client:
            assert client.ping()
        with (
            redis.Redis.from_url(server.url, ssl_ca_certs=str(certificates.ca), retry=None) as nobody,
            pytest.raises(redis.ConnectionError),
        ):
            nobody.ping()


@pytest.mark.slow
@both_binaries
def test_sentinels_promote_a_replica_on_request_and_when_the_master_is_gone(binary: Callable[[], str]) -> None:
    with SentinelServers(replicas=2, requirepass="secret", binary=binary()) as group:
        old = group.master
        asked = Sentinel(group.addresses, sentinel_kwargs={"password": "secret"}, password="secret")
        with asked.master_for(group.name) as client:
            client.set("a", 1)
            for replica in group.servers[1:]:
                replica.wait_for(old)
            second = group.fail_over()
            assert second is not old
            assert asked.discover_master(group.name) == (second.host, second.port)
            group.wait_until_settled()
            second.kill()
            third = group.wait_for_master_other_than(second)
            assert third is not second
            assert client.get("a") == b"1"
            second.start()
            group.wait_until_settled()
            assert second.command("ROLE")[0] == "slave"
        for sentinel in asked.sentinels:
            sentinel.close()


@pytest.mark.slow
@both_binaries
def test_slots_of_a_cluster_move_with_their_keys(binary: Callable[[], str]) -> None:
    slot = key_slot(b"tag")
    keys = [f"{{tag}}{number}" for number in range(10)]
    with ClusterServers(binary=binary()) as cluster:
        source = cluster.owner(slot)
        target = next(master for master in cluster.masters if master is not source)
        with RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port, decode_responses=True) as client:
            client.mset(dict.fromkeys(keys, "1"))
            with cluster.moving([slot, slot + 1], source, target, left_behind=4):
                assert cluster.owner(slot) is source
                assert source.command("CLUSTER", "COUNTKEYSINSLOT", slot) == 4
                gone = [key for key in keys if key not in source.command("CLUSTER", "GETKEYSINSLOT", slot, 10)]
                with pytest.raises(AskError):
                    source.command("GET", gone[0])
                assert [client.get(key) for key in keys] == ["1"] * 10
            assert cluster.owner(slot) is cluster.owner(slot + 1) is target
            with pytest.raises(MovedError):
                source.command("GET", keys[0])
            assert [client.get(key) for key in keys] == ["1"] * 10


@pytest.mark.slow
@both_binaries
def test_replicas_of_a_cluster_take_over(binary: Callable[[], str]) -> None:
    with ClusterServers(binary=binary(), replicas=True) as cluster:
        first, second, third = cluster.masters
        heir = cluster.fail_over(first)
        assert cluster.owner(0) is heir
        assert cluster.replica(heir) is first
        heir = cluster.replica(second)
        second.kill()
        cluster.wait_until_settled()
        assert heir in cluster.masters
        second.start()
        cluster.wait_until_settled()
        assert cluster.replica(heir) is second
        heir = cluster.replica(third)
        third.pause()
        until(lambda: heir.command("ROLE")[0] == "master", "the replica has taken over")
        third.resume()
        cluster.wait_until_settled()
        assert cluster.replica(heir) is third
