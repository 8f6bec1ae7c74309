"""Whether what is stored is what a build would make, and if not, how much of it has to be built."""

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from mlforge import clock
from mlforge.errors import StoreError
from mlforge.features import Feature
from mlforge.lineage import TableSource, identity
from mlforge.months import month_span
from mlforge.rows import Rows
from mlforge.source import Source
from mlforge.span import Span, last_event
from mlforge.store.base import Store
from mlforge.store.record import BuildRecord
from mlforge.store.snapshot import Snapshot

Standing = Literal["skipped", "rolled back", "outdated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events may be new or have changed; without both any may.

    Attributes:
        events: Those that somebody has named.
        look_back: Those that are at most so much earlier than the last one that was built.
    """

    events: Span | None = None
    look_back: dt.timedelta | None = None

    def __bool__(self) -> bool:
        return self.events is not None or self.look_back is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is to be built.

    Attributes:
        events: These; None: all.
        reason: Why all are, although only some were asked for; else empty.
        complete: Whether the table then holds all that the source does.
    """

    events: Span | None = None
    reason: str = ""
    complete: bool = True


def standing(current: Snapshot, store: Store, definition: str, fingerprint: str | None, wanted: Wanted) -> Standing:
    """Whether a build would leave the table as it is.

    Args:
        current: The table.
        store: Where its other versions are.
        definition: The feature's definition hash.
        fingerprint: That of its source; None: it cannot be told whether that has changed.
        wanted: What the build would be about.

    Returns:
        `skipped`: neither the data nor the definition has changed. `rolled back`: neither has since what was built of
        them was rolled back. `outdated`: one of them has.
    """
    if _stands(current.record, definition, fingerprint, wanted):
        return "skipped"
    left = _left(current, store)
    if left is not None and _stands(left.record, definition, fingerprint, wanted):
        return "rolled back"
    return "outdated"


def was_left(current: Snapshot, store: Store, definition: str, rows: Rows) -> bool:
    """Whether exactly these rows were rolled back, as it shows where the source has no fingerprint that says so."""
    left = _left(current, store)
    if left is None or left.record.definition_hash != definition:
        return False
    return differing(left, rows) == frozenset()


def differing(stored: Snapshot, rows: Rows) -> frozenset[str] | None:
    """The months in which other rows are stored; None: all of them, also where what is stored is damaged."""
    try:
        return stored.differing_months(rows)
    except StoreError:
        return None


def part(
    feature: Feature, source: Source, store: Store, current: Snapshot | None, definition: str, wanted: Wanted
) -> Part:
    """How much of a feature is to be built: what is wanted, where that is enough.

    A feature that is read has kept account of what has changed: there it is that and neither more nor less.
    """
    if not wanted:
        return Part()
    if current is None:
        return Part(reason="there was no table")
    if current.record.definition_hash != definition:
        return Part(reason="the definition has changed")
    if current.record.kind == "rollback":
        return Part(reason="what was there was rolled back")
    if current.record.source not in (None, identity(source)):
        return Part(reason="it reads another source than before")
    if feature.timestamp is None:
        return Part(reason="it has no timestamp")
    if feature.available_at is not None:
        return Part(reason="any event may have become available")
    if isinstance(source, TableSource):
        return _changed(feature, source.snapshot, store, current.record)
    if wanted.look_back is None:
        return Part(events=wanted.events, complete=False)
    if (newest := current.newest()) is None:
        return Part(reason="the table was empty")
    # An event that is still to come says nothing about how far the others have come.
    last = min(last_event(feature, newest), clock.now())
    return Part(events=Span(start=last - wanted.look_back), complete=False)


def in_microseconds(length: dt.timedelta | None) -> int | None:
    """A length of time as records have it."""
    return None if length is None else length // dt.timedelta(microseconds=1)


def _changed(feature: Feature, now: Snapshot, store: Store, read: BuildRecord) -> Part:
    """The months in which a feature that is read has other rows than at the version that was read last."""
    unknown = Part(reason=f"it cannot be told what has changed in {now.feature_name!r}")
    if read.source_version is None or now.record.timestamp != feature.timestamp:
        return unknown
    try:
        before = store.open(now.feature_name, read.source_version)
    except StoreError:
        return unknown
    # A table that was deleted and made again has other files at a version of the same number.
    if before is None or TableSource(before).fingerprint() != read.fingerprint:
        return unknown
    if before.schema != now.schema or before.record.timestamp != now.record.timestamp:
        return unknown
    months = {month for month, _ in before.files.items() ^ now.files.items()}
    return Part(events=month_span(months)) if months else Part()


def _left(current: Snapshot, store: Store) -> Snapshot | None:
    """What a rollback has left; None where what is there is not rolled back."""
    return None if current.record.left is None else store.open(current.feature_name, current.record.left)


def _stands(record: BuildRecord, definition: str, fingerprint: str | None, wanted: Wanted) -> bool:
    if fingerprint is None or (record.definition_hash, record.fingerprint) != (definition, fingerprint):
        return False
    if record.kind != "partial":
        return True
    # Of what is earlier than it has looked for nothing is known.
    look_back = in_microseconds(wanted.look_back)
    return look_back is not None and record.look_back is not None and look_back <= record.look_back
