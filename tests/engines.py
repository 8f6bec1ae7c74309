"""Every way to compute a feature: which engine, how a function is written for it, and whether in many shards.

Another engine joins with a `Way`: conditions and columns are in SQL, which all of them understand.
"""

import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl

import mlforge as mlf
from mlforge import Definitions, Feature
from mlforge.engines import Engines
from mlforge.features import EngineName, Transform
from mlforge.files import Folder
from mlforge.lineage import source_of
from mlforge.memory import OWN
from mlforge.source import Source
from mlforge.span import Span
from mlforge.stage import Workplace
from mlforge.store import LocalStore
from mlforge.verdicts import CheckResult


def in_polars(columns: str, condition: str) -> Transform:
    return lambda df: df.sql(f"SELECT {columns} FROM self WHERE {condition}")


def in_sql(columns: str, condition: str) -> Transform:
    return lambda events: f"SELECT {columns} FROM events WHERE {condition}"


def with_relations(columns: str, condition: str) -> Transform:
    return lambda df: df.filter(condition).project(columns)


@dataclass(frozen=True, kw_only=True)
class Computed:
    """What an engine makes of a feature."""

    rows: pl.DataFrame
    left_out: int
    checks: Sequence[CheckResult]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to compute features.

    Attributes:
        engine: The engine.
        written: A function that selects columns, and rows for which a condition is true, both in SQL.
        sharded: Whether the events of every shard are computed by themselves.
    """

    engine: EngineName
    written: Callable[[str, str], Transform]
    sharded: bool = False

    def feature(self, source: Any, *, columns: str = "*", condition: str = "true", **more: Any) -> Feature:
        """A feature that is called `f` and keyed by `user`, unless more is said."""
        named = {"name": "f", "keys": ["user"], **more}
        return mlf.feature(source=source, engine=self.engine, **named)(self.written(columns, condition))

    def compute(self, feature: Feature, part: Span | None = None) -> Computed:
        """What the engine makes of a feature; the rows are sorted by keys and timestamp."""
        with tempfile.TemporaryDirectory() as folder, self.applied():
            place = Workplace(Path(folder, "scratch"), Folder(path=f"{folder}/table"), feature.timestamp)
            source = source_of(feature, LocalStore(f"{folder}/none"))
            with place:
                found = Engines().of(feature).compute(feature, source, part, place, self.memory_limit)
                rows = pl.concat(list(found.rows.batches()) or [pl.DataFrame(schema=dict(found.rows.schema))])
                return Computed(rows=rows.sort(feature.index), left_out=found.left_out, checks=found.checks)

    def project(self, folder: Path, *features: Feature) -> Definitions:
        """A project with a store; it is built as the way says inside `applied`."""
        limit = None if self.memory_limit is None else f"{self.memory_limit // 10**6}MB"
        return Definitions("p", features=features, store=LocalStore(folder), memory_limit=limit)

    @property
    def memory_limit(self) -> int | None:
        """What builds may take."""
        return 10**9 if self.sharded else None

    @contextmanager
    def applied(self) -> Generator[None]:
        """Inside of it three events are as many as can be computed at once."""
        with patch("mlforge.engines.spilled.footprint", lambda feature, width: (10**9 - OWN) / 3):
            yield


PLAIN = Way(engine="polars", written=in_polars)
WAYS = {
    "polars": PLAIN,
    "polars in many shards": Way(engine="polars", written=in_polars, sharded=True),
    "duckdb": Way(engine="duckdb", written=with_relations),
    "duckdb in many shards": Way(engine="duckdb", written=in_sql, sharded=True),
}

# With a session that is active. Slow: it is no part of WAYS.
SPARK = Way(engine="spark", written=in_polars)


class Frame(Source):
    """A source in memory."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def scan(self) -> pl.LazyFrame:
        return self.frame.lazy()
