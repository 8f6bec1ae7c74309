"""A sync's turn in a Redis Cluster: single-key commands, for all masters at once.

There a chunk and the lock are in different slots, so that no transaction can have both. The holder looks at its lock
before every flight instead. A writer that is stopped between this look and the sending, for longer than its lock
lasts, may write that one flight late; it marks the status dirty when it goes on, and `verify` finds what it did.
"""

import hashlib
from binascii import crc_hqx
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count, zip_longest
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from mlforge.errors import UnavailableError
from mlforge.online.base import Part, Published
from mlforge.online.keys import lock_key, redis_key, status_key
from mlforge.online.line import Line, Word
from mlforge.online.lock import Lock
from mlforge.online.resp import Chunk, chunks, deletions
from mlforge.online.status import Status
from mlforge.online.turn import RedisTurn, Terms, locked, scan, server_identity

if TYPE_CHECKING:
    from redis.cluster import RedisCluster

SLOTS = 16_384
UNMARKED = "a server of the cluster has lost what it held"


def slot(key: str) -> int:
    """The hash slot of a key without braces.

    As in https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/.

    >>> slot("123456789")
    12739
    """
    return crc_hqx(key.encode(), 0) % SLOTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight(Chunk):
    """Commands for several masters, sent to all of them before the first reply is read.

    Attributes:
        parts: For each master its commands; `data` is all of them, and `replies` how many there are in all.
    """

    parts: tuple[tuple[str, Chunk], ...]


class Masters:
    """A connection to every master of a cluster, as its topology is now.

    Args:
        client: The cluster; its topology is read anew.

    Attributes:
        lines: The connections by the name of their master.
    """

    def __init__(self, client: "RedisCluster") -> None:
        self._client = client
        self.lines: dict[str, Line] = {}
        self._owners: list[str] = []

    def connect(self, stack: ExitStack) -> None:
        """Connect to all of them, until the stack closes.

        Raises:
            redis.RedisError: One of them cannot be reached.
        """
        self._client.nodes_manager.initialize()
        self._owners = self._topology()
        for name in sorted(set(self._owners)):
            self.lines[name] = stack.enter_context(self.line(name))

    def line(self, name: str) -> Line:
        """A connection to a master that is not connected yet."""
        node = self._client.get_node(node_name=name)  # type: ignore[no-untyped-call]
        return Line(self._client.get_redis_connection(node).connection_pool)

    def line_of(self, key: str) -> Line:
        """A connection to the master that has a key, not connected yet; as the client knows the topology."""
        nodes = self._client.nodes_manager
        return self.line(nodes.get_node_from_slot(slot(key)).name)

    def all(self) -> list[Line]:
        """Connections to all masters, not connected yet; as the client knows the topology."""
        return [self.line(name) for name in sorted(set(self._topology()))]

    def owner(self, key: str) -> str:
        """The name of the master that has a key."""
        return self._owners[slot(key)]

    def owners(self, keys: pl.Series) -> pl.Series:
        """The names of the masters that have keys."""
        return pl.Series("owner", [self._owners[slot(key)] for key in keys], dtype=pl.String)

    def marks(self, feature_name: str, prefix: str) -> dict[str, str]:
        """For every master a key that it has: what takes all keys of a master away takes this one as well."""
        found: dict[str, str] = {}
        wanted = set(self._owners)
        for number in count():
            # In a cluster what stands in braces decides where a key is.
            if (owner := self._owners[slot(str(number))]) not in found:
                found[owner] = f"{redis_key(prefix, feature_name, 'mark')}:{{{number}}}"
            if len(found) == len(wanted):
                return found
        raise AssertionError

    def identity(self) -> tuple[str, int]:
        """One id for the processes of all masters, and how many keys they have evicted together."""
        found = [server_identity(line) for line in self.lines.values()]
        ids = "".join(run_id for run_id, _ in found)
        return hashlib.sha256(ids.encode()).hexdigest()[:40], sum(evicted for _, evicted in found)

    def require_same(self) -> None:
        """Goes on only if every slot is still where it was.

        Raises:
            UnavailableError: A master has failed over, or slots have moved.
        """
        self._client.nodes_manager.initialize()
        if self._topology() != self._owners:
            raise UnavailableError("The cluster's masters or their slots have changed meanwhile.")

    def _topology(self) -> list[str]:
        nodes = self._client.nodes_manager
        return [nodes.get_node_from_slot(number).name for number in range(SLOTS)]


class ClusterTurn(RedisTurn):
    """A turn at a feature in a cluster, or without a lock a look at it.

    Each master holds a mark beside the values: where it is gone, so may they be, though the status knows nothing of it.
    """

    def __init__(self, masters: Masters, lock: Lock | None, feature_name: str, terms: Terms) -> None:
        self._masters = masters
        self._marks = masters.marks(feature_name, terms.prefix)
        super().__init__(
            masters.lines[masters.owner(status_key(terms.prefix, feature_name))], lock, feature_name, terms
        )

    def publish_parts(self, parts: Iterable[Part], status: Status) -> Published:
        """As in one Redis; where the turn was lost, what may have come late is said to be there."""
        from redis.exceptions import RedisError

        if self.status is not None and self.status.synced and self.status.run_id != self._run_id:
            # A master may have come back with what it had once, of which the status, on another one, tells nothing.
            parts = map(_unknown, parts)
        try:
            return super().publish_parts(parts, status)
        except UnavailableError:
            with suppress(RedisError, OSError):
                if self._line.sound and self._line.call("EXISTS", self._key):
                    self._line.call("HSET", self._key, "state", "dirty")
            raise

    def _watch(self, lock: Lock) -> None:
        lock.renew()
        self._line.call("WATCH", self._key)

    def _change(self, lock: Lock, *commands: Sequence[Word]) -> None:
        lock.renew()
        if self._line.transaction(*commands) is None:
            raise UnavailableError(f"{self._key} was written by somebody else at the same time.")

    def _doubt(self, status: Status) -> str | None:
        doubt = super()._doubt(status)
        return UNMARKED if doubt is None and not self._marked() else doubt

    def _begin(self, lock: Lock, status: Status) -> Status:
        begun = super()._begin(lock, status)
        if self.doubt is not None:
            for master, key in self._marks.items():
                self._masters.lines[master].call("SET", key, begun.token)
        return begun

    def _marked(self) -> bool:
        return all(self._masters.lines[master].call("GET", key) is not None for master, key in self._marks.items())

    def _forget(self, lock: Lock) -> None:
        for master, key in self._marks.items():
            self._masters.lines[master].call("UNLINK", key)
        super()._forget(lock)

    def _complete(self, lock: Lock, begun: Status) -> None:
        self._masters.require_same()
        if not self._marked():
            raise UnavailableError("A server of the cluster has lost what was written to it meanwhile.")
        if self._identity() != (begun.run_id, begun.evicted_keys):
            raise UnavailableError("A server of the cluster was started again meanwhile, or has evicted keys.")
        super()._complete(lock, begun)

    def _settings(self, part: pl.DataFrame) -> Iterator[Chunk]:
        return self._flights(part, lambda frame: chunks(frame, ttl=self._terms.ttl, together=False))

    def _deletions(self, keys: pl.Series) -> Iterator[Chunk]:
        return self._flights(pl.DataFrame({"key": keys}), lambda frame: deletions(frame["key"], together=False))

    def _flights(self, frame: pl.DataFrame, build: Any) -> Iterator[Chunk]:
        owned = frame.with_columns(self._masters.owners(frame["key"])).partition_by("owner", as_dict=True)
        # One chunk of every master at a time.
        for row in zip_longest(*([(str(name), chunk) for chunk in build(each)] for (name,), each in owned.items())):
            parts = tuple(part for part in row if part is not None)
            yield Flight(
                data=b"".join(chunk.data for _, chunk in parts),
                replies=sum(chunk.replies for _, chunk in parts),
                parts=parts,
            )

    def _send(self, lock: Lock, chunk: Chunk) -> list[Any]:
        lock.renew()
        parts = cast("Flight", chunk).parts
        for name, part in parts:
            self._masters.lines[name].send(part.data)
        return [reply for name, part in parts for reply in self._masters.lines[name].replies(part.replies)]

    def _there(self, lock: Lock) -> pl.Series:
        head = redis_key(self._terms.prefix, self._feature_name, "")
        return scan(self._masters.lines.values(), head, each=lock.renew)

    def _identity(self) -> tuple[str, int]:
        return self._masters.identity()

    def _replicated(self) -> None:
        for line in self._masters.lines.values():
            self._replicated_on(line)


def _unknown(part: Part) -> Part:
    """The part, where it is not known what is there."""
    return replace(part, vanished=None)


@contextmanager
def cluster_turn(
    masters: Masters, feature_name: str, terms: Terms, abandoned: dict[str, set[str]], *, writing: bool
) -> Generator[ClusterTurn]:
    """A turn in a cluster whose masters are connected; see `locked`.

    Raises:
        UnavailableError: Somebody else's turn does not end.
    """
    if not writing:
        yield ClusterTurn(masters, None, feature_name, terms)
        return
    # The lock has a connection of its own: what is watched there ends with each of its transactions.
    key = lock_key(terms.prefix, feature_name)
    with masters.line(masters.owner(key)) as line, locked(line, feature_name, terms, abandoned) as lock:
        yield ClusterTurn(masters, lock, feature_name, terms)
