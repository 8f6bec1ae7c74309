"""What is online for a feature, and how old it is."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from mlforge.online.base import OnlineStore
from mlforge.online.status import State
from mlforge.store.base import Store

# Of how many entities the size is averaged.
MEASURED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """What is online for a feature.

    Attributes:
        feature: The feature's name.
        built: The version that is built offline; None where none is.
        state: As in `Status`; `"absent"`: nothing says that anything is online; `"expired"`: it was complete, and the
            time to live of its values is over.
        version: The version that is online; None where no sync has put one there, as are all that follow.
        as_of: The instant at which the values hold, UTC.
        age: How long ago that is.
        next_change: The next instant at which time alone changes a value; None if none does.
        rows: How many entities there are.
        bytes_per_entity: How much memory of the server one takes, measured on some; None where the store cannot say.
    """

    feature: str
    built: str | None
    state: State | Literal["absent", "expired"] = "absent"
    version: str | None = None
    as_of: datetime | None = None
    age: timedelta | None = None
    next_change: datetime | None = None
    rows: int | None = None
    bytes_per_entity: float | None = None


def freshness(feature_name: str, store: Store, online_store: OnlineStore, *, now: datetime) -> Freshness:
    """What is online for a feature at this moment.

    Raises:
        StoreError: A store cannot be reached or read.
    """
    snapshot = store.open(feature_name)
    status = online_store.status(feature_name)
    built = None if snapshot is None else snapshot.version
    if status is None:
        return Freshness(feature=feature_name, built=built)
    if not status.synced:
        return Freshness(feature=feature_name, built=built, state=status.state)
    size = None
    if snapshot is not None and snapshot.record.keys == status.key_columns:
        some = snapshot.collect(snapshot.scan(until=status.as_of).select(status.key_columns).head(MEASURED).unique())
        size = online_store.bytes_per_entity(feature_name, some) if len(some) else None
    return Freshness(
        feature=feature_name,
        built=built,
        state="expired" if status.state == "complete" and status.expired else status.state,
        version=status.version,
        as_of=status.as_of,
        age=now - status.as_of,
        next_change=status.next_change,
        rows=status.rows,
        bytes_per_entity=size,
    )
