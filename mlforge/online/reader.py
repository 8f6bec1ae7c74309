"""Reads from a Redis: one flight of commands for all features and entities of a request."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeVar

from mlforge.online.base import Found
from mlforge.online.catalog import Asked, Catalog, Fetched, FrameRequests, Requests, Steps, Values
from mlforge.online.codec import decode
from mlforge.online.flight import Payload, get
from mlforge.online.pool import Pool

Result = TypeVar("Result")


class Reader(ABC):
    """The reading methods of a `RedisStore`; see there and `OnlineStore` for what they give.

    Args:
        catalog: What is known of the features; a store's readers share it.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @abstractmethod
    def get(self, key: str) -> Payload:
        """The value of one key."""

    @abstractmethod
    def fetch(self, asked: Asked) -> Fetched:
        """The values of keys and the statuses of features."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections; it may be used again."""

    def read(self, feature_name: str, entity_keys: Mapping[str, object]) -> Values:
        """The values of one entity."""
        key = self._catalog.key(feature_name, entity_keys)
        payload = self.get(key)
        if payload is not None:
            return decode(payload, what=key)
        self._run(self._catalog.explain({feature_name: {frozenset(entity_keys)}}))
        return None

    def read_features(self, requests: Requests) -> dict[str, list[Values]]:
        """The values of several features."""
        return self._run(self._catalog.read_features(requests))

    def lookup(self, requests: FrameRequests) -> dict[str, Found]:
        """The values of several features for frames of entities."""
        return self._run(self._catalog.lookup(requests))

    def _run(self, steps: Steps[Result]) -> Result:
        try:
            asked = next(steps)
            while True:
                asked = steps.send(self.fetch(asked))
        except StopIteration as done:
            result: Result = done.value
            return result


class PoolReader(Reader):
    """Reads from one server.

    Args:
        pool: The connections.
        catalog: As for `Reader`.
    """

    def __init__(self, pool: Pool, catalog: Catalog) -> None:
        super().__init__(catalog)
        self._pool = pool

    def get(self, key: str) -> Payload:
        """The value of one key."""
        payload: Payload = self._pool.ask((get(key),), 1)[0]
        return payload

    def fetch(self, asked: Asked) -> Fetched:
        """All in one flight."""
        commands = self._catalog.commands(asked)
        replies = self._pool.ask(commands, commands.replies, read=commands.read) if commands.replies else []
        return commands.fetched(replies)

    def close(self) -> None:
        """Close the connections; it may be used again."""
        self._pool.close()
