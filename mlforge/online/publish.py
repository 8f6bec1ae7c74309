"""A whole frame to Redis: the status first, the data as bytes, what vanished, the status last, on one connection."""

import datetime as dt
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from mlforge.errors import RequestError, StoreError
from mlforge.online.base import SLICE_ROWS, Published, Vanished
from mlforge.online.codec import CODEC_VERSION, encode_expr, schema_to_json
from mlforge.online.keys import DIGITS, entity_key_hash_expr, redis_key, redis_key_expr, status_key
from mlforge.online.resp import chunks, deletions
from mlforge.online.status import Status

if TYPE_CHECKING:
    from redis import Redis

# How many keys the server looks at in one step of a scan, while nobody else is served.
SCAN_COUNT = 1_000


def publish(
    client: "Redis",
    feature_name: str,
    frame: pl.DataFrame,
    status: Status,
    vanished: Vanished | None,
    *,
    prefix: str,
    ttl: int | None,
) -> Published:
    """Leave exactly the rows of a frame; see `OnlineStore.publish`.

    Raises:
        RequestError: The frame is not what the status says. Nothing was sent.
        StoreError: Somebody else wrote the status meanwhile. Errors of redis-py are raised as they are.
    """
    rows = _rows(feature_name, frame, status)
    key = _key(prefix, feature_name, rows.select(status.key_columns))
    value = encode_expr(status.schema).alias("value")
    with Line(client) as line:
        account = _Account(line, status_key(prefix, feature_name))
        begun, replaced = account.begin(replace(status, rows=rows.height))
        if vanished is not None and vanished.token == replaced:
            gone = vanished.keys.drop_nulls().select(_key(prefix, feature_name, vanished.keys))
        else:
            # A first publish scans as well: without a status there may still be data, of one that was lost.
            gone = _scan(line, redis_key(prefix, feature_name, ""))
        if not gone.is_empty():
            # "123" and 123 are one entity, whatever the dtype was.
            gone = gone.join(rows.select(key), on="key", how="anti")
        owed = 0
        for part in rows.iter_slices(SLICE_ROWS):
            # Built while the server is still busy with the slice before.
            ready = list(chunks(part.select(key, value), ttl=ttl))
            _collect(line, owed)
            for chunk in ready:
                line.send(chunk.data)
            owed = sum(chunk.replies for chunk in ready)
        _collect(line, owed)
        deleted = 0
        for part in gone.iter_slices(SLICE_ROWS):
            ready = list(deletions(part["key"]))
            for chunk in ready:
                line.send(chunk.data)
            deleted += sum(line.reply() for _ in ready)
        account.complete(begun)
    return Published(written=rows.height, deleted=deleted)


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

    def begin(self, status: Status) -> tuple[Status, str | None]:
        """The status now there, and the token of the complete one that it replaces; None if there was none."""
        run_id, evicted_keys = self._server()
        self._line.call("WATCH", self._key)
        token, state = self._line.call("HMGET", self._key, "token", "state")
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
        if self._line.transaction(("DEL", self._key), ("HSET", self._key, *_flat(begun.to_hash()))) is None:
            raise StoreError(f"{self._key} has just changed: somebody else wrote the feature; build it online again.")
        return begun, token.decode() if token is not None and state == b"complete" else None

    def complete(self, begun: Status) -> None:
        self._line.call("WATCH", self._key)
        token, state = self._line.call("HMGET", self._key, "token", "state")
        if token != begun.token.encode():
            # What the other one wrote may have been overwritten by us, whether it is complete or not.
            self._line.transaction(("HSET", self._key, "state", "dirty"))
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


def _key(prefix: str, feature_name: str, entities: pl.DataFrame) -> pl.Expr:
    return redis_key_expr(prefix, feature_name, entity_key_hash_expr(entities.schema)).alias("key")


def _scan(line: Line, head: str) -> pl.DataFrame:
    """The keys of all entities whose keys begin so: the status, and whatever is not mlforge's, are none."""
    entity = re.compile(re.escape(head.encode()) + b"[0-9a-f]{%d}" % DIGITS)
    # A key that moves while the server grows its table may come twice.
    found: set[str] = set()
    cursor = "0"
    while True:
        # A prefix has no character that means something in a pattern.
        following, keys = line.call("SCAN", cursor, "MATCH", f"{head}*", "COUNT", SCAN_COUNT)
        found.update(key.decode() for key in keys if entity.fullmatch(key))
        cursor = following.decode()
        if cursor == "0":
            return pl.DataFrame({"key": list(found)}, schema={"key": pl.String})


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
