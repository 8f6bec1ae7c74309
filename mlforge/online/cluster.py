"""The online store in a Redis Cluster."""

import datetime as dt
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

from mlforge.errors import DefinitionError
from mlforge.online.base import Turn
from mlforge.online.catalog import FIELDS, Asked, Catalog, Fetched
from mlforge.online.client import make_cluster_client, require_address
from mlforge.online.cluster_turn import Masters, cluster_turn
from mlforge.online.connection import redis_cli, settings_from_url
from mlforge.online.flight import Payload
from mlforge.online.keys import status_key
from mlforge.online.line import Line, raise_first
from mlforge.online.reader import Reader
from mlforge.online.redis import RedisStore
from mlforge.online.status import key_columns_text

if TYPE_CHECKING:
    from redis import Redis
    from redis.cluster import RedisCluster


class ClusterStore(RedisStore):
    """A `RedisStore` whose keys are spread over the masters of a Redis Cluster.

    Keys and values are those of a `RedisStore`; it may be used from many threads, in forked children, and be pickled.
    Reads go to all masters at once, with single-key commands, and follow slots that move. Async reads run in threads.

    A sync is not fenced chunk by chunk as in one Redis, since a lock and the data of a chunk are in different slots:
    the writer looks at its lock before every chunk. One that is stopped between that look and the sending, for longer
    than `lock_seconds`, may write one chunk late; it then marks the status dirty, and `verify` finds what it did.

    Args:
        host: One of the nodes, which knows the others.
        port: Its TCP port.
        password: For nodes that want one.
        ttl: Seconds (or a timedelta of whole seconds) after which values go away; None keeps them.
        nodes: Hosts and ports of more nodes to ask, should the first one be away.
        prefix: What all keys begin with.
        username: For nodes with ACL users.
        ssl: Speak TLS.
        ssl_options: redis-py's own `ssl_*` settings.
        connect_timeout: Seconds until an unreachable node is an error.
        timeout: Seconds until a node that does not answer is an error.
        max_connections: How many connections to each node may be open; None: as many as there are readers.
        replicas: Read from replicas as well, whose values may be older.
        wait_replicas: How many replicas of every master have to have everything before a sync counts as done.
        lock_seconds: For how long a sync that gives no sign of life keeps others from the feature.
        lock_wait: For how many seconds a sync waits for another one to end.
        retry_seconds: For how long a sync that has lost a master on the way begins again.

    Raises:
        DefinitionError: An argument cannot be right, or the redis package is not installed.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 6379,
        password: str | None = None,
        ttl: int | dt.timedelta | None = None,
        *,
        nodes: Sequence[tuple[str, int]] = (),
        prefix: str = "mlforge",
        username: str | None = None,
        ssl: bool = False,
        ssl_options: Mapping[str, Any] | None = None,
        connect_timeout: float = 5.0,
        timeout: float = 5.0,
        max_connections: int | None = None,
        replicas: bool = False,
        wait_replicas: int = 0,
        lock_seconds: float = 15.0,
        lock_wait: float = 60.0,
        retry_seconds: float = 30.0,
    ) -> None:
        for node in nodes:
            require_address("nodes", node)
        self._nodes = [(host, port), *nodes]
        self._replicas = replicas
        super().__init__(
            host,
            port,
            password=password,
            ttl=ttl,
            prefix=prefix,
            username=username,
            ssl=ssl,
            ssl_options=ssl_options,
            connect_timeout=connect_timeout,
            timeout=timeout,
            max_connections=max_connections,
            wait_replicas=wait_replicas,
            lock_seconds=lock_seconds,
            lock_wait=lock_wait,
            retry_seconds=retry_seconds,
        )

    @classmethod
    def from_url(cls, url: str, **arguments: Any) -> Self:
        """A store at the URL of one of the nodes: `redis://user:password@host:6379` or `rediss://host`.

        Args:
            url: As for a `RedisStore`.
            arguments: What else the store takes, as in `ttl=3600`; what the URL says comes first.

        Raises:
            DefinitionError: It is no such URL, or names a socket or a database. The message never quotes it.
        """
        settings = settings_from_url(url, arguments)
        if settings.pop("db", 0) or settings.pop("unix_socket_path", None):
            raise DefinitionError("A cluster has one database and no socket: write redis://host:port or rediss://.")
        return cls(**settings)

    @property
    def client(self) -> "Redis":
        """The redis-py client, a `RedisCluster`; the first use asks the nodes for their topology.

        Raises:
            UnavailableError: None of them can be reached.
        """
        with self._talking():
            return self._redis

    def redis_cli(self) -> list[str]:
        """The words that make redis-cli talk to the cluster; a password is asked for, never shown."""
        return [*redis_cli(self._config, tls=self._config["ssl"]), "-c"]

    def close(self) -> None:
        """Close the connections; a later use makes them again."""
        for reader in (self._reader, self._primary_reader):
            reader.close()

    def __repr__(self) -> str:
        ttl = "" if self.ttl is None else f", ttl={self.ttl}"
        host, port = self._nodes[0]
        return f"{type(self).__name__}(host={host!r}, port={port}{ttl}, prefix={self._prefix!r})"

    def __getstate__(self) -> dict[str, Any]:
        own = {"nodes": self._nodes[1:], "replicas": self._replicas}
        others = {"db", "unix_socket_path", "sentinels", "service", "sentinel_options", "replicas"}
        return {name: value for name, value in self._config.items() if name not in others} | own

    def __setstate__(self, config: dict[str, Any]) -> None:
        ClusterStore.__init__(self, **config)

    @property
    def _redis(self) -> "Redis":
        return cast("Redis", self._primary.client())

    @_redis.setter
    def _redis(self, client: "Redis") -> None:
        """What `_new_client` has made stands elsewhere."""

    def _new_client(self) -> Any:
        self._primary = LazyCluster(partial(make_cluster_client, self._config, self._nodes, replicas=False))
        self._any = self._primary
        if self._replicas:
            self._any = LazyCluster(partial(make_cluster_client, self._config, self._nodes, replicas=True))

    def _open_readers(self) -> None:
        self._primary_reader = ClusterReader(self._primary, self._catalog, self._talking)
        self._reader = ClusterReader(self._any, self._catalog, self._talking)
        self._aio = None

    @property
    def _where(self) -> Mapping[str, Any]:
        waits = {"socket_connect_timeout": self._config["connect_timeout"], "socket_timeout": self._config["timeout"]}
        return {name: self._config[name] for name in ("host", "port", "password")} | waits

    def _line(self, key: str) -> Line:
        return Masters(self._primary.client()).line_of(key)

    def _lines(self) -> Sequence[Line]:
        return Masters(self._primary.client()).all()

    @contextmanager
    def _turn(self, feature_name: str, *, writing: bool) -> Generator[Turn]:
        with ExitStack() as stack:
            with self._talking():
                masters = Masters(self._primary.client())
                masters.connect(stack)
            yield stack.enter_context(
                cluster_turn(masters, feature_name, self._terms, self._abandoned, writing=writing)
            )

    def _write(self, feature_name: str, pairs: dict[str, bytes], key_columns: list[str]) -> None:
        """Sets values, once the status says that it was done by hand: no transaction can have both."""
        account = status_key(self._prefix, feature_name)
        if not pairs:
            return
        with self._talking():
            self._redis.hset(account, "state", "dirty")
            self._redis.hsetnx(account, "key_columns", key_columns_text(key_columns))
            pipeline: Any = self._redis.pipeline()
            for key, value in pairs.items():
                pipeline.set(key, value, ex=self.ttl)
            pipeline.execute()


class LazyCluster:
    """A client that is made when it is first used: redis-py asks the nodes at once, and making a store does no I/O.

    Args:
        make: Makes it.
    """

    def __init__(self, make: "Callable[[], RedisCluster]") -> None:
        self._make = make
        self._made: RedisCluster | None = None
        self._making = threading.Lock()

    def client(self) -> "RedisCluster":
        """The client.

        Raises:
            redis.RedisError: No node can be reached.
        """
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made

    def close(self) -> None:
        """Close its connections; a later use makes it again."""
        with self._making:
            made, self._made = self._made, None
        if made is not None:
            made.close()


class ClusterReader(Reader):
    """Reads from all masters at once, with commands of one key each.

    Args:
        cluster: The client.
        catalog: As for `Reader`.
        talking: Held while the cluster is asked.
    """

    def __init__(
        self, cluster: LazyCluster, catalog: Catalog, talking: Callable[[], AbstractContextManager[None]]
    ) -> None:
        super().__init__(catalog)
        self._cluster = cluster
        self._talking = talking

    def get(self, key: str) -> Payload:
        """The value of one key."""
        return cast("Payload", self._ask([key], [])[0])

    def fetch(self, asked: Asked) -> Fetched:
        """The values of keys and the statuses of features."""
        keys, features = asked
        found = self._ask(list(keys), self._catalog.status_keys(features))
        return found[: len(keys)], found[len(keys) :]

    def close(self) -> None:
        """Close the connections; it may be used again."""
        self._cluster.close()

    def _ask(self, keys: Sequence[str], statuses: Sequence[str]) -> list[Any]:
        if not keys and not statuses:
            return []
        with self._talking():
            client: Any = self._cluster.client()
            pipeline = client.pipeline()
            for key in keys:
                pipeline.get(key)
            for key in statuses:
                pipeline.hmget(key, FIELDS)
            found: list[Any] = pipeline.execute(raise_on_error=False)
            # As MGET has it: what is no string is no value.
            found = [None if _is_no_string(reply) else reply for reply in found]
            raise_first(found)
        return found


def _is_no_string(reply: Any) -> bool:
    return isinstance(reply, Exception) and "WRONGTYPE" in str(reply)
