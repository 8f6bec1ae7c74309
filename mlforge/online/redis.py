"""The online store in Redis: one JSON value an entity, and a status hash a feature."""

import datetime as dt
import os
import weakref
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from mlforge.errors import DefinitionError, RequestError
from mlforge.online.base import OnlineStore, Published, Vanished
from mlforge.online.codec import decode, encode, schema_from_json
from mlforge.online.connection import (
    make_client,
    redis_package,
    settings_from_url,
    shown,
    store_error,
    whole_seconds,
)
from mlforge.online.keys import check_prefix, entity_key_hash, redis_key, status_key
from mlforge.online.publish import publish
from mlforge.online.resp import KEYS_PER_CHUNK
from mlforge.online.status import Status, key_columns_text, key_columns_value

if TYPE_CHECKING:
    from redis import Redis


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
        client: A `redis.Redis` of your own instead of all of these but `ttl` and `prefix`; you close it.

    Raises:
        DefinitionError: An argument cannot be right, or the redis package is not installed.
    """

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
        client: "Redis | None" = None,
    ) -> None:
        redis = redis_package()
        self._prefix = check_prefix(prefix)
        self._ttl = whole_seconds(ttl)
        self._key_columns: dict[str, frozenset[str]] = {}
        self._schemas: dict[str, dict[str, pl.DataType]] = {}
        self._failures: tuple[type[Exception], ...] = (redis.RedisError, OSError, UnicodeError)
        self._owned = client is None
        self._config: dict[str, Any] = {
            "host": host,
            "port": port,
            "db": db,
            "password": password,
            "ttl": self._ttl,
            "prefix": prefix,
            "username": username,
            "ssl": ssl,
            "ssl_options": dict(ssl_options or {}),
            "unix_socket_path": unix_socket_path,
            "connect_timeout": connect_timeout,
            "timeout": timeout,
        }
        if client is None:
            client = self._new_client()
            _OWN_CLIENTS.add(self)
        elif not isinstance(client, redis.Redis):
            raise DefinitionError(f"client is a redis.Redis, not a {type(client).__name__}.")
        self._redis: Redis = client

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        ttl: int | dt.timedelta | None = None,
        prefix: str = "mlforge",
        connect_timeout: float = 5.0,
        timeout: float = 5.0,
    ) -> Self:
        """A store at a URL such as `redis://user:password@host:6379/0`, `rediss://host` or `unix:///path`.

        The query may hold redis-py's `socket_timeout`, `socket_connect_timeout` and `ssl_*`.

        Raises:
            DefinitionError: It is no such URL. The message never quotes it.
        """
        settings: dict[str, Any] = {"connect_timeout": connect_timeout, "timeout": timeout} | settings_from_url(url)
        return cls(ttl=ttl, prefix=prefix, **settings)

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
        key = redis_key(self._prefix, feature_name, entity_key_hash(entity_keys))
        with self._talking():
            payload: Any = self._redis.get(key)
        if payload is None:
            self._check_key_columns(feature_name, [entity_keys])
            return None
        return decode(payload, what=key)

    def read_batch(self, feature_name: str, entity_keys: list[dict[str, str]]) -> list[dict[str, Any] | None]:
        """The values of many entities with one MGET, in the order they were asked for."""
        return self.read_features({feature_name: entity_keys})[feature_name]

    def read_features(
        self, requests: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> dict[str, list[dict[str, Any] | None]]:
        """The values of several features with one MGET."""
        keys = [
            redis_key(self._prefix, feature_name, entity_key_hash(entity))
            for feature_name, entities in requests.items()
            for entity in entities
        ]
        with self._talking():
            payloads: Any = iter(self._redis.mget(keys) if keys else [])
        names = iter(keys)
        found: dict[str, list[dict[str, Any] | None]] = {}
        for feature_name, entities in requests.items():
            rows = found[feature_name] = [
                None if payload is None else decode(payload, what=name)
                for _, name, payload in zip(entities, names, payloads, strict=False)
            ]
            missed = [entity for entity, row in zip(entities, rows, strict=True) if row is None]
            if missed:
                self._check_key_columns(feature_name, missed)
        return found

    def publish(
        self, feature_name: str, frame: pl.DataFrame, status: Status, vanished: Vanished | None = None
    ) -> Published:
        """Leave exactly the rows of a frame, as chunks of commands; a lost connection is an error, never made again.

        Where it is not known what vanished, the whole server is scanned for entities of the feature.
        """
        try:
            with self._talking():
                return publish(self._redis, feature_name, frame, status, vanished, prefix=self._prefix, ttl=self._ttl)
        finally:
            self._key_columns.pop(feature_name, None)
            self._schemas.pop(feature_name, None)

    def status(self, feature_name: str) -> Status | None:
        """What the status hash says; None if there is none."""
        key = status_key(self._prefix, feature_name)
        with self._talking():
            stored: Any = self._redis.hgetall(key)
        if not stored:
            return None
        return Status.from_hash({_text(name): _text(text) for name, text in stored.items()}, what=key)

    def schema(self, feature_name: str, *, refresh: bool = False) -> dict[str, pl.DataType] | None:
        """The value columns and dtypes in the status hash, kept after the first time; None if there are none."""
        known = None if refresh else self._schemas.get(feature_name)
        if known is None:
            key = status_key(self._prefix, feature_name)
            with self._talking():
                stored: Any = self._redis.hget(key, "schema")
            if stored is None:
                return None
            known = self._schemas[feature_name] = schema_from_json(stored)
        return known

    def after_fork(self) -> None:
        """Gives a child a pool of its own: redis-py waits for a lock of the old one that a thread may have held."""
        self._redis = self._new_client()

    def close(self) -> None:
        """Close the connections; a client that was given stays open."""
        if self._owned:
            self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        config = shown(self._redis)
        ttl = "" if self._ttl is None else f", ttl={self._ttl}"
        return f"{type(self).__name__}({config}{ttl}, prefix={self._prefix!r})"

    def __getstate__(self) -> dict[str, Any]:
        if not self._owned:
            raise TypeError("A RedisStore around a client of your own cannot be pickled: give it host and port.")
        return self._config

    def __setstate__(self, config: dict[str, Any]) -> None:
        RedisStore.__init__(self, **config)

    def _new_client(self) -> "Redis":
        return make_client(self._config)

    def _write(self, feature_name: str, pairs: dict[str, bytes], key_columns: list[str]) -> None:
        account = status_key(self._prefix, feature_name)
        keys = list(pairs)
        for start in range(0, len(keys), KEYS_PER_CHUNK):
            part = {key: pairs[key] for key in keys[start : start + KEYS_PER_CHUNK]}
            # One transaction: the chunk, and the status that says so.
            pipeline = self._redis.pipeline()
            pipeline.hset(account, "state", "dirty")
            pipeline.hsetnx(account, "key_columns", key_columns_text(key_columns))
            if self._ttl is None:
                pipeline.mset(part)
            else:
                for key, value in part.items():
                    pipeline.set(key, value, ex=self._ttl)
            with self._talking():
                pipeline.execute()

    @contextmanager
    def _talking(self) -> Generator[None]:
        """Held while Redis is asked, so that what goes wrong there is a StoreError."""
        try:
            yield
        except self._failures as error:
            raise store_error(error, self._redis) from None

    def _check_key_columns(self, feature_name: str, entities: Sequence[Mapping[str, Any]]) -> None:
        """A miss of an entity with the wrong key columns is a mistake of the caller, not a missing entity."""
        asked = {frozenset(entity) for entity in entities}
        known = self._key_columns.get(feature_name)
        if asked == {known}:
            return
        key = status_key(self._prefix, feature_name)
        with self._talking():
            stored: Any = self._redis.hget(key, "key_columns")
        if stored is None:
            return
        known = self._key_columns[feature_name] = frozenset(key_columns_value(stored, what=key))
        for columns in asked:
            if columns != known:
                raise RequestError(
                    f"{feature_name} is keyed by {', '.join(sorted(known))}, not by {', '.join(sorted(columns))}."
                )


_OWN_CLIENTS: weakref.WeakSet[RedisStore] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for store in list(_OWN_CLIENTS):
        store.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _text(stored: Any) -> Any:
    return stored.decode() if isinstance(stored, bytes) else stored
