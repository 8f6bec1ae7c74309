"""Building a feature offline: compute, audit, then publish."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

import polars as pl

from mlforge import checks
from mlforge.checks import CheckResult
from mlforge.definition import definition_hash
from mlforge.duration import microseconds
from mlforge.engines.base import Computed
from mlforge.engines.polars import compute
from mlforge.errors import RequestError, StoreError
from mlforge.features import Feature
from mlforge.lineage import source_of
from mlforge.span import Span, last_event, touched
from mlforge.store.base import ConflictError, Store
from mlforge.store.record import BuildRecord, Kind
from mlforge.store.snapshot import Snapshot
from mlforge.sync import SyncReport

Outcome = Literal["built", "unchanged", "skipped", "rolled back", "outdated"]
ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build did.

    Attributes:
        feature: The feature's name.
        outcome: `"built"`: a new version; `"unchanged"`: computed, and the rows equal those that are stored, so the
            version stays; `"skipped"`: neither the data nor the definition has changed, so nothing was computed;
            `"rolled back"`: neither has changed since what was built of them was rolled back, so it stays so;
            `"outdated"`: one of them has, and it was only looked at.
        version: The version that is there now, MAJOR.MINOR.PATCH.
        rows: How many rows it has.
        left_out: How many rows of the function's result had no key or no timestamp.
        checks: The verdicts of the checks; empty when skipped.
        seconds: How long it took, online part included.
        online: What was written online; None for an offline build.
        events: The events that were built; None: all of them.
        reason: Why all of them were, although only some were asked for; else empty.
    """

    feature: str
    outcome: Outcome
    version: str
    rows: int
    left_out: int = 0
    checks: Sequence[CheckResult] = ()
    seconds: float = 0.0
    online: SyncReport | None = None
    events: Span | None = None
    reason: str = ""


def build(
    feature: Feature,
    store: Store,
    *,
    force: bool = False,
    events: Span | None = None,
    look_back: timedelta | None = None,
) -> BuildReport:
    """Computes a feature's history from its source and publishes it as the next version, unless nothing changed.

    Nothing is written unless every check with severity error passes; whoever reads sees the old version or the new
    one, never a mixture. The table is always complete: where a part cannot be built, all of it is.

    Args:
        feature: The feature.
        store: Where its table is, and that of the feature that is its source.
        force: Computes even where neither data nor definition have changed.
        events: Only these are new or have changed; None: any may have.
        look_back: Only events that are at most so much earlier than the last one that was built are new.

    Raises:
        CheckFailedError: A check failed.
        DataError: The data is not what the definition says.
        RequestError: The feature that is the source is not built.
        StoreError: The store cannot be read or written, or others kept committing to the table.
    """
    began = time.perf_counter()
    definition = definition_hash(feature)
    with store.building(feature.name):
        for _ in range(ATTEMPTS):
            current = store.open(feature.name)
            source = source_of(feature, store)
            before = source.fingerprint()
            if current is not None and not force:
                outcome = _standing(current, store, definition, before, look_back)
                if outcome != "outdated":
                    return _report(feature, outcome, current, began)
            asked = events is not None or look_back is not None
            part, reason = _part(feature, current, definition, events, look_back) if asked else (None, "")
            computed = compute(feature, source, part)
            if part is not None and current is not None and dict(computed.rows.schema) != dict(current.schema):
                part, reason = None, "its columns have changed"
                computed = compute(feature, source)
            checks.require(computed.checks, feature=feature.name)
            if current is not None and part is None and not force and _was_left(current, store, definition, computed):
                return _report(feature, "rolled back", current, began, computed)
            # Of a part that somebody has named it is not known what else is new.
            known = events is None and source.fingerprint() == before
            content = _content(feature, current, computed, part, definition, before if known else None)
            try:
                outcome, made = _publish(store, feature.name, current, content)
            except ConflictError:
                continue
            return replace(_report(feature, outcome, made, began, computed), events=part, reason=reason)
    raise StoreError(
        f"Feature {feature.name!r}: others committed to {store.table_uri(feature.name)!r} during each of {ATTEMPTS} "
        f"attempts to build it; nothing was written. Build it from one place at a time."
    )


def standing(feature: Feature, store: Store) -> BuildReport:
    """What is built now: `skipped` or `rolled back` if a build would leave it so, else `outdated`.

    Raises:
        RequestError: Nothing is.
        StoreError: The store cannot be read.
    """
    began = time.perf_counter()
    current = store.open(feature.name)
    if current is None:
        raise RequestError(f"Feature {feature.name!r} is not built: run `mlforge build --features {feature.name}`.")
    fingerprint = source_of(feature, store).fingerprint()
    return _report(feature, _standing(current, store, definition_hash(feature), fingerprint, None), current, began)


def _standing(
    current: Snapshot, store: Store, definition: str, fingerprint: str | None, look_back: timedelta | None
) -> Outcome:
    if _stands(current.record, definition, fingerprint, look_back):
        return "skipped"
    left = _left(current, store)
    if left is not None and _stands(left.record, definition, fingerprint, look_back):
        return "rolled back"
    return "outdated"


def _left(current: Snapshot, store: Store) -> Snapshot | None:
    """What a rollback has left; None where what is there is not rolled back."""
    return None if current.record.left is None else store.open(current.feature_name, current.record.left)


def _was_left(current: Snapshot, store: Store, definition: str, computed: Computed) -> bool:
    """Whether exactly these rows were rolled back, as it shows where the source has no fingerprint that says so."""
    left = _left(current, store)
    if left is None or left.record.definition_hash != definition:
        return False
    return _differing(left, computed.rows) == frozenset()


def _stands(record: BuildRecord, definition: str, fingerprint: str | None, look_back: timedelta | None) -> bool:
    if record.kind == "partial" and look_back is None:
        # Of what is earlier nothing is known.
        return False
    return fingerprint is not None and (record.definition_hash, record.fingerprint) == (definition, fingerprint)


def _part(
    feature: Feature, current: Snapshot | None, definition: str, events: Span | None, look_back: timedelta | None
) -> tuple[Span | None, str]:
    """Which events are built, of those that are asked for; None and the reason why all of them are."""
    if current is None:
        return None, "there was no table"
    if current.record.definition_hash != definition:
        return None, "the definition has changed"
    if current.record.kind == "rollback":
        return None, "what was there was rolled back"
    if feature.timestamp is None:
        return None, "it has no timestamp"
    if feature.available_at is not None:
        return None, "any event may have become available"
    if look_back is None:
        return events, ""
    newest = current.newest()
    return (
        (None, "the table was empty") if newest is None else (Span(start=last_event(feature, newest) - look_back), "")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """What is to be published.

    Attributes:
        rows: All rows of the months that may differ.
        months: The months in which they do; None: in all.
        record: The commit's metadata.
    """

    rows: pl.DataFrame
    months: frozenset[str] | None
    record: BuildRecord


def _content(
    feature: Feature,
    current: Snapshot | None,
    computed: Computed,
    part: Span | None,
    definition: str,
    fingerprint: str | None,
) -> _Content:
    rows, months, others = computed.rows, None, 0
    if current is not None and current.record.timestamp == feature.timestamp:
        among = None
        if part is not None:
            rows, among = current.spliced(rows, touched(feature, part))
            others = sum(count for month, count in current.rows_by_month.items() if month not in among)
        months = _differing(current, rows) if among is None else current.differing_months(rows, among)
    kind: Kind = "full" if part is None else "partial"
    record = _record(feature, rows, current, definition, fingerprint)
    return _Content(rows=rows, months=months, record=replace(record, kind=kind, rows=len(rows) + others))


def _differing(stored: Snapshot, rows: pl.DataFrame) -> frozenset[str] | None:
    """The months in which other rows are stored; None: all of them, also where what is stored is damaged."""
    try:
        return stored.differing_months(rows)
    except StoreError:
        return None


def _publish(store: Store, feature_name: str, current: Snapshot | None, content: _Content) -> tuple[Outcome, Snapshot]:
    new, months = content.record, content.months
    if current is None or months != frozenset() or current.record.definition_hash != new.definition_hash:
        return "built", store.replace(feature_name, content.rows, new, current, months)
    if new.fingerprint is None or (new.fingerprint, new.kind) == (current.record.fingerprint, current.record.kind):
        return "unchanged", current
    # So that the next build is skipped. The version stays: its number is counted from one Delta version further on.
    new = replace(new, base=new.base + 1)
    return "unchanged", store.replace(feature_name, content.rows, new, current, months)


def _record(
    feature: Feature, rows: pl.DataFrame, current: Snapshot | None, definition: str, fingerprint: str | None
) -> BuildRecord:
    major, minor, base = (1, 0, 0) if current is None else current.following(rows.schema, definition)
    return BuildRecord(
        major=major,
        minor=minor,
        base=base,
        definition_hash=definition,
        fingerprint=fingerprint,
        keys=feature.keys,
        timestamp=feature.timestamp,
        max_age=None if feature.max_age is None else microseconds(feature.max_age),
        rows=len(rows),
    )


def _report(
    feature: Feature,
    outcome: Outcome,
    snapshot: Snapshot,
    began: float,
    computed: Computed | None = None,
) -> BuildReport:
    return BuildReport(
        feature=feature.name,
        outcome=outcome,
        version=snapshot.version,
        rows=snapshot.record.rows,
        left_out=computed.left_out if computed else 0,
        checks=computed.checks if computed else (),
        seconds=time.perf_counter() - began,
    )
