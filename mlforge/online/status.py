"""What is online for a feature, and by whom it was written: the status beside its values."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast, get_args

import orjson
import polars as pl

from mlforge.errors import RequestError, StoreError
from mlforge.online.codec import CODEC_VERSION, schema_from_json, schema_to_json
from mlforge.online.keys import utc_text

State = Literal["writing", "complete", "dirty"]
# A Delta version and the instant at which its values hold.
Content = tuple[int, dt.datetime]
NEVER = dt.datetime.min.replace(tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What an online store holds for one feature.

    The values are a function of table id, Delta version, as-of, definition hash and codec. A feature that only
    `write` and `write_batch` have touched was never synced (`synced` is False): then only `state` and
    `key_columns` say something, and all else has a default that is older than, or different from, anything real,
    so a sync that compares sees that it has to write everything.

    Attributes:
        state: `complete`: exactly what the other fields say; `writing`: a sync is under way or did not finish;
            `dirty`: written to by hand since, so the next sync writes everything.
        key_columns: The entity key columns.
        schema: The value columns in order, and their offline dtypes.
        table_id: The id of the Delta table.
        delta_version: The version of the Delta table.
        version: The same for people, as in `1.0.3`.
        content: What no other rows share, should the same version be given to others (`Snapshot.content`); None:
            not known.
        location: Where the offline table is.
        definition_hash: The hash of the feature's definition.
        codec: The number of the value format.
        as_of: The instant at which the values hold.
        next_change: The next instant at which time alone changes a value; None if none does.
        rows: How many entities were written.
        token: Who wrote it: host, process and a random text of its own.
        started_at: When the writer began.
        finished_at: When all was acknowledged; None before that.
        run_id: The server's own id, new after every restart; empty where it does not tell.
        evicted_keys: How many keys the server had thrown out for lack of memory when the writer began.
        ttl: After how many seconds values go away; None: they stay.
        earlier: While the state is `writing`: the contents, as (Delta version, as-of) of the same table, of which
            entities may still be there beside those of this status; None: not known.
    """

    state: State = "writing"
    key_columns: tuple[str, ...] = ()
    schema: dict[str, pl.DataType] = field(default_factory=dict)
    table_id: str = ""
    delta_version: int = -1
    version: str = ""
    content: str | None = None
    location: str = ""
    definition_hash: str = ""
    codec: int = CODEC_VERSION
    as_of: dt.datetime = NEVER
    next_change: dt.datetime | None = None
    rows: int = 0
    token: str = ""
    started_at: dt.datetime = NEVER
    finished_at: dt.datetime | None = None
    run_id: str = ""
    evicted_keys: int = 0
    ttl: int | None = None
    earlier: tuple[Content, ...] | None = None

    def __post_init__(self) -> None:
        if self.state not in get_args(State):
            raise RequestError(f"{self.state!r} is not a state: writing, complete or dirty.")
        object.__setattr__(self, "key_columns", tuple(self.key_columns))
        object.__setattr__(self, "schema", dict(pl.Schema(self.schema)))

    @property
    def synced(self) -> bool:
        """Whether a sync has ever written this feature; if not, only `state` and `key_columns` mean anything."""
        return self.token != ""

    @property
    def expired(self) -> bool:
        """Whether the time to live of the first values is over."""
        return self.ttl is not None and self.started_at + dt.timedelta(seconds=self.ttl) <= dt.datetime.now(dt.UTC)

    @property
    def contents(self) -> tuple[Content, ...] | None:
        """The contents that cover every entity that may be there; None where that is not known."""
        if not self.synced or self.state == "dirty":
            return None
        own = (self.delta_version, self.as_of)
        if self.state == "complete":
            return (own,)
        return None if self.earlier is None else tuple(dict.fromkeys((own, *self.earlier)))

    def to_hash(self) -> dict[str, str]:
        """The fields as text, as the Redis hash holds them; what is None is left out."""
        names = [f.name for f in fields(self)] if self.synced else ["state", "key_columns"]
        values = {name: getattr(self, name) for name in names}
        return {name: _text(name, value) for name, value in values.items() if value is not None}

    @classmethod
    def from_hash(cls, stored: Mapping[str, str] | Mapping[bytes, bytes], *, what: str = "A status") -> "Status":
        """The status in such a hash; fields of later releases are passed over.

        Args:
            stored: The fields as text, or as bytes.
            what: What to call it in an error: its Redis key.

        Raises:
            StoreError: A field is missing or damaged.
        """
        stored = {_decoded(name): _decoded(text) for name, text in stored.items()}
        needed = ["state", "key_columns"]
        if "token" in stored:
            needed = [f.name for f in fields(cls) if f.name not in _MAY_BE_LEFT_OUT]
        missing = [name for name in needed if name not in stored]
        if missing:
            raise StoreError(f"{what} has no {', '.join(missing)}: delete it and build the feature online again.")
        known = {f.name for f in fields(cls)}
        values = {
            name: _value(name, text, what)
            for name, text in stored.items()
            if name in known and ("token" in stored or name in needed)
        }
        return cls(**values)


_MAY_BE_LEFT_OUT = ("content", "next_change", "finished_at", "ttl", "earlier")


def key_columns_text(columns: tuple[str, ...] | list[str]) -> str:
    """Key columns as the text that the status holds.

    >>> key_columns_text(["user_id"])
    '["user_id"]'
    """
    return orjson.dumps(list(columns)).decode()


def key_columns_value(text: str | bytes, *, what: str) -> tuple[str, ...]:
    """The key columns in such a text.

    Raises:
        StoreError: The text is no list of names.
    """
    return cast("tuple[str, ...]", _value("key_columns", text, what))


def _text(name: str, value: Any) -> str:
    if name == "schema":
        return schema_to_json(value)
    if name == "key_columns":
        return key_columns_text(value)
    if name == "earlier":
        return orjson.dumps([(version, utc_text(as_of)) for version, as_of in value]).decode()
    return utc_text(value) if isinstance(value, dt.datetime) else str(value)


def _value(name: str, text: str | bytes, what: str) -> Any:
    try:
        if name == "schema":
            return schema_from_json(text)
        if name == "key_columns":
            columns = orjson.loads(text)
            if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
                raise ValueError("no list of names")
            return tuple(columns)
        if name in ("delta_version", "codec", "rows", "evicted_keys", "ttl"):
            return int(text)
        if name in ("as_of", "next_change", "started_at", "finished_at"):
            return _instant(str(text))
        if name == "earlier":
            return tuple((int(version), _instant(as_of)) for version, as_of in orjson.loads(text))
        if name == "state" and text not in get_args(State):
            raise ValueError("writing, complete or dirty")
    except (StoreError, ValueError, TypeError) as error:
        raise StoreError(
            f"{what} holds {text!r} as {name} ({error}): delete it and build the feature online again."
        ) from None
    return text


def _decoded(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode(errors="replace")


def _instant(text: str) -> dt.datetime:
    instant = dt.datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError("no time zone")
    return instant
