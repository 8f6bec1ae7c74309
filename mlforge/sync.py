"""From the offline store to the online store: the values that hold at an instant."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from mlforge.online.base import OnlineStore
from mlforge.online.status import Status
from mlforge.store.base import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What a sync wrote.

    Attributes:
        mode: `"full"`: every entity was written.
        version: The version of the feature that is online now.
        as_of: The instant at which the values hold, UTC.
        written: How many entities were written.
        seconds: How long it took.
    """

    mode: Literal["full"] = "full"
    version: str
    as_of: datetime
    written: int
    seconds: float


def sync(snapshot: Snapshot, online_store: OnlineStore, *, as_of: datetime) -> SyncReport:
    """Writes, for every entity that is visible at an instant, the values that hold then.

    Args:
        snapshot: The table to read, at the version to publish.
        online_store: Where to write.
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
    written = online_store.publish(snapshot.feature_name, frame, status)
    return SyncReport(version=snapshot.version, as_of=as_of, written=written, seconds=time.perf_counter() - began)
