"""The online store in Redis: one JSON value an entity, and a status hash a feature."""

import datetime as dt
import os
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from mlforge.errors import DefinitionError, RequestError
from mlforge.online.base import Found, OnlineStore, Turn
from mlforge.online.catalog import Catalog
from mlforge.online.client import (
    check,
    close_client,
    make_async_client,
    make_client,
    make_replica_client,
    whole_seconds,
)
from mlforge.online.codec import encode
from mlforge.online.connection import redis_cli, redis_package, settings_from_url, shown, store_error
from mlforge.online.hashes import to_texts
from mlforge.online.keys import check_prefix, entity_key_hash, entity_key_hash_expr, redis_key, status_key
from mlforge.online.line import Line
from mlforge.online.pool import Pool
from mlforge.online.reader import PoolReader, Reader
from mlforge.online.resp import KEYS_PER_CHUNK
from mlforge.online.status import Status, key_columns_text
from mlforge.online.turn import RedisTurn, Terms, locked, scan

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis


class RedisStore(OnlineStore):
    """Values in a Redis or Valkey server: `{prefix}:{feature_name}:{entity_key_hash}` holds one JSON object.

    Making one does no I/O. It may be used from many threads, in forked children, and be pickled.

    Args:
        host: Where the server is.
        port: Its TCP port.
        db: The number of the database.
        password: For servers that want one.
        ttl: Seconds (or a timedelta of whole seconds) after which values go away; None keeps them.
        prefix: What all keys begin with, so that projects and stages can share a server.
        username: For servers with ACL users.
        ssl: Speak TLS.
        ssl_options: redis-py's own `ssl_*` settings, as in `{"ssl_ca_certs": "ca.pem"}`.
        unix_socket_path: Where the server's socket is, instead of host and port.
        connect_timeout: Seconds until an unreachable server is an error.
        timeout: Seconds until a server that does not answer is an error.
        max_connections: How many connections may be open for reads at once; None: as many as there are readers.
        sentinels: Host and port of Sentinels, which say where the server is; with `service`, instead of host and port.
        service: What the Sentinels call it.
        sentinel_options: redis-py's settings for the Sentinels themselves, as in `{"password": ...}`.
        replicas: Read from a replica, whose values may be older: its host and port, or True with Sentinels.
        wait_replicas: How many replicas have to have everything before a sync counts as done.
        lock_seconds: For how long a sync that gives no sign of life keeps others from the feature.
        lock_wait: For how many seconds a sync waits for another one to end.
        retry_seconds: For how long a sync that has lost the server on the way begins again.
        client: A `redis.Redis` of your own instead of what says where and as whom; you close it.

    Raises:
        DefinitionError: An argument cannot be right, or the redis package is not installed.
    """

    # Whether the server is known to hold after a restart what it held before.
    _keeps_data = False

    def __init__(
        self,
        host: str = "localhost",
        port: int = 6379,
        db: int = 0,
        password: str | None = None,
        ttl: int | dt.timedelta | None = None,
        *,
        prefix: str = "mlforge",
        username: str | None = None,
        ssl: bool = False,
        ssl_options: Mapping[str, Any] | None = None,
        unix_socket_path: str | None = None,
        connect_timeout: float = 5.0,
        timeout: float = 5.0,
        max_connections: int | None = None,
        sentinels: Sequence[tuple[str, int]] = (),
        service: str | None = None,
        sentinel_options: Mapping[str, Any] | None = None,
        replicas: bool | tuple[str, int] = False,
        wait_replicas: int = 0,
        lock_seconds: float = 15.0,
        lock_wait: float = 60.0,
        retry_seconds: float = 30.0,
        client: "Redis | None" = None,
    ) -> None:
        redis = redis_package()
        self._prefix = check_prefix(prefix)
        self.ttl = whole_seconds(ttl)
        self.retry_seconds = retry_seconds
        self._terms = Terms(
            prefix=prefix,
            ttl=self.ttl,
            lock_seconds=lock_seconds,
            lock_wait=lock_wait,
            wait_replicas=wait_replicas,
            keeps_data=self._keeps_data,
        )
        # For every feature the lock of a sync of this process that has lost its connection.
        self._abandoned: dict[str, set[str]] = {}
        self._errors: tuple[type[Exception], ...] = (redis.RedisError, redis.exceptions.RedisClusterException)
        self._failures: tuple[type[Exception], ...] = (*self._errors, OSError, UnicodeError)
        self._owned = client is None
        self._config: dict[str, Any] = {
            "host": host,
            "port": port,
            "db": db,
            "password": password,
            "ttl": self.ttl,
            "prefix": prefix,
            "username": username,
            "ssl": ssl,
            "ssl_options": dict(ssl_options or {}),
            "unix_socket_path": unix_socket_path,
            "connect_timeout": connect_timeout,
            "timeout": timeout,
            "max_connections": max_connections,
            "sentinels": list(sentinels),
            "service": service,
            "sentinel_options": dict(sentinel_options or {}),
            "replicas": replicas,
            "wait_replicas": wait_replicas,
            "lock_seconds": lock_seconds,
            "lock_wait": lock_wait,
            "retry_seconds": retry_seconds,
        }
        check(self._config)
        if client is None:
            client = self._new_client()
            _OWN_CLIENTS.add(self)
        elif not isinstance(client, redis.Redis):
            raise DefinitionError(f"client is a redis.Redis, not a {type(client).__name__}.")
        elif replicas or sentinels:
            raise DefinitionError("A client of your own says where the server is: leave replicas and sentinels out.")
        self._redis: Redis = client
        self._catalog = Catalog(prefix)
        self._open_readers()

    @classmethod
    def from_url(cls, url: str, **arguments: Any) -> Self:
        """A store at a URL such as `redis://user:password@host:6379/0`, `rediss://host` or `unix:///path`.

        Args:
            url: Its query may hold redis-py's `socket_timeout`, `socket_connect_timeout` and `ssl_*`.
            arguments: What else the store takes, as in `ttl=3600`; what the URL says comes first.

        Raises:
            DefinitionError: It is no such URL. The message never quotes it.
        """
        return cls(**settings_from_url(url, arguments))

    @property
    def prefix(self) -> str:
        """What all keys of this store begin with."""
        return self._prefix

    @property
    def client(self) -> "Redis":
        """The redis-py client, for what this class has no method for; a forked child has another one."""
        return self._redis

    def write(self, feature_name: str, entity_keys: dict[str, str], values: dict[str, Any]) -> None:
        """Replace the values of one entity, and mark the status `dirty` in the same transaction."""
        key = redis_key(self._prefix, feature_name, entity_key_hash(entity_keys))
        self._write(feature_name, {key: encode(values)}, list(entity_keys))

    def write_batch(self, feature_name: str, records: list[dict[str, Any]], entity_key_columns: list[str]) -> None:
        """Replace the values of many entities; every 500 are one transaction that marks the status `dirty`."""
        keys = set(entity_key_columns)
        pairs: dict[str, bytes] = {}
        for record in records:
            if not keys <= record.keys():
                missing = ", ".join(sorted(keys - record.keys()))
                raise RequestError(f"A record for {feature_name} has no {missing}: {record!r}")
            entity = {column: record[column] for column in entity_key_columns}
            values = {column: value for column, value in record.items() if column not in keys}
            pairs[redis_key(self._prefix, feature_name, entity_key_hash(entity))] = encode(values)
        self._write(feature_name, pairs, entity_key_columns)

    def read(self, feature_name: str, entity_keys: dict[str, str]) -> dict[str, Any] | None:
        """The values of one entity with one GET, or None."""
        return self._reader.read(feature_name, entity_keys)

    def read_batch(self, feature_name: str, entity_keys: list[dict[str, str]]) -> list[dict[str, Any] | None]:
        """The values of many entities with one MGET, in the order they were asked for."""
        return self._reader.read_features({feature_name: entity_keys})[feature_name]

    def read_features(
        self, requests: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> dict[str, list[dict[str, Any] | None]]:
        """The values of several features with one MGET."""
        return self._reader.read_features(requests)

    def lookup(self, requests: Mapping[str, pl.DataFrame], *, primary: bool = False) -> dict[str, Found]:
        """The values and the schemas of several features in one flight of commands."""
        return (self._primary_reader if primary else self._reader).lookup(requests)

    async def aread(self, feature_name: str, entity_keys: dict[str, str]) -> dict[str, Any] | None:
        """`read` in an event loop, which has connections of its own; around a client of your own, in a thread."""
        if self._aio is None:
            return await super().aread(feature_name, entity_keys)
        return await self._aio.here().read(feature_name, entity_keys)

    async def aread_batch(self, feature_name: str, entity_keys: list[dict[str, str]]) -> list[dict[str, Any] | None]:
        """`read_batch` in an event loop, as `aread`."""
        return (await self.aread_features({feature_name: entity_keys}))[feature_name]

    async def aread_features(
        self, requests: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> dict[str, list[dict[str, Any] | None]]:
        """`read_features` in an event loop, as `aread`."""
        if self._aio is None:
            return await super().aread_features(requests)
        return await self._aio.here().read_features(requests)

    async def alookup(self, requests: Mapping[str, pl.DataFrame], *, primary: bool = False) -> dict[str, Found]:
        """`lookup` in an event loop, as `aread`; what is not to come from a replica is read in a thread."""
        if self._aio is None or (primary and self._reader is not self._primary_reader):
            return await super().alookup(requests, primary=primary)
        return await self._aio.here().lookup(requests)

    @contextmanager
    def turn(self, feature_name: str, *, writing: bool = True) -> Generator[Turn]:
        """A turn under the feature's lock, on one connection; once that is lost, it is never made again.

        Where it is not known what is there, publishing scans the whole server for entities of the feature.
        """
        try:
            with self._turn(feature_name, writing=writing) as turn:
                yield turn
        except self._errors as error:
            raise store_error(error, self._where) from None
        finally:
            self._catalog.forget(feature_name)

    def entity_hashes(self, feature_name: str) -> pl.Series:
        """The key hashes of all entities that are there; scans the whole server."""
        head = redis_key(self._prefix, feature_name, "")
        with self._talking(), ExitStack() as lines:
            numbers = scan((lines.enter_context(line) for line in self._lines()), head)
        return pl.concat([pl.Series("key_hash", dtype=pl.String), *to_texts(numbers)])

    def bytes_per_entity(self, feature_name: str, entities: pl.DataFrame) -> float | None:
        """What `MEMORY USAGE` says of these entities, on average; None where it is not known or not allowed."""
        from redis.exceptions import ResponseError

        hashes = entities.select(entity_key_hash_expr(entities.schema)).to_series()
        with self._talking():
            pipeline = self._redis.pipeline(transaction=False)
            for key_hash in hashes:
                pipeline.memory_usage(redis_key(self._prefix, feature_name, key_hash))
            try:
                sizes = [size for size in pipeline.execute() if size is not None]
            except ResponseError:
                return None
        return sum(sizes) / len(sizes) if sizes else None

    def distrust(self, feature_name: str, token: str) -> bool:
        """Mark the status `dirty` if it has still this token."""
        key = status_key(self._prefix, feature_name)
        with self._talking(), self._line(key) as line:
            if line.calls(("WATCH", key), ("HGET", key, "token"))[1] != token.encode():
                return False
            return line.transaction(("HSET", key, "state", "dirty")) is not None

    def status(self, feature_name: str) -> Status | None:
        """What the status hash says; None if there is none."""
        key = status_key(self._prefix, feature_name)
        with self._talking():
            stored: Any = self._redis.hgetall(key)
        if not stored:
            return None
        return Status.from_hash(stored, what=key)

    def redis_cli(self) -> list[str]:
        """The words that make redis-cli talk to the server; a password is asked for, never shown."""
        from redis.connection import SSLConnection

        pool: Any = self._redis.connection_pool
        settings = pool.connection_kwargs
        if hasattr(pool, "get_master_address"):
            with self._talking():
                host, port = pool.get_master_address()
            settings = settings | {"host": host, "port": port}
        return redis_cli(settings, tls=issubclass(pool.connection_class, SSLConnection))

    def _after_fork(self) -> None:
        """Gives a child a pool of its own: redis-py waits for a lock of the old one that a thread may have held."""
        self._redis = self._new_client()
        self._open_readers()

    def close(self) -> None:
        """Close the connections; a client that was given stays open."""
        for reader in {self._reader, self._primary_reader}:
            reader.close()
        if self._owned:
            close_client(self._redis)

    async def aclose(self) -> None:
        """`close` for a store that was read from in this event loop."""
        import asyncio

        if self._aio is not None:
            await self._aio.aclose()
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        config = shown(self._redis)
        ttl = "" if self.ttl is None else f", ttl={self.ttl}"
        return f"{type(self).__name__}({config}{ttl}, prefix={self._prefix!r})"

    def __getstate__(self) -> dict[str, Any]:
        if not self._owned:
            raise TypeError("A RedisStore around a client of your own cannot be pickled: give it host and port.")
        return self._config

    def __setstate__(self, config: dict[str, Any]) -> None:
        RedisStore.__init__(self, **config)

    def _new_client(self) -> "Redis":
        return make_client(self._config)

    def _async_client(self) -> "Callable[[], AsyncRedis]":
        """What makes a client for an event loop; it does not hold the store, so that a store that is dropped goes."""
        return partial(make_async_client, self._config)

    def _open_readers(self) -> None:
        from mlforge.online.aio import AsyncReaders

        most, client = self._config["max_connections"], self._redis
        if not self._owned:
            most = most or client.connection_pool.max_connections
        self._primary_reader: Reader = PoolReader(Pool(client, max_connections=most), self._catalog)
        self._reader: Reader = self._primary_reader
        if (replica := make_replica_client(self._config)) is not None:
            self._reader = PoolReader(Pool(replica, max_connections=most), self._catalog)
        self._aio: AsyncReaders | None = None
        if self._owned:
            self._aio = AsyncReaders(self._async_client(), self._catalog, max_connections=most)

    @property
    def _where(self) -> "Redis | Mapping[str, Any]":
        """What errors say about the way to the server."""
        return self._redis

    def _line(self, key: str) -> Line:
        """A connection of its own to the server that holds a key."""
        return Line(self._redis.connection_pool)

    def _lines(self) -> Sequence[Line]:
        """A connection of its own to every server that holds keys."""
        return [Line(self._redis.connection_pool)]

    @contextmanager
    def _turn(self, feature_name: str, *, writing: bool) -> Generator[Turn]:
        line = Line(self._redis.connection_pool)
        try:
            with self._talking():
                line.connect()
            if not writing:
                yield RedisTurn(line, None, feature_name, self._terms)
                return
            with locked(line, feature_name, self._terms, self._abandoned) as lock:
                with lock.talking():
                    turn = RedisTurn(line, lock, feature_name, self._terms)
                yield turn
        finally:
            line.close()

    def _write(self, feature_name: str, pairs: dict[str, bytes], key_columns: list[str]) -> None:
        account = status_key(self._prefix, feature_name)
        keys = list(pairs)
        for start in range(0, len(keys), KEYS_PER_CHUNK):
            part = {key: pairs[key] for key in keys[start : start + KEYS_PER_CHUNK]}
            # One transaction: the chunk, and the status that says so.
            pipeline = self._redis.pipeline()
            pipeline.hset(account, "state", "dirty")
            pipeline.hsetnx(account, "key_columns", key_columns_text(key_columns))
            if self.ttl is None:
                pipeline.mset(part)
            else:
                for key, value in part.items():
                    pipeline.set(key, value, ex=self.ttl)
            with self._talking():
                pipeline.execute()

    @contextmanager
    def _talking(self) -> Generator[None]:
        """Held while Redis is asked, so that what goes wrong there is a StoreError."""
        try:
            yield
        except self._failures as error:
            raise store_error(error, self._where) from None


_OWN_CLIENTS: weakref.WeakSet[RedisStore] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for store in list(_OWN_CLIENTS):
        store._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
