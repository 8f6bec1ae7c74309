"""Runs in the environment of mlforge-sdk: writes a frame online and reads it, and prints the seconds as JSON."""

import json
import statistics
import sys
import time

import polars as pl

from mlforge.online import RedisStore

FEATURE = "user_spend"


def main(port: int, path: str, read_rows: int, calls: int) -> None:
    """Writes all rows of the file, and reads some of them several times."""
    frame = pl.read_parquet(path)
    store = RedisStore("127.0.0.1", port)
    store.write_batch(FEATURE, frame.head(100).to_dicts(), ["user_id"])
    began = time.perf_counter()
    written = store.write_batch(FEATURE, frame.to_dicts(), ["user_id"])
    wrote = time.perf_counter() - began
    asked = frame.select("user_id").sample(read_rows, seed=1).to_dicts()
    taken = []
    for _ in range(calls):
        began = time.perf_counter()
        found = store.read_batch(FEATURE, asked)
        taken.append(time.perf_counter() - began)
    if written != frame.height or any(row is None for row in found):
        raise AssertionError("What was written is not there.")
    print(json.dumps({"write": wrote, "read": statistics.median(taken)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
