"""Where the values of an entity come from: what is stored and what is online, beside the events of the source."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from mlforge.definition import definition_hash
from mlforge.engines import Engines
from mlforge.engines.shape import times
from mlforge.errors import DataError, MlforgeError, RequestError
from mlforge.features import Feature
from mlforge.lineage import source_of
from mlforge.online.base import OnlineStore
from mlforge.online.keys import key_text, key_text_expr, utc_text
from mlforge.online.status import Status
from mlforge.recompute import Recomputed, recompute
from mlforge.store.base import Store
from mlforge.store.snapshot import Snapshot

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the offline store holds for an entity at an instant.

    Attributes:
        values: The values by column; None where there is no row.
        version: The version that is built; None where none is.
        since: From when on the row holds; None where there is none, or it holds at every instant.
    """

    values: Values | None = None
    version: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Online:
    """What the online store holds for an entity, as it gives it.

    Attributes:
        values: The values by column; None where there are none.
        status: What the store says that it holds of the feature; None where it does not say.
        problem: Why it cannot be asked; empty where it can.
    """

    values: Values | None = None
    status: Status | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where the values of one entity at an instant come from.

    Attributes:
        feature: The feature's name.
        entity: The keys, as text.
        at: The instant, UTC.
        recomputed: What follows from the source as it is today, and the events behind it.
        stored: What is stored for the instant.
        online: What is online, whatever the instant.
        differing: The columns of which other values are stored than follow from the source; floats to 1e-9.
        remarks: What is missing or does not fit, a sentence each.
    """

    feature: str
    entity: Mapping[str, str]
    at: datetime
    recomputed: Recomputed
    stored: Stored
    online: Online
    differing: Sequence[str]
    remarks: Sequence[str]


def explain(
    feature: Feature,
    entity_keys: Mapping[str, Any],
    store: Store,
    online_store: OnlineStore | None,
    engines: Engines,
    *,
    at: datetime,
) -> Explanation:
    """Runs a feature's function again, and computes the values of one entity from its own rows alone.

    Its checks are not run: what they refuse can be explained, too.

    Args:
        feature: The feature.
        entity_keys: The keys of the entity; they match by their text, so that 123 and "123" are the same.
        store: Where its table is, and that of the feature that is its source.
        online_store: Where its values are served from, if anywhere.
        engines: What runs its function.
        at: The instant, UTC-aware.

    Raises:
        RequestError: The keys are not those of the feature, or of its table.
        DataError: The source is missing or empty, or the data is not what the definition says.
        StoreError: The offline store cannot be read.
    """
    if set(entity_keys) != set(feature.keys):
        raise RequestError(f"Feature {feature.name!r} is keyed by {list(feature.keys)}, not by {list(entity_keys)}.")
    entity = {name: key_text(entity_keys[name]) for name in feature.keys}
    snapshot = store.open(feature.name)
    stored = Stored() if snapshot is None else _stored(snapshot, entity, at)
    loaded = engines.of(feature).load(feature, source_of(feature, store), checked=False).events
    rows = loaded.filter(_is(entity, loaded.schema))
    recomputed = recompute(feature, rows, at)
    differing = [] if snapshot is None else _differing(stored.values, recomputed.values)
    remarks = [
        _about_source(feature, rows, recomputed, at),
        _about_late_events(feature, rows, recomputed),
        _about_origin(feature, store),
    ]
    if snapshot is None:
        remarks.append(f"It is not built: run `mlforge build --features {feature.name}`.")
    elif differing:
        remarks.append(_about_difference(feature, snapshot))
    return Explanation(
        feature=feature.name,
        entity=entity,
        at=at,
        recomputed=recomputed,
        stored=stored,
        online=_online(feature.name, entity, online_store),
        differing=differing,
        remarks=[remark for remark in remarks if remark],
    )


def _is(entity: Mapping[str, str], schema: Mapping[str, pl.DataType]) -> pl.Expr:
    return pl.all_horizontal(key_text_expr(name, schema[name]) == text for name, text in entity.items())


def _stored(snapshot: Snapshot, entity: Mapping[str, str], at: datetime) -> Stored:
    record = snapshot.record
    if set(record.keys) != set(entity):
        raise RequestError(
            f"Feature {snapshot.feature_name!r} is built with the keys {list(record.keys)} and defined with "
            f"{list(entity)}: run `mlforge build --features {snapshot.feature_name}`."
        )
    keys = list(record.keys)
    found = snapshot.at(at, snapshot.collect(snapshot.scan().filter(_is(entity, snapshot.schema)).select(keys).head(1)))
    if found.is_empty():
        return Stored(version=snapshot.version)
    return Stored(
        values=found.select(list(snapshot.value_schema)).row(0, named=True),
        version=snapshot.version,
        since=None if record.timestamp is None else found[record.timestamp][0],
    )


def _online(feature_name: str, entity: dict[str, str], store: OnlineStore | None) -> Online:
    if store is None:
        return Online(problem="There is no online store.")
    try:
        return Online(values=store.read(feature_name, entity), status=store.status(feature_name))
    except MlforgeError as error:
        # What is offline is explained all the same.
        return Online(problem=str(error))


def _differing(stored: Values | None, recomputed: Values | None) -> list[str]:
    columns = dict.fromkeys([*(stored or {}), *(recomputed or {})])
    if stored is None or recomputed is None:
        return list(columns)
    return [name for name in columns if not _same(stored.get(name), recomputed.get(name))]


def _same(stored: Any, recomputed: Any) -> bool:
    if isinstance(stored, float) and isinstance(recomputed, float):
        return math.isclose(stored, recomputed, rel_tol=1e-9, abs_tol=1e-9)
    return bool(stored == recomputed)


def _about_source(feature: Feature, rows: pl.DataFrame, recomputed: Recomputed, at: datetime) -> str:
    """Why nothing follows from the source, if that is so."""
    if recomputed.values is not None:
        return ""
    if rows.is_empty():
        return "The source has no row of this entity."
    if feature.timestamp is None:
        return f"The source has {len(rows)} rows of this entity, and a build refuses all but one."
    first = rows.select(pl.max_horizontal(times(feature)).min()).item()
    if feature.max_age is not None and first <= at:
        return f"The rows of this entity hold for {feature.max_age}, which has passed since the last one."
    what = "is at" if feature.available_at is None else "is known at"
    return f"The first row of this entity {what} {utc_text(first)}: it has no value yet."


def _about_late_events(feature: Feature, rows: pl.DataFrame, recomputed: Recomputed) -> str:
    """Which events windows leave out because they are known later, where there is a value without them."""
    if feature.available_at is None or not recomputed.windows or recomputed.values is None:
        return ""
    start = min(window.start for window in recomputed.windows.values())
    happened = rows.filter(pl.col(str(feature.timestamp)).is_between(start, recomputed.boundary, closed="left"))
    late = happened.filter(pl.col(feature.available_at) >= recomputed.boundary).sort(feature.available_at)
    if late.is_empty():
        return ""
    first = utc_text(late[feature.available_at][0])
    return (
        f"Events in the windows that do not count, since they are known later: {len(late)}, the first from {first} on."
    )


def _about_origin(feature: Feature, store: Store) -> str:
    """Whether a feature that it reads is older than what that one reads, which the values do not show."""
    origin = feature.source
    while isinstance(origin, Feature):
        snapshot = store.require(origin.name)
        record = snapshot.record
        try:
            found = source_of(origin, store).fingerprint()
        except (DataError, RequestError):
            # What is stored of it can be read all the same.
            return ""
        changed = None not in (found, record.fingerprint) and found != record.fingerprint
        if record.kind != "rollback" and (changed or record.definition_hash != definition_hash(origin)):
            return f"It reads {origin.name!r}, which is built as {snapshot.version} and has other data or code by now."
        origin = origin.source
    return ""


def _about_difference(feature: Feature, snapshot: Snapshot) -> str:
    """Why other values are stored than are recomputed."""
    record = snapshot.record
    if record.kind == "rollback":
        return f"What is stored differs: {feature.name!r} was rolled back to {record.restored}."
    if record.definition_hash != definition_hash(feature):
        return f"What is stored differs: the definition has changed since {snapshot.version} was built."
    return (
        f"What is stored differs: since {snapshot.version} was built, the source has changed, or code that the "
        f"definition does not cover."
    )
