"""A store in memory that does all that a store can do: it keeps a status, deletes, and lists its entities."""

import secrets
import threading
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl

from mlforge.online import Status
from mlforge.online.base import Published, Turn
from mlforge.online.keys import entity_key_hash_expr
from mlforge.testing import MemoryStore


class AccountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.statuses: dict[str, Status] = {}
        self.turns: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def write(self, feature_name: str, entity_keys: dict[str, Any], values: dict[str, Any]) -> None:
        super().write(feature_name, entity_keys, values)
        self.touched(feature_name, list(entity_keys))

    def write_batch(self, feature_name: str, records: list[dict[str, Any]], entity_key_columns: list[str]) -> None:
        super().write_batch(feature_name, records, entity_key_columns)
        if records:
            self.touched(feature_name, entity_key_columns)

    def touched(self, feature_name: str, key_columns: list[str]) -> None:
        status = self.statuses.get(feature_name, Status(key_columns=tuple(key_columns)))
        self.statuses[feature_name] = replace(status, state="dirty")

    @contextmanager
    def turn(self, feature_name: str, *, writing: bool = True) -> Generator[Turn]:
        with self.turns[feature_name] if writing else nullcontext():
            yield AccountingTurn(self, feature_name)

    def status(self, feature_name: str) -> Status | None:
        return self.statuses.get(feature_name)

    def entity_hashes(self, feature_name: str) -> pl.Series | None:
        return pl.Series([key for name, key in self._values if name == feature_name], dtype=pl.String)

    def distrust(self, feature_name: str, token: str) -> bool:
        status = self.statuses.get(feature_name)
        if status is None or status.token != token:
            return False
        self.statuses[feature_name] = replace(status, state="dirty")
        return True

    def delete(self, feature_name: str, hashes: set[str]) -> int:
        return sum(self._values.pop((feature_name, key), None) is not None for key in hashes)


class AccountingTurn(Turn):
    def __init__(self, store: AccountingStore, feature_name: str) -> None:
        super().__init__(store, feature_name)
        self.store, self.feature_name = store, feature_name
        self.status = store.status(feature_name)
        trusted = self.status is not None and self.status.state == "complete"
        self.doubt = None if trusted else "it is not complete"

    def publish(self, rows: pl.DataFrame, vanished: pl.DataFrame | None, status: Status) -> Published:
        keys = list(status.key_columns)
        gone = set(self.store.entity_hashes(self.feature_name)) if vanished is None else hashes_of(vanished)
        written = super().publish(rows, vanished, status).written
        deleted = self.store.delete(self.feature_name, gone - hashes_of(rows.select(keys)))
        self.confirm(status)
        return Published(written=written, deleted=deleted)

    def confirm(self, status: Status) -> None:
        now = datetime.now(UTC)
        self.store.statuses[self.feature_name] = replace(
            status, state="complete", token=secrets.token_hex(8), started_at=now, finished_at=now
        )

    def clear(self) -> int:
        self.store.statuses.pop(self.feature_name, None)
        return self.store.delete(self.feature_name, set(self.store.entity_hashes(self.feature_name)))


def hashes_of(entities: pl.DataFrame) -> set[str]:
    return set(entities.select(entity_key_hash_expr(entities.schema)).to_series().drop_nulls())
