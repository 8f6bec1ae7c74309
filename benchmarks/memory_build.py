"""How builds grow under a memory limit, and how Spark compares with Polars, both on this machine.

    python benchmarks/memory_build.py                  everything; about half an hour, 14 GB of disk
    python benchmarks/memory_build.py limit            some sections: limit spark
    python benchmarks/memory_build.py --rows 10000000  with fewer events than a hundred million; Spark has a tenth
    python benchmarks/memory_build.py --cache FOLDER   keeps the events there

A year of events of 25 an entity, in files of 2.5 million; two windows of three aggregations by day. Each build is a
process of its own, in which nothing else is done; its peak is what the system says of it (`ru_maxrss`). Spark has two
threads, each with Python processes of its own, and a session that was there before the clock starts. Linux only.
"""

import datetime as dt
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from measure import Bench, Measurement, Row, asked, chosen, kept, measure, packages, peak, print_table, ratios, shown

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


def limit(bench: Bench) -> list[Row]:
    """Ten times the events against once, and the peaks."""
    counts = (bench.rows // 10, bench.rows)
    found = {count: [_build(bench, count, "limit") for _ in range(bench.rounds)] for count in counts}
    few, many = ([each["seconds"] for each in found[count]] for count in counts)
    rows = []
    for count, runs in found.items():
        made = f"{shown([each['seconds'] for each in runs])}; {runs[0]['rows']:,} rows in {runs[0]['files']} files"
        work = f"a build of {count:,} events under a limit of {LIMIT}, peak of the process"
        peaks = [each["peak"] / 1000 for each in runs]
        rows.append(Row(work=work, beside="", mlforge=made, found=peaks, limit=2.5, unit="GB"))
    work = f"its time at {counts[1]:,} events"
    beside = f"{counts[0]:,} events, {shown(few)}"
    return [*rows, Row(work=work, beside=beside, mlforge=shown(many), found=ratios(many, few), limit=11)]


def spark(bench: Bench) -> list[Row]:
    """Spark against Polars on the same machine."""
    count = bench.rows // 10
    kinds: dict[str, list[float]] = {"polars": [], "spark": []}
    for _ in range(bench.rounds):
        for kind, seconds in kinds.items():
            seconds.append(_build(bench, count, kind)["seconds"])
    times = ratios(kinds["spark"], kinds["polars"])
    work = f"a build of {count:,} events by Spark with two threads"
    return [
        Row(work=work, beside=f"Polars, {shown(kinds['polars'])}", mlforge=shown(kinds["spark"]), found=times, limit=3)
    ]


SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {"limit": limit, "spark": spark}


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


def main() -> None:
    """Runs the sections that are asked for."""
    asked_for = chosen(__doc__, SECTIONS, rows=100_000_000, what="events; Spark has a tenth", rounds=1)
    with kept(asked_for.cache) as folder:
        bench = Bench(folder=folder, rows=asked_for.rows, rounds=asked_for.rounds)
        print_table(bench, SECTIONS, asked_for.sections, packages("polars", "deltalake", "pyspark"))


if __name__ == "__main__":
    if not asked(MEASURES):
        main()
