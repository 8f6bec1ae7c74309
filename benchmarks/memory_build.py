"""How builds grow under a memory limit, and how Spark compares with Polars, both on this machine.

    python benchmarks/memory_build.py                  ten million events, without and with Spark; about three minutes
    python benchmarks/memory_build.py large            ten times as many; up to half an hour, 14 GB of disk
    python benchmarks/memory_build.py limit            one section: limit spark large
    python benchmarks/memory_build.py --rows 1000000   with fewer events
    python benchmarks/memory_build.py --cache FOLDER   keeps the events there

A year of events of 25 an entity, in files of 2.5 million; two windows of three aggregations by day. Each build is a
process of its own, in which nothing else is done; its peak is what the system says of it (`ru_maxrss`). Spark has two
threads, each with Python processes of its own, and a session that was there before the clock starts. What was found
goes to build/bench/memory_build.json. Linux only.
"""

import datetime as dt
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from measure import Measurement, measure, peak, ratios, shown
from results import Line
from script import Bench, Script, Section

import mlforge as mlf
from mlforge import Definitions
from mlforge.engines import SparkEngine
from mlforge.store import LocalStore

LIMIT = "2GB"
PER_FILE = 2_500_000
PER_ENTITY = 25
START = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
YEAR = 365 * 86_400 * 10**6


def make_events(folder: str, count: int) -> dict[str, Any]:
    """A year of events in no order of entities, a file after the other."""
    place = _place(folder, count)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    first = int(START.timestamp()) * 10**6
    for number in range(max(count // PER_FILE, 1)):
        size = min(count, PER_FILE)
        drawn = np.random.default_rng(number)
        frame = pl.DataFrame(
            {
                "user": drawn.integers(0, count // PER_ENTITY, size),
                "ts": first + drawn.integers(0, YEAR, size),
                "amount": drawn.integers(0, 10**6, size) / 100,
            }
        )
        user_id = "user_" + pl.col("user").cast(pl.String).str.zfill(8)
        at = pl.col("ts").cast(pl.Datetime("us", "UTC"))
        frame.sort("ts").select(user_id.alias("user_id"), at, "amount").write_parquet(place / f"{number}.parquet")
    (place / "made").touch()
    return {}


def run_build(folder: str, count: int, kind: str) -> dict[str, Any]:
    """One build of an empty store, and the most memory that this process has ever had."""
    with tempfile.TemporaryDirectory(dir=folder) as store:
        defs = _definitions(_place(folder, count), store)
        settings: dict[str, Any] = {"memory_limit": LIMIT} if kind == "limit" else {}
        if kind == "spark":
            engine = SparkEngine(master="local[2]", conf={"spark.ui.enabled": "false", "spark.driver.memory": "4g"})
            # So that starting is not counted.
            engine.session.range(10).mapInArrow(lambda batches: batches, "id long").collect()
            settings["engine"] = engine
        began = time.perf_counter()
        [report] = defs.build(**settings)
        seconds = time.perf_counter() - began
        files = sum(map(len, defs.store.require("user_spend").files.values()))
    return {"seconds": seconds, "peak": peak(), "rows": report.rows, "files": files}


MEASURES: dict[str, Measurement] = {"events": make_events, "build": run_build}


def limit(bench: Bench) -> list[Line]:
    """The peak of a build."""
    return [_peak(bench.rows, [_build(bench, bench.rows, "limit") for _ in range(bench.rounds)])]


def large(bench: Bench) -> list[Line]:
    """The peak of a build of ten times the events, and its time beside once."""
    counts = (bench.rows, 10 * bench.rows)
    runs = [[_build(bench, count, "limit") for count in counts] for _ in range(bench.rounds)]
    few, many = ([run[which] for run in runs] for which in (0, 1))
    seconds = [[each["seconds"] for each in found] for found in (few, many)]
    beside = f"{counts[0]:,} events, {shown(seconds[0])}"
    work = f"time of a build of {counts[1]:,} events under a limit of {LIMIT}"
    times = ratios(seconds[1], seconds[0])
    return [_peak(counts[1], many), Line.of("memory", work, times, beside=beside, mlforge=shown(seconds[1]), limit=11)]


def _peak(count: int, runs: list[dict[str, Any]]) -> Line:
    made = f"{shown([each['seconds'] for each in runs])}; {runs[0]['rows']:,} rows in {runs[0]['files']} files"
    work = f"peak of a build of {count:,} events under a limit of {LIMIT}"
    return Line.of("memory", work, [each["peak"] / 1000 for each in runs], mlforge=made, limit=2.5, unit="GB")


def spark(bench: Bench) -> list[Line]:
    """Spark against Polars on the same machine."""
    kinds: dict[str, list[float]] = {"polars": [], "spark": []}
    for _ in range(bench.rounds):
        for kind, seconds in kinds.items():
            seconds.append(_build(bench, bench.rows, kind)["seconds"])
    return [
        Line.of(
            "Spark",
            f"a build of {bench.rows:,} events by Spark with two threads",
            ratios(kinds["spark"], kinds["polars"]),
            beside=f"by Polars, {shown(kinds['polars'])}",
            mlforge=shown(kinds["spark"]),
            limit=3,
            reason="The rows travel to Python processes of its own, in which the same Polars does the same work.",
        )
    ]


SECTIONS: Mapping[str, Section] = {"limit": limit, "spark": spark, "large": large}


def _build(bench: Bench, count: int, kind: str) -> dict[str, Any]:
    if not (_place(bench.folder, count) / "made").exists():
        measure("events", folder=bench.folder, count=count)
        print(f"Made {count:,} events.", file=sys.stderr)
    return measure("build", folder=bench.folder, count=count, kind=kind)


def _place(folder: str | Path, count: int) -> Path:
    return Path(folder) / f"events-{count}"


def _definitions(place: Path, store: str) -> Definitions:
    windows = mlf.Rolling(windows=["7d", "30d"], aggregations={"amount": ["sum", "mean", "count"]})

    @mlf.feature(
        keys=["user_id"],
        source=f"{place}/*.parquet",
        timestamp="ts",
        interval="1d",
        metrics=[windows],
        checks={"amount is not negative": pl.col("amount") >= 0},
    )
    def user_spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.select("user_id", "ts", "amount")

    return Definitions("benchmark", features=[user_spend], store=LocalStore(store))


SCRIPT = Script(
    doc=__doc__,
    sections=SECTIONS,
    extra=["large"],
    measures=MEASURES,
    rows=10_000_000,
    quick=200_000,
    what="events; ten times as many for large",
    rounds=1,
    packages=("polars", "deltalake", "pyspark"),
)

if __name__ == "__main__":
    SCRIPT.main()
