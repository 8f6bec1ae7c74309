"""Reads: one entity, three features of one, a thousand entities as dicts and as a frame."""

import tempfile
from collections.abc import Callable
from typing import Any

import polars as pl
import redis
from measure import Measurement, in_turns, measure, ratios, shown
from online_by_hand import FEATURES, Keys, entities, reads, rows
from online_writes import put
from redis_server import HOST
from results import Line
from script import Bench

import mlforge as mlf
from mlforge import Definitions
from mlforge.online import RedisStore
from mlforge.store import LocalStore

LOADED = 100_000
THOUSAND = 1_000


def load(port: int, count: int) -> dict[str, Any]:
    """Puts three features online."""
    for number, feature in enumerate(FEATURES):
        put(RedisStore(HOST, port), feature, rows(count, seed=number * 1_000))
    return {}


def read_one(port: int, count: int, rounds: int) -> dict[str, Any]:
    """Seconds to read one entity of one feature: the key's hash, the round trip, the JSON."""
    store, by_hand = RedisStore(HOST, port), reads(redis.Redis(HOST, port))["one"]
    works = {"hand": by_hand, "mlforge": lambda entity: store.read(FEATURES[0], entity)}
    return _compared(works, entities(count), rounds=rounds, calls=2_000)


def read_three(port: int, count: int, rounds: int) -> dict[str, Any]:
    """Seconds to read one entity of three features."""
    store, by_hand = RedisStore(HOST, port), reads(redis.Redis(HOST, port))["three"]

    def mlforge(entity: Keys) -> list[Any]:
        found = store.read_features({feature: [entity] for feature in FEATURES})
        return [found[feature][0] for feature in FEATURES]

    return _compared({"hand": by_hand, "mlforge": mlforge}, entities(count), rounds=rounds, calls=2_000)


def read_thousand(port: int, count: int, rounds: int) -> dict[str, Any]:
    """Seconds to read a thousand entities of one feature: as dicts, and as a frame from a frame and from dicts."""
    store, by_hand = RedisStore(HOST, port), reads(redis.Redis(HOST, port))["many"]
    everyone = entities(count)
    asked = [everyone[start : start + THOUSAND] for start in range(0, count, THOUSAND)]
    found = _compared(
        {"hand": by_hand, "mlforge": lambda many: store.read_batch(FEATURES[0], many)}, asked, rounds=rounds, calls=50
    )
    with tempfile.TemporaryDirectory() as folder:
        defs = _definitions(folder, store)
        first = defs.get_online_features([FEATURES[0]], asked[0])
        if first.drop("user_id").to_dicts() != by_hand(asked[0]):
            raise AssertionError("The frame does not hold what was read by hand.")
        both = [(many, pl.DataFrame(many)) for many in asked]
        works: dict[str, Callable[[tuple[list[Keys], pl.DataFrame]], object]] = {
            "hand, beside the frame": lambda pair: by_hand(pair[0]),
            "frame": lambda pair: defs.get_online_features([FEATURES[0]], pair[1]),
            "frame from dicts": lambda pair: defs.get_online_features([FEATURES[0]], pair[0]),
        }
        return found | in_turns(works, both, rounds=rounds, calls=50)


def _compared(works: dict[str, Callable[[Any], Any]], inputs: list[Any], *, rounds: int, calls: int) -> Any:
    for each in inputs[:20]:
        if works["hand"](each) != works["mlforge"](each):
            raise AssertionError(f"By hand and by mlforge {each!r} has different values.")
    return in_turns(works, inputs, rounds=rounds, calls=calls)


def _definitions(folder: str, store: RedisStore) -> Definitions:
    """A project around what is online; its source is never read."""

    @mlf.feature(keys=["user_id"], source=f"{folder}/none.parquet")
    def user_spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    return Definitions("bench", features=[user_spend], store=LocalStore(folder), online_store=store)


MEASURES: dict[str, Measurement] = {"load": load, "one": read_one, "three": read_three, "thousand": read_thousand}


def _found(bench: Bench, kind: str) -> dict[str, list[float]]:
    count = min(LOADED, bench.rows)
    measure("load", port=bench.port, count=count)
    # A round is short here, and a drift of the machine's speed is not: more rounds.
    return measure(kind, port=bench.port, count=count, rounds=5 * bench.rounds)


def one(bench: Bench) -> list[Line]:
    """One entity against GET and orjson."""
    found = _found(bench, "one")
    return [_line("one entity, p50", found, "mlforge", limit=0.8)]


def three(bench: Bench) -> list[Line]:
    """Three features of one entity against MGET and orjson."""
    found = _found(bench, "three")
    return [_line("3 features of one entity, p50", found, "mlforge", limit=1.1)]


def thousand(bench: Bench) -> list[Line]:
    """A thousand entities against MGET and orjson, which make dicts."""
    found = _found(bench, "thousand")
    frame, reason = "hand, beside the frame", "By hand there are dicts and no frame."
    return [
        _line("1,000 entities as dicts", found, "mlforge", limit=1.0),
        _line("1,000 entities of a frame, as a frame", found, "frame", limit=0.8, hand=frame, reason=reason),
        _line("1,000 entities of dicts, as a frame", found, "frame from dicts", limit=0.8, hand=frame, reason=reason),
    ]


def _line(
    work: str, found: dict[str, list[float]], kind: str, *, limit: float, hand: str = "hand", reason: str = ""
) -> Line:
    return Line.of(
        "reads",
        work,
        ratios(found[kind], found[hand]),
        against="by hand",
        beside=shown(found[hand]),
        mlforge=shown(found[kind]),
        limit=limit,
        reason=reason,
    )
