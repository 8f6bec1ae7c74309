"""How long change points take, against the time that Polars takes to sort the same events.

    python benchmarks/windows.py                       10 million events; about three minutes
    python benchmarks/windows.py --rows 1000000        fewer
    python benchmarks/windows.py --cache FOLDER        keeps the events there

Events of 10,000 entities (Zipf) over a year; interval 1d, windows 7d and 30d, sum, mean, count, min, max. Every
measurement is a process of its own, the kinds in turn, so that a drift of the machine's speed meets all of them; a
figure is the median of the rounds, with their range. Memory is the peak of the whole process, interpreter and input
included. What was found goes to build/bench/windows.json. Linux only.
"""

import random
import tempfile
import time
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl
from measure import Measurement, measure, peak, ratios, shown
from results import Line
from script import Bench, Script, Section

import mlforge as mlf
from mlforge.store import LocalStore
from mlforge.windows import change_points

ENTITIES = 10_000
YEAR_US = 365 * 86_400 * 1_000_000
START_US = 1_483_228_800_000_000
METRICS = [mlf.Rolling(windows=["7d", "30d"], aggregations={"amount": ["sum", "mean", "count", "min", "max"]})]


def make_events(path: str) -> dict[str, Any]:
    """Writes as many events as the file is called after, in random order."""
    random.seed(7)
    count = int(Path(path).stem.removeprefix("windows-"))
    weights = list(accumulate(1 / rank for rank in range(1, ENTITIES + 1)))
    users = random.choices(range(ENTITIES), cum_weights=weights, k=count)
    times = [START_US + int(random.random() * YEAR_US) for _ in range(count)]
    amounts = [round(random.expovariate(1 / 30), 2) for _ in range(count)]
    frame = pl.DataFrame({"user_id": users, "ts": times, "amount": amounts})
    frame.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC"))).write_parquet(path)
    return {}


def sort(path: str) -> dict[str, Any]:
    """Sorts the events by entity and time."""
    events = pl.read_parquet(path)
    began = time.perf_counter()
    events.sort("user_id", "ts")
    return {"seconds": time.perf_counter() - began, "peak": peak()}


def points(path: str) -> dict[str, Any]:
    """Computes the change points of events that are in memory."""
    events = pl.read_parquet(path)
    began = time.perf_counter()
    change_points(events, keys=["user_id"], timestamp="ts", interval="1d", metrics=METRICS)
    return {"seconds": time.perf_counter() - began, "peak": peak()}


def whole_build(path: str) -> dict[str, Any]:
    """A first build: reads, computes, publishes."""

    @mlf.feature(keys=["user_id"], source=path, timestamp="ts", interval="1d", metrics=METRICS)
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.select("user_id", "ts", "amount")

    with tempfile.TemporaryDirectory() as folder:
        defs = mlf.Definitions("bench", features=[spend], store=LocalStore(folder))
        began = time.perf_counter()
        defs.build()
        return {"seconds": time.perf_counter() - began, "peak": peak()}


# Making the events is a process of its own too: a process is charged with the peak of the one that started it.
MEASURES: dict[str, Measurement] = {"events": make_events, "sort": sort, "points": points, "build": whole_build}


def change(bench: Bench) -> list[Line]:
    """Change points and a whole build against a sort, and change points of a tenth of the events."""
    paths = [bench.folder / f"windows-{count}.parquet" for count in (bench.rows, bench.rows // 10)]
    for path in paths:
        if not path.exists():
            measure("events", path=path)
    everything, few = paths
    kinds = {"sort": everything, "points": everything, "build": everything, "points of few": few}
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for _ in range(bench.rounds):
        for kind, path in kinds.items():
            runs[kind].append(measure(kind.removesuffix(" of few"), path=path))
    seconds = {kind: [run["seconds"] for run in found] for kind, found in runs.items()}
    lines = []
    for kind, work, times, gigabytes in (("points", "change points", 1.2, 1.5), ("build", "a whole build", 2.0, 2.0)):
        lines += [
            Line.of(
                "windows",
                f"{work} of {bench.rows:,} events, 2 windows and 5 aggregations",
                ratios(seconds[kind], seconds["sort"]),
                against="one sort of the events",
                beside=shown(seconds["sort"]),
                mlforge=shown(seconds[kind]),
                limit=times,
                reason="A sort is the least there is to do: windows, and in a build reading and writing, come on top.",
            ),
            Line.of(
                "windows",
                f"peak of {work} of {bench.rows:,} events",
                [run["peak"] / 1000 for run in runs[kind]],
                limit=gigabytes,
                unit="GB",
            ),
        ]
    return [
        *lines,
        Line.of(
            "windows",
            f"change points of {bench.rows:,} events",
            ratios(seconds["points"], seconds["points of few"]),
            beside=f"{bench.rows // 10:,} events, {shown(seconds['points of few'])}",
            mlforge=shown(seconds["points"]),
            limit=11,
        ),
    ]


SECTIONS: Mapping[str, Section] = {"change": change}
SCRIPT = Script(
    doc=__doc__,
    sections=SECTIONS,
    measures=MEASURES,
    rows=10_000_000,
    quick=100_000,
    what="events",
    rounds=3,
    packages=("polars", "deltalake"),
)

if __name__ == "__main__":
    SCRIPT.main()
