"""How much memory a sync takes under a limit, and what that costs in time.

    python benchmarks/memory_sync.py                   with 1 GB; about six minutes, 6 GB of disk, 12 GB of memory
    python benchmarks/memory_sync.py 1GB 2GB           with other limits; as long for each
    python benchmarks/memory_sync.py --rows 1000000    with fewer entities than ten million
    python benchmarks/memory_sync.py --cache FOLDER    keeps the tables there

A feature has three months with a row an entity in each, and six value columns. Each sync is a process of its own, in
which nothing else is done; its peak is what the system says of it (`ru_maxrss`). The first one writes all entities;
before the second one a month has passed in which every entity got another value; before the third one the oldest month
was written anew, so that every entity is compared and none differs; before the last one nothing has happened. The same
is done with a tenth of the entities. What was found goes to build/bench/memory_sync.json. Linux only.
"""

import datetime as dt
import shutil
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import redis
from measure import Measurement, measure, peak
from online_by_hand import user_id, values
from redis_server import HOST
from results import Line
from script import Bench, Script, Section

import mlforge as mlf
from mlforge import Definitions
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from mlforge.sync import SyncRequest, sync

FEATURE = "user_balance"
MONTHS = 3
STARTS = [dt.datetime(2026, month + 1, 1, tzinfo=dt.UTC) for month in range(MONTHS + 1)]
SPAN = dt.timedelta(days=27)
GB = 10**9
LIMITS = {"1GB": GB, "2GB": 2 * GB}
# By sync: which version of the table there is, when it is, and what has to be found.
SYNCS = {
    "first": (0, STARTS[2], "full"),
    "all differ": (0, STARTS[3], "difference"),
    "compared": (1, STARTS[3] + SPAN, "unchanged"),
    "unchanged": (1, STARTS[3] + SPAN, "unchanged"),
}
# Beyond the limit; and how many times what a tenth of the entities take.
OVER_MB, TIMES = 500, 11


def make_table(folder: str, count: int) -> dict[str, Any]:
    """Builds a table of two versions, of which the second one has other values in the oldest month."""
    place = _place(folder, count)
    shutil.rmtree(place, ignore_errors=True)
    (place / "source").mkdir(parents=True)
    for month in range(MONTHS):
        _month(count, month, month * 31).write_parquet(place / f"source/{month}.parquet")
    defs = _definitions(place)
    defs.build()
    _month(count, 0, 17).write_parquet(place / "source/0.parquet")
    defs.build(start=STARTS[0], end=STARTS[1])
    shutil.rmtree(place / "source")
    (place / "made").touch()
    return {}


def run_sync(port: int, folder: str, count: int, limit: int, kind: str) -> dict[str, Any]:
    """One sync, and the most memory that this process has ever had."""
    place = _place(folder, count)
    version, as_of, mode = SYNCS[kind]
    _put_version(place, version)
    request = SyncRequest(feature_name=FEATURE, as_of=as_of, memory_limit=limit)
    with RedisStore(HOST, port) as store:
        began, cpu = time.perf_counter(), time.process_time()
        report = sync(request, LocalStore(place / "offline"), store)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    # Of a million entities one has the same values a month later, by chance.
    if report.mode != mode or round(report.written / count, 3) != (mode != "unchanged"):
        raise AssertionError(f"The sync was {report}.")
    return {"seconds": seconds, "cpu": cpu_seconds, "peak": peak()}


MEASURES: dict[str, Measurement] = {"table": make_table, "sync": run_sync}


def under(limit: int, bench: Bench) -> list[Line]:
    """Peaks under a limit, and ten times the entities against once."""
    counts = (bench.rows // 10, bench.rows)
    runs = {count: [_round(bench, count, limit) for _ in range(bench.rounds)] for count in counts}
    found = [_peak(limit, count, kind, [each[kind] for each in runs[count]]) for count in counts for kind in SYNCS]
    few, many = (runs[count] for count in counts)
    # What has nothing to compare is over in milliseconds, whatever there is.
    for kind in list(SYNCS)[:-1]:
        times = [b[kind]["seconds"] / a[kind]["seconds"] for a, b in zip(few, many, strict=True)]
        work = f"time of a sync of {counts[1]:,} entities, {kind}, limit {limit / GB:g} GB"
        beside, took = (f"{runs[-1][kind]['seconds']:.1f} s" for runs in (few, many))
        beside = f"{counts[0]:,} entities, {beside}"
        reason = "Each part of the table that fits into the limit reads the whole table once more."
        found.append(Line.of("memory", work, times, beside=beside, mlforge=took, limit=TIMES, reason=reason))
    return found


def _round(bench: Bench, count: int, limit: int) -> dict[str, dict[str, Any]]:
    if not (_place(bench.folder, count) / "made").exists():
        measure("table", folder=bench.folder, count=count)
        print(f"Built {MONTHS * count:,} rows.", file=sys.stderr)
    server = redis.Redis(HOST, bench.port, socket_timeout=600)
    server.flushall()
    found = {}
    for kind in SYNCS:
        one = measure("sync", port=bench.port, folder=bench.folder, count=count, limit=limit, kind=kind)
        found[kind] = one | {"bytes": server.info("memory")["used_memory"] / server.dbsize()}
    server.flushall()
    return found


def _peak(limit: int, count: int, kind: str, runs: list[dict[str, Any]]) -> Line:
    last = runs[-1]
    return Line.of(
        "memory",
        f"peak of a sync of {count:,} entities, {kind}, limit {limit / GB:g} GB",
        [run["peak"] for run in runs],
        beside=f"{last['bytes']:.0f} bytes a key in the server",
        mlforge=f"{last['seconds']:.1f} s, {last['cpu']:.1f} s of CPU",
        limit=limit / 1e6 + OVER_MB,
        unit="MB",
    )


def _month(count: int, month: int, seed: int) -> pl.DataFrame:
    number = pl.int_range(count, eager=True).alias("number").to_frame()
    share = (pl.col("number") * 7_919 + month * 104_729) % 1_000_003 / 1_000_003
    at = STARTS[month] + (share * SPAN.total_seconds() * 1e6).cast(pl.Int64).cast(pl.Duration("us"))
    return number.select(user_id(), at.alias("at"), *values(pl.col("number") + seed))


def _definitions(place: Path) -> Definitions:
    @mlf.feature(keys=["user_id"], source=f"{place}/source/*.parquet", timestamp="at")
    def user_balance(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    return Definitions("bench", features=[user_balance], store=LocalStore(place / "offline"))


def _put_version(place: Path, version: int) -> None:
    """Takes the newest commit out of the table's log, or puts it back."""
    commit, aside = place / "offline" / FEATURE / "_delta_log" / f"{1:020}.json", place / "commit"
    if version == 0 and commit.exists():
        commit.rename(aside)
    elif version == 1 and aside.exists():
        aside.rename(commit)


def _place(folder: str | Path, count: int) -> Path:
    return Path(folder).absolute() / f"months-{count}"


SECTIONS: Mapping[str, Section] = {name: partial(under, limit) for name, limit in LIMITS.items()}
SCRIPT = Script(
    doc=__doc__,
    sections=SECTIONS,
    extra=["2GB"],
    measures=MEASURES,
    rows=10_000_000,
    quick=100_000,
    what="entities of a feature",
    rounds=1,
    packages=("redis", "hiredis", "polars", "deltalake"),
    server=True,
)

if __name__ == "__main__":
    SCRIPT.main()
