"""Part of the conformance suite: frames of entities, event loops, and many readers and writers at once."""

import asyncio
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import polars as pl
import pytest

from mlforge.errors import RequestError
from mlforge.online.base import OnlineStore
from mlforge.testing.samples import frame, publish, row, status_of, user

ROUNDS = 30
WRITERS, WRITES = 4, 25
COLUMNS = [f"c{n}" for n in range(20)]


class ReaderTests:
    """All ways to read agree, and readers see whole values only."""

    def test_a_lookup_finds_what_a_read_finds(self, store: OnlineStore, feature_name: str) -> None:
        other = f"{feature_name}_2"
        store.write_batch(feature_name, [{**user(n), **row(n)} for n in range(3)], ["user_id"])
        store.write(other, {"a": "1", "b": "2"}, {"y": 1})
        found = store.lookup(
            {
                feature_name: pl.DataFrame({"user_id": [2, 9, 0, 2]}),
                other: pl.DataFrame({"b": ["2"], "a": [1]}, schema={"b": pl.Categorical, "a": pl.Int8}),
                f"{feature_name}_3": pl.DataFrame(schema={"user_id": pl.String}),
            }
        )
        assert list(found) == [feature_name, other, f"{feature_name}_3"]
        assert list(found[feature_name].rows) == [row(2), None, row(0), row(2)]
        assert list(found[other].rows) == [{"y": 1}]
        assert list(found[f"{feature_name}_3"].rows) == []
        assert [each.schema for each in found.values()] == [None] * 3, "only a sync tells a schema"

    def test_asynchronous_reads_give_the_same(self, store: OnlineStore, feature_name: str) -> None:
        store.write_batch(feature_name, [{**user(n), **row(n)} for n in range(3)], ["user_id"])
        asked = [user(2), user(9), user(0), user(2)]
        requests = {feature_name: asked, f"{feature_name}_2": [user(1)]}
        frames = {feature_name: pl.DataFrame({"user_id": [2, 9, 0]})}

        async def check() -> None:
            assert await store.aread(feature_name, user(1)) == row(1)
            assert await store.aread(feature_name, user(9)) is None
            assert await store.aread_batch(feature_name, asked) == store.read_batch(feature_name, asked)
            assert await store.aread_batch(feature_name, []) == []
            assert await store.aread_features(requests) == store.read_features(requests)
            found = (await store.alookup(frames))[feature_name]
            assert found == store.lookup(frames)[feature_name]
            assert list(found.rows) == [row(2), None, row(0)]
            unkeyed: list[dict[str, Any]] = [{}, {"user_id": None}]
            for keys in unkeyed:
                with pytest.raises(RequestError):
                    await store.aread(feature_name, keys)
            together = await asyncio.gather(*(store.aread(feature_name, user(n % 4)) for n in range(50)))
            assert together == [row(n % 4) if n % 4 < 3 else None for n in range(50)]

        async def check_and_close() -> None:
            try:
                await check()
            finally:
                # Connections may belong to the event loop, which ends here.
                await store.aclose()

        asyncio.run(check_and_close())

    def test_readers_see_whole_values_while_they_are_written(self, store: OnlineStore, feature_name: str) -> None:
        def write(number: int) -> None:
            values = dict.fromkeys(COLUMNS, number)
            store.write(feature_name, user(1), values)
            store.write_batch(feature_name, [{**user(n), **values} for n in (2, 1)], ["user_id"])

        write(0)
        seen = _seen_meanwhile(lambda: store.read_batch(feature_name, [user(1), user(2)]), write, ROUNDS)
        torn = [value for value in seen if value is None or list(value) != COLUMNS or len(set(value.values())) > 1]
        assert torn == []

    def test_readers_see_whole_values_while_they_are_published(self, store: OnlineStore, feature_name: str) -> None:
        def turn(number: int) -> None:
            rows = frame({1: number, 2: -number})
            publish(store, feature_name, rows, None, status_of(rows, version=number))

        turn(0)
        seen = _seen_meanwhile(lambda: store.read_batch(feature_name, [user(1), user(2)]), turn, ROUNDS // 5)
        torn = [value for value in seen if value is None or value != row(value["x"])]
        assert torn == []

    def test_writers_at_once_lose_nothing(self, store: OnlineStore, feature_name: str) -> None:
        def write(writer: int) -> None:
            for n in range(writer * WRITES, (writer + 1) * WRITES):
                store.write(feature_name, user(n), row(n))
            store.write_batch(feature_name, [{**user(-1), **row(writer)}], ["user_id"])

        with _hurried_threads(), ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(write, range(WRITERS)))
        found = store.read_batch(feature_name, [user(n) for n in range(WRITERS * WRITES)])
        assert found == [row(n) for n in range(WRITERS * WRITES)]
        assert store.read(feature_name, user(-1)) in [row(writer) for writer in range(WRITERS)]


def _seen_meanwhile(
    read: Callable[[], list[dict[str, Any] | None]], write: Callable[[int], None], rounds: int
) -> list[dict[str, Any] | None]:
    """What two threads that read all the time have seen while another one wrote."""
    seen: list[dict[str, Any] | None] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.extend(read())

    with _hurried_threads(), ThreadPoolExecutor(2) as pool:
        watchers = [pool.submit(watch) for _ in range(2)]
        try:
            for number in range(1, rounds):
                write(number)
        finally:
            over.set()
        for watcher in watchers:
            watcher.result()
    return seen


@contextmanager
def _hurried_threads() -> Generator[None]:
    """Threads interrupt each other far more often than they would."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
