"""Real Redis servers that work together: watched by sentinels, or in a cluster. They start within seconds, not less."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import redis

from servers import RedisServer, free_port, until

SLOTS = 16_384


@dataclass(kw_only=True)
class SentinelServers:
    """A master, its replicas, and three sentinels that promote a replica when the master is gone; a context manager.

    Args:
        replicas: How many there are.
        requirepass: What servers and sentinels have as their password.
        binary: The program of all; None is `server_binary()`.
        name: What the sentinels call the master.
        down_after: How many milliseconds without an answer make it down for a sentinel.
    """

    replicas: int = 1
    requirepass: str | None = None
    binary: str | None = None
    name: str = "mymaster"
    down_after: int = 1000

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(RedisServer(binary=self.binary, requirepass=self.requirepass))
            self.servers = [first]
            for _ in range(self.replicas):
                replica = RedisServer(binary=self.binary, requirepass=self.requirepass, replica_of=first)
                self.servers.append(stack.enter_context(replica))
            # Sentinels that meet a replica before its link is up do not promote it until they look again.
            for replica in self.servers[1:]:
                replica.wait_for(first)
            # Three that notice at once vote for themselves, and again only 6 seconds later; the third is slower.
            patience = [self.down_after, self.down_after, 2 * self.down_after]
            self.sentinels = [stack.enter_context(self._sentinel(first, down_after)) for down_after in patience]
            self.wait_until_settled()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where the sentinels are, as redis-py wants it."""
        return [(sentinel.host, sentinel.port) for sentinel in self.sentinels]

    @property
    def master(self) -> RedisServer:
        """What the first sentinel says is the master."""
        return self._known_to(self.sentinels[0])

    def fail_over(self) -> RedisServer:
        """Have the sentinels swap a master that is alive, and give the new one when all of them know it."""
        old = self.master
        self.sentinels[0].command("SENTINEL", "FAILOVER", self.name)
        return self.wait_for_master_other_than(old)

    def wait_for_master_other_than(self, old: RedisServer) -> RedisServer:
        """Wait until all sentinels name one new master that knows it is one; give it."""

        def agreed() -> bool:
            new = self.master
            known = [self._known_to(sentinel) for sentinel in self.sentinels]
            return new is not old and known == [new] * 3 and new.command("ROLE")[0] == "master"

        until(agreed, f"the sentinels agree on a master other than {old.port}", every=0.05)
        return self.master

    def wait_until_settled(self) -> None:
        """Wait until every sentinel knows the others, and every server as what it is; so could fail over."""

        def settled() -> bool:
            return all(self._settled(sentinel) for sentinel in self.sentinels)

        until(settled, "the sentinels know each other and the replicas", every=0.05)

    def _known_to(self, sentinel: RedisServer) -> RedisServer:
        # GET-MASTER-ADDR-BY-NAME tells a new master before the fail-over has ended.
        port = int(sentinel.command("SENTINEL", "MASTER", self.name)["port"])
        return next(server for server in self.servers if server.port == port)

    def _settled(self, sentinel: RedisServer) -> bool:
        master = sentinel.command("SENTINEL", "MASTER", self.name)
        replicas = sentinel.command("SENTINEL", "REPLICAS", self.name)
        return (
            (master["flags"], master["num-other-sentinels"]) == ("master", "2")
            and len(replicas) == self.replicas
            and all((known["flags"], known["master-link-status"]) == ("slave", "ok") for known in replicas)
        )

    def _sentinel(self, master: RedisServer, down_after: int) -> RedisServer:
        lines = [
            f"sentinel monitor {self.name} {master.host} {master.port} 2",
            f"sentinel down-after-milliseconds {self.name} {down_after}",
            f"sentinel failover-timeout {self.name} 3000",
        ]
        if self.requirepass is not None:
            lines += [
                f"sentinel auth-pass {self.name} {self.requirepass}",
                f"sentinel sentinel-pass {self.requirepass}",
            ]
        arguments = ["--sentinel"]
        return _Sentinel(binary=self.binary, requirepass=self.requirepass, config="\n".join(lines), arguments=arguments)


@dataclass(kw_only=True)
class ClusterServers:
    """A cluster of masters, each with as many of the slots; a context manager. One of a single master is there at once.

    Args:
        size: How many masters.
        replicas: Whether each master has one, which takes over when the master is gone.
        binary: The program of all; None is `server_binary()`.
        node_timeout: How many milliseconds without an answer make a node down for the others.
    """

    size: int = 3
    replicas: bool = False
    binary: str | None = None
    node_timeout: int = 2000

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            ports = [free_port() for _ in range(self.size * (2 if self.replicas else 1))]
            self.nodes = [stack.enter_context(self._node(bus)) for bus in ports]
            first = self.nodes[0]
            for number, node in enumerate(self.nodes[: self.size]):
                node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                first_slot, next_slot = (SLOTS * n // self.size for n in (number, number + 1))
                node.command("CLUSTER", "ADDSLOTSRANGE", first_slot, next_slot - 1)
            for node, bus in zip(self.nodes, ports, strict=True):
                first.command("CLUSTER", "MEET", node.host, node.port, bus)
            until(self._all_met, "the nodes of the cluster know each other", every=0.05)
            for master, replica in zip(self.nodes, self.nodes[self.size :], strict=False):
                replica.command("CLUSTER", "REPLICATE", _node_id(master))
            self.wait_until_settled()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def masters(self) -> list[RedisServer]:
        """Those of the nodes that run and take themselves for masters."""
        return [node for node in self._running() if node.command("ROLE")[0] == "master"]

    def owner(self, slot: int) -> RedisServer:
        """The master of a slot, as a node that runs knows it."""
        slots = _slots(self._running()[0])
        port = next(ports[0] for (first, last), ports in slots.items() if first <= slot <= last)
        return self._on(port)

    def replica(self, master: RedisServer) -> RedisServer:
        """The replica of a master, as the master knows it."""
        return self._on(next(ports[1] for ports in _slots(master).values() if ports[0] == master.port))

    def fail_over(self, master: RedisServer) -> RedisServer:
        """Have the replica of a master that is alive take over, and give it when all nodes know.

        Once for each node in 4 node timeouts: for so long it takes the votes it got for those of its next election.
        """
        heir = self.replica(master)
        heir.command("CLUSTER", "FAILOVER")
        until(
            lambda: heir.command("ROLE")[0] == "master", f"the replica on port {heir.port} has taken over", every=0.05
        )
        self.wait_until_settled()
        return heir

    def wait_until_settled(self) -> None:
        """Wait until all nodes that run serve all slots, agree whose they are, and know of the nodes that run only."""

        def settled() -> bool:
            nodes = self._running()
            views = [_slots(node) for node in nodes]
            return (
                all("cluster_state:ok" in node.command("CLUSTER", "INFO") for node in nodes)
                and all(view == views[0] for view in views)
                and {port for ports in views[0].values() for port in ports} == {node.port for node in nodes}
                and all(node.command("INFO", "replication").get("master_link_status") in (None, "up") for node in nodes)
            )

        until(settled, "the cluster is up and its nodes agree", every=0.05)

    @contextlib.contextmanager
    def moving(
        self, slots: Iterable[int], source: RedisServer, target: RedisServer, left_behind: int = 0
    ) -> Iterator[None]:
        """Move slots from one master to another, by the end of the block; in it they are on their way.

        So in it the source answers ASK for keys that it has not, after it MOVED.

        Args:
            slots: Which.
            source: Whose they are.
            target: Whose they will be.
            left_behind: How many keys of each slot go only at the end; the others are gone when the block begins.
        """
        slots = list(slots)
        old, new = _node_id(source), _node_id(target)
        with source.client() as sender, target.client() as receiver:
            _set_slots(receiver, slots, "IMPORTING", old)
            _set_slots(sender, slots, "MIGRATING", new)
            _send(sender, slots, target, left_behind)
            try:
                yield
            finally:
                _send(sender, slots, target, 0)
                for client in (receiver, sender):
                    _set_slots(client, slots, "NODE", new)
        self.wait_until_settled()

    def _node(self, bus: int) -> RedisServer:
        options = {"enabled": "yes", "port": bus, "node-timeout": self.node_timeout, "announce-ip": "127.0.0.1"}
        arguments = [word for name, value in options.items() for word in (f"--cluster-{name}", str(value))]
        # A replica is in no list of the slots before its master has sent it something, if only a PING.
        return RedisServer(binary=self.binary, arguments=[*arguments, "--repl-ping-replica-period", "1"])

    def _running(self) -> list[RedisServer]:
        return [node for node in self.nodes if node.running]

    def _on(self, port: int) -> RedisServer:
        return next(node for node in self.nodes if node.port == port)

    def _all_met(self) -> bool:
        known = f"cluster_known_nodes:{len(self.nodes)}\r\n"
        return all(known in node.command("CLUSTER", "INFO") for node in self.nodes)


def _node_id(node: RedisServer) -> str:
    return str(node.command("CLUSTER", "MYID"))


def _slots(node: RedisServer) -> dict[tuple[int, int], list[int]]:
    """The ports of master and replicas by the first and the last slot."""
    found = node.command("CLUSTER", "SLOTS")
    return {(first, last): [port for _, port, *_ in places] for first, last, *places in found}


def _set_slots(client: redis.Redis, slots: list[int], *state: str) -> None:
    # In one pipeline: a node writes its configuration to the disk once for many commands, not for each.
    pipeline = client.pipeline(transaction=False)
    for slot in slots:
        pipeline.execute_command("CLUSTER", "SETSLOT", slot, *state)
    pipeline.execute()


def _send(sender: redis.Redis, slots: list[int], target: RedisServer, left_behind: int) -> None:
    for slot in slots:
        while (count := sender.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) - left_behind) > 0:
            keys = sender.execute_command("CLUSTER", "GETKEYSINSLOT", slot, min(count, 1000))
            sender.execute_command("MIGRATE", target.host, target.port, "", 0, 30_000, "KEYS", *keys)


class _Sentinel(RedisServer):
    def start(self) -> None:
        super().start()
        # Otherwise they look at servers every 10 seconds, say what they know every 2, and rest for 30 after a stall.
        # Shorter still would not do. In a fail-over they look once a second only, and meanwhile must not think that
        # what a replica said is too old (after 5 PING periods) or that its promotion is a mistake (4 PUBLISH periods).
        for period, milliseconds in {"INFO": 100, "PUBLISH": 500, "ASK": 100, "PING": 300, "TILT": 500}.items():
            self.command("SENTINEL", "DEBUG", f"{period}-PERIOD", milliseconds)
