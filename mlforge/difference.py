"""What differs between two contents of an online store: the values of every entity at two versions and instants."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import polars as pl

from mlforge import progress
from mlforge.months import month_of
from mlforge.online.codec import encode_expr
from mlforge.rows import row_hash
from mlforge.shards import Shard, measured, room, shards
from mlforge.store.snapshot import Snapshot

# Above this part of all rows, or entities, those that may differ cost more to look for than to compare all.
FEW = 0.25
# What each row takes in which it is looked for entities that may differ.
BYTES_PER_ROW = 150
# More than an entity takes: where there is so much for each, nothing has to be measured.
AT_MOST_BYTES = 20_000
TEXTS_AT_ONCE = 50_000
_VALUE, _HELD = "mlforge_value", "_held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What turns one content into another, or a part of it.

    Attributes:
        rows: Keys and values of the entities that are new or have other values.
        vanished: The keys of those that are no longer there.
        appeared: How many of the rows are new.
    """

    rows: pl.DataFrame
    vanished: pl.DataFrame
    appeared: int


def differences(
    before: Snapshot, was: datetime, after: Snapshot, now: datetime, *, memory_limit: int | None = None
) -> Iterator[Difference]:
    """What turns the values that held at `was` in one version into those that hold at `now` in another.

    Only entities that may differ are looked at: those with a row between the instants, or with a row that only one of
    the versions has. Values are compared as the texts that go online, which are told apart by 64-bit hashes.

    Args:
        before: A version of a table.
        was: An instant, UTC-aware.
        after: The same or another version of the same table, with the same columns.
        now: An instant, UTC-aware; earlier than `was` where that is wanted.
        memory_limit: How many bytes the process shall take, about; None: as many as all of it takes.

    Returns:
        The difference in parts, none of which has an entity of another one, each made when it is asked for; without a
        limit there is one.

    Raises:
        StoreError: A file of one of the versions is gone or damaged.
    """
    among = _in_parts(before, was, after, now, memory_limit)
    # A loop would hold each part while the next one is made.
    return map(partial(_difference, before, was, after, now), among)


def _difference(
    before: Snapshot, was: datetime, after: Snapshot, now: datetime, among: pl.DataFrame | pl.Expr | None
) -> Difference:
    keys = list(after.record.keys)
    old = _texts_hashed(before.at(was, among), after)
    new = after.at(now, among)
    wanted = _texts_hashed(new, after)
    both = wanted.join(old, on=keys, how="left", suffix=_HELD, maintain_order="left")
    held = both[_VALUE + _HELD]
    return Difference(
        rows=new.filter(both[_VALUE].ne_missing(held)).select(*keys, *after.value_schema),
        vanished=old.select(keys).join(wanted, on=keys, how="anti"),
        appeared=held.null_count(),
    )


def _texts_hashed(rows: pl.DataFrame, snapshot: Snapshot) -> pl.DataFrame:
    """The keys of rows, in their order, and hashes of the texts that go online."""
    columns = [*snapshot.record.keys, encode_expr(snapshot.value_schema).hash().alias(_VALUE)]
    # Some at a time, since all texts together take more memory than the rows.
    some = (each.select(columns) for each in rows.iter_slices(TEXTS_AT_ONCE))
    return pl.concat([rows.clear().select(columns), *some])


def _in_parts(
    before: Snapshot, was: datetime, after: Snapshot, now: datetime, memory_limit: int | None
) -> Iterator[pl.DataFrame | pl.Expr | None]:
    """The entities that may differ, as `Snapshot.at` takes them; so many at a time as there is memory for."""
    months = _touched(before, after)
    candidates = partial(_candidates, before, was, after, now, months)
    few = not months or _few(after, months)
    if memory_limit is None:
        yield candidates(Shard()) if few else None
        return
    there, entities = room(memory_limit), None
    if few:
        work = BYTES_PER_ROW * _rows_to_look_at(before, was, after, now, months)
        entities = pl.concat(map(candidates, shards(work, there)))
        there = room(memory_limit, held=entities.estimated_size())
        if entities.height * AT_MOST_BYTES <= there:
            yield entities
            return
    # There may be more, and larger ones, at the one end than at the other.
    sizes = measured(before, was), measured(after, now)
    each, count = max(size.each for size in sizes), max(size.entities for size in sizes)
    if entities is not None and entities.height <= FEW * count:
        # All of one size, with nothing left over.
        number = math.ceil(each * entities.height / there)
        yield from progress.parts([*entities.iter_slices(math.ceil(entities.height / number))])
        return
    # They are not held while all are compared.
    entities = None
    for shard in progress.parts(shards(each * count, room(memory_limit))):
        yield shard.holds(after.key_schema)


def _candidates(
    before: Snapshot, was: datetime, after: Snapshot, now: datetime, months: set[str], shard: Shard
) -> pl.DataFrame:
    """The keys of the entities of a shard that may differ; of the months, all rows are compared."""
    keys, holds = list(after.record.keys), shard.holds(after.key_schema)
    parts = [_some(after.scan(after=start, until=end), holds).select(keys) for start, end in _spans(after, was, now)]
    if months:
        index, content = list(after.record.index), row_hash(list(after.schema)).alias(_VALUE)
        scans = (version.scan(until=max(was, now), months=months) for version in (before, after))
        old, new = (_some(rows, holds).select(*index, content) for rows in scans)
        both = ((old, new), (new, old))
        parts += [one.join(other, on=[*index, _VALUE], how="anti").select(keys) for one, other in both]
    if not parts:
        return pl.DataFrame(schema=after.key_schema)
    return after.collect(pl.concat(parts).unique())


def _spans(snapshot: Snapshot, was: datetime, now: datetime) -> list[tuple[datetime, datetime]]:
    """After and until when rows begin or cease to hold between two instants."""
    first, last = sorted((was, now))
    if snapshot.record.timestamp is None or first == last:
        return []
    outlived = snapshot.outlived(first), snapshot.outlived(last)
    spans = ((first, last), outlived)
    return [(start, end) for start, end in spans if start is not None and end is not None]


def _some(rows: pl.LazyFrame, holds: pl.Expr | None) -> pl.LazyFrame:
    return rows if holds is None else rows.filter(holds)


def _touched(before: Snapshot, after: Snapshot) -> set[str]:
    """The months of which the versions do not have the same files."""
    if before.delta_version == after.delta_version:
        return set()
    old, new = before.files, after.files
    return {month for month in old.keys() | new.keys() if old.get(month) != new.get(month)}


def _few(snapshot: Snapshot, months: set[str]) -> bool:
    rows = snapshot.rows_by_month
    return sum(rows.get(month, 0) for month in months) <= FEW * sum(rows.values())


def _rows_to_look_at(before: Snapshot, was: datetime, after: Snapshot, now: datetime, months: set[str]) -> int:
    """At most how many rows are read to find the entities that may differ."""
    rows, spans = after.rows_by_month, _spans(after, was, now)
    passed = [month for month in rows if any(month_of(start) <= month <= month_of(end) for start, end in spans)]
    return sum(rows[month] for month in passed) + sum(
        version.rows_by_month.get(month, 0) for version in (before, after) for month in months
    )
