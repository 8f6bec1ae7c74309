"""What changed between two versions of a feature: columns, definition, rows and values."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from mlforge.store.record import BuildRecord
from mlforge.store.snapshot import Snapshot

EXAMPLES = 5
_BEFORE, _AFTER, _KIND = "mlforge_before_", "mlforge_after_", "mlforge_kind"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """What changed from one version to another.

    Rows are told apart by keys and timestamp. Where these are other columns, or have other types, no row of one version
    is one of the other, and there are no examples.

    Attributes:
        feature: The feature's name.
        before: The one version, MAJOR.MINOR.PATCH.
        after: The other.
        columns_added: Columns that only the other has, and their dtypes.
        columns_removed: Columns that only the one has.
        columns_retyped: Columns with other dtypes, and both of these.
        definition_changed: Whether another definition made the rows.
        definition_parts: Which of its keys, timestamp and max_age differ, and both of these; of the rest of a
            definition a version records only the hash.
        rows_before: How many rows the one has.
        rows_after: How many rows the other has.
        rows_added: How many rows only the other has.
        rows_removed: How many rows only the one has.
        rows_changed: How many rows of both have other values in columns of both.
        values_changed: In how many rows each of these columns has another value; those without are left out.
        examples: Up to five rows of each kind, `added`, `removed` and `changed`: dicts of `row` (keys and timestamp),
            and `before` and `after`, where there is such a row, with its values; of a changed one those that differ.
    """

    feature: str
    before: str
    after: str
    columns_added: Mapping[str, str]
    columns_removed: Mapping[str, str]
    columns_retyped: Mapping[str, tuple[str, str]]
    definition_changed: bool
    definition_parts: Mapping[str, tuple[str, str]]
    rows_before: int
    rows_after: int
    rows_added: int
    rows_removed: int
    rows_changed: int
    values_changed: Mapping[str, int]
    examples: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def same(self) -> bool:
        """Whether nothing changed."""
        columns = self.columns_added or self.columns_removed or self.columns_retyped
        rows = self.rows_added or self.rows_removed or self.rows_changed
        return not (columns or rows or self.definition_changed)


def diff(before: Snapshot, after: Snapshot) -> Diff:
    """What changed from one version of a feature to another; reads only the months whose files are not the same.

    Raises:
        StoreError: A file of one of them was vacuumed or is damaged.
    """
    old, new, parts = before.schema, after.schema, _parts(after.record)
    counts: Counter[str] = Counter()
    values: Counter[str] = Counter()
    examples: dict[str, list[dict[str, Any]]] = {"added": [], "removed": [], "changed": []}
    if before.record.index == after.record.index and all(old[name] == new[name] for name in after.record.index):
        for rows in _differing(before, after):
            for kind, some in examples.items():
                these = rows.filter(pl.col(_KIND) == kind)
                counts[kind] += these.height
                some += [_example(row, before, after) for row in these.head(EXAMPLES - len(some)).to_dicts()]
            changed = rows.filter(pl.col(_KIND) == "changed")
            values.update({name: changed.filter(differs).height for name, differs in _differs(before, after).items()})
    else:
        counts.update(removed=before.row_count, added=after.row_count)
    return Diff(
        feature=after.feature_name,
        before=before.version,
        after=after.version,
        columns_added={name: str(dtype) for name, dtype in new.items() if name not in old},
        columns_removed={name: str(dtype) for name, dtype in old.items() if name not in new},
        columns_retyped={
            name: (str(old[name]), str(dtype)) for name, dtype in new.items() if name in old and old[name] != dtype
        },
        definition_changed=before.record.definition_hash != after.record.definition_hash,
        definition_parts={
            name: (part, parts[name]) for name, part in _parts(before.record).items() if part != parts[name]
        },
        rows_before=before.row_count,
        rows_after=after.row_count,
        rows_added=counts["added"],
        rows_removed=counts["removed"],
        rows_changed=counts["changed"],
        values_changed=dict(+values),
        examples=examples,
    )


def _parts(record: BuildRecord) -> dict[str, str]:
    age = record.max_age
    return {
        "keys": ", ".join(record.keys),
        "timestamp": record.timestamp or "none",
        "max_age": "none" if age is None else str(timedelta(microseconds=age)),
    }


def _differing(before: Snapshot, after: Snapshot) -> Iterator[pl.DataFrame]:
    """The rows that differ, with the columns of both versions, a month at a time, so that no more has to be held."""
    index = after.record.index
    differs = _differs(before, after)
    kind = (
        pl.when(pl.col(_BEFORE).is_null())
        .then(pl.lit("added"))
        .when(pl.col(_AFTER).is_null())
        .then(pl.lit("removed"))
        .when(pl.any_horizontal(pl.lit(value=False), *differs.values()))
        .then(pl.lit("changed"))
    )
    files, others = before.files, after.files
    for month in sorted(files.keys() | others.keys()):
        if files.get(month) != others.get(month):
            sides = [
                side.collect(side.scan(months=[month])).select(
                    *index, pl.exclude(index).name.prefix(prefix), pl.lit(value=True).alias(prefix)
                )
                for side, prefix in ((before, _BEFORE), (after, _AFTER))
            ]
            rows = sides[0].join(sides[1], on=index, how="full", coalesce=True)
            yield rows.with_columns(kind.alias(_KIND)).filter(pl.col(_KIND).is_not_null()).sort(index)


def _differs(before: Snapshot, after: Snapshot) -> dict[str, pl.Expr]:
    """For every column that both versions have, whether its values differ."""
    return {
        name: pl.col(_BEFORE + name).ne_missing(pl.col(_AFTER + name))
        for name, dtype in after.value_schema.items()
        if before.value_schema.get(name) == dtype
    }


def _example(row: Mapping[str, Any], before: Snapshot, after: Snapshot) -> dict[str, Any]:
    found: dict[str, Any] = {"row": {name: row[name] for name in after.record.index}}
    for key, prefix, side in (("before", _BEFORE, before), ("after", _AFTER, after)):
        if row[prefix]:
            found[key] = {name: row[prefix + name] for name in side.value_schema}
    if row[_KIND] == "changed":
        same = [name for name in found["before"] if found["before"][name] == found["after"].get(name, ())]
        for key in ("before", "after"):
            found[key] = {name: value for name, value in found[key].items() if name not in same}
    return found
