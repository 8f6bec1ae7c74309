"""A whole frame to Redis: the status first, the data as bytes, the status last, on one connection."""

import datetime as dt
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from mlforge.errors import RequestError, StoreError
from mlforge.online.base import SLICE_ROWS
from mlforge.online.codec import CODEC_VERSION, encode_expr, schema_to_json
from mlforge.online.keys import entity_key_hash_expr, redis_key_expr, status_key
from mlforge.online.resp import chunks
from mlforge.online.status import Status

if TYPE_CHECKING:
    from redis import Redis


def publish(
    client: "Redis", feature_name: str, frame: pl.DataFrame, status: Status, *, prefix: str, ttl: int | None
) -> int:
    """Write every row of a frame, and give the number of rows; see `OnlineStore.publish`.

    Raises:
        RequestError: The frame is not what the status says. Nothing was sent.
        StoreError: Somebody else wrote the status meanwhile. Errors of redis-py are raised as they are.
    """
    rows = _rows(feature_name, frame, status)
    key_hash = entity_key_hash_expr(rows.select(status.key_columns).schema)
    key = redis_key_expr(prefix, feature_name, key_hash).alias("key")
    value = encode_expr(status.schema).alias("value")
    with Line(client) as line:
        account = _Account(line, status_key(prefix, feature_name))
        begun = account.begin(replace(status, rows=rows.height))
        owed = 0
        for part in rows.iter_slices(SLICE_ROWS):
            # Built while the server is still busy with the slice before.
            ready = list(chunks(part.select(key, value), ttl=ttl))
            _collect(line, owed)
            for chunk in ready:
                line.send(chunk.data)
            owed = sum(chunk.replies for chunk in ready)
        _collect(line, owed)
        account.complete(begun)
    return rows.height


class Line:
    """One connection that belongs to one writer and is never made again when it is lost.

    redis-py's pool would reconnect by itself: a server that died and came back empty in between would go unnoticed.
    Everything else (TLS, users, sockets, timeouts) is as the client has it.
    """

    def __init__(self, client: "Redis") -> None:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        pool = client.connection_pool
        settings = {k: v for k, v in pool.connection_kwargs.items() if not k.startswith(("maint_", "orig_"))}
        settings |= {
            "retry": Retry(NoBackoff(), 0),
            "retry_on_timeout": False,
            "retry_on_error": [],
            "health_check_interval": 0,
            "decode_responses": False,
            "protocol": 2,
        }
        self._connection = pool.connection_class(**settings)

    def __enter__(self) -> Self:
        self._connection.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.disconnect()

    def send(self, data: bytes) -> None:
        """Send commands that are bytes already."""
        self._connection.send_packed_command([data])

    def reply(self) -> Any:
        """The next reply; an error reply is raised."""
        return self._connection.read_response()

    def call(self, *command: str | int) -> Any:
        """Send one command and wait for its reply."""
        self._connection.send_command(*command)
        return self.reply()

    def transaction(self, *commands: tuple[str | int, ...]) -> list[Any] | None:
        """Run commands as one; None if a watched key has changed."""
        self.call("MULTI")
        for command in commands:
            self.call(*command)
        replies: list[Any] | None = self.call("EXEC")
        for reply in replies or []:
            if isinstance(reply, Exception):
                raise reply
        return replies


def _flat(mapping: Mapping[str, str]) -> tuple[str, ...]:
    """Fields and values in turn, as HSET takes them."""
    return tuple(item for pair in mapping.items() for item in pair)


class _Account:
    """The status of one publish: its first and its last write, on the connection that the data takes."""

    def __init__(self, line: Line, key: str) -> None:
        self._line = line
        self._key = key

    def begin(self, status: Status) -> Status:
        run_id, evicted_keys = self._server()
        begun = replace(
            status,
            state="writing",
            token=secrets.token_hex(16),
            started_at=dt.datetime.now(dt.UTC),
            codec=CODEC_VERSION,
            finished_at=None,
            run_id=run_id,
            evicted_keys=evicted_keys,
        )
        self._line.transaction(("DEL", self._key), ("HSET", self._key, *_flat(begun.to_hash())))
        return begun

    def complete(self, begun: Status) -> None:
        self._line.call("WATCH", self._key)
        token, state = self._line.call("HMGET", self._key, "token", "state")
        if token != begun.token.encode():
            raise StoreError(f"{self._key} is no longer ours: somebody else wrote the feature; build it online again.")
        if state != b"writing":
            raise StoreError(f"{self._key} is dirty: somebody wrote entities by hand meanwhile; build it online again.")
        done = replace(begun, state="complete", finished_at=dt.datetime.now(dt.UTC))
        if self._line.transaction(("HSET", self._key, *_flat(done.to_hash()))) is None:
            raise StoreError(f"{self._key} has just changed: somebody else wrote the feature; build it online again.")

    def _server(self) -> tuple[str, int]:
        from redis.exceptions import NoPermissionError, ResponseError

        try:
            text = b"\r\n".join(self._line.call("INFO", part) for part in ("server", "stats")).decode()
        except NoPermissionError:
            raise
        except ResponseError:
            # A server that cannot say: fakeredis.
            return "", 0
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        return fields.get("run_id", ""), int(fields.get("evicted_keys", 0))


def _collect(line: Line, replies: int) -> None:
    for _ in range(replies):
        line.reply()


def _rows(feature_name: str, frame: pl.DataFrame, status: Status) -> pl.DataFrame:
    """The rows to write, once the frame is known to be what the status says it is."""
    wanted = [*status.key_columns, *status.schema]
    missing = [column for column in wanted if column not in frame.columns]
    if missing:
        raise RequestError(f"The frame of {feature_name} has no column {', '.join(missing)}.")
    for column, dtype in status.schema.items():
        if frame.schema[column] != dtype:
            raise RequestError(f"Column {column!r} of {feature_name} is {frame.schema[column]}, not {dtype}.")
    schema_to_json(status.schema)
    return frame.select(wanted).drop_nulls(list(status.key_columns))
