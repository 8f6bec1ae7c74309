"""The frozen hash of an entity's keys, and the one place that spells Redis keys.

The hash is the first 32 hex digits of SHA-256 over the entity keys, sorted by the UTF-8 bytes of the column
name, each as two netstrings `<bytes>:<name>,<bytes>:<value>,` in UTF-8. It never changes: what was written by
one release is read by the next, and programs in other languages compute it too. Vectors are in
`docs/reference/key-vectors.json`.
"""

import contextlib
import datetime as dt
import numbers
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

import polars as pl
import polars_hash as plh

from mlforge.errors import DefinitionError, RequestError

try:
    # Python 3.11's own needs less time to begin than OpenSSL's, which hashlib takes; later releases' do not.
    from _sha256 import sha256  # type: ignore[import-not-found]  # ty: ignore[import-not-found]
except ImportError:
    from hashlib import sha256

DIGITS = 32
UTC_TEXT = "%Y-%m-%dT%H:%M:%S%.6fZ"
DATE_TEXT = "%Y-%m-%d"
# Up to here it does not pay to look at entities column by column.
FEW_ENTITIES = 4

# What comes out of a frame as the Python values that `key_text` knows, without loss.
_PLAIN = frozenset({pl.String(), pl.Boolean(), pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64()})
_FEATURE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NOT_IN_PREFIX = re.compile(r"[*?\[\]\\^{}]")


def key_text(value: Any) -> str:
    """One key value as the text that is hashed.

    Strings stay as they are, whole numbers become decimal, booleans `true` and `false`, dates and datetimes
    ISO 8601; a naive datetime is UTC.

    >>> key_text(123), key_text(True), key_text("123")
    ('123', 'true', '123')

    Raises:
        RequestError: The value is None, a float, or of another type that no key column can have.
    """
    if isinstance(value, str):
        # Not str(): that gives the member's name for an enum of strings.
        return str.__str__(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, dt.datetime):
        return utc_text(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    if value is None:
        raise RequestError("An entity key is None: every entity key needs a value.")
    raise RequestError(
        f"{value!r} cannot be an entity key ({type(value).__name__}): "
        "use a string, a whole number, a boolean, a date or a datetime."
    )


def utc_text(value: dt.datetime) -> str:
    """An instant as ISO 8601 in UTC with six decimals; a naive datetime is taken as UTC.

    >>> utc_text(dt.datetime(2026, 1, 31, 12))
    '2026-01-31T12:00:00.000000Z'

    Raises:
        RequestError: The instant lies outside the years 1 to 9999, or is pandas' NaT.
    """
    try:
        utc = value if value.tzinfo is None else value.astimezone(dt.UTC)
        return utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    except (OverflowError, ValueError, TypeError) as error:
        raise RequestError(f"{value!r} is no instant between the years 1 and 9999 in UTC.") from error


def entity_key_hash(entity_keys: Mapping[str, Any]) -> str:
    """The 32 hex digits that stand for one entity; the order of the keys does not matter.

    >>> entity_key_hash({"user_id": 123}) == entity_key_hash({"user_id": "123"})
    True

    Raises:
        RequestError: There are no keys, or one has a value that cannot be a key (see `key_text`).
    """
    if not entity_keys:
        raise RequestError("An entity has no keys: write at least one, as in {'user_id': 'user_123'}.")
    try:
        text = ""
        for name, before in _layout(tuple(entity_keys)):
            value = entity_keys[name]
            if type(value) is not str:
                value = key_text(value)
            text += f"{before}{len(value) if value.isascii() else len(value.encode())}:{value},"
        return _digests((text,))[0]
    except RequestError as error:
        raise RequestError(f"Entity keys {entity_keys!r}: {error}") from None
    except (TypeError, AttributeError, UnicodeEncodeError) as error:
        raise RequestError(f"Entity keys {entity_keys!r} are not a dict of column names: {error}.") from None


def entity_key_hashes(entities: Sequence[Mapping[str, Any]]) -> list[str]:
    """`entity_key_hash` for each of many entities.

    Raises:
        RequestError: As for `entity_key_hash`; the message shows the entity.
    """
    if len(entities) > FEW_ENTITIES:
        # If they are not all alike, or one of them is wrong, each for itself shows it.
        with contextlib.suppress(LookupError, TypeError, ValueError, AttributeError, RequestError):
            return _digests(_texts(entities))
    return list(map(entity_key_hash, entities))


def frame_key_hashes(keys: pl.DataFrame, *, lot: int) -> Iterator[list[str]]:
    """`entity_key_hash` for every row of a frame of key columns without nulls, some rows after the other.

    Args:
        keys: The frame.
        lot: How many rows at a time.

    Raises:
        RequestError: There is no key column, or one has a dtype that cannot be a key.
    """
    if all(dtype in _PLAIN for dtype in keys.dtypes):
        for part in keys.iter_slices(lot):
            columns = {name: part.get_column(name).to_list() for name in part.columns}
            yield _digests(_column_texts(columns))
    elif not keys.is_empty():
        digests = keys.select(_digest_expr(tuple(keys.schema.items()))).to_series().to_list()
        for start in range(0, len(digests), lot):
            yield [digest[:DIGITS] for digest in digests[start : start + lot]]


def entity_key_hash_expr(schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """`entity_key_hash` for every row of a frame; null where any key is null.

    Args:
        schema: The dtypes of the key columns alone.

    Raises:
        RequestError: There is no key column, or one has a dtype that cannot be a key.
    """
    if not schema:
        raise RequestError("A frame without key columns has no entities.")
    return _digest_expr(tuple(pl.Schema(schema).items())).str.slice(0, DIGITS)


def redis_key(prefix: str, feature_name: str, key_hash: str) -> str:
    """Where the values of one entity are: `{prefix}:{feature_name}:{key_hash}`.

    >>> redis_key("mlforge", "user_spend", "0" * 32)
    'mlforge:user_spend:00000000000000000000000000000000'

    Raises:
        RequestError: The feature name is none.
        DefinitionError: The prefix is none.
    """
    return _head(prefix, feature_name) + key_hash


def redis_key_expr(prefix: str, feature_name: str, key_hash: pl.Expr) -> pl.Expr:
    """`redis_key` for every row of a frame; null where the hash is."""
    return pl.concat_str(pl.lit(_head(prefix, feature_name)), key_hash, ignore_nulls=False)


def status_key(prefix: str, feature_name: str) -> str:
    """Where the status of a feature is: `{prefix}:{feature_name}:status`.

    >>> status_key("mlforge", "user_spend")
    'mlforge:user_spend:status'
    """
    return _head(prefix, feature_name) + "status"


def lock_key(prefix: str, feature_name: str) -> str:
    """Where the lock of a feature is while a sync runs.

    >>> lock_key("mlforge", "user_spend")
    'mlforge:user_spend:lock'
    """
    return _head(prefix, feature_name) + "lock"


def check_prefix(prefix: str) -> str:
    """The prefix itself, if it can be one.

    Raises:
        DefinitionError: It is empty or holds braces or a character that means something in a Redis pattern.
    """
    if not isinstance(prefix, str) or not prefix or _NOT_IN_PREFIX.search(prefix) or not prefix.isprintable():
        raise DefinitionError(
            f"{prefix!r} cannot be a prefix of Redis keys: write text without * ? [ ] \\ ^ {{ }}, as in 'mlforge'."
        )
    return prefix


@lru_cache(maxsize=1024)
def _head(prefix: str, feature_name: str) -> str:
    if not isinstance(feature_name, str) or not _FEATURE_NAME.fullmatch(feature_name):
        raise RequestError(f"{feature_name!r} is not a feature name: letters, digits and underscores, a letter first.")
    return f"{check_prefix(prefix)}:{feature_name}:"


@lru_cache(maxsize=1024)
def _layout(columns: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The key columns in the order in which they are hashed, each with what stands before its value's length."""
    # Code points sort as their UTF-8 bytes do.
    return tuple((name, _netstring(name)) for name in sorted(columns))


def _texts(entities: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """What is hashed of entities that all have the same columns.

    Not in Polars, though its threads are fast: a forked child has none of its parent's.

    Raises:
        LookupError: They have not.
    """
    columns = tuple(entities[0])
    if set(map(len, entities)) != {len(columns)}:
        raise LookupError
    return _column_texts({name: [entity[name] for entity in entities] for name in columns})


def _column_texts(columns: Mapping[str, list[Any]]) -> Iterable[str]:
    parts: list[list[str]] = []
    for name, before in _layout(tuple(columns)):
        values = columns[name]
        if set(map(type, values)) != {str}:
            values = list(map(key_text, values))
        if "".join(values).isascii():
            parts.append([f"{before}{len(value)}:{value}," for value in values])
        else:
            parts.append([f"{before}{len(value.encode())}:{value}," for value in values])
    return parts[0] if len(parts) == 1 else map("".join, zip(*parts, strict=True))


@lru_cache(maxsize=1024)
def _digest_expr(schema: tuple[tuple[str, pl.DataType], ...]) -> pl.Expr:
    parts: list[pl.Expr] = []
    for name, dtype in sorted(schema, key=itemgetter(0)):
        text = key_text_expr(name, dtype)
        parts += [pl.lit(_netstring(name)), text.str.len_bytes().cast(pl.String), pl.lit(":"), text, pl.lit(",")]
    return plh.CryptographicHashingNameSpace(pl.concat_str(parts, ignore_nulls=False)).sha2_256()


def _digests(texts: Iterable[str]) -> list[str]:
    return [sha256(text.encode()).hexdigest()[:DIGITS] for text in texts]


def _netstring(text: str) -> str:
    return f"{len(text.encode())}:{text},"


def key_text_expr(name: str, dtype: pl.DataType) -> pl.Expr:
    """`key_text` for a column of a frame; null where it is null.

    Raises:
        RequestError: The dtype cannot be a key.
    """
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime):
        utc = column if dtype.time_zone is None else column.dt.convert_time_zone("UTC")
        return utc.dt.strftime(UTC_TEXT)
    if isinstance(dtype, pl.Date):
        return column.dt.strftime(DATE_TEXT)
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum | pl.Boolean) or dtype.is_integer():
        return column.cast(pl.String)
    raise RequestError(
        f"Column {name!r} cannot be an entity key: its dtype is {dtype}; "
        "cast it to a string, an integer, a boolean, a date or a datetime."
    )
