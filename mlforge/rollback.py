"""Rolling back a feature: an earlier version becomes the newest one."""

from dataclasses import dataclass, replace
from typing import Literal

from mlforge.errors import StoreError
from mlforge.store.base import ConflictError, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackReport:
    """What a rollback did.

    Attributes:
        feature: The feature's name.
        outcome: `"rolled back"`: there is a new version with the rows of the one asked for; `"current"`: the newest
            version has them already, and nothing was done.
        restored: The version that was asked for, MAJOR.MINOR.PATCH.
        left: The version that was the newest before.
        version: The version that is the newest now.
        rows: How many rows it has.
    """

    feature: str
    outcome: Literal["rolled back", "current"]
    restored: str
    left: str
    version: str
    rows: int


def rollback(feature_name: str, version: str, store: Store) -> RollbackReport:
    """Makes a new version of an earlier one's rows, columns and definition.

    What is left stays readable. Builds are skipped until the data or the definition are no longer those that were left.

    Args:
        feature_name: The feature.
        version: The earlier version, MAJOR.MINOR.PATCH.
        store: Where its table is.

    Raises:
        RequestError: The feature has not been built, or has no such version.
        StoreError: The version's files were vacuumed or are damaged, or others committed to the table at the same time.
    """
    with store.building(feature_name):
        current = store.require(feature_name)
        earlier = store.open_version(feature_name, version)
        # Also refuses a version whose files are gone.
        earlier.scan()
        old, now = earlier.record, current.record
        made = current
        same = (earlier.content, old.definition_hash) == (current.content, now.definition_hash)
        if not same:
            major, minor, base = current.following(earlier.schema, old.definition_hash)
            record = replace(
                old,
                kind="rollback",
                major=major,
                minor=minor,
                base=base,
                # What a partial build has read says nothing about the rows that it has not.
                fingerprint=None if old.kind == "partial" else old.fingerprint,
                rows=earlier.row_count,
                left=current.delta_version if now.left is None else now.left,
                restored=version,
            )
            try:
                made = store.restore(earlier, record, current)
            except ConflictError as error:
                raise StoreError(
                    f"Feature {feature_name!r} is not rolled back, since somebody else committed to its table at the "
                    f"same time: look at `mlforge versions {feature_name}`, and try again."
                ) from error
    return RollbackReport(
        feature=feature_name,
        outcome="current" if same else "rolled back",
        restored=version,
        left=current.version,
        version=made.version,
        rows=made.record.rows,
    )
