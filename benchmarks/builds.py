"""How long builds of a part, and builds that are skipped, take beside a build of all.

    python benchmarks/builds.py              10,000,000 events of a year, windows of 7 and 30 days
    python benchmarks/builds.py 0.1          a tenth of that

Every measurement is a process of its own; imports are not counted. The figure is the median of the rounds.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

import mlforge as mlf
from mlforge import Definitions
from mlforge.store import LocalStore

ROUNDS = 3
START, DAYS = datetime(2025, 1, 1, tzinfo=UTC), 365
LAST = START + timedelta(days=DAYS - 1)


def definitions(folder: Path) -> Definitions:
    """A feature over the events of a year, a file a month."""

    @mlf.feature(
        keys=["user"],
        source=folder / "events" / "*.parquet",
        timestamp="ts",
        interval="1d",
        metrics=[mlf.Rolling(windows=["7d", "30d"], aggregations={"amount": ["sum", "mean", "count"]})],
    )
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    return Definitions("bench", features=[spend], store=LocalStore(folder / "store"))


def make(folder: Path, rows: int) -> None:
    """All events but the last day's are built, which are then added."""
    (folder / "events").mkdir()
    number = pl.int_range(rows, eager=True).alias("n").to_frame()
    at = (pl.col("n").hash(1) % (DAYS * 86_400_000_000)).cast(pl.Int64)
    events = number.select(
        user=pl.col("n").hash(2) % max(1, rows // 50),
        ts=pl.lit(START) + pl.duration(microseconds=at),
        amount=(pl.col("n") * 7_919 % 1_000_003) / 100,
    ).sort("ts")
    for (month,), part in events.filter(pl.col("ts") < LAST).group_by(pl.col("ts").dt.month()):
        part.write_parquet(folder / "events" / f"{month:02}.parquet")
    definitions(folder).build()
    events.filter(pl.col("ts") >= LAST).write_parquet(folder / "events" / "13.parquet")


def measured(kind: str, folder: Path) -> float:
    """Seconds of a build, as the first thing that a process does."""
    command = [sys.executable, __file__, "--measure", kind, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds: float = json.loads(done.stdout)
    return seconds


def main(scale: float) -> None:
    """Measures the kinds in turns and prints a line each."""
    rows = int(10_000_000 * scale)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make(folder, rows)
        found: dict[str, list[float]] = {"part": [], "full": [], "skipped": []}
        for _ in range(ROUNDS):
            # All of it is computed each time, and found to be as it is but for the first.
            for kind in found:
                found[kind].append(measured(kind, folder))
    middle = {kind: statistics.median(seconds) for kind, seconds in found.items()}
    ratios = [part / full for part, full in zip(found["part"], found["full"], strict=True)]
    print(f"{rows:,} events: all {middle['full']:.2f} s, the last day {middle['part']:.2f} s", end=": ")
    print(f"{statistics.median(ratios):.3f} x ({min(ratios):.3f} to {max(ratios):.3f}); bar: at most 0.3 x")
    print(f"skipped: {middle['skipped'] * 1000:.0f} ms; bar: under 300 ms")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        project = definitions(Path(sys.argv[3]))
        began = time.perf_counter()
        if sys.argv[2] == "part":
            project.build(start=LAST, force=True)
        else:
            project.build(force=sys.argv[2] == "full")
        print(json.dumps(time.perf_counter() - began))
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
