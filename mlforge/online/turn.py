"""One sync's turn in a Redis: the lock, the status first, the data as bytes, what vanished, the status last."""

import datetime as dt
import re
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from mlforge import progress
from mlforge.errors import RequestError, StoreError, UnavailableError
from mlforge.online.base import DAMAGED, NOTHING_KNOWN, SLICE_ROWS, Part, Published, Turn
from mlforge.online.codec import CODEC_VERSION, encode_expr
from mlforge.online.hashes import LOT, entity_numbers, once, to_numbers, to_texts, without
from mlforge.online.keys import DIGITS, entity_key_hash_expr, lock_key, redis_key, redis_key_expr, status_key
from mlforge.online.line import Line, Word, packed
from mlforge.online.lock import Lock
from mlforge.online.resp import Chunk, chunks, deletions
from mlforge.online.status import Status

# How many keys the server looks at in one step of a scan, while nobody else is served.
SCAN_COUNT = 1_000
# The fields of a status that say whose it is.
_OWNER = ("token", "state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a store wants to be written.

    Attributes:
        prefix: What all keys begin with.
        ttl: After how many seconds values go away; None keeps them.
        lock_seconds: For how long a writer that gives no sign of life keeps others out.
        lock_wait: For how many seconds a writer waits for another one to end.
        wait_replicas: How many replicas have to have all of it before a sync counts as done.
        keeps_data: Whether a server that was started again is known to hold what it held.
    """

    prefix: str
    ttl: int | None = None
    lock_seconds: float = 15.0
    lock_wait: float = 60.0
    wait_replicas: int = 0
    keeps_data: bool = False


@contextmanager
def locked(line: Line, feature_name: str, terms: Terms, abandoned: dict[str, set[str]]) -> Generator[Lock]:
    """The lock of a feature, held and kept.

    Args:
        line: The connection that it takes.
        feature_name: The feature.
        terms: How to write.
        abandoned: For every feature the tokens of turns of this process that have lost their connection: such a lock
            is taken over. A turn that ends like that leaves its own here.

    Raises:
        UnavailableError: Somebody else's turn does not end.
    """
    from redis.exceptions import RedisError

    lock = Lock(line, lock_key(terms.prefix, feature_name), seconds=terms.lock_seconds)
    lost = abandoned.setdefault(feature_name, set())
    # Until it is given back, or else expires.
    unreleased = True
    try:
        lock.take(wait=terms.lock_wait, abandoned=lost)
        lost.clear()
        with lock.kept():
            yield lock
    finally:
        if line.sound:
            with suppress(RedisError, OSError):
                lock.release()
                unreleased = False
        if unreleased:
            lost.add(lock.token)


class RedisTurn(Turn):
    """A turn at a feature in a Redis, or without a lock a look at it; see `Turn`."""

    def __init__(self, line: Line, lock: Lock | None, feature_name: str, terms: Terms) -> None:
        self._line = line
        self._lock = lock
        self._feature_name = feature_name
        self._terms = terms
        self._key = status_key(terms.prefix, feature_name)
        self._run_id, self._evicted_keys = self._identity()
        self.status, self.doubt = self._look()

    def publish(self, rows: pl.DataFrame, vanished: pl.DataFrame | None, status: Status) -> Published:
        """Leave what the status says; see `publish_parts`."""
        return self.publish_parts([Part(rows=rows, vanished=vanished, change=0)], status)

    def publish_parts(self, parts: Iterable[Part], status: Status) -> Published:
        """Leave what parts and status say, as chunks of commands that are each fenced by the lock."""
        lock: Lock | None = None
        begun, there = status, None
        done = Published(written=0, deleted=0)
        for part in parts:
            checked = replace(part, rows=_rows(self._feature_name, part.rows, status))
            # What has no key or no value is refused before anything is said to be written.
            key = self._redis_key(checked.rows.select(status.key_columns))
            value = encode_expr(status.schema).alias("value")
            begun = replace(begun, rows=begun.rows + part.change)
            if lock is None:
                with self._writing() as lock:
                    begun = self._begin(lock, begun)
                    there = self._there(lock) if part.vanished is None else None
            # While nobody talks the lock is kept, also while the next part is made.
            done = _both(done, self._put(lock, checked, key, value))
            if there is not None:
                there = without(there, entity_numbers(checked.rows.select(status.key_columns)))
            # Else it would be held while the next one is made.
            del part, checked
        if lock is None:
            raise RequestError("There is no part to publish.")
        with lock.talking():
            if there is not None:
                done = _both(done, self._delete(lock, self._keys(there)))
            self._complete(lock, begun)
        return done

    def confirm(self, status: Status) -> None:
        """Replace the status in one step, if it is still the one that this turn began with."""
        with self._writing() as lock:
            self._require(*self._seen)
            signed = self._signed(lock, status)
            self._replace(lock, replace(signed, state="complete", finished_at=dt.datetime.now(dt.UTC)))
            self._replicated()

    def clear(self) -> int:
        """Take everything away, the status last; how many entities there were."""
        with self._writing() as lock:
            self._require(*self._seen)
            if self.status is not None:
                self._change(lock, ("HSET", self._key, "state", "dirty"))
            done = self._delete(lock, self._keys(self._there(lock)))
            self._forget(lock)
            self._replicated()
        return done.deleted

    def _put(self, lock: Lock, part: Part, key: pl.Expr, value: pl.Expr) -> Published:
        """Set the keys of a part's rows to their values, then take away what vanished."""
        gone = pl.DataFrame(schema={"key": pl.String})
        if part.vanished is not None:
            gone = part.vanished.drop_nulls().select(self._redis_key(part.vanished))
        if not gone.is_empty():
            # "123" and 123 are one entity, whatever the dtype was.
            gone = gone.join(part.rows.select(key), on="key", how="anti")
        sent = 0
        with lock.talking():
            built = _ahead(lambda rows: self._settings(rows.select(key, value)), part.rows)
            for some, rows in zip(built, part.rows.iter_slices(SLICE_ROWS), strict=True):
                for chunk in some:
                    self._send(lock, chunk)
                    sent += len(chunk.data)
                progress.advance("syncing", rows.height)
            deleted = self._delete(lock, [gone["key"]])
        return _both(Published(written=part.rows.height, deleted=0, bytes=sent), deleted)

    def _delete(self, lock: Lock, keys: Iterable[pl.Series]) -> Published:
        deleted = sent = 0
        for some in keys:
            for chunk in self._deletions(some):
                deleted += sum(self._send(lock, chunk))
                sent += len(chunk.data)
        return Published(written=0, deleted=deleted, bytes=sent)

    def _keys(self, numbers: pl.Series) -> Iterator[pl.Series]:
        """The Redis keys of key hashes, some after the other."""
        head = redis_key(self._terms.prefix, self._feature_name, "")
        return (head + hashes for hashes in to_texts(numbers))

    @contextmanager
    def _writing(self) -> Generator[Lock]:
        if self._lock is None:
            raise RequestError("This turn only looks: take one with writing=True.")
        with self._lock.talking():
            self._watch(self._lock)
            yield self._lock

    def _look(self) -> tuple[Status | None, str | None]:
        stored = dict(_pairs(self._line.call("HGETALL", self._key)))
        self._seen = stored.get("token"), stored.get("state")
        if not stored:
            return None, NOTHING_KNOWN
        try:
            status = Status.from_hash(stored, what=self._key)
        except StoreError:
            return None, DAMAGED
        return status, self._doubt(status)

    def _doubt(self, status: Status) -> str | None:
        if not status.synced:
            return "it was only written by hand"
        if status.state == "writing":
            return "the last sync did not finish"
        if status.state == "dirty":
            return "it was written by hand, or found to differ"
        if status.codec != CODEC_VERSION:
            return "the values have another format"
        if status.run_id != self._run_id and not self._terms.keeps_data:
            return "the server was started again, or is another one"
        if status.run_id == self._run_id and status.evicted_keys != self._evicted_keys:
            return "the server has evicted keys"
        return None if self._terms.ttl is None and status.ttl is None else "the values expire"

    def _begin(self, lock: Lock, status: Status) -> Status:
        self._require(*self._seen)
        known = None if self.status is None or self.status.table_id != status.table_id else self.status.contents
        begun = replace(self._signed(lock, status), state="writing", finished_at=None, earlier=known)
        self._replace(lock, begun)
        return begun

    def _complete(self, lock: Lock, begun: Status) -> None:
        self._watch(lock)
        self._require(begun.token, begun.state)
        self._replace(lock, replace(begun, state="complete", finished_at=dt.datetime.now(dt.UTC), earlier=None))
        self._replicated()

    def _forget(self, lock: Lock) -> None:
        """Takes the status away."""
        self._change(lock, ("DEL", self._key))

    def _signed(self, lock: Lock, status: Status) -> Status:
        return replace(
            status,
            token=lock.token,
            started_at=dt.datetime.now(dt.UTC),
            codec=CODEC_VERSION,
            run_id=self._run_id,
            evicted_keys=self._evicted_keys,
            ttl=self._terms.ttl,
            earlier=None,
        )

    def _require(self, token: str | None, state: str | None) -> None:
        """Goes on only if the status, which is watched, has these: writes by hand ask for no lock."""
        stored = self._line.call("HMGET", self._key, *_OWNER)
        found = [None if text is None else text.decode(errors="replace") for text in stored]
        if found != [token, state]:
            raise UnavailableError(f"{self._key} has just changed: somebody wrote the feature by hand meanwhile.")

    def _replace(self, lock: Lock, status: Status) -> None:
        fields = [item for pair in status.to_hash().items() for item in pair]
        self._change(lock, ("DEL", self._key), ("HSET", self._key, *fields))

    def _watch(self, lock: Lock) -> None:
        """Begins to watch the status as well, for the next `_change`."""
        lock.watch(self._key)

    def _change(self, lock: Lock, *commands: Sequence[Word]) -> None:
        """Changes the status in one step."""
        lock.fenced(b"".join(map(packed, commands)), len(commands))

    def _settings(self, part: pl.DataFrame) -> Iterator[Chunk]:
        """What sets the column `key` to the column `value`."""
        return chunks(part, ttl=self._terms.ttl)

    def _deletions(self, keys: pl.Series) -> Iterator[Chunk]:
        """What deletes keys; each reply is how many there were."""
        return deletions(keys)

    def _send(self, lock: Lock, chunk: Chunk) -> list[Any]:
        return lock.fenced(chunk.data, chunk.replies)

    def _there(self, lock: Lock) -> pl.Series:
        """The key hashes of all entities that are there, as `scan` finds them."""
        return scan([self._line], redis_key(self._terms.prefix, self._feature_name, ""), each=lock.renew)

    def _identity(self) -> tuple[str, int]:
        """The id of the server's process, and how many keys it has evicted."""
        return server_identity(self._line)

    def _replicated(self) -> None:
        """Waits until the replicas have what was written."""
        self._replicated_on(self._line)

    def _replicated_on(self, line: Line) -> None:
        wanted = self._terms.wait_replicas
        if wanted and (got := line.call("WAIT", wanted, int(line.timeout * 500))) < wanted:
            raise UnavailableError(f"{got} of {wanted} replicas have what was written to {self._key} in time.")

    def _redis_key(self, entities: pl.DataFrame) -> pl.Expr:
        key_hash = entity_key_hash_expr(entities.schema)
        return redis_key_expr(self._terms.prefix, self._feature_name, key_hash).alias("key")


def scan(lines: Iterable[Line], head: str, *, each: Callable[[], None] | None = None) -> pl.Series:
    """The key hashes of all entities whose keys begin so: the status, and whatever is not mlforge's, are none.

    Args:
        lines: The connections to the servers.
        head: What the keys begin with.
        each: Called after every step.

    Returns:
        Numbers, as `to_numbers` gives them, each once.
    """
    entity = re.compile(re.escape(head.encode()) + b"[0-9a-f]{%d}" % DIGITS)
    lots: list[pl.Series] = []
    found: list[str] = []
    for line in lines:
        cursor = "0"
        while True:
            # A prefix has no character that means something in a pattern.
            following, keys = line.call("SCAN", cursor, "MATCH", f"{head}*", "COUNT", SCAN_COUNT)
            found += (key[-DIGITS:].decode() for key in keys if entity.fullmatch(key))
            if len(found) >= LOT:
                lots.append(to_numbers(pl.Series(found, dtype=pl.String)))
                found = []
            cursor = following.decode()
            if each is not None:
                each()
            if cursor == "0":
                break
    # A key that moves while the server grows its table may come twice.
    return once(pl.concat([*lots, to_numbers(pl.Series(found, dtype=pl.String))]))


class _Building(threading.Thread):
    """The chunks of a slice of a frame, built while something else is done."""

    def __init__(self, build: Callable[[pl.DataFrame], Iterator[Chunk]], part: pl.DataFrame) -> None:
        super().__init__(name="mlforge-build", daemon=True)
        self._build = build
        self._part = part
        self._built: list[Chunk] = []
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._built = list(self._build(self._part))
        except BaseException as error:  # noqa: BLE001 -- raised where the result is asked for
            self._error = error

    def result(self) -> list[Chunk]:
        self.join()
        if self._error is not None:
            raise self._error
        return self._built


def _ahead(build: Callable[[pl.DataFrame], Iterator[Chunk]], rows: pl.DataFrame) -> Generator[list[Chunk]]:
    """The chunks of every slice of a frame; the next slice is built while the one before is sent."""
    # Not an executor: a Ctrl-C that arrives while one is cleaned up is lost.
    before: _Building | None = None
    for part in rows.iter_slices(SLICE_ROWS):
        following = _Building(build, part)
        if before is not None:
            yield before.result()
        before = following
    if before is not None:
        yield before.result()


def server_identity(line: Line) -> tuple[str, int]:
    """The id of the server's process, and how many keys it has evicted."""
    from redis.exceptions import NoPermissionError, ResponseError

    try:
        text = b"\r\n".join(line.calls(("INFO", "server"), ("INFO", "stats"))).decode()
    except NoPermissionError:
        raise
    except ResponseError:
        # A server that cannot say: fakeredis.
        return "", 0
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return fields.get("run_id", ""), int(fields.get("evicted_keys", 0))


def _both(one: Published, other: Published) -> Published:
    return Published(
        written=one.written + other.written, deleted=one.deleted + other.deleted, bytes=one.bytes + other.bytes
    )


def _pairs(flat: list[bytes]) -> Iterator[tuple[str, str]]:
    texts = [item.decode(errors="replace") for item in flat]
    return zip(texts[::2], texts[1::2], strict=True)


def _rows(feature_name: str, frame: pl.DataFrame, status: Status) -> pl.DataFrame:
    """The rows to write, once the frame is known to be what the status says it is."""
    wanted = [*status.key_columns, *status.schema]
    missing = [column for column in wanted if column not in frame.columns]
    if missing:
        raise RequestError(f"The frame of {feature_name} has no column {', '.join(missing)}.")
    for column, dtype in status.schema.items():
        if frame.schema[column] != dtype:
            raise RequestError(f"Column {column!r} of {feature_name} is {frame.schema[column]}, not {dtype}.")
    return frame.select(wanted).drop_nulls(list(status.key_columns))
