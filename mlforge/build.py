"""Building a feature offline: compute, audit, then publish."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from mlforge import checks
from mlforge.checks import CheckResult
from mlforge.definition import definition_hash
from mlforge.engines.base import Computed
from mlforge.engines.polars import compute
from mlforge.errors import RequestError, StoreError
from mlforge.features import Feature
from mlforge.store.base import ConflictError, Store
from mlforge.store.record import BuildRecord
from mlforge.store.snapshot import Snapshot
from mlforge.sync import SyncReport

Outcome = Literal["built", "unchanged", "skipped", "outdated"]
ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build did.

    Attributes:
        feature: The feature's name.
        outcome: `"built"`: a new version; `"unchanged"`: computed, and the rows equal those that are stored, so the
            version stays; `"skipped"`: neither the data nor the definition has changed, so nothing was computed;
            `"outdated"`: one of them has, and it was only looked at.
        version: The version that is there now, MAJOR.MINOR.PATCH.
        rows: How many rows it has.
        left_out: How many rows of the function's result had no key or no timestamp.
        checks: The verdicts of the checks; empty when skipped.
        seconds: How long it took, online part included.
        online: What was written online; None for an offline build.
    """

    feature: str
    outcome: Outcome
    version: str
    rows: int
    left_out: int = 0
    checks: Sequence[CheckResult] = ()
    seconds: float = 0.0
    online: SyncReport | None = None


def build(feature: Feature, store: Store, *, force: bool = False) -> BuildReport:
    """Computes a feature's history from its source and publishes it as the next version, unless nothing changed.

    Nothing is written unless every check with severity error passes; whoever reads sees the old version or the new
    one, never a mixture.

    Args:
        feature: The feature.
        store: Where its table is.
        force: Computes even where neither data nor definition have changed.

    Raises:
        CheckFailedError: A check failed.
        DataError: The data is not what the definition says.
        StoreError: The store cannot be read or written, or others kept committing to the table.
    """
    began = time.perf_counter()
    definition = definition_hash(feature)
    with store.building(feature.name):
        for _ in range(ATTEMPTS):
            current = store.open(feature.name)
            fingerprint = feature.source.fingerprint()
            if current is not None and not force and _stands(current.record, definition, fingerprint):
                return _report(feature, "skipped", current, began)
            computed = compute(feature)
            checks.require(computed.checks, feature=feature.name)
            if feature.source.fingerprint() != fingerprint:
                fingerprint = None
            record = _record(feature, computed.rows, current, definition, fingerprint)
            months = None if current is None else current.differing_months(computed.rows)
            if current is not None and current.record.definition_hash == definition and months == frozenset():
                return _report(feature, "unchanged", current, began, computed)
            try:
                made = store.replace(feature.name, computed.rows, record, current, months)
            except ConflictError:
                continue
            return _report(feature, "built", made, began, computed)
    raise StoreError(
        f"Feature {feature.name!r}: others committed to {store.table_uri(feature.name)!r} during each of {ATTEMPTS} "
        f"attempts to build it; nothing was written. Build it from one place at a time."
    )


def standing(feature: Feature, store: Store) -> BuildReport:
    """What is built now: `skipped` if a build would skip it, else `outdated`.

    Raises:
        RequestError: Nothing is.
        StoreError: The store cannot be read.
    """
    began = time.perf_counter()
    current = store.open(feature.name)
    if current is None:
        raise RequestError(f"Feature {feature.name!r} is not built: run `mlforge build --features {feature.name}`.")
    stands = _stands(current.record, definition_hash(feature), feature.source.fingerprint())
    return _report(feature, "skipped" if stands else "outdated", current, began)


def _stands(record: BuildRecord, definition: str, fingerprint: str | None) -> bool:
    return fingerprint is not None and (record.definition_hash, record.fingerprint) == (definition, fingerprint)


def _record(
    feature: Feature, rows: pl.DataFrame, current: Snapshot | None, definition: str, fingerprint: str | None
) -> BuildRecord:
    major, minor, base = 1, 0, 0
    if current is not None:
        old = current.record
        major, minor, base = old.major, old.minor, old.base
        stored = current.schema
        if any(rows.schema.get(name) != dtype for name, dtype in stored.items()):
            major, minor, base = major + 1, 0, current.delta_version + 1
        elif rows.schema.keys() != stored.keys() or old.definition_hash != definition:
            minor, base = minor + 1, current.delta_version + 1
    return BuildRecord(
        major=major,
        minor=minor,
        base=base,
        definition_hash=definition,
        fingerprint=fingerprint,
        keys=feature.keys,
        timestamp=feature.timestamp,
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
