"""What differs between two contents of an online store: the values of every entity at two versions and instants."""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from mlforge.online.codec import encode_expr
from mlforge.rows import row_hash
from mlforge.store.snapshot import Snapshot

# Above this part of all rows, looking for the entities that may differ costs more than comparing all.
FEW = 0.25
_VALUE = "mlforge_value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What turns one content into another.

    Attributes:
        rows: Keys and values of the entities that are new or have other values.
        vanished: The keys of those that are no longer there.
        appeared: How many of the rows are new.
    """

    rows: pl.DataFrame
    vanished: pl.DataFrame
    appeared: int


def difference(before: Snapshot, was: datetime, after: Snapshot, now: datetime) -> Difference:
    """What turns the values that held at `was` in one version into those that hold at `now` in another.

    Only entities that may differ are looked at: those with a row between the instants, or with a row that only one of
    the versions has. Values are compared as the texts that go online.

    Args:
        before: A version of a table.
        was: An instant, UTC-aware.
        after: The same or another version of the same table, with the same columns.
        now: An instant, UTC-aware; earlier than `was` where that is wanted.

    Raises:
        StoreError: A file of one of the versions is gone or damaged.
    """
    keys = list(after.record.keys)
    entities = _candidates(before, was, after, now)
    value = encode_expr(after.value_schema).alias(_VALUE)
    old = before.at(was, entities).select(*keys, value)
    new = after.at(now, entities).with_columns(value)
    return Difference(
        rows=new.join(old, on=[*keys, _VALUE], how="anti").select(*keys, *after.value_schema),
        vanished=old.select(keys).join(new, on=keys, how="anti"),
        appeared=new.join(old, on=keys, how="anti").height,
    )


def _candidates(before: Snapshot, was: datetime, after: Snapshot, now: datetime) -> pl.DataFrame | None:
    """The keys of the entities that may differ; None: all."""
    keys = list(after.record.keys)
    first, last = sorted((was, now))
    months = _touched(before, after)
    if months and not _few(after, months):
        return None
    parts = []
    if after.record.timestamp is not None and first < last:
        parts.append(after.scan(after=first, until=last).select(keys))
        if after.record.max_age is not None:
            # Rows that hold at the one instant and have held for long enough at the other.
            parts.append(after.scan(after=after.outlived(first), until=after.outlived(last)).select(keys))
    if months:
        index, content = list(after.record.index), row_hash(list(after.schema)).alias(_VALUE)
        old, new = (version.scan(until=last, months=months).select(*index, content) for version in (before, after))
        both = ((old, new), (new, old))
        parts += [one.join(other, on=[*index, _VALUE], how="anti").select(keys) for one, other in both]
    if not parts:
        return pl.DataFrame(schema={key: after.schema[key] for key in keys})
    return after.collect(pl.concat(parts).unique())


def _touched(before: Snapshot, after: Snapshot) -> set[str]:
    """The months of which the versions do not have the same files."""
    if before.delta_version == after.delta_version:
        return set()
    old, new = before.files, after.files
    return {month for month in old.keys() | new.keys() if old.get(month) != new.get(month)}


def _few(snapshot: Snapshot, months: set[str]) -> bool:
    rows = snapshot.rows_by_month
    return sum(rows.get(month, 0) for month in months) <= FEW * sum(rows.values())
