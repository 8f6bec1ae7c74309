"""Reading features back: as training sets that are correct at a point in time, and from the online store."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from mlforge.errors import RequestError, did_you_mean
from mlforge.instant import INSTANT
from mlforge.online.base import OnlineStore
from mlforge.online.codec import SchemaMismatchError, to_frame
from mlforge.online.keys import key_text_expr
from mlforge.storable import utc
from mlforge.store.base import Snapshot

Schema = Mapping[str, pl.DataType]
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
        entity that is not there or has a null key.

    Raises:
        RequestError: A key or a column is missing, or a feature is not online.
        StoreError: The online store cannot be reached, or holds what does not fit its own schema.
    """
    frame = _entity_frame(entities, dict.fromkeys(key for request in requests for key in request.keys))
    asked: dict[str, list[dict[str, Any]]] = {}
    present: dict[str, pl.Series] = {}
    for request in requests:
        if missing := [key for key in request.keys if key not in frame.columns]:
            raise RequestError(f"The entities have no {missing[0]!r}, which is a key of {request.feature_name!r}.")
        keys = frame.select(request.keys)
        present[request.feature_name] = keys.select(pl.all_horizontal(pl.all().is_not_null())).to_series()
        asked[request.feature_name] = keys.filter(present[request.feature_name]).to_dicts()
    answers = online_store.read_features(asked)
    for request in requests:
        found = iter(answers[request.feature_name])
        values = [next(found) if there else None for there in present[request.feature_name]]
        decoded = _decoded(online_store, request, values)
        if clash := [column for column in decoded.columns if column in frame.columns]:
            raise RequestError(f"Column {clash[0]!r} of feature {request.feature_name!r} is there already: rename it.")
        frame = frame.hstack(decoded)
    return frame


def _entity_frame(entities: pl.DataFrame | Sequence[Mapping[str, Any]], keys: Iterable[str]) -> pl.DataFrame:
    if isinstance(entities, pl.DataFrame):
        return entities
    if isinstance(entities, Mapping):
        raise RequestError(f"entities is a list: write [{dict(entities)!r}].")
    if not len(entities):
        return pl.DataFrame(schema=dict.fromkeys(keys, pl.String))
    try:
        return pl.DataFrame(list(entities), infer_schema_length=None)
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise RequestError(f"The entities are no list of dicts with the same keys: {error}") from None


def _decoded(
    online_store: OnlineStore, request: OnlineRequest, values: Sequence[Mapping[str, Any] | None]
) -> pl.DataFrame:
    name = request.feature_name
    schema = online_store.schema(name) or request.offline_schema()
    if schema is None:
        raise RequestError(f"Feature {name!r} is not online: run `mlforge build --features {name} --online`.")
    try:
        decoded = to_frame(values, schema)
    except SchemaMismatchError:
        # Somebody may have published another version since the schema was read.
        decoded = to_frame(values, online_store.schema(name, refresh=True) or schema)
    return decoded.select(_selected(name, decoded.schema, request.columns).keys())


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
