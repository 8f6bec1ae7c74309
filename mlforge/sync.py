"""From the offline store to the online store: the values that hold at an instant, written where they differ."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

import polars as pl

from mlforge import precedence, progress
from mlforge.difference import Difference, differences
from mlforge.errors import StoreError, UnavailableError
from mlforge.online.base import DAMAGED, OnlineStore, Part, Published, Turn
from mlforge.online.hashes import entity_numbers, to_numbers, without
from mlforge.online.status import Status
from mlforge.shards import begun
from mlforge.store.base import Store
from mlforge.store.snapshot import Snapshot
from mlforge.whole import whole

Mode = Literal["full", "difference", "unchanged", "stale"]
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What a sync did, or would do.

    Attributes:
        mode: `"full"`: every entity was written; `"difference"`: those whose values differ; `"unchanged"`: none
            differs; `"stale"`: refused, since what is online is of a later version or instant.
        reason: Why everything was written, or why it was refused; else empty.
        version: The version of the feature that is online now.
        as_of: The instant at which the values hold, UTC.
        written: How many entities were written.
        deleted: How many entities were taken away, because they are not there at this version and instant.
        unchanged: How many entities were left as they are.
        bytes: How many bytes of commands that took; 0 where the store does not count them.
        seconds: How long it took.
        dry_run: Whether nothing was done; the numbers then say what would be.
    """

    mode: Mode
    reason: str = ""
    version: str
    as_of: datetime
    written: int = 0
    deleted: int = 0
    unchanged: int = 0
    bytes: int = 0
    seconds: float = 0.0
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """What to sync, and how.

    Attributes:
        feature_name: The feature.
        as_of: The instant; None: `now`, or, unless forced, that of what is online where it is later.
        now: The instant that it is; by default that at which this was made.
        full: Write everything.
        force: Go back to an earlier version or instant, or take over what another project has written.
        allow_breaking: Go to another MAJOR version.
        dry_run: Only say what would be done.
        memory_limit: How many bytes the process shall take, about: what needs more is read, compared and written part
            by part, and the table is read once for each. None: all of it at once.
    """

    feature_name: str
    as_of: datetime | None = None
    now: datetime = field(default_factory=partial(datetime.now, UTC))
    full: bool = False
    force: bool = False
    allow_breaking: bool = False
    dry_run: bool = False
    memory_limit: int | None = None


def sync(request: SyncRequest, store: Store, online_store: OnlineStore) -> SyncReport:
    """Makes the online store hold, for every entity that is visible at an instant, the values that hold then.

    The version and the instant are settled while no other sync of the feature runs. A sync that has lost the store on
    the way begins again from what the store then says, for `online_store.retry_seconds`.

    Args:
        request: What to sync.
        store: Where the feature's table is, and the version of it that is online now.
        online_store: Where to write.

    Raises:
        RequestError: The feature is not built, another MAJOR version is online, or another project has written it.
        StoreError: A store cannot be reached or refuses; the status then says that it is unfinished.
    """
    began = time.monotonic()
    pause, had_turn = FIRST_PAUSE, False
    while True:
        try:
            with online_store.turn(request.feature_name, writing=not request.dry_run) as turn:
                had_turn = True
                report = _take_turn(turn, request, store, online_store)
            return replace(report, seconds=time.monotonic() - began, dry_run=request.dry_run)
        except UnavailableError as error:
            # A store that was never reached is not going to be: whoever called decides when to try again.
            waited = time.monotonic() - began
            if not had_turn or waited + pause > online_store.retry_seconds:
                if had_turn:
                    error.add_note(f"(The sync was begun again for {waited:.0f} s.)")
                raise
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, LONGEST_PAUSE)


def _take_turn(turn: Turn, request: SyncRequest, store: Store, online_store: OnlineStore) -> SyncReport:
    progress.begin("syncing", "entities")
    name, online = request.feature_name, turn.status
    snapshot = store.require(name)
    synced = online if online is not None and online.synced else None
    if turn.doubt == DAMAGED and not request.force:
        raise StoreError(
            f"Feature {name!r}: the status beside the values is damaged, so that it cannot be told which project they "
            f"are of: build with force=True (--force), which writes all of them."
        )
    latest = request.now if synced is None or request.force else max(request.now, synced.as_of)
    as_of = request.as_of or latest
    if synced is not None and not request.force:
        precedence.require_same_project(snapshot, synced)
        if (late := precedence.later(snapshot, as_of, synced)) is not None:
            return SyncReport(mode="stale", reason=late, version=synced.version, as_of=synced.as_of)
    if synced is not None and not request.allow_breaking:
        precedence.require_compatible(snapshot, synced)
    reason = "asked for" if request.full else turn.doubt
    if reason is None and synced is not None:
        reason = precedence.other(snapshot, synced)
    status = _status(snapshot, as_of)
    if reason is None and synced is not None:
        if precedence.still_holds(snapshot, as_of, synced):
            return _confirm(turn, replace(status, rows=synced.rows, next_change=synced.next_change), request)
        status = replace(status, next_change=snapshot.next_change(as_of))
        if (found := _differences(snapshot, as_of, synced, store, request.memory_limit)) is not None:
            there = replace(status, rows=synced.rows)
            if (parts := begun(found)) is None:
                return _confirm(turn, there, request)
            return _publish(turn, parts, "difference", there, online_store, request)
        reason = f"version {synced.version} cannot be compared with any more"
    else:
        status = replace(status, next_change=snapshot.next_change(as_of))
    parts = whole(snapshot, as_of, turn.status, store, request.memory_limit)
    return replace(_publish(turn, parts, "full", status, online_store, request), reason=reason or "")


def _status(snapshot: Snapshot, as_of: datetime) -> Status:
    return Status(
        key_columns=snapshot.record.keys,
        schema=snapshot.value_schema,
        table_id=snapshot.table_id,
        delta_version=snapshot.delta_version,
        version=snapshot.version,
        content=snapshot.content,
        location=snapshot.location,
        definition_hash=snapshot.record.definition_hash,
        as_of=as_of,
    )


def _confirm(turn: Turn, status: Status, request: SyncRequest) -> SyncReport:
    if not request.dry_run:
        turn.confirm(status)
    return SyncReport(mode="unchanged", version=status.version, as_of=status.as_of, unchanged=status.rows)


def _differences(
    snapshot: Snapshot, as_of: datetime, online: Status, store: Store, memory_limit: int | None
) -> Iterator[Part] | None:
    """What differs from what is online, in parts that say something; None where that cannot be told any more."""
    if online.delta_version == snapshot.delta_version:
        return _differing(snapshot, online.as_of, snapshot, as_of, memory_limit)
    try:
        before = store.open(snapshot.feature_name, online.delta_version)
        if before is None or online.content not in (None, before.content) or before.schema != snapshot.schema:
            return None
        if before.record.timestamp != snapshot.record.timestamp:
            return None
        return _differing(before, online.as_of, snapshot, as_of, memory_limit)
    except StoreError:
        # Vacuumed, or otherwise lost; if it is the newer one, writing all of it will tell.
        return None


def _differing(
    before: Snapshot, was: datetime, after: Snapshot, now: datetime, memory_limit: int | None
) -> Iterator[Part]:
    found = differences(before, was, after, now, memory_limit=memory_limit)
    # What cannot be read is to be known here.
    return begun(filter(_says_something, map(_part, found))) or iter(())


def _part(found: Difference) -> Part:
    return Part(rows=found.rows, vanished=found.vanished, change=found.appeared - found.vanished.height)


def _says_something(part: Part) -> bool:
    return not part.rows.is_empty() or (part.vanished is not None and not part.vanished.is_empty())


def _publish(
    turn: Turn, parts: Iterator[Part], mode: Mode, status: Status, online_store: OnlineStore, request: SyncRequest
) -> SyncReport:
    """Publishes parts, or finds out what that would do; the status has the `rows` that are there before."""
    changes: list[int] = []
    noted = map(partial(_noted, changes), parts)
    if request.dry_run:
        published = _planned(noted, status, online_store, request.feature_name)
    else:
        published = turn.publish_parts(noted, status)
    return _report(mode, replace(status, rows=status.rows + sum(changes)), published)


def _noted(changes: list[int], part: Part) -> Part:
    changes.append(part.change)
    progress.begin("syncing", "entities", part.rows.height)
    return part


def _planned(parts: Iterator[Part], status: Status, online_store: OnlineStore, feature_name: str) -> Published:
    """What publishing would come to."""
    written = deleted = 0
    left: pl.Series | None = None
    for part in parts:
        written += part.rows.height
        if part.vanished is None:
            left = _there(online_store, feature_name) if left is None else left
            left = without(left, entity_numbers(part.rows.select(status.key_columns)))
        else:
            deleted += part.vanished.height
        # Else it would be held while the next one is made.
        del part
    return Published(written=written, deleted=deleted if left is None else len(left))


def _there(online_store: OnlineStore, feature_name: str) -> pl.Series:
    hashes = online_store.entity_hashes(feature_name)
    return to_numbers(pl.Series(dtype=pl.String) if hashes is None else hashes)


def _report(mode: Mode, status: Status, published: Published) -> SyncReport:
    return SyncReport(
        mode=mode,
        version=status.version,
        as_of=status.as_of,
        written=published.written,
        deleted=published.deleted,
        unchanged=status.rows - published.written,
        bytes=published.bytes,
    )
