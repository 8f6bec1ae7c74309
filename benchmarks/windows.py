"""How long change points take, against the time that Polars takes to sort the same events.

    python benchmarks/windows.py            10 million events; about three minutes
    python benchmarks/windows.py 1000000    fewer

Events of 10,000 entities (Zipf) over a year; interval 1d, windows 7d and 30d, sum, mean, count, min, max. Every
measurement is a process of its own, the kinds in turn, so that a drift of the machine's speed meets all of them;
the figures are medians. Memory is the peak of the whole process, interpreter and input included.
"""

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path

import polars as pl

import mlforge as mlf
from mlforge.build import build
from mlforge.store import LocalStore
from mlforge.windows import change_points

ENTITIES = 10_000
YEAR_US = 365 * 86_400 * 1_000_000
START_US = 1_483_228_800_000_000
METRICS = [mlf.Rolling(windows=["7d", "30d"], aggregations={"amount": ["sum", "mean", "count", "min", "max"]})]
RUNS = 3


def make_events(path: Path) -> None:
    """Writes as many events as the file is called after, in random order."""
    random.seed(7)
    count = int(path.stem)
    weights = list(accumulate(1 / rank for rank in range(1, ENTITIES + 1)))
    users = random.choices(range(ENTITIES), cum_weights=weights, k=count)
    times = [START_US + int(random.random() * YEAR_US) for _ in range(count)]
    amounts = [round(random.expovariate(1 / 30), 2) for _ in range(count)]
    frame = pl.DataFrame({"user_id": users, "ts": times, "amount": amounts})
    frame.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC"))).write_parquet(path)


def sort(path: Path) -> float:
    """Seconds to sort the events by entity and time."""
    events = pl.read_parquet(path)
    began = time.perf_counter()
    events.sort("user_id", "ts")
    return time.perf_counter() - began


def points(path: Path) -> float:
    """Seconds to compute the change points of events that are in memory."""
    events = pl.read_parquet(path)
    began = time.perf_counter()
    change_points(events, keys=["user_id"], timestamp="ts", interval="1d", metrics=METRICS)
    return time.perf_counter() - began


def whole_build(path: Path) -> float:
    """Seconds for a first build: read, compute, publish."""

    @mlf.feature(keys=["user_id"], source=path, timestamp="ts", interval="1d", metrics=METRICS)
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.select("user_id", "ts", "amount")

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        build(spend, LocalStore(folder))
        return time.perf_counter() - began


# Making the events is a process of its own too: a process is charged with the peak of the one that started it.
KINDS = {"sort": sort, "points": points, "build": whole_build}


def measure(kind: str, path: Path) -> dict[str, float]:
    """One kind in a process of its own: seconds, and peak memory in GB."""
    command = [sys.executable, __file__, "--one", kind, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main(count: int) -> None:
    """Measures at a tenth of the events and at all of them, and prints the ratios."""
    found: dict[tuple[int, str], dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in (count // 10, count):
            path = Path(folder) / f"{size}.parquet"
            subprocess.run([sys.executable, __file__, "--make", str(path)], check=True)
            runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
            for _ in range(RUNS):
                for kind in KINDS:
                    runs[kind].append(measure(kind, path))
            for kind, each in runs.items():
                found[size, kind] = {f: statistics.median(run[f] for run in each) for f in ("seconds", "gigabytes")}
    print(f"Polars {pl.__version__}, Python {sys.version.split()[0]}, {RUNS} runs each, medians\n")
    print(f"{'events':>12} {'work':<8} {'seconds':>8} {'x sort':>7} {'GB':>6}")
    for (size, kind), figures in found.items():
        ratio = figures["seconds"] / found[size, "sort"]["seconds"]
        print(f"{size:>12,} {kind:<8} {figures['seconds']:>8.2f} {ratio:>7.2f} {figures['gigabytes']:>6.2f}")
    growth = found[count, "points"]["seconds"] / found[count // 10, "points"]["seconds"]
    print(f"\nTen times the events take {growth:.1f} x the time to compute.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        make_events(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--one"]:
        seconds = KINDS[sys.argv[2]](Path(sys.argv[3]))
        # Kilobytes on Linux, bytes on macOS.
        unit = 1e9 if sys.platform == "darwin" else 1e6
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        print(json.dumps({"seconds": seconds, "gigabytes": peak}))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
