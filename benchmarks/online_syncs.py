"""Syncs of a feature with twenty months of history: all of it, what has changed, nothing."""

import datetime as dt
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import redis
from measure import Measurement, measure, ratios, shown
from online_by_hand import user_id, values
from redis_server import HOST
from results import Line
from script import Bench

import mlforge as mlf
from mlforge import Definitions
from mlforge.online import RedisStore
from mlforge.store import LocalStore

FEATURE = "user_balance"
MONTHS = 20
STARTS = [dt.datetime(2025 + month // 12, month % 12 + 1, 1, tzinfo=dt.UTC) for month in range(MONTHS)]
SPAN = dt.timedelta(days=27)
# Of the newest month's rows, which are spread evenly, one in a hundred comes after the first of these.
AS_OF = STARTS[-1] + SPAN * 0.99
LATER = STARTS[-1] + SPAN
# One entity in so many changes.
SHARE = 100
UNCHANGED_CALLS = 21


def make_history(folder: str, count: int) -> dict[str, Any]:
    """Builds a table of two versions: a row a month and entity, and then a hundredth of the entities with one more.

    The source of the newest month has two states, of which `switch` puts the one or the other in its place.
    """
    place = _place(folder, count)
    # What a run that was stopped has left.
    shutil.rmtree(place, ignore_errors=True)
    for part in ("source", "aside"):
        (place / part).mkdir(parents=True)
    for month in range(MONTHS):
        _month(count, month).write_parquet(place / f"source/{month:02}.parquet")
    newest = place / f"source/{MONTHS - 1:02}.parquet"
    defs = _definitions(place)
    seconds = []
    for state in ("before", "after"):
        if state == "after":
            newest.rename(place / "aside/source-before")
            changed = _month(count, MONTHS).gather_every(SHARE)
            pl.concat([_month(count, MONTHS - 1), changed]).write_parquet(newest)
        began = time.perf_counter()
        [report] = defs.build()
        seconds.append(time.perf_counter() - began)
        if report.outcome != "built":
            raise AssertionError(f"The build {state} the change was {report.outcome}.")
    (place / "made").touch()
    return {"seconds": seconds}


def switch(place: Path, state: str) -> None:
    """Puts the table and its source back to `before` the change, or forward to `after` it.

    The newest commit is taken out of the table's log or put back, so that one table serves any number of rounds.
    """
    newest, commit = place / f"source/{MONTHS - 1:02}.parquet", _log(place) / f"{1:020}.json"
    aside = place / "aside"
    if (state == "before") == commit.exists():
        other = "after" if state == "before" else "before"
        newest.rename(aside / f"source-{other}")
        (aside / f"source-{state}").rename(newest)
        _move(commit, aside / "commit", back=state == "after")


def sync_difference(port: int, folder: str, count: int) -> dict[str, Any]:
    """One round of syncs: the change, all of it, and then a time that one row in a hundred has waited for."""
    place = _place(folder, count)
    redis.Redis(HOST, port, socket_timeout=60).flushall()
    defs = _definitions(place, port)
    switch(place, "before")
    found = {"first": _sync(defs, AS_OF)}
    switch(place, "after")
    found["change"] = _sync(defs, AS_OF)
    found["full"] = _sync(defs, AS_OF, full=True)
    found["time"] = _sync(defs, LATER)
    return found


def sync_unchanged(port: int, folder: str, count: int) -> dict[str, Any]:
    """Seconds for a sync after which everything is as it was; the median of several, all in one process."""
    place = _place(folder, count)
    redis.Redis(HOST, port, socket_timeout=60).flushall()
    defs = _definitions(place, port)
    switch(place, "after")
    _sync(defs, AS_OF)
    runs = [_sync(defs, AS_OF) for _ in range(UNCHANGED_CALLS)]
    return {
        "seconds": statistics.median(run["seconds"] for run in runs),
        "modes": sorted({run["mode"] for run in runs}),
    }


MEASURES: dict[str, Measurement] = {"history": make_history, "difference": sync_difference, "unchanged": sync_unchanged}


def difference(bench: Bench) -> list[Line]:
    """What a hundredth of the entities costs against all of them: time and bytes."""
    where = _made(bench, bench.rows)
    runs = [measure("difference", **where) for _ in range(bench.rounds)]
    full = [run["full"]["seconds"] for run in runs]
    lines = []
    for kind, work in (("change", "1 % of the entities changed"), ("time", "time passed 1 % of the rows")):
        last = runs[-1][kind]
        how = f"{last['mode']}, {last['written']:,} written"
        seconds = [run[kind]["seconds"] for run in runs]
        lines += [
            Line.of(
                "syncs",
                f"sync after {work} ({bench.rows:,} entities, {MONTHS} rows each)",
                ratios(seconds, full),
                against="a full sync",
                beside=shown(full),
                mlforge=f"{shown(seconds)} ({how})",
                limit=0.25,
            ),
            Line.of(
                "syncs",
                f"bytes of a sync after {work}",
                [100 * run[kind]["bytes"] / run["full"]["bytes"] for run in runs],
                against="a full sync",
                beside=f"{runs[-1]['full']['bytes'] / 1e6:,.1f} MB",
                mlforge=f"{last['bytes'] / 1e6:,.2f} MB",
                limit=2,
                unit="%",
            ),
        ]
    return lines


def unchanged(bench: Bench) -> list[Line]:
    """The whole call where nothing has changed, at a tenth of the entities and at all of them."""
    lines = []
    for count in (bench.rows // 10, bench.rows):
        where = _made(bench, count)
        runs = [measure("unchanged", **where) for _ in range(bench.rounds)]
        modes = ", ".join(runs[-1]["modes"])
        lines.append(
            Line.of(
                "syncs",
                f"sync when nothing changed ({count:,} entities, {MONTHS} rows each)",
                [1e3 * run["seconds"] for run in runs],
                mlforge=f"{shown([run['seconds'] for run in runs])} ({modes})",
                limit=50,
                unit="ms",
            )
        )
    return lines


def _made(bench: Bench, count: int) -> dict[str, Any]:
    place = _place(bench.folder, count)
    if not (place / "made").exists():
        found = measure("history", folder=bench.folder, count=count)
        first, again = found["seconds"]
        print(f"Built {MONTHS * count:,} rows in {first:.0f} s, and again in {again:.0f} s.", file=sys.stderr)
    return {"port": bench.port, "folder": bench.folder, "count": count}


def _month(count: int, month: int) -> pl.DataFrame:
    """A row an entity somewhere in a month; the month after the last one is the change, just before `AS_OF`."""
    number = pl.int_range(count, eager=True).alias("number").to_frame()
    if month < MONTHS:
        share = (pl.col("number") * 7_919 + month * 104_729) % 1_000_003 / 1_000_003
        at = STARTS[month] + (share * SPAN.total_seconds() * 1e6).cast(pl.Int64).cast(pl.Duration("us"))
    else:
        at = AS_OF - pl.duration(microseconds=pl.col("number") + 1)
    return number.select(user_id(), at.alias("at"), *values(pl.col("number") + month * 31))


def _definitions(place: Path, port: int = 6379) -> Definitions:
    @mlf.feature(keys=["user_id"], source=f"{place}/source/*.parquet", timestamp="at")
    def user_balance(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    return Definitions(
        "bench",
        features=[user_balance],
        store=LocalStore(place / "offline"),
        online_store=RedisStore(HOST, port),
    )


def _sync(defs: Definitions, as_of: dt.datetime, *, full: bool = False) -> dict[str, Any]:
    """The whole call: the look at source and table that finds nothing to build, and the sync."""
    began = time.perf_counter()
    [report] = defs.build(online=True, as_of=as_of, full=full)
    seconds = time.perf_counter() - began
    online = report.online
    if report.outcome != "skipped" or online is None:
        raise AssertionError(f"The feature was {report.outcome}, not skipped: delete the cached history and run again.")
    return {"seconds": seconds, "mode": online.mode, "written": online.written, "bytes": online.bytes}


def _place(folder: str | Path, count: int) -> Path:
    return Path(folder).absolute() / f"history-{count}"


def _log(place: Path) -> Path:
    return place / "offline" / FEATURE / "_delta_log"


def _move(path: Path, aside: Path, *, back: bool) -> None:
    if back:
        aside.rename(path)
    else:
        path.rename(aside)
