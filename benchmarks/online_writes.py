"""Writes: a whole frame against ready-made commands on a raw socket, the writer's memory, and readers meanwhile."""

import datetime as dt
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import redis
from measure import Measurement, measure, rate, ratios
from online_by_hand import FEATURES, entities, key, reads, rows, send_sets, write_sets
from redis_server import HOST
from results import Line
from script import Bench

from mlforge.online import RedisStore, Status

FEATURE = FEATURES[0]
# Long enough that nothing expires while it is measured.
TTL = 86_400
SAMPLE = 1_000


def put(store: RedisStore, feature: str, frame: pl.DataFrame) -> None:
    """Writes a whole frame as a sync does, where nothing is to be deleted: lock, status, fenced chunks, status."""
    keys = frame.select("user_id")
    status = Status(
        key_columns=("user_id",),
        schema=dict(frame.drop("user_id").schema),
        table_id="table",
        delta_version=1,
        version="1.0.1",
        location="/bench",
        definition_hash="bench",
        as_of=dt.datetime(2026, 9, 1, tzinfo=dt.UTC),
    )
    with store.turn(feature) as turn:
        turn.publish(frame, keys.clear(), status)


def make(folder: str, count: int) -> dict[str, Any]:
    """Writes the frame, and the commands that are its floor."""
    frame = rows(count)
    frame.write_ipc(_frame_file(folder, count), compression="uncompressed")
    write_sets(frame, _sets_file(folder, count))
    return {}


def write_by_hand(port: int, folder: str, count: int) -> dict[str, Any]:
    """Seconds for ready-made SETs over a raw socket, into an empty server."""
    commands = _sets_file(folder, count).read_bytes()
    redis.Redis(HOST, port, socket_timeout=60).flushall()
    seconds = send_sets(port, commands, count)
    _check(port, folder, count)
    return {"seconds": seconds}


def write(port: int, folder: str, count: int, ttl: int | None = None, empty: bool = True) -> dict[str, Any]:
    """Seconds for mlforge to write the frame, when that was, and how much memory it took beyond the frame."""
    client = redis.Redis(HOST, port, socket_timeout=60)
    store = RedisStore(HOST, port, ttl=ttl)
    # What is imported and connected at first use.
    put(store, FEATURES[1], rows(SAMPLE))
    if empty:
        client.flushall()
    frame = pl.read_ipc(_frame_file(folder, count))
    before = _start_peak()
    began = time.perf_counter()
    put(store, FEATURE, frame)
    ended = time.perf_counter()
    megabytes = (_status("VmHWM") - before) / 1e3
    _check(port, folder, count)
    return {"seconds": ended - began, "began": began, "ended": ended, "megabytes": megabytes}


def read_on(port: int, count: int, kind: str) -> dict[str, Any]:
    """Reads single entities without a pause until a line on the standard input says from when to when is asked.

    Returns:
        The p99 and the longest of the reads that began in that time, in milliseconds.
    """
    store, by_hand = RedisStore(HOST, port), reads(redis.Redis(HOST, port))["one"]
    read = by_hand if kind == "hand" else lambda entity: store.read(FEATURE, entity)
    everyone = entities(count, step=max(1, count // 100_000))
    clock, asked, taken = time.perf_counter, list[str](), list[tuple[float, float]]()
    for entity in everyone[:SAMPLE]:
        read(entity)
    print("ready", flush=True)
    threading.Thread(target=lambda: asked.append(sys.stdin.readline()), daemon=True).start()
    while not asked:
        for entity in everyone[:SAMPLE]:
            began = clock()
            if read(entity) is None:
                raise AssertionError(f"{entity} is not there.")
            taken.append((began, clock() - began))
        everyone = everyone[SAMPLE:] + everyone[:SAMPLE]
    first, last = json.loads(asked[0])
    found = sorted(seconds for began, seconds in taken if first <= began <= last)
    return {"p99": found[int(0.99 * (len(found) - 1))] * 1e3, "longest": found[-1] * 1e3}


MEASURES: dict[str, Measurement] = {"make": make, "write by hand": write_by_hand, "write": write, "read on": read_on}


def whole_frame(bench: Bench) -> list[Line]:
    """Rows a second against the floor, without and with a TTL, and memory."""
    where = make_once(bench)
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "hand": ("write by hand", where),
        "mlforge": ("write", where),
        "ttl": ("write", where | {"ttl": TTL}),
    }
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for number in range(bench.rounds):
        for kind in list(kinds) if number % 2 else reversed(kinds):
            measurement, arguments = kinds[kind]
            found[kind].append(measure(measurement, **arguments))
    seconds = {kind: [run["seconds"] for run in runs] for kind, runs in found.items()}
    memory = [max(a["megabytes"], b["megabytes"]) for a, b in zip(found["mlforge"], found["ttl"], strict=True)]
    work = f"{bench.rows:,} rows written from a frame"
    return [
        Line.of(
            "writes",
            f"{work}{how}",
            ratios(seconds["hand"], seconds[kind]),
            against="ready-made SETs",
            beside=rate(bench.rows, seconds["hand"]),
            mlforge=rate(bench.rows, seconds[kind]),
            limit=limit,
            at_least=True,
            reason=reason,
        )
        for kind, how, limit, reason in (
            (
                "mlforge",
                "",
                0.7,
                "Nothing has to be encoded for ready-made commands: they are the limit of the server.",
            ),
            (
                "ttl",
                ", with a TTL",
                0.45,
                "There is one `SET .. EX` and one reply a key, where `MSET` has one of many.",
            ),
        )
    ] + [Line.of("writes", f"memory of {work}, above the frame", memory, limit=400, unit="MB")]


def reader(bench: Bench) -> list[Line]:
    """The p99 of a process that reads without a pause while another one rewrites all entities."""
    where = make_once(bench)
    measure("write", **where)
    lines = []
    for how, ttl in (("", None), (", with a TTL", TTL)):
        alone, meanwhile, by_hand = [], [], []
        for _ in range(bench.rounds):
            alone.append(_read_while(bench, "mlforge", None))
            meanwhile.append(_read_while(bench, "mlforge", {"ttl": ttl}))
            by_hand.append(_read_while(bench, "hand", {"ttl": ttl}))
        p99 = [run["p99"] for run in meanwhile]
        quiet, hand = (sorted(run["p99"] for run in runs)[len(runs) // 2] for runs in (alone, by_hand))
        longest = max(run["longest"] for run in meanwhile)
        lines.append(
            Line.of(
                "reads",
                f"p99 of a reader while {bench.rows:,} rows are written{how}",
                p99,
                beside=f"nobody writes {quiet:.2f} ms; redis-py reads meanwhile {hand:.2f} ms",
                mlforge=f"longest {longest:.1f} ms",
                limit=3,
                unit="ms",
            )
        )
    return lines


def _read_while(bench: Bench, kind: str, writing: dict[str, Any] | None) -> dict[str, Any]:
    arguments = json.dumps({"port": bench.port, "count": bench.rows, "kind": kind})
    command = [sys.executable, str(Path(__file__).with_name("online.py")), "--measure", "read on", arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("The reader did not start.")
        if writing is None:
            began = time.perf_counter()
            time.sleep(1)
            when = (began, time.perf_counter())
        else:
            run = measure("write", **make_once(bench), **writing, empty=False)
            when = (run["began"], run["ended"])
        out, _ = process.communicate(json.dumps(when) + "\n")
    found: dict[str, Any] = json.loads(out)
    return found


def make_once(bench: Bench) -> dict[str, Any]:
    """Makes the frame and its commands unless they are there; where they are, as arguments of a measurement."""
    if not _sets_file(bench.folder, bench.rows).exists():
        measure("make", folder=bench.folder, count=bench.rows)
    return {"port": bench.port, "folder": bench.folder, "count": bench.rows}


def _check(port: int, folder: str, count: int) -> None:
    """Both ways of writing leave the same bytes."""
    client = redis.Redis(HOST, port, socket_timeout=60)
    sample = pl.read_ipc(_frame_file(folder, count), n_rows=SAMPLE).to_dicts()
    users = [record.pop("user_id") for record in sample]
    found = client.mget([key(FEATURE, user) for user in users])
    if found != [orjson.dumps(record) for record in sample] or client.dbsize() < count:
        raise AssertionError("What was written is not there.")


def _frame_file(folder: str | Path, count: int) -> Path:
    return Path(folder) / f"rows-{count}.arrow"


def _sets_file(folder: str | Path, count: int) -> Path:
    return Path(folder) / f"sets-{count}.resp"


def _start_peak() -> int:
    """Forgets the peak of the memory so far; kilobytes that are in use."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    """A figure of this process in kilobytes; Linux only."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])
