"""From the offline store to the online store: the values that hold at an instant, written where they differ."""

import random
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

import polars as pl

from mlforge import precedence
from mlforge.difference import Difference, difference
from mlforge.errors import StoreError, UnavailableError
from mlforge.online.base import DAMAGED, OnlineStore, Published, Turn
from mlforge.online.keys import entity_key_hash_expr, key_text_expr
from mlforge.online.status import Content, Status
from mlforge.store.base import Store
from mlforge.store.snapshot import Snapshot

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
    """

    feature_name: str
    as_of: datetime | None = None
    now: datetime = field(default_factory=partial(datetime.now, UTC))
    full: bool = False
    force: bool = False
    allow_breaking: bool = False
    dry_run: bool = False


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
        if (found := _difference(snapshot, as_of, synced, store)) is not None:
            return _write_difference(turn, found, status, synced, request)
        reason = f"version {synced.version} cannot be compared with any more"
    else:
        status = replace(status, next_change=snapshot.next_change(as_of))
    return _write_all(turn, reason or "", status, snapshot, store, online_store, dry=request.dry_run)


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


def _difference(snapshot: Snapshot, as_of: datetime, online: Status, store: Store) -> Difference | None:
    """What differs from what is online; None where that cannot be told any more."""
    if online.delta_version == snapshot.delta_version:
        return difference(snapshot, online.as_of, snapshot, as_of)
    try:
        before = store.open(snapshot.feature_name, online.delta_version)
        if before is None or online.content not in (None, before.content) or before.schema != snapshot.schema:
            return None
        if before.record.timestamp != snapshot.record.timestamp:
            return None
        return difference(before, online.as_of, snapshot, as_of)
    except StoreError:
        # Vacuumed, or otherwise lost; if it is the newer one, writing all of it will tell.
        return None


def _write_difference(
    turn: Turn, found: Difference, status: Status, online: Status, request: SyncRequest
) -> SyncReport:
    """Sets what has other values, takes away what is no longer there."""
    written, deleted = found.rows.height, found.vanished.height
    status = replace(status, rows=online.rows + found.appeared - deleted)
    if not written and not deleted:
        return _confirm(turn, status, request)
    published = Published(written=written, deleted=deleted)
    if not request.dry_run:
        published = turn.publish(found.rows, found.vanished, status)
    return _report("difference", status, published)


def _write_all(
    turn: Turn, reason: str, status: Status, snapshot: Snapshot, store: Store, online_store: OnlineStore, *, dry: bool
) -> SyncReport:
    """Writes every entity, and takes away the others that may be there."""
    rows = snapshot.at(status.as_of)
    status = replace(status, rows=rows.height)
    vanished = _vanished(turn, snapshot, rows, store, status.as_of)
    if not dry:
        published = turn.publish(rows, vanished, status)
    elif vanished is not None:
        published = Published(written=rows.height, deleted=vanished.height)
    else:
        keys = rows.select(status.key_columns)
        there = online_store.entity_hashes(snapshot.feature_name)
        stay = set(keys.select(entity_key_hash_expr(keys.schema)).to_series())
        published = Published(written=rows.height, deleted=len(set(() if there is None else there) - stay))
    return replace(_report("full", status, published), reason=reason)


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


def _vanished(turn: Turn, snapshot: Snapshot, rows: pl.DataFrame, store: Store, as_of: datetime) -> pl.DataFrame | None:
    """The keys of the entities that are online and not among the rows; None where what is online cannot be told."""
    online = turn.status
    if online is None or (online.table_id, online.location) != (snapshot.table_id, snapshot.location):
        return None
    if (contents := online.contents) is None:
        return None
    try:
        same = online.delta_version == snapshot.delta_version
        named = snapshot if same else store.open(snapshot.feature_name, online.delta_version)
        if named is None or online.content not in (None, named.content):
            return None
        parts = [_absent(store, snapshot, rows, content, as_of) for content in contents]
    except StoreError:
        # Vacuumed, or otherwise lost.
        return None
    if any(part.columns != parts[0].columns or part.schema != parts[0].schema for part in parts):
        return None
    return pl.concat(parts).unique()


def _absent(store: Store, snapshot: Snapshot, rows: pl.DataFrame, content: Content, as_of: datetime) -> pl.DataFrame:
    """The keys of the entities of a content that are not among the rows."""
    version, instant = content
    keys = list(snapshot.record.keys)
    # By text, as online: 123 and "123" are one entity.
    here = rows.select(key_text_expr(key, rows.schema[key]).alias(key) for key in keys)
    if version == snapshot.delta_version and instant <= as_of and snapshot.record.max_age is None:
        # Within a version, an entity that was visible stays so.
        return here.clear()
    before = store.open(snapshot.feature_name, version)
    if before is None:
        raise StoreError(f"Version {version} of {snapshot.feature_name!r} is gone.")
    keys = list(before.record.keys)
    entities = before.collect(before.scan(until=instant).select(keys).unique())
    if sorted(keys) != sorted(snapshot.record.keys):
        return entities
    texts = [key_text_expr(key, entities.schema[key]).alias(key) for key in keys]
    return entities.select(texts).join(here, on=keys, how="anti")
