"""All of a content: every entity, and those that are online and no longer there."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial

import polars as pl

from mlforge import progress
from mlforge.errors import StoreError
from mlforge.online.base import Part
from mlforge.online.keys import key_text_expr
from mlforge.online.status import Status
from mlforge.shards import Shard, begun, measured, room, shards
from mlforge.store.base import Store
from mlforge.store.snapshot import Snapshot

# A version of the table and an instant.
Held = tuple[Snapshot, datetime]
# What is held of each entity while it is found out which of them go.
HASH_BYTES = 16


def whole(
    snapshot: Snapshot, as_of: datetime, online: Status | None, store: Store, memory_limit: int | None = None
) -> Iterator[Part]:
    """Every entity that is visible at an instant, and those that are online and are not.

    Args:
        snapshot: The table.
        as_of: The instant, UTC-aware.
        online: What the online store says that it holds.
        store: Where the versions of the table are.
        memory_limit: How many bytes the process shall take, about; None: as many as all of it takes.

    Returns:
        Parts, each made when it is asked for; without a limit there is one. Nothing is said of what vanished where it
        is not known what is online.

    Raises:
        StoreError: A file of the table is gone or damaged.
    """
    if (known := _online(snapshot, online, store)) is not None:
        with suppress(StoreError):
            # Vacuumed, or otherwise lost.
            return begun(_parts(snapshot, as_of, known, memory_limit)) or iter(())
    return _parts(snapshot, as_of, None, memory_limit)


def _parts(snapshot: Snapshot, as_of: datetime, online: list[Held] | None, memory_limit: int | None) -> Iterator[Part]:
    some = [Shard()]
    if memory_limit is not None:
        size = measured(snapshot, as_of)
        held = HASH_BYTES * size.entities if online is None else 0
        some = shards(size.entities * size.each, room(memory_limit, held=held))
    # A loop would hold each part while the next one is made.
    return map(partial(_part, snapshot, as_of, online), progress.parts(some))


def _part(snapshot: Snapshot, as_of: datetime, online: list[Held] | None, shard: Shard) -> Part:
    rows = snapshot.at(as_of, shard.holds(snapshot.key_schema))
    vanished = None
    if online is not None:
        vanished = pl.concat(_absent(snapshot, as_of, rows, held, shard) for held in online).unique()
    return Part(rows=rows, vanished=vanished, change=rows.height)


def _online(snapshot: Snapshot, online: Status | None, store: Store) -> list[Held] | None:
    """Versions and instants that have all entities that are online; None where what is online cannot be told."""
    if online is None or (online.table_id, online.location) != (snapshot.table_id, snapshot.location):
        return None
    if (contents := online.contents) is None:
        return None
    try:
        named = _opened(store, snapshot, online.delta_version)
        if online.content not in (None, named.content):
            return None
        found = [(_opened(store, snapshot, version), instant) for version, instant in contents]
    except StoreError:
        # Vacuumed, or otherwise lost.
        return None
    first, *others = ([*_told_by(snapshot, before).items()] for before, _ in found)
    return found if all(other == first for other in others) else None


def _opened(store: Store, snapshot: Snapshot, version: int) -> Snapshot:
    if version == snapshot.delta_version:
        return snapshot
    if (found := store.open(snapshot.feature_name, version)) is None:
        raise StoreError(f"Version {version} of {snapshot.feature_name!r} is gone.")
    return found


def _told_by(snapshot: Snapshot, before: Snapshot) -> dict[str, pl.DataType]:
    """By what it is said which entities of another version are gone: by text, where the key columns are the same."""
    if sorted(before.record.keys) != sorted(snapshot.record.keys):
        return before.key_schema
    return dict.fromkeys(before.record.keys, pl.String())


def _absent(snapshot: Snapshot, as_of: datetime, rows: pl.DataFrame, held: Held, shard: Shard) -> pl.DataFrame:
    """The keys of the entities of a shard that are online and not among its rows."""
    before, instant = held
    keys = list(before.record.keys)
    if before.delta_version == snapshot.delta_version and instant <= as_of and snapshot.record.max_age is None:
        # Within a version, an entity that was visible stays so.
        return pl.DataFrame(schema=_told_by(snapshot, before))
    there, holds = before.scan(until=instant).select(keys), shard.holds(before.key_schema)
    entities = before.collect((there if holds is None else there.filter(holds)).unique())
    if sorted(keys) != sorted(snapshot.record.keys):
        return entities
    # By text, as online: 123 and "123" are one entity.
    mine, theirs = (
        each.select(key_text_expr(key, each.schema[key]).alias(key) for key in keys) for each in (rows, entities)
    )
    return theirs.join(mine, on=keys, how="anti")
