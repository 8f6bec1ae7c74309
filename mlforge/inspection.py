"""What there is to know about a feature: its definition, its table, what is online, and what its values are like."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from mlforge.definition import definition_hash
from mlforge.describe import describe_feature
from mlforge.errors import StoreError
from mlforge.features import Feature
from mlforge.freshness import Freshness, freshness
from mlforge.online.base import OnlineStore
from mlforge.profile import ColumnProfile, profile
from mlforge.store.base import Store
from mlforge.store.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A feature's table at a version.

    Attributes:
        version: MAJOR.MINOR.PATCH.
        location: Where the table is.
        current: Whether the feature is still defined as when this version was built.
        columns: The feature columns that are stored, also where the feature has others by now.
        rows: How many rows there are: with windows one for each instant at which a value changes.
        entities: Of how many entities.
        first: The time of the first row, UTC; None of a snapshot.
        last: That of the last one: with windows the instant at which the last event leaves the longest one.
        at: The instant of which the values are profiled.
        visible: How many entities have a value then.
        profile: What these values are like, and the keys and times of their rows: one value an entity, as it is served
            and trained on. Over all rows an entity with many changes would count more than one with few.
    """

    version: str
    location: str
    current: bool
    columns: Sequence[str]
    rows: int
    entities: int
    first: datetime | None
    last: datetime | None
    at: datetime
    visible: int
    profile: Sequence[ColumnProfile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What there is to know about a feature.

    Attributes:
        definition: The feature as `Definitions.to_dict` describes it.
        built: Its table; None where it is not built.
        online: What is online; None where that cannot be told.
        problem: Why it cannot; empty where it can.
    """

    definition: dict[str, Any]
    built: Built | None
    online: Freshness | None
    problem: str


def inspect(
    feature: Feature,
    store: Store,
    online_store: OnlineStore | None,
    *,
    at: datetime,
    now: datetime,
    version: str | None = None,
) -> Inspection:
    """What there is to know about a feature.

    Args:
        feature: The feature.
        store: Where its table is.
        online_store: Where its values are served from, if anywhere.
        at: The instant of which the values are profiled, UTC-aware.
        now: What the age of what is online is counted to.
        version: MAJOR.MINOR.PATCH of the table; None: the newest.

    Raises:
        RequestError: There is no such version.
        StoreError: The offline store cannot be read.
    """
    snapshot = store.open(feature.name) if version is None else store.open_version(feature.name, version)
    built = None if snapshot is None else _built(snapshot, definition_hash(feature), at)
    online, problem = None, "there is no online store"
    if online_store is not None:
        try:
            online, problem = freshness(feature.name, store, online_store, now=now), ""
        except StoreError as error:
            # What is offline can be seen all the same.
            problem = str(error)
    return Inspection(definition=describe_feature(feature), built=built, online=online, problem=problem)


def _built(snapshot: Snapshot, definition: str, at: datetime) -> Built:
    record = snapshot.record
    time = pl.lit(None) if record.timestamp is None else pl.col(record.timestamp)
    entities = pl.struct(record.keys).n_unique()
    found = snapshot.collect(snapshot.scan().select(entities=entities, first=time.min(), last=time.max()))
    values = snapshot.at(at)
    return Built(
        version=snapshot.version,
        location=snapshot.location,
        current=record.definition_hash == definition,
        columns=list(snapshot.value_schema),
        rows=record.rows,
        **found.row(0, named=True),
        at=at,
        visible=len(values),
        profile=profile(values),
    )
