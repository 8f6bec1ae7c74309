"""Training sets and builds by other feature stores, and how many of their windows know what is still to come."""

import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import offline_builds
import offline_training
import polars as pl
from measure import Measurement, measure, ratios, shown
from peers import FEAST, MLFORGE_SDK, Peer, install
from results import Line
from script import Bench

# Calls of one process: the first one pays for what is only done once.
CALLS = 4
WINDOW_DAYS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What is expected beside a peer.

    Attributes:
        script: What drives it.
        limit: How many times as fast mlforge is to be.
        reason: Why it is not, if it is not.
    """

    script: str
    limit: float
    reason: str = ""


TRAINING = {
    FEAST: Bar(
        script="peer_feast_training.py",
        limit=10,
        reason="Of 220 ms reading takes 30, Polars' sort by time 60 and its `join_asof` by an entity 120: ten times "
        "Feast's speed is out of reach of a join by hand as well.",
    ),
    MLFORGE_SDK: Bar(script="peer_mlforge_sdk_training.py", limit=1),
}


def training(peer: Peer, bench: Bench) -> list[Line]:
    """Training sets of a tenth of the rows and a tenth as many labels, in turns with a peer's."""
    there, bar = install(peer), TRAINING[peer]
    rows = bench.rows // 10
    place = offline_training.make(bench.folder, labels=rows // 10, rows=rows)
    right = offline_training.by_hand(place)
    ours, theirs = [], []
    for _ in range(bench.rounds):
        ours.append(measure("train_often", folder=place, calls=CALLS))
        theirs.append(there.run(bar.script, place, CALLS))
    same = pl.read_parquet(place / "found.parquet").select(right.columns).sort("user", "at")
    if not same.equals(right.sort("user", "at")):
        raise AssertionError(f"{there.name} and mlforge make different training sets.")
    lines = []
    for which, name in (("first", "the first of a process"), ("seconds", "the ones after it")):
        mine, other = [run[which] for run in ours], [run[which] for run in theirs]
        lines.append(
            Line.of(
                "training sets",
                f"{rows // 10:,} labels from {rows:,} rows, {name}",
                ratios(other, mine),
                against=there.name,
                beside=shown(other),
                mlforge=shown(mine),
                limit=bar.limit,
                at_least=True,
                reason=bar.reason,
            )
        )
    return lines


def builds(engine: str, bench: Bench) -> list[Line]:
    """Windows over a tenth of the events, in one file, in turns with an engine of mlforge-sdk."""
    there = install(MLFORGE_SDK)
    count = bench.rows // 10
    place = bench.folder / f"build-peers-{count}"
    if not (place / "events").exists():
        (place / "events").mkdir(parents=True)
        events = offline_builds.events_of(count).with_columns(pl.col("ts").dt.replace_time_zone(None))
        events.write_parquet(place / "events" / "all.parquet")
    ours, theirs = [], []
    for _ in range(bench.rounds):
        ours.append(measure("first_build", folder=place)["seconds"])
        theirs.append(there.run("peer_mlforge_sdk_build.py", place, engine)["seconds"])
    leaks, rows = leaking(place)
    leak = f"{leaks / rows:.0%} of {rows:,} rows count events that are still to come"
    return [
        Line.of(
            "builds",
            f"windows over {count:,} events",
            ratios(theirs, ours),
            against=f"{there.name} ({engine})",
            beside=f"{shown(theirs)}; {leak}",
            mlforge=f"{shown(ours)}; {wrong(place)} rows are wrong",
            limit=20,
            at_least=True,
            reason="The bar is about where mlforge is: some runs are above it, some below.",
        )
    ]


def leaking(place: Path) -> tuple[int, int]:
    """How many rows of mlforge-sdk count more events than the days before their time had; and of how many rows."""
    counted = f"spend__amount__count__1d__{WINDOW_DAYS}d"
    rows = pl.read_parquet(place / "found.parquet").select("user", "ts", counted=counted)
    known = _counts(place, rows)
    return known.filter(pl.col("counted") > pl.col("before") - pl.col("gone")).height, rows.height


def wrong(place: Path) -> int:
    """How many rows of mlforge's table count other events than those of the window before their time."""
    snapshot = offline_builds.definitions(place).store.require("spend")
    stored = snapshot.collect(snapshot.scan().select("user", "ts", counted=f"amount__count__{WINDOW_DAYS}d"))
    known = _counts(place, stored.with_columns(pl.col("ts").dt.replace_time_zone(None)))
    return known.filter(pl.col("counted") != pl.col("before") - pl.col("gone")).height


def _counts(place: Path, rows: pl.DataFrame) -> pl.DataFrame:
    """Beside every row how many events there were before it, `before`, and before its window, `gone`."""
    events = (
        pl.read_parquet(place / "events" / "all.parquet").select(pl.col("user").cast(pl.Int64), "ts").sort("user", "ts")
    )
    so_far = events.with_columns(events=pl.int_range(1, pl.len() + 1).over("user")).sort("ts")
    rows = rows.with_columns(pl.col("user").cast(pl.Int64), pl.col("ts").cast(pl.Datetime("us")))
    for name, days in (("before", 0), ("gone", WINDOW_DAYS)):
        # Events at the instant itself are not before it.
        edge = pl.col("ts") - pl.duration(days=days)
        rows = (
            rows.with_columns(edge=edge)
            .sort("edge")
            .join_asof(
                so_far, left_on="edge", right_on="ts", by="user", allow_exact_matches=False, check_sortedness=False
            )
            .with_columns(pl.col("events").fill_null(0).alias(name))
            .drop("events", "edge", "ts_right")
        )
    return rows


def train_often(folder: str, calls: int) -> dict[str, Any]:
    """Seconds for training sets with labels in memory: of the first call, and the median of the others."""
    project, taken = offline_training.definitions(Path(folder)), []
    labels = pl.read_parquet(Path(folder) / "labels.parquet")
    for _ in range(calls):
        began = time.perf_counter()
        project.get_training_data(["state"], labels, timestamp="at")
        taken.append(time.perf_counter() - began)
    return {"first": taken[0], "seconds": statistics.median(taken[1:])}


def first_build(folder: str) -> dict[str, Any]:
    """Seconds for a build where there is no table."""
    project = offline_builds.definitions(Path(folder))
    shutil.rmtree(Path(folder) / "store", ignore_errors=True)
    began = time.perf_counter()
    project.build()
    return {"seconds": time.perf_counter() - began}


MEASURES: dict[str, Measurement] = {"train_often": train_often, "first_build": first_build}
