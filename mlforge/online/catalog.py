"""What is remembered of the features between reads, and a request for values step by step.

The steps of a request say what has to be fetched next, and are sent what came. Who drives them fetches it over a
connection, in an event loop, or from the masters of a cluster.
"""

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

import polars as pl

from mlforge.errors import RequestError
from mlforge.online.base import Found
from mlforge.online.codec import decode_all, schema_from_json
from mlforge.online.flight import NO_KEYS, Commands, Keys, Payload, entity_keys, frame_keys
from mlforge.online.keys import entity_key_hash, redis_key, status_key
from mlforge.online.line import packed
from mlforge.online.status import key_columns_value

Requests = Mapping[str, Sequence[Mapping[str, Any]]]
FrameRequests = Mapping[str, pl.DataFrame]
Values = dict[str, Any] | None
# For every feature the columns by which entities were asked for that are not there.
Missed = Mapping[str, set[frozenset[str]]]
# Of a status, what reads need.
FIELDS = ("key_columns", "schema", "state", "version")
# For how long what is known of a feature is enough to say that an entity is not there.
KNOWN_SECONDS = 60.0

# Keys whose values, and features whose status fields, are to be fetched.
Asked = tuple[Keys, Sequence[str]]
# For every key its text, decoded or not; for every feature its `FIELDS`.
Fetched = tuple[Sequence[Any], Sequence[Sequence[Payload]]]
Result = TypeVar("Result")
Steps = Generator[Asked, Fetched, Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a status says that reads need.

    Attributes:
        read_at: When that was, on the monotonic clock.
        key_columns: The entity key columns.
        schema: The value columns and their offline dtypes; None where no sync ever wrote the feature.
        settled: Whether all values have that schema.
        version: The version of the feature that is there; None where no sync ever wrote it.
    """

    read_at: float
    key_columns: frozenset[str]
    schema: Mapping[str, pl.DataType] | None
    settled: bool
    version: str | None


class Catalog:
    """The features under a prefix, as reads see them; it talks to no server."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._known: dict[str, Known] = {}

    def key(self, feature_name: str, entity_keys: Mapping[str, Any]) -> str:
        """The Redis key of an entity."""
        return redis_key(self._prefix, feature_name, entity_key_hash(entity_keys))

    def status_keys(self, features: Iterable[str]) -> list[str]:
        """The Redis keys of the statuses of features."""
        return [status_key(self._prefix, name) for name in features]

    def commands(self, asked: Asked) -> Commands:
        """What fetches from one server what a step asks for."""
        keys, features = asked
        return Commands(keys, [packed(("HMGET", key, *FIELDS)) for key in self.status_keys(features)])

    def read_features(self, requests: Requests) -> Steps[dict[str, list[Values]]]:
        """The values of several features for entities, in the order they were asked for.

        Raises:
            RequestError: An entity was asked for by other columns than the feature's: a mistake, not a missing entity.
        """
        keys = entity_keys(self._prefix, requests)
        payloads, _ = yield keys, ()
        rows = iter(decode_all(payloads, what=keys))
        found = {name: list(islice(rows, len(entities))) for name, entities in requests.items()}
        yield from self.explain(
            {
                name: {frozenset(entity) for entity, row in zip(entities, found[name], strict=True) if row is None}
                for name, entities in requests.items()
                if None in found[name]
            }
        )
        return found

    def lookup(self, requests: FrameRequests) -> Steps[dict[str, Found]]:
        """The values of several features for entities in frames, and their schemas.

        Raises:
            RequestError: As for `read_features`.
        """
        features = list(requests)
        keys = frame_keys(self._prefix, requests)
        payloads, statuses = yield keys, features
        self._note(features, statuses)
        rows = iter(decode_all(payloads, what=keys))
        found = {}
        for name, frame in requests.items():
            known = self._known.get(name)
            found[name] = Found(
                rows=list(islice(rows, frame.height)),
                schema=None if known is None else known.schema,
                settled=known is None or known.settled,
                version=None if known is None else known.version,
                absent=known is None,
            )
        self._require({name: {frozenset(requests[name].columns)} for name in features if None in found[name].rows})
        return found

    def explain(self, missed: Missed) -> Steps[None]:
        """Nothing, if entities are missing that were asked for by the features' own key columns.

        Raises:
            RequestError: One was asked for by others.
        """
        oldest = time.monotonic() - KNOWN_SECONDS
        doubted = []
        for name, asked in missed.items():
            known = self._known.get(name)
            if known is None or asked != {known.key_columns} or known.read_at < oldest:
                doubted.append(name)
        if doubted:
            _, statuses = yield NO_KEYS, doubted
            self._note(doubted, statuses)
            self._require(missed)

    def forget(self, feature_name: str) -> None:
        """Know nothing of a feature, since its status was written."""
        self._known.pop(feature_name, None)

    def _note(self, features: Sequence[str], statuses: Sequence[Sequence[Payload]]) -> None:
        now = time.monotonic()
        for name, (key_columns, schema, state, version) in zip(features, statuses, strict=True):
            if key_columns is None:
                self.forget(name)
            else:
                columns, dtypes = _parsed(status_key(self._prefix, name), key_columns, schema)
                self._known[name] = Known(
                    read_at=now,
                    key_columns=columns,
                    schema=dtypes,
                    settled=state != b"writing",
                    version=None if version is None else version.decode(errors="replace"),
                )

    def _require(self, missed: Missed) -> None:
        for name, asked in missed.items():
            known = self._known.get(name)
            for columns in asked:
                if known is not None and columns != known.key_columns:
                    right = ", ".join(sorted(known.key_columns))
                    raise RequestError(f"{name} is keyed by {right}, not by {', '.join(sorted(columns))}.")


@lru_cache(maxsize=1024)
def _parsed(what: str, key_columns: bytes, schema: Payload) -> tuple[frozenset[str], Mapping[str, pl.DataType] | None]:
    dtypes = None if schema is None else schema_from_json(schema)
    return frozenset(key_columns_value(key_columns, what=what)), dtypes
