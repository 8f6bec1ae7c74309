"""What mlforge writes into each commit of a table, and the version that follows from it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mlforge.errors import StoreError

Kind = Literal["full", "partial", "rollback"]
FORMAT = 1
FIELD = "mlforge"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecord:
    """The metadata of a commit, one JSON object in the field `mlforge` of the Delta commit's info.

    Attributes:
        kind: `"full"`: the rows of the whole source; `"partial"`: those that some events of it can change, the others
            as they were; `"rollback"`: those of an earlier version, whose definition and fingerprint these are.
        major: Counts the times a column went away or changed its type, from 1.
        minor: Counts, from 0, the times columns were added or the definition changed since.
        base: The Delta version that began this MAJOR.MINOR.
        definition_hash: What decides the values, as a text.
        fingerprint: The source's fingerprint; None where it could not be told, or changed during the read, or where
            only some events were built.
        keys: The entity key columns.
        timestamp: The column with the instant from when on a row holds; None for a snapshot.
        rows: How many rows the table holds.
        max_age: For how many microseconds a row holds; None: until the next one.
        left: The Delta version that rollbacks have left last: what was built then is not to be built again unless its
            data or definition change. None where this is no rollback.
        restored: The version that a rollback has brought back, MAJOR.MINOR.PATCH.
        look_back: Where the build has looked for late events only, up to how many microseconds before the last one
            that was built then; None where it has read all, or what somebody has named.
        source: What was read, as 16 hex digits; None in records of earlier releases.
        source_version: The Delta version of the feature that was read; None where the source is no feature.
    """

    kind: Kind = "full"
    major: int
    minor: int
    base: int
    definition_hash: str
    fingerprint: str | None
    keys: tuple[str, ...]
    timestamp: str | None
    rows: int
    max_age: int | None = None
    left: int | None = None
    restored: str | None = None
    look_back: int | None = None
    source: str | None = None
    source_version: int | None = None

    def to_metadata(self) -> dict[str, str]:
        """The record as custom metadata of a Delta commit."""
        fields = {"format": FORMAT, **asdict(self)}
        for name in ("max_age", "left", "restored", "look_back", "source", "source_version"):
            # As releases know it that do not have these.
            if fields[name] is None:
                del fields[name]
        return {FIELD: json.dumps(fields, separators=(",", ":"))}

    @classmethod
    def from_commit(cls, commit: Mapping[str, Any]) -> "BuildRecord | None":
        """The record of a commit as `DeltaTable.history` gives it; None where mlforge did not make it.

        Raises:
            StoreError: A later mlforge wrote it, or it is damaged.
        """
        if FIELD not in commit:
            return None
        try:
            fields: dict[str, Any] = json.loads(commit[FIELD])
            if fields.pop("format") != FORMAT:
                raise StoreError("it was written by a later mlforge: upgrade this one.")
            fields["keys"] = tuple(fields["keys"])
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"this is no record of a build: {commit[FIELD]!r}") from error

    @property
    def index(self) -> list[str]:
        """The columns that tell rows apart: the keys, and the timestamp where there is one."""
        return [*self.keys, *([] if self.timestamp is None else [self.timestamp])]

    def version(self, delta_version: int) -> str:
        """MAJOR.MINOR.PATCH of the commit that made a Delta version.

        PATCH is counted from `base`, so two writers can never give out the same one.
        """
        return f"{self.major}.{self.minor}.{delta_version - self.base}"
