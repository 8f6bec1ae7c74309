"""Builds of a part, and builds that are skipped, beside a build of all; imports are not counted."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from measure import Measurement, kinds_in_turns, ratios, shown
from results import Line
from script import Bench

import mlforge as mlf
from mlforge import Definitions
from mlforge.store import LocalStore

START, DAYS = datetime(2025, 1, 1, tzinfo=UTC), 365
LAST = START + timedelta(days=DAYS - 1)
AGGREGATIONS = ["sum", "mean", "count"]
WINDOWS = ["7d", "30d"]


def events_of(count: int) -> pl.DataFrame:
    """Events of a year, 50 an entity, in the order of their times."""
    number = pl.int_range(count, eager=True).alias("n").to_frame()
    at = (pl.col("n").hash(1) % (DAYS * 86_400_000_000)).cast(pl.Int64)
    return number.select(
        user=pl.col("n").hash(2) % max(1, count // 50),
        ts=pl.lit(START) + pl.duration(microseconds=at),
        amount=(pl.col("n") * 7_919 % 1_000_003) / 100,
    ).sort("ts")


def definitions(folder: Path) -> Definitions:
    """A feature over the events of a folder's files."""

    @mlf.feature(
        keys=["user"],
        source=folder / "events" / "*.parquet",
        timestamp="ts",
        interval="1d",
        metrics=[mlf.Rolling(windows=WINDOWS, aggregations={"amount": AGGREGATIONS})],
    )
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    return Definitions("bench", features=[spend], store=LocalStore(folder / "store"))


def make(folder: Path, count: int) -> Path:
    """A file a month; all events but the last day's are built, which are then added."""
    place = folder / f"builds-{count}"
    if not (place / "made").exists():
        (place / "events").mkdir(parents=True, exist_ok=True)
        events = events_of(count)
        for (month,), part in events.filter(pl.col("ts") < LAST).group_by(pl.col("ts").dt.month()):
            part.write_parquet(place / "events" / f"{month:02}.parquet")
        definitions(place).build()
        events.filter(pl.col("ts") >= LAST).write_parquet(place / "events" / "13.parquet")
        (place / "made").touch()
    return place


def builds(bench: Bench) -> list[Line]:
    """The last day of a year is added to it, and then nothing."""
    place = make(bench.folder, bench.rows)
    # All of it is computed each time, and found to be as it is but for the first.
    found = kinds_in_turns("build", ["part", "full", "skipped"], rounds=bench.rounds, folder=place)
    return [
        Line.of(
            "builds",
            f"the last day added to a year of {bench.rows:,} events",
            ratios(found["part"], found["full"]),
            against="all of it",
            beside=shown(found["full"]),
            mlforge=shown(found["part"]),
            limit=0.3,
        ),
        Line.of(
            "builds",
            f"a build that is skipped, {bench.rows:,} events",
            [seconds * 1000 for seconds in found["skipped"]],
            mlforge=shown(found["skipped"]),
            limit=300,
            unit="ms",
        ),
    ]


def build(folder: str, kind: str) -> dict[str, Any]:
    """Seconds for one build, as the first thing that a process does."""
    project = definitions(Path(folder))
    began = time.perf_counter()
    if kind == "part":
        project.build(start=LAST, force=True)
    else:
        project.build(force=kind == "full")
    return {"seconds": time.perf_counter() - began}


MEASURES: dict[str, Measurement] = {"build": build}
