"""How fast training sets are made, against a join_asof written by hand in Polars over the same table.

    python benchmarks/training.py                    1,000,000 labels, 10,000,000 rows
    python benchmarks/training.py 0.1                a tenth of both

Every measurement is a process of its own and includes reading; the figure is the median of the rounds' ratios.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

import mlforge as mlf
from mlforge import Definitions
from mlforge.store import LocalStore

ROUNDS = 3
ENTITIES = 500_000
START, DAYS = datetime(2025, 1, 1, tzinfo=UTC), 360
COLUMNS = ["a", "b", "c", "d"]


def events(rows: int, seed: int) -> pl.DataFrame:
    """Rows of entities at instants without a pattern."""
    number = pl.int_range(rows, eager=True).alias("n").to_frame()
    mixed = (pl.col("n") * 7_919 + seed) % 1_000_003
    return number.select(
        user=((pl.col("n") * 104_729 + seed) % ENTITIES),
        at=pl.lit(START) + pl.duration(microseconds=(pl.col("n").hash(seed) % (DAYS * 86_400_000_000)).cast(pl.Int64)),
        **{name: mixed * (i + 1) / 3 for i, name in enumerate(COLUMNS)},
    )


def definitions(folder: Path) -> Definitions:
    """One feature with the newest row at an instant."""

    @mlf.feature(keys=["user"], source=folder / "rows.parquet", timestamp="at")
    def state(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    return Definitions("bench", features=[state], store=LocalStore(folder / "store"))


def by_hand(folder: Path) -> pl.DataFrame:
    """The join as one would write it, the labels in their order."""
    labels = pl.read_parquet(folder / "labels.parquet").with_row_index()
    rows = pl.scan_delta(DeltaTable(folder / "store" / "state")).select("user", "at", *COLUMNS).sort("at").collect()
    found = labels.sort("at").join_asof(rows, on="at", by="user", check_sortedness=False)
    return found.sort("index").drop("index")


def by_mlforge(folder: Path) -> pl.DataFrame:
    """The same by mlforge."""
    return definitions(folder).get_training_data(["state"], pl.read_parquet(folder / "labels.parquet"), timestamp="at")


KINDS = {"hand": by_hand, "mlforge": by_mlforge}


def main(scale: float) -> None:
    """Measures both kinds in turns and prints a line."""
    labels, rows = int(1_000_000 * scale), int(10_000_000 * scale)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        events(rows, 1).write_parquet(folder / "rows.parquet")
        events(labels, 2).select("user", "at").write_parquet(folder / "labels.parquet")
        definitions(folder).build()
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(ROUNDS):
            for kind in KINDS:
                command = [sys.executable, __file__, "--measure", kind, str(folder)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[kind].append(json.loads(done.stdout)["seconds"])
        if not by_hand(folder).equals(by_mlforge(folder)):
            raise AssertionError("By hand and by mlforge there are different values.")
    ratios = [a / b for a, b in zip(found["mlforge"], found["hand"], strict=True)]
    hand, ours = (statistics.median(found[kind]) for kind in KINDS)
    print(f"{labels:,} labels, {rows:,} rows: by hand {hand:.2f} s, mlforge {ours:.2f} s", end=": ")
    print(f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f}); bar: at most 1.3 x")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        began = time.perf_counter()
        KINDS[sys.argv[2]](Path(sys.argv[3]))
        print(json.dumps({"seconds": time.perf_counter() - began}))
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
