"""What an online store can do: four methods to write, and what mlforge builds on them."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import polars as pl

from mlforge import progress
from mlforge.errors import RequestError
from mlforge.online.status import Status

SLICE_ROWS = 20_000
# Why the first sync of a feature writes everything.
NOTHING_KNOWN = "nothing says what is there"
# Why it is refused, unless forced: it cannot be told whose it is.
DAMAGED = "the status is damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of what is to be published; no entity is in two parts.

    Attributes:
        rows: As `Turn.publish` takes them.
        vanished: As `Turn.publish` takes them; None in all parts or in none.
        change: By how many entities there are more once this part is published.
    """

    rows: pl.DataFrame
    vanished: pl.DataFrame | None
    change: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What was published.

    Attributes:
        written: How many entities were written.
        deleted: How many were taken away.
        bytes: How many bytes of commands that took; 0 where the store does not count them.
    """

    written: int
    deleted: int
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a lookup found for one feature.

    Attributes:
        rows: The values in the order they were asked for; None where there are none.
        schema: The value columns and their offline dtypes; None if the store does not know them.
        settled: Whether all values have that schema; False while a sync rewrites them, so that some may still have
            the columns of the version before.
        version: The version of the feature that is there; None if the store does not know.
        absent: Whether the store keeps account, and nothing was ever put there.
    """

    rows: Sequence[dict[str, Any] | None]
    schema: Mapping[str, pl.DataType] | None
    settled: bool = True
    version: str | None = None
    absent: bool = False


class Turn:
    """One sync's turn at a feature, in which no other sync writes it; made by `OnlineStore.turn`.

    This one is for a store that has just the four methods: it knows nothing and writes everything.

    Attributes:
        status: What the store says that it holds; None if it does not say.
        doubt: Why that cannot be relied on, so that everything has to be written; None if it can.
    """

    status: Status | None = None
    doubt: str | None = "the store keeps no status"

    def __init__(self, store: "OnlineStore", feature_name: str) -> None:
        self._store = store
        self._feature_name = feature_name

    def publish(self, rows: pl.DataFrame, vanished: pl.DataFrame | None, status: Status) -> Published:
        """Write rows and take entities away, so that the store holds what the status says.

        The four methods cannot delete: on these alone, as here, what vanished stays.

        Args:
            rows: One row an entity: the key columns and the value columns of the status, in their offline dtypes. A
                row with a null key belongs to no entity and is left out.
            vanished: The key columns, maybe others than those of the status, of entities that are there and shall
                not be; those that are among `rows` stay. None: it is not known what is there; `rows` are all that
                shall be, and the store has to look for the others.
            status: What the store holds afterwards. A store that keeps a status writes it before the first value as
                `writing` and after the last one as `complete`; it fills in what only the store knows.

        Raises:
            UnavailableError: The store was lost on the way; a new turn may succeed.
            StoreError: The store refuses. What is there then is unfinished, and the status says so.
        """
        keys = list(status.key_columns)
        present = rows.select(*keys, *status.schema).drop_nulls(keys)
        for part in present.iter_slices(SLICE_ROWS):
            self._store.write_batch(self._feature_name, part.to_dicts(), keys)
            progress.advance("syncing", part.height)
        return Published(written=present.height, deleted=0)

    def publish_parts(self, parts: Iterable[Part], status: Status) -> Published:
        """Write rows and take entities away part by part, where all at once would take too much memory.

        By default the parts are put together for `publish`. A store that overrides this holds one part at a time; its
        status is still written before the first value and after the last one.

        Args:
            parts: At least one; each is made when it is asked for, which may take a while and fail.
            status: As for `publish`, but with the `rows` that are there before: what the parts change comes on top.

        Raises:
            UnavailableError: As for `publish`.
            StoreError: As for `publish`; or a part cannot be made.
        """
        found = list(parts)
        known = [part.vanished for part in found if part.vanished is not None]
        return self.publish(
            pl.concat(part.rows for part in found),
            pl.concat(known) if len(known) == len(found) else None,
            replace(status, rows=status.rows + sum(part.change for part in found)),
        )

    def confirm(self, status: Status) -> None:
        """Record that what is there is also what this status says, without touching a value.

        Raises:
            UnavailableError: As for `publish`.
            StoreError: As for `publish`.
        """

    def clear(self) -> int:
        """Take away all entities and the status.

        Returns:
            How many entities there were.

        Raises:
            RequestError: The store cannot delete.
            StoreError: As for `publish`.
        """
        raise RequestError(f"A {type(self._store).__name__} cannot delete: it does not say how.")


class _FourMethodsTurn(Turn):
    """A turn at a store of which nothing is known: it can write each part by itself."""

    def publish_parts(self, parts: Iterable[Part], status: Status) -> Published:
        # A loop would hold each part while the next one is made.
        return Published(written=sum(map(partial(self._written, status), parts)), deleted=0)

    def _written(self, status: Status, part: Part) -> int:
        return self.publish(part.rows, part.vanished, status).written


class OnlineStore(ABC):
    """Where the current values of every entity are served from.

    A subclass that implements the four abstract methods works with everything in mlforge. The others have defaults
    on top of these four; a store overrides what it can do better.

    Attributes:
        retry_seconds: For how long a sync that has lost the store on the way begins again from the status.
        ttl: After how many seconds values go away; None keeps them.
    """

    retry_seconds: float = 0.0
    ttl: int | None = None

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

    def lookup(self, requests: Mapping[str, pl.DataFrame], *, primary: bool = False) -> dict[str, Found]:
        """The values of several features for frames of entities, with their schemas.

        Args:
            requests: For every feature the key columns of the entities, without nulls.
            primary: Read where writes go, not from a replica that may be behind.

        Raises:
            RequestError: As for `read`.
            StoreError: As for `read`.
        """
        rows = self.read_features({name: keys.to_dicts() for name, keys in requests.items()})
        found = {}
        for name in requests:
            status = self.status(name)
            found[name] = Found(
                rows=rows[name],
                schema=status.schema if status is not None and status.synced else None,
                settled=status is None or status.state != "writing",
                version=status.version if status is not None and status.synced else None,
            )
        return found

    async def aread(self, feature_name: str, entity_keys: dict[str, str]) -> dict[str, Any] | None:
        """`read` without holding up the event loop."""
        import asyncio

        return await asyncio.to_thread(self.read, feature_name, entity_keys)

    async def aread_batch(self, feature_name: str, entity_keys: list[dict[str, str]]) -> list[dict[str, Any] | None]:
        """`read_batch` without holding up the event loop."""
        import asyncio

        return await asyncio.to_thread(self.read_batch, feature_name, entity_keys)

    async def aread_features(
        self, requests: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> dict[str, list[dict[str, Any] | None]]:
        """`read_features` without holding up the event loop."""
        import asyncio

        return await asyncio.to_thread(self.read_features, requests)

    async def alookup(self, requests: Mapping[str, pl.DataFrame], *, primary: bool = False) -> dict[str, Found]:
        """`lookup` without holding up the event loop."""
        import asyncio

        return await asyncio.to_thread(self.lookup, requests, primary=primary)

    def close(self) -> None:  # noqa: B027 -- a default, not a gap
        """Close what this process has opened; a store that opens nothing has nothing to do."""

    async def aclose(self) -> None:  # noqa: B027 -- a default, not a gap
        """Close what reads in this event loop have opened; a store that opens nothing has nothing to do."""

    @contextmanager
    def turn(self, feature_name: str, *, writing: bool = True) -> Generator[Turn]:
        """A turn at a feature: until its end no other sync of the feature writes.

        Args:
            feature_name: The feature.
            writing: False only looks: nothing is locked, and nothing may be published.

        Raises:
            UnavailableError: The store cannot be reached or was lost, or somebody else's turn does not end.
            StoreError: The store refuses.
        """
        yield _FourMethodsTurn(self, feature_name)

    def status(self, feature_name: str) -> Status | None:
        """What is in the store for a feature; None if nothing is, or the store does not keep account."""
        return None

    def entity_hashes(self, feature_name: str) -> pl.Series | None:
        """The key hashes of all entities that are there, found by looking through the whole store.

        Returns:
            Strings of 32 hex digits (see `mlforge.online.keys`), each once; None if the store cannot list them.
        """
        return None

    def bytes_per_entity(self, feature_name: str, entities: pl.DataFrame) -> float | None:
        """How much memory one of these entities takes on average; None if none is there or the store cannot say.

        Args:
            feature_name: The feature.
            entities: The key columns of some entities, without nulls.
        """
        return None

    def distrust(self, feature_name: str, token: str) -> bool:
        """Mark the status `dirty`, so that the next sync writes everything, if the token is still its own.

        Returns:
            Whether it is marked.
        """
        return False

    def clear(self, feature_name: str) -> int:
        """Take away all entities of a feature, and its status.

        Returns:
            How many entities there were.

        Raises:
            RequestError: The store cannot delete.
            StoreError: The store cannot be reached or refuses; the status then says that it is unfinished.
        """
        with self.turn(feature_name) as turn:
            return turn.clear()
