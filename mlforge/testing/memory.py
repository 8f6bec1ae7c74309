"""An online store in memory: the four methods and nothing else."""

import threading
from typing import Any

from mlforge.errors import RequestError
from mlforge.online.base import OnlineStore
from mlforge.online.codec import decode, encode
from mlforge.online.keys import entity_key_hash


class MemoryStore(OnlineStore):
    """Values in a dict of this process: for tests, and to start from when you write a store of your own.

    It keeps no status and cannot delete, so every sync writes everything and what vanished stays. It may be used from
    many threads.

    >>> store = MemoryStore()
    >>> store.write("user_spend", {"user_id": "ann"}, {"amount__sum__7d": 32.0})
    >>> store.read("user_spend", {"user_id": "ann"})
    {'amount__sum__7d': 32.0}
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], bytes] = {}
        self._lock = threading.Lock()

    def write(self, feature_name: str, entity_keys: dict[str, str], values: dict[str, Any]) -> None:
        """Replace the values of one entity, all at once."""
        self._put({(feature_name, entity_key_hash(entity_keys)): encode(values)})

    def write_batch(self, feature_name: str, records: list[dict[str, Any]], entity_key_columns: list[str]) -> None:
        """Replace the values of many entities, all at once; of two records for one entity the last one counts."""
        new: dict[tuple[str, str], bytes] = {}
        for record in records:
            try:
                entity = {column: record[column] for column in entity_key_columns}
            except KeyError as error:
                raise RequestError(f"A record for {feature_name} has no {error.args[0]}: {record!r}") from None
            values = {column: value for column, value in record.items() if column not in entity}
            new[feature_name, entity_key_hash(entity)] = encode(values)
        # Only now: all records are known to be good.
        self._put(new)

    def read(self, feature_name: str, entity_keys: dict[str, str]) -> dict[str, Any] | None:
        """The values of one entity, or None if there are none."""
        return self.read_batch(feature_name, [entity_keys])[0]

    def read_batch(self, feature_name: str, entity_keys: list[dict[str, str]]) -> list[dict[str, Any] | None]:
        """The values of many entities, in the order they were asked for; None where there are none."""
        places = [(feature_name, entity_key_hash(entity)) for entity in entity_keys]
        with self._lock:
            found = [self._values.get(place) for place in places]
        return [None if text is None else decode(text, what=feature_name) for text in found]

    def _put(self, new: dict[tuple[str, str], bytes]) -> None:
        with self._lock:
            self._values.update(new)
