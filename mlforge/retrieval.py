"""Reading features back: as training sets that are correct at a point in time, and from the online store."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from mlforge.errors import RequestError, did_you_mean
from mlforge.instant import INSTANT
from mlforge.online.base import Found, OnlineStore
from mlforge.online.codec import SchemaMismatchError, to_columns
from mlforge.online.keys import key_text_expr
from mlforge.storable import utc
from mlforge.store.snapshot import Snapshot

FeatureSelection = Sequence[str] | Mapping[str, Sequence[str] | None]
Schema = Mapping[str, pl.DataType]
# So few dicts are made a frame faster as they are.
FEW_ENTITIES = 20
_ROW, _TIME = "mlforge_row", "mlforge_time"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineRequest:
    """Columns of a feature to be read online.

    Attributes:
        feature_name: The feature.
        keys: Its entity key columns.
        columns: Which of its columns; None: all.
        offline_schema: Gives the feature columns' dtypes where the online store does not know them.
    """

    feature_name: str
    keys: Sequence[str]
    columns: Sequence[str] | None
    offline_schema: Callable[[], Schema | None]


def columns_by_feature(selection: FeatureSelection) -> dict[str, Sequence[str] | None]:
    """Which columns of which features are asked for, in the order in which they are first named; None: all of them.

    >>> columns_by_feature(["spend:amount__sum__7d", "shop", "spend:amount__mean__7d"])
    {'spend': ['amount__sum__7d', 'amount__mean__7d'], 'shop': None}
    """
    if isinstance(selection, Mapping):
        return dict(selection)
    chosen: dict[str, list[str] | None] = {}
    for text in selection:
        name, colon, column = text.partition(":") if isinstance(text, str) else (text, "", "")
        if not colon:
            chosen[name] = None
        elif (columns := chosen.setdefault(name, [])) is not None and column not in columns:
            columns.append(column)
    return dict(chosen)


def training_frame(
    features: Sequence[tuple[Snapshot, Sequence[str] | None]],
    entity_df: pl.DataFrame,
    *,
    timestamp: str | None,
    as_of: datetime,
) -> pl.DataFrame:
    """The labels with, for each, the feature values that held at its time.

    Args:
        features: Tables, and which of their columns; None: all.
        entity_df: One row a label: the features' keys, the timestamp, and whatever else. Keys match by their
            text, so that 123 and "123" are one entity whatever the dtypes.
        timestamp: The column with the labels' times; None: every label gets the value at `as_of`.
        as_of: What is used where there is no timestamp.

    Returns:
        Every row of `entity_df`, in its order and with all its columns, and the feature columns: null for an entity
        that is not visible at that time, or where a key or the time is null.

    Raises:
        RequestError: A column is missing, clashes, or has a dtype that cannot be a key or a time.
    """
    if not isinstance(entity_df, pl.DataFrame):
        raise RequestError(f"The labels are {type(entity_df).__name__}, not a polars.DataFrame.")
    if timestamp is not None and timestamp not in entity_df.columns:
        raise RequestError(f"The labels have no column {timestamp!r}{did_you_mean(timestamp, entity_df.columns)}")
    labels = entity_df.with_columns(_label_times(entity_df, timestamp, as_of).alias(_TIME)).with_row_index(_ROW)
    result = entity_df
    for snapshot, columns in features:
        name, keys = snapshot.feature_name, snapshot.record.keys
        schema = _selected(name, snapshot.value_schema, columns)
        if missing := [key for key in keys if key not in entity_df.columns]:
            raise RequestError(f"The labels have no column {missing[0]!r}, which is a key of feature {name!r}.")
        if clash := [column for column in schema if column in result.columns]:
            raise RequestError(
                f"Column {clash[0]!r} of feature {name!r} is in the labels or another feature already: rename it."
            )
        pairs = [_same_keys(key, entity_df.schema[key], snapshot.schema[key], i) for i, key in enumerate(keys)]
        by = [f"mlforge_key{i}" for i in range(len(keys))]
        asked = labels.lazy().select(_ROW, _TIME, *(label for label, _ in pairs)).drop_nulls()
        values = snapshot.scan().with_columns(*(stored for _, stored in pairs))
        if snapshot.record.timestamp is None:
            found = asked.join(values.select(*by, *schema), on=by, how="left")
        else:
            values = values.select(*by, *schema, pl.col(snapshot.record.timestamp).alias(_TIME))
            found = asked.sort(_TIME).join_asof(values.sort(_TIME), on=_TIME, by=by, check_sortedness=False)
        matched = (
            labels.lazy().select(_ROW).join(found.select(_ROW, *schema), on=_ROW, how="left", maintain_order="left")
        )
        result = result.hstack(snapshot.collect(matched.select(*schema)))
    return result


def online_frame(
    online_store: OnlineStore, requests: Sequence[OnlineRequest], entities: pl.DataFrame | Sequence[Mapping[str, Any]]
) -> pl.DataFrame:
    """The entities with the values that are online for them, read in one round trip.

    Args:
        online_store: Where to read.
        requests: What to read.
        entities: A frame or dicts that hold at least the keys of every feature asked for.

    Returns:
        The entities' columns as they were given, and the feature columns in their offline dtypes: all null for an
        entity that is not there or has a null key. A sync that changes the columns of a feature meanwhile shows:
        columns that the value of an entity does not have yet are null.

    Raises:
        RequestError: A key or a column is missing, or a feature is not online.
        StoreError: The online store cannot be reached, or holds what does not fit its own schema.
    """
    asked = _asked(requests, entities)
    try:
        return _answered(asked, online_store.lookup(asked.keys))
    except SchemaMismatchError:
        # Somebody may have published another version since the schema was read.
        return _answered(asked, online_store.lookup(asked.keys, primary=True), again=True)


async def async_online_frame(
    online_store: OnlineStore, requests: Sequence[OnlineRequest], entities: pl.DataFrame | Sequence[Mapping[str, Any]]
) -> pl.DataFrame:
    """`online_frame` without holding up the event loop while the store is asked."""
    asked = _asked(requests, entities)
    try:
        return _answered(asked, await online_store.alookup(asked.keys))
    except SchemaMismatchError:
        return _answered(asked, await online_store.alookup(asked.keys, primary=True), again=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Entities to be asked for.

    Attributes:
        requests: What to read.
        entities: Of whom.
        keys: For every feature the key columns, rows with nulls left out.
        present: For every feature of which rows were left out, which were not.
    """

    requests: Sequence[OnlineRequest]
    entities: pl.DataFrame
    keys: dict[str, pl.DataFrame]
    present: dict[str, pl.Series]


def _asked(requests: Sequence[OnlineRequest], entities: pl.DataFrame | Sequence[Mapping[str, Any]]) -> _Asked:
    frame = _entity_frame(entities, dict.fromkeys(key for request in requests for key in request.keys))
    keys: dict[str, pl.DataFrame] = {}
    present: dict[str, pl.Series] = {}
    # One frame for all features that have the same keys, so that a store hashes them once.
    known: dict[tuple[str, ...], tuple[pl.DataFrame, pl.Series | None]] = {}
    for request in requests:
        if missing := [key for key in request.keys if key not in frame.columns]:
            raise RequestError(f"The entities have no {missing[0]!r}, which is a key of {request.feature_name!r}.")
        names = tuple(request.keys)
        if names not in known:
            known[names] = _without_nulls(frame, names)
        keys[request.feature_name], there = known[names]
        if there is not None:
            present[request.feature_name] = there
    return _Asked(requests=requests, entities=frame, keys=keys, present=present)


def _without_nulls(frame: pl.DataFrame, keys: Sequence[str]) -> tuple[pl.DataFrame, pl.Series | None]:
    """The key columns of the rows without a null key; and which these are, if not all."""
    # Column by column: an expression takes longer than all else about a single entity.
    columns = [frame.get_column(key) for key in keys]
    some = pl.DataFrame(columns)
    if not any(column.null_count() for column in columns):
        return some, None
    there = some.select(pl.all_horizontal(pl.all().is_not_null())).to_series()
    return some.filter(there), there


def _answered(asked: _Asked, answers: Mapping[str, Found], *, again: bool = False) -> pl.DataFrame:
    columns = asked.entities.get_columns()
    for request in asked.requests:
        name = request.feature_name
        found = answers[name]
        rows = found.rows
        if name in asked.present:
            given = iter(rows)
            rows = [next(given) if there else None for there in asked.present[name]]
        schema = found.schema
        if schema is None and not found.absent:
            schema = request.offline_schema()
        if schema is None:
            raise RequestError(f"Feature {name!r} is not online: run `mlforge build --features {name} --online`.")
        decoded = dict(zip(schema, to_columns(rows, schema, lenient=again and not found.settled), strict=True))
        wanted = _selected(name, schema, request.columns)
        if clash := [column.name for column in columns if column.name in wanted]:
            raise RequestError(f"Column {clash[0]!r} of feature {name!r} is there already: rename it.")
        columns += [decoded[column] for column in wanted]
    return pl.DataFrame(columns)


def _entity_frame(entities: pl.DataFrame | Sequence[Mapping[str, Any]], keys: Iterable[str]) -> pl.DataFrame:
    if isinstance(entities, pl.DataFrame):
        return entities
    if isinstance(entities, Mapping):
        raise RequestError(f"entities is a list: write [{dict(entities)!r}].")
    if not len(entities):
        return pl.DataFrame(schema=dict.fromkeys(keys, pl.String))
    try:
        columns = _same_columns(entities)
        return pl.DataFrame(list(entities), infer_schema_length=None) if columns is None else pl.DataFrame(columns)
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise RequestError(f"The entities are no list of dicts with the same keys: {error}") from None


def _same_columns(entities: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]] | None:
    """The columns of many dicts, if all have the same ones and each is only strings or only integers.

    Polars makes the same of them, and faster than of the dicts.
    """
    first = entities[0]
    if len(entities) <= FEW_ENTITIES or not isinstance(first, Mapping) or set(map(len, entities)) != {len(first)}:
        return None
    try:
        columns = {name: [entity[name] for entity in entities] for name in first}
    except (KeyError, TypeError):
        return None
    return columns if all(set(map(type, values)) in ({str}, {int}) for values in columns.values()) else None


def _selected(feature_name: str, schema: Schema, columns: Sequence[str] | None) -> Schema:
    if columns is None:
        return schema
    for column in columns:
        if column not in schema:
            raise RequestError(f"Feature {feature_name!r} has no column {column!r}{did_you_mean(column, schema)}")
    return {column: schema[column] for column in columns}


def _label_times(entity_df: pl.DataFrame, timestamp: str | None, as_of: datetime) -> pl.Expr:
    if timestamp is None:
        return pl.lit(as_of, INSTANT)
    dtype = entity_df.schema[timestamp]
    if isinstance(dtype, pl.Date):
        return pl.col(timestamp).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if not isinstance(dtype, pl.Datetime):
        raise RequestError(f"The labels' column {timestamp!r} is {dtype}, not a datetime or date: convert it first.")
    return utc(pl.col(timestamp), dtype)


def _same_keys(key: str, label: pl.DataType, stored: pl.DataType, number: int) -> tuple[pl.Expr, pl.Expr]:
    """A key of the labels and of the table in forms that are equal where their texts are."""
    alias = f"mlforge_key{number}"
    if label in (stored, pl.Null) or (label.is_integer() and stored == pl.Int64):
        return pl.col(key).cast(stored, strict=False).alias(alias), pl.col(key).alias(alias)
    return key_text_expr(key, label).alias(alias), key_text_expr(key, stored).alias(alias)
