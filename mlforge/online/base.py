"""What an online store can do: four methods to write, and what mlforge builds on them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mlforge.online.status import Status

SLICE_ROWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Vanished:
    """The entities that are online and will not be.

    Attributes:
        keys: Their key columns, maybe others than those of what is published.
        token: That of the status that says what is online; once another one is there, this is out of date.
    """

    keys: pl.DataFrame
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What was published.

    Attributes:
        written: How many entities were written.
        deleted: How many were taken away.
    """

    written: int
    deleted: int


class OnlineStore(ABC):
    """Where the current values of every entity are served from.

    A subclass that implements the four abstract methods works with everything in mlforge. The others have defaults
    on top of these four; a store overrides what it can do better.
    """

    @abstractmethod
    def write(self, feature_name: str, entity_keys: dict[str, str], values: dict[str, Any]) -> None:
        """Replace the values of one entity, all at once.

        Raises:
            RequestError: The entity keys are empty, None or floats, or a value cannot be stored.
            StoreError: The store cannot be reached or refuses.
        """

    @abstractmethod
    def write_batch(self, feature_name: str, records: list[dict[str, Any]], entity_key_columns: list[str]) -> None:
        """Replace the values of many entities; of two records for one entity the last one counts.

        Args:
            feature_name: The feature.
            records: Keys and values together, one dict an entity; no records, nothing happens.
            entity_key_columns: Which of the columns are the keys.

        Raises:
            RequestError: A record lacks a key column, or a key or value cannot be stored. Nothing was written.
            StoreError: The store cannot be reached or refuses.
        """

    @abstractmethod
    def read(self, feature_name: str, entity_keys: dict[str, str]) -> dict[str, Any] | None:
        """The values of one entity, or None if there are none.

        Raises:
            RequestError: The entity keys are empty, None or floats, or not the feature's key columns.
            StoreError: The store cannot be reached, refuses, or holds something that is no value.
        """

    @abstractmethod
    def read_batch(self, feature_name: str, entity_keys: list[dict[str, str]]) -> list[dict[str, Any] | None]:
        """The values of many entities, in the order they were asked for; None where there are none.

        Raises:
            RequestError: As for `read`.
            StoreError: As for `read`.
        """

    def read_features(
        self, requests: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> dict[str, list[dict[str, Any] | None]]:
        """The values of several features at once, as `read_batch` gives them.

        Args:
            requests: For every feature the entities, as dicts of entity keys.
        """
        return {
            feature_name: self.read_batch(feature_name, [dict(keys) for keys in entities])
            for feature_name, entities in requests.items()
        }

    def publish(
        self, feature_name: str, frame: pl.DataFrame, status: Status, vanished: Vanished | None = None
    ) -> Published:
        """Write every row of a frame, and take away the entities that are not in it.

        The four methods cannot delete: on these alone, as here, `vanished` is passed over and all entities stay.

        Args:
            feature_name: The feature.
            frame: One row an entity: the key columns and the value columns of the status, in their offline dtypes. A
                row with a null key belongs to no entity and is left out.
            status: What the frame is. A store that keeps a status writes it before the first value as `writing` and
                after the last one as `complete`; it fills in what only the store knows.
            vanished: What is to be taken away; None: not known, so the store has to look for itself.

        Raises:
            StoreError: The store cannot be reached or refuses, or somebody else wrote at the same time. What is
                there then is unfinished, and the status says so where the store keeps one.
        """
        keys = list(status.key_columns)
        rows = frame.select(*keys, *status.schema).drop_nulls(keys)
        for part in rows.iter_slices(SLICE_ROWS):
            self.write_batch(feature_name, part.to_dicts(), keys)
        return Published(written=rows.height, deleted=0)

    def status(self, feature_name: str) -> Status | None:
        """What is in the store for a feature; None if nothing is, or the store does not keep account."""
        return None

    def schema(self, feature_name: str, *, refresh: bool = False) -> dict[str, pl.DataType] | None:
        """The value columns of a feature and their offline dtypes, or None if the store does not know them.

        Args:
            feature_name: The feature.
            refresh: Ask the store again instead of answering from what was read before.
        """
        status = self.status(feature_name)
        return status.schema if status is not None and status.synced else None
