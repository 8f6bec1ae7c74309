"""Online frames: entities with the values that are online for them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mlforge.errors import RequestError, one_line
from mlforge.online.base import Found, OnlineStore
from mlforge.online.codec import SchemaMismatchError, to_columns
from mlforge.references import Schema, named, selected

# So few dicts are made a frame faster as they are.
FEW_ENTITIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineRequest:
    """Columns of a feature to be read online.

    Attributes:
        feature_name: The feature.
        keys: Its entity key columns.
        columns: Which of its columns; None: all.
        version: The version whose MAJOR.MINOR has to be there, so its columns and its definition; None: whichever is.
        prefix: Whether its columns are to begin with its name, as `user_spend__amount__sum__7d`.
        offline_schema: Gives the feature columns' dtypes where the online store does not know them.
    """

    feature_name: str
    keys: Sequence[str]
    columns: Sequence[str] | None
    version: str | None = None
    prefix: bool = False
    offline_schema: Callable[[], Schema | None]


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
        RequestError: A key or a column is missing, or a feature is not online, or not at the version asked for.
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
        if request.version is not None and _minor(request.version) != _minor(found.version or ""):
            raise RequestError(
                f"Feature {name!r} is asked for at version {request.version}, and {found.version or 'an unknown one'} "
                f"is online, which may have other columns or another definition: train on that one and ask for it, or, "
                f"where {_minor(request.version)} is what is built, run `mlforge build --features {name} --online`."
            )
        decoded = dict(zip(schema, to_columns(rows, schema, lenient=again and not found.settled), strict=True))
        wanted = named(name, selected(name, schema, request.columns), prefix=request.prefix)
        if clash := [column.name for column in columns if column.name in wanted.values()]:
            raise RequestError(f"Column {clash[0]!r} of feature {name!r} is there already: say prefix=True.")
        columns += [decoded[column].alias(alias) for column, alias in wanted.items()]
    return pl.DataFrame(columns)


def _minor(version: str) -> str:
    """MAJOR.MINOR: versions that share it have the same columns and definition, and differ in their data.

    >>> _minor("1.2.3")
    '1.2'
    """
    return version.rpartition(".")[0]


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
        # Without what Polars would have its caller try.
        what = one_line(error).partition(";")[0]
        raise RequestError(
            f"The entities are no list of dicts that makes a frame ({what}): give each the same keys, and each key "
            f"values of one type."
        ) from None


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
