"""What is remembered of the features between reads, and how what was asked for and what was found come together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import polars as pl

from mlforge.errors import RequestError
from mlforge.online.base import Found
from mlforge.online.codec import decode_all, schema_from_json
from mlforge.online.flight import Commands, Keys, Payload, entity_keys, frame_keys
from mlforge.online.keys import entity_key_hash, redis_key, status_key
from mlforge.online.line import packed
from mlforge.online.status import key_columns_value

Requests = Mapping[str, Sequence[Mapping[str, Any]]]
FrameRequests = Mapping[str, pl.DataFrame]
Values = dict[str, Any] | None
# For every feature the columns by which entities were asked for that are not there.
Missed = Mapping[str, set[frozenset[str]]]
# Of a status, what `Catalog.note` takes.
# Of a status, what reads need.
FIELDS = ("key_columns", "schema", "state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a status says that reads need.

    Attributes:
        key_columns: The entity key columns.
        schema: The value columns and their offline dtypes; None where no sync ever wrote the feature.
        settled: Whether all values have that schema.
    """

    key_columns: frozenset[str]
    schema: dict[str, pl.DataType] | None
    settled: bool


class Catalog:
    """The features under a prefix, as reads see them; it talks to no server."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._known: dict[str, Known] = {}

    def key(self, feature_name: str, entity_keys: Mapping[str, Any]) -> str:
        """The Redis key of an entity."""
        return redis_key(self._prefix, feature_name, entity_key_hash(entity_keys))

    def keys(self, requests: Requests) -> Keys:
        """The Redis keys of the entities."""
        return entity_keys(self._prefix, requests)

    def frame_keys(self, requests: FrameRequests) -> Keys:
        """The Redis keys of the entities in frames."""
        return frame_keys(self._prefix, requests)

    def rows(self, requests: Requests, keys: Iterable[str], payloads: Sequence[Any]) -> dict[str, list[Values]]:
        """The values for the entities, in the order they were asked for."""
        rows = iter(decode_all(payloads, what=keys))
        return {name: list(islice(rows, len(entities))) for name, entities in requests.items()}

    def found(self, requests: FrameRequests, keys: Iterable[str], payloads: Sequence[Any]) -> dict[str, Found]:
        """The values for the entities in frames, and their schemas as far as they are known."""
        rows = iter(decode_all(payloads, what=keys))
        found = {}
        for name, frame in requests.items():
            known = self._known.get(name)
            found[name] = Found(
                rows=list(islice(rows, frame.height)),
                schema=None if known is None else known.schema,
                settled=known is None or known.settled,
            )
        return found

    def unknown(self, features: Iterable[str]) -> list[str]:
        """Those of the features of which nothing is known."""
        return [name for name in features if name not in self._known]

    def doubted(self, missed: Missed) -> list[str]:
        """The features of which other key columns are known, or none, than entities were asked for by."""
        doubted = []
        for name, asked in missed.items():
            known = self._known.get(name)
            if known is None or asked != {known.key_columns}:
                doubted.append(name)
        return doubted

    def require(self, missed: Missed) -> None:
        """An entity that was asked for by other columns than the feature's is a mistake, not a missing entity.

        Raises:
            RequestError: There is one.
        """
        for name, asked in missed.items():
            known = self._known.get(name)
            for columns in asked:
                if known is not None and columns != known.key_columns:
                    right = ", ".join(sorted(known.key_columns))
                    raise RequestError(f"{name} is keyed by {right}, not by {', '.join(sorted(columns))}.")

    def note(self, features: Sequence[str], statuses: Sequence[Sequence[Payload]]) -> None:
        """Remember what statuses say.

        Raises:
            StoreError: One of them is damaged.
        """
        for name, (key_columns, schema, state) in zip(features, statuses, strict=True):
            if key_columns is None:
                self.forget(name)
                continue
            self._known[name] = Known(
                key_columns=frozenset(key_columns_value(key_columns, what=status_key(self._prefix, name))),
                schema=None if schema is None else schema_from_json(schema),
                settled=state != b"writing",
            )

    def forget(self, feature_name: str) -> None:
        """Know nothing of a feature, since its status was written."""
        self._known.pop(feature_name, None)

    def commands(self, keys: Keys, features: Sequence[str]) -> Commands:
        """What asks for the values of keys and the statuses of features."""
        statuses = [packed(("HMGET", status_key(self._prefix, name), *FIELDS)) for name in features]
        return Commands(keys, statuses)


def missed(requests: Requests, found: Mapping[str, Sequence[Values]]) -> Missed:
    """By which columns those entities were asked for that were not found."""
    return {
        name: {frozenset(entity) for entity, row in zip(entities, found[name], strict=True) if row is None}
        for name, entities in requests.items()
        if None in found[name]
    }


def frames_missed(requests: FrameRequests, found: Mapping[str, Found]) -> Missed:
    """The same for entities in frames."""
    return {name: {frozenset(frame.columns)} for name, frame in requests.items() if None in found[name].rows}
