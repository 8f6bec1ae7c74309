"""From the offline store to the online store: the values that hold at an instant."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import polars as pl

from mlforge.errors import StoreError
from mlforge.instant import INSTANT
from mlforge.online.base import OnlineStore, Vanished
from mlforge.online.codec import CODEC_VERSION
from mlforge.online.keys import key_text_expr
from mlforge.online.status import Status
from mlforge.store.base import Snapshot, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What a sync did.

    Attributes:
        mode: `"full"`: every entity was written.
        version: The version of the feature that is online now.
        as_of: The instant at which the values hold, UTC.
        written: How many entities were written.
        deleted: How many entities were taken away, because they are not there at this version and instant.
        seconds: How long it took.
    """

    mode: Literal["full"] = "full"
    version: str
    as_of: datetime
    written: int
    deleted: int
    seconds: float


def sync(snapshot: Snapshot, online_store: OnlineStore, *, store: Store, as_of: datetime) -> SyncReport:
    """Writes, for every entity that is visible at an instant, the values that hold then; others are taken away.

    Args:
        snapshot: The table to read, at the version to publish.
        online_store: Where to write.
        store: Where the table is, and the version of it that is online now.
        as_of: The instant, UTC-aware.

    Raises:
        StoreError: The online store cannot be reached or refuses; its status then says that it is unfinished.
    """
    began = time.perf_counter()
    frame = snapshot.at(as_of)
    status = Status(
        key_columns=snapshot.record.keys,
        schema=snapshot.value_schema,
        table_id=snapshot.table_id,
        delta_version=snapshot.delta_version,
        version=snapshot.version,
        location=snapshot.location,
        definition_hash=snapshot.record.definition_hash,
        as_of=as_of,
        next_change=snapshot.next_change(as_of),
    )
    vanished = _vanished(snapshot, frame, online_store, store, as_of)
    published = online_store.publish(snapshot.feature_name, frame, status, vanished)
    return SyncReport(
        version=snapshot.version,
        as_of=as_of,
        written=published.written,
        deleted=published.deleted,
        seconds=time.perf_counter() - began,
    )


def _vanished(
    snapshot: Snapshot, frame: pl.DataFrame, online_store: OnlineStore, store: Store, as_of: datetime
) -> Vanished | None:
    """The entities that are online and not in the frame; None where what is online cannot be told."""
    try:
        online = online_store.status(snapshot.feature_name)
    except StoreError:
        # A damaged status says nothing; a store that cannot be reached is what publishing will find.
        return None
    if online is None or not online.synced or online.state != "complete":
        return None
    told = (online.table_id, online.location, online.codec)
    if told != (snapshot.table_id, snapshot.location, CODEC_VERSION):
        return None
    if online.delta_version == snapshot.delta_version and online.as_of <= as_of:
        # Within a version, an entity that was visible stays so.
        return Vanished(keys=frame.select(snapshot.record.keys).clear(), token=online.token)
    try:
        before = store.open(snapshot.feature_name, online.delta_version)
        if before is None:
            return None
        entities = _entities(before, online.as_of)
    except StoreError:
        # Vacuumed, or otherwise lost.
        return None
    keys = sorted(before.record.keys)
    if keys == sorted(snapshot.record.keys):
        # By text, as online: 123 and "123" are one entity.
        texts = [[key_text_expr(key, of.schema[key]).alias(key) for key in keys] for of in (entities, frame)]
        entities = entities.select(texts[0]).join(frame.select(texts[1]), on=keys, how="anti")
    return Vanished(keys=entities, token=online.token)


def _entities(snapshot: Snapshot, as_of: datetime) -> pl.DataFrame:
    """The keys of every entity that is visible at an instant."""
    timestamp, rows = snapshot.record.timestamp, snapshot.scan()
    if timestamp is not None:
        rows = rows.filter(pl.col(timestamp) <= pl.lit(as_of, INSTANT))
    return snapshot.collect(rows.select(snapshot.record.keys).unique())
