"""Training sets, against a join_asof written by hand in Polars over the same table; reading is included."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable
from measure import Measurement, kinds_in_turns, ratios, shown
from results import Line
from script import Bench

import mlforge as mlf
from mlforge import Definitions
from mlforge.store import LocalStore

START, DAYS = datetime(2025, 1, 1, tzinfo=UTC), 360
COLUMNS = ["a", "b", "c", "d"]


def rows_of(count: int, entities: int, seed: int) -> pl.DataFrame:
    """Rows of entities at instants without a pattern."""
    number = pl.int_range(count, eager=True).alias("n").to_frame()
    mixed = (pl.col("n") * 7_919 + seed) % 1_000_003
    return number.select(
        user=((pl.col("n") * 104_729 + seed) % entities),
        at=pl.lit(START) + pl.duration(microseconds=(pl.col("n").hash(seed) % (DAYS * 86_400_000_000)).cast(pl.Int64)),
        **{name: mixed * (i + 1) / 3 for i, name in enumerate(COLUMNS)},
    )


def make(folder: Path, *, labels: int, rows: int) -> Path:
    """Labels, rows, and the feature built from these, in a folder of their own: `labels.parquet`, `rows.parquet`."""
    place = folder / f"training-{labels}-{rows}"
    if not (place / "made").exists():
        place.mkdir(exist_ok=True)
        entities = max(1, rows // 20)
        rows_of(rows, entities, 1).write_parquet(place / "rows.parquet")
        rows_of(labels, entities, 2).select("user", "at").write_parquet(place / "labels.parquet")
        definitions(place).build()
        (place / "made").touch()
    return place


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


def training(bench: Bench) -> list[Line]:
    """A tenth as many labels as rows."""
    labels = bench.rows // 10
    place = make(bench.folder, labels=labels, rows=bench.rows)
    found = kinds_in_turns("train", ["hand", "mlforge"], rounds=bench.rounds, folder=place)
    if not by_hand(place).equals(by_mlforge(place)):
        raise AssertionError("By hand and by mlforge there are different values.")
    return [
        Line.of(
            "training sets",
            f"{labels:,} labels from {bench.rows:,} rows, reading included",
            ratios(found["mlforge"], found["hand"]),
            against="join_asof by hand",
            beside=shown(found["hand"]),
            mlforge=shown(found["mlforge"]),
            limit=1.3,
            reason="It is the same join, and its checks and the choice of columns come on top.",
        )
    ]


def train(folder: str, kind: str) -> dict[str, Any]:
    """Seconds for one training set."""
    work = {"hand": by_hand, "mlforge": by_mlforge}[kind]
    began = time.perf_counter()
    work(Path(folder))
    return {"seconds": time.perf_counter() - began}


MEASURES: dict[str, Measurement] = {"train": train}
