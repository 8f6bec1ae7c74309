"""The same work by other feature stores, each in an environment of its own."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import redis
from measure import Measurement, measure, rate, ratios, shown
from online_by_hand import FEATURES, entities, rows
from online_writes import make_once
from peers import FEAST, MLFORGE_SDK, Peer, install
from redis_server import HOST
from results import Line
from script import Bench

from mlforge.online import RedisStore

READ_ROWS = 1_000
READ_CALLS = 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """What is expected beside a peer.

    Attributes:
        script: What drives it.
        share: At which share of the rows it is measured, since it is slow; what is compared is the rate.
        write: The bar for writing.
        read: The bar for reading.
    """

    script: str
    share: float
    write: float
    read: float


PEERS = {
    MLFORGE_SDK: Bars(script="peer_mlforge_sdk.py", share=0.1, write=12, read=3),
    FEAST: Bars(script="peer_feast.py", share=0.02, write=30, read=9),
}


def beside(peer: Peer, bench: Bench) -> list[Line]:
    """Writes and reads of a peer, in turns with mlforge's."""
    bars, there = PEERS[peer], install(peer)
    where = make_once(bench)
    count = max(READ_ROWS, int(bench.rows * bars.share))
    path = bench.folder / f"rows-{count}.parquet"
    if not path.exists():
        rows(count).write_parquet(path)
    asked = {"port": bench.port, "count": bench.rows, "feature": FEATURES[0], "rows": READ_ROWS, "calls": READ_CALLS}
    ours: dict[str, list[float]] = {"write": [], "read": []}
    theirs: dict[str, list[float]] = {"write": [], "read": []}
    for _ in range(bench.rounds):
        ours["write"].append(measure("write", **where)["seconds"])
        ours["read"].append(measure("read", **asked)["seconds"])
        redis.Redis(HOST, bench.port, socket_timeout=60).flushall()
        for kind, seconds in there.run(bars.script, bench.port, path, READ_ROWS, READ_CALLS).items():
            theirs[kind].append(seconds)
    speed = bench.rows / count
    return [
        Line.of(
            "writes",
            "rows a second written from a frame",
            [speed * ratio for ratio in ratios(theirs["write"], ours["write"])],
            against=there.name,
            beside=f"{rate(count, theirs['write'])} ({count:,} rows)",
            mlforge=f"{rate(bench.rows, ours['write'])} ({bench.rows:,} rows)",
            limit=bars.write,
            at_least=True,
            reason="The bar is at what the server takes: see the line beside ready-made SETs.",
        ),
        Line.of(
            "reads",
            f"{READ_ROWS:,} entities as dicts",
            ratios(theirs["read"], ours["read"]),
            against=there.name,
            beside=shown(theirs["read"]),
            mlforge=shown(ours["read"]),
            limit=bars.read,
            at_least=True,
        ),
    ]


def read(port: int, count: int, feature: str, rows: int, calls: int) -> dict[str, Any]:
    """Seconds for mlforge to read so many entities, the median of some calls; as the peers' scripts do it."""
    store, asked = RedisStore(HOST, port), entities(count)[:rows]
    taken = []
    for _ in range(calls):
        began = time.perf_counter()
        found = store.read_batch(feature, asked)
        taken.append(time.perf_counter() - began)
    if any(row is None for row in found):
        raise AssertionError("What was written is not there.")
    return {"seconds": statistics.median(taken)}


MEASURES: dict[str, Measurement] = {"read": read}
