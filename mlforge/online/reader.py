"""Reads from a Redis: one flight of commands for all features and entities of a request."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlforge.online.base import Found
from mlforge.online.catalog import Catalog, FrameRequests, Missed, Requests, Values, frames_missed, missed
from mlforge.online.codec import decode
from mlforge.online.flight import NO_KEYS, Keys, Payload, answered, get
from mlforge.online.pool import Pool


class Reader:
    """The reading methods of a `RedisStore`; see there and `OnlineStore` for what they give.

    Args:
        pool: The connections.
        catalog: What is known of the features; a store's readers share it.
    """

    def __init__(self, pool: Pool, catalog: Catalog) -> None:
        self._pool = pool
        self._catalog = catalog

    def get(self, key: str) -> Payload:
        """The value of one key."""
        payload: Payload = self._pool.ask((get(key),), 1)[0]
        return payload

    def fetch(self, keys: Keys, features: Sequence[str] = ()) -> tuple[list[Any], list[list[Payload]]]:
        """The values of keys and the statuses of features, all in one flight.

        Returns:
            For every key its text, decoded or not; for every feature what `Catalog.note` takes.
        """
        commands = self._catalog.commands(keys, features)
        replies = self._pool.ask(commands, commands.replies, read=commands.read) if commands.replies else []
        return answered(replies, commands.lots)

    def read(self, feature_name: str, entity_keys: Mapping[str, Any]) -> Values:
        """The values of one entity."""
        key = self._catalog.key(feature_name, entity_keys)
        payload = self.get(key)
        if payload is not None:
            return decode(payload, what=key)
        self._check({feature_name: {frozenset(entity_keys)}})
        return None

    def read_features(self, requests: Requests) -> dict[str, list[Values]]:
        """The values of several features."""
        keys = self._catalog.keys(requests)
        payloads, _ = self.fetch(keys)
        found = self._catalog.rows(requests, keys, payloads)
        self._check(missed(requests, found))
        return found

    def lookup(self, requests: FrameRequests, *, refresh: bool = False) -> dict[str, Found]:
        """The values of several features for frames of entities."""
        features = list(requests) if refresh else self._catalog.unknown(requests)
        keys = self._catalog.frame_keys(requests)
        payloads, statuses = self.fetch(keys, features)
        self._catalog.note(features, statuses)
        found = self._catalog.found(requests, keys, payloads)
        self._check(frames_missed(requests, found))
        return found

    def close(self) -> None:
        """Close the connections; it may be used again."""
        self._pool.close()

    def _check(self, missed: Missed) -> None:
        doubted = self._catalog.doubted(missed)
        if doubted:
            self._catalog.note(doubted, self.fetch(NO_KEYS, doubted)[1])
            self._catalog.require(missed)
