"""The data of the online benchmark, and the same work written by hand: what mlforge is measured against.

The keys and values by hand are byte for byte mlforge's, so both sides move the same bytes. mlforge's keys have 32 hex
digits of hash; with the default prefix and an ordinary feature name a key is 51 bytes long (30 cannot be had), and a
value of six numbers about 160 bytes of JSON.
"""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import redis
from redis_server import HOST

PREFIX = "mlforge"
FEATURES = ("user_spend", "user_funds", "user_bonus")
BLOCK = 65_536

Keys = dict[str, str]


def values(seed: pl.Expr) -> list[pl.Expr]:
    """Six columns, floats and integers, that depend on nothing but a column of whole numbers."""
    total, count = (seed * 7_919 % 1_000_003) / 100, seed % 9 + 1
    return [
        total.alias("eur__sum__7d"),
        (total / count).alias("eur__mean__7d"),
        count.alias("eur__count__7d"),
        (total * 3).alias("eur__sum__30d"),
        (total / count * 1.1).alias("eur__mean__30d"),
        (count * 3).alias("eur__count__30d"),
    ]


def rows(count: int, seed: int = 0) -> pl.DataFrame:
    """One row an entity: the key `user_id` and six values."""
    number = pl.int_range(count, eager=True).alias("number").to_frame()
    return number.select(user_id(), *values(pl.col("number") + seed))


def user_id() -> pl.Expr:
    """The key of the entity that a column `number` counts."""
    return pl.format("user_{}", pl.col("number").cast(pl.String).str.zfill(7)).alias("user_id")


def entities(count: int, step: int = 1) -> list[Keys]:
    """The keys of entities in an order that has no pattern."""
    return [{"user_id": f"user_{number * 7_919 % count:07}"} for number in range(0, count, step)]


def key(feature: str, user: str) -> str:
    """The Redis key of an entity, as one would write it for one key column."""
    data = user.encode()
    return f"{PREFIX}:{feature}:{hashlib.sha256(b'7:user_id,%d:%b,' % (len(data), data)).hexdigest()[:32]}"


def reads(client: "redis.Redis") -> dict[str, Callable[..., Any]]:
    """The reads: one entity of a feature, one entity of three features with one MGET, many of a feature with one."""
    first = FEATURES[0]

    def one(entity: Keys) -> Any:
        payload = client.get(key(first, entity["user_id"]))
        return None if payload is None else orjson.loads(payload)

    def three(entity: Keys) -> list[Any]:
        data = entity["user_id"].encode()
        digest = hashlib.sha256(b"7:user_id,%d:%b," % (len(data), data)).hexdigest()[:32]
        payloads = client.mget([f"{PREFIX}:{feature}:{digest}" for feature in FEATURES])
        return [None if payload is None else orjson.loads(payload) for payload in payloads]

    def many(asked: Sequence[Keys]) -> list[Any]:
        payloads = client.mget([key(first, entity["user_id"]) for entity in asked])
        return [None if payload is None else orjson.loads(payload) for payload in payloads]

    return {"one": one, "three": three, "many": many}


def write_sets(frame: pl.DataFrame, path: Path) -> None:
    """Writes the SET commands of a frame into a file, ready for the socket."""
    with path.open("wb") as file:
        for part in frame.iter_slices(20_000):
            for record in part.to_dicts():
                name = key(FEATURES[0], record.pop("user_id")).encode()
                text = orjson.dumps(record)
                file.write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(text), text))


def send_sets(port: int, commands: bytes, count: int) -> float:
    """Seconds until a server has acknowledged commands, sent by one thread while another one drains the replies."""
    view, buffer, left = memoryview(commands), bytearray(1 << 20), count * len(b"+OK\r\n")
    with socket.create_connection((HOST, port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def send() -> None:
            for start in range(0, len(view), BLOCK):
                connection.sendall(view[start : start + BLOCK])

        sender = threading.Thread(target=send)
        began = time.perf_counter()
        sender.start()
        while left > 0:
            left -= connection.recv_into(buffer)
        seconds = time.perf_counter() - began
        sender.join()
    return seconds
