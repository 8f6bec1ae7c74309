"""Building a feature offline: compute, audit, then publish."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mlforge import progress
from mlforge.definition import definition_hash
from mlforge.duration import microseconds
from mlforge.engines.base import Computed, Engine
from mlforge.errors import StoreError
from mlforge.features import Feature
from mlforge.lineage import TableSource, identity, source_of
from mlforge.rows import Rows
from mlforge.source import Source
from mlforge.span import Span, touched
from mlforge.stage import Workplace
from mlforge.standing import Part, Wanted, differing, in_microseconds, part, standing, was_left
from mlforge.store.base import ConflictError, Store
from mlforge.store.record import BuildRecord
from mlforge.store.snapshot import Snapshot
from mlforge.sync import SyncReport
from mlforge.verdicts import CheckResult

Outcome = Literal["built", "unchanged", "skipped", "rolled back", "outdated"]
ATTEMPTS = 5
ALL = Wanted()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a build computes with.

    Attributes:
        engine: What runs the functions.
        memory_limit: How many bytes a build may take; None: what there is.
    """

    engine: Engine
    memory_limit: int | None = None

    def compute(self, feature: Feature, source: Source, events: Span | None, workplace: Workplace) -> Computed:
        """As `Engine.compute`."""
        return self.engine.compute(feature, source, events, workplace, self.memory_limit)


def build(feature: Feature, store: Store, means: Means, wanted: Wanted = ALL, *, force: bool = False) -> BuildReport:
    """Computes a feature's history from its source and publishes it as the next version, unless nothing changed.

    Nothing is written unless every check with severity error passes; whoever reads sees the old version or the new
    one, never a mixture. The table is always complete: where a part cannot be built, all of it is.

    Args:
        feature: The feature.
        store: Where its table is, and that of the feature that is its source.
        means: What to compute with.
        wanted: Which events may be new or have changed.
        force: Computes even where neither data nor definition have changed.

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
                stands = standing(current, store, definition, before, wanted)
                if stands != "outdated":
                    return _report(feature, stands, current, began)
            chosen = part(feature, source, store, current, definition, wanted)
            with store.workplace(feature.name, feature.timestamp) as workplace:
                computed = means.compute(feature, source, chosen.events, workplace)
                if chosen.events and current is not None and dict(computed.rows.schema) != dict(current.schema):
                    chosen = Part(reason="its columns have changed")
                    workplace.clear()
                    computed = means.compute(feature, source, None, workplace)
                if (
                    current is not None
                    and not chosen.events
                    and not force
                    and was_left(current, store, definition, computed.rows)
                ):
                    return _report(feature, "rolled back", current, began, computed)
                # Of events that somebody has named it is not known what else is new.
                known = (chosen.complete or wanted.look_back is not None) and source.fingerprint() == before
                record = _record(feature, source, computed.rows, current, definition, before if known else None)
                if not chosen.complete:
                    record = replace(record, kind="partial", look_back=in_microseconds(wanted.look_back))
                progress.begin("publishing", "rows", computed.rows.height)
                content = _content(feature, current, computed, chosen.events, record)
                try:
                    outcome, made = _publish(store, feature.name, current, content)
                except ConflictError:
                    # Not held while it is computed once more.
                    del computed, content
                    continue
            return replace(_report(feature, outcome, made, began, computed), events=chosen.events, reason=chosen.reason)
    raise StoreError(
        f"Feature {feature.name!r}: others committed to {store.table_uri(feature.name)!r} during each of {ATTEMPTS} "
        f"attempts to build it; nothing was written. Build it from one place at a time."
    )


def look(feature: Feature, store: Store, wanted: Wanted = ALL) -> BuildReport:
    """What is built now: `skipped` or `rolled back` if a build would leave it so, else `outdated`.

    Raises:
        RequestError: Nothing is.
        StoreError: The store cannot be read.
    """
    began = time.perf_counter()
    current = store.require(feature.name)
    fingerprint = source_of(feature, store).fingerprint()
    outcome = standing(current, store, definition_hash(feature), fingerprint, wanted)
    return _report(feature, outcome, current, began)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """What is to be published.

    Attributes:
        rows: All rows of the months that may differ.
        months: The months in which they do; None: in all.
        record: The commit's metadata.
    """

    rows: Rows
    months: frozenset[str] | None
    record: BuildRecord


def _content(
    feature: Feature, current: Snapshot | None, computed: Computed, events: Span | None, record: BuildRecord
) -> _Content:
    rows, months, others = computed.rows, None, 0
    if current is not None and current.record.timestamp == feature.timestamp:
        among = None
        if events is not None:
            rows, among = current.spliced(rows, touched(feature, events))
            others = sum(count for month, count in current.rows_by_month.items() if month not in among)
        months = differing(current, rows) if among is None else current.differing_months(rows, among)
    return _Content(rows=rows, months=months, record=replace(record, rows=rows.height + others))


def _publish(store: Store, feature_name: str, current: Snapshot | None, content: _Content) -> tuple[Outcome, Snapshot]:
    new, months = content.record, content.months
    if current is None or months != frozenset() or current.record.definition_hash != new.definition_hash:
        return "built", store.replace(feature_name, content.rows, new, current, months)
    old = current.record
    same = (old.fingerprint, old.kind, old.look_back) == (new.fingerprint, new.kind, new.look_back)
    if new.fingerprint is None or same:
        return "unchanged", current
    # So that the next build is skipped. The version stays: its number is counted from one Delta version further on.
    new = replace(new, base=new.base + 1)
    return "unchanged", store.replace(feature_name, content.rows, new, current, months)


def _record(
    feature: Feature,
    source: Source,
    rows: Rows,
    current: Snapshot | None,
    definition: str,
    fingerprint: str | None,
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
        rows=rows.height,
        source=identity(source),
        source_version=source.snapshot.delta_version if isinstance(source, TableSource) else None,
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
