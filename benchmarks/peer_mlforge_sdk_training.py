"""Runs in the environment of mlforge-sdk: makes a training set, and prints the seconds as JSON."""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

import mlforge as mlf


def main(folder: Path, calls: int) -> None:
    """Builds the feature, makes the set several times, and leaves it as found.parquet."""

    @mlf.feature(keys=["user"], source=str(folder / "rows.parquet"), timestamp="at")
    def state(df: pl.DataFrame) -> pl.DataFrame:
        return df

    labels = pl.read_parquet(folder / "labels.parquet")
    taken = []
    with tempfile.TemporaryDirectory() as store:
        project = mlf.Definitions(name="bench", features=[state], offline_store=mlf.LocalStore(store))
        project.build(preview=False)
        for _ in range(calls):
            began = time.perf_counter()
            found = project.get_training_data(features=["state"], entity_df=labels, timestamp="at")
            taken.append(time.perf_counter() - began)
    found.write_parquet(folder / "found.parquet")
    print(json.dumps({"first": taken[0], "seconds": statistics.median(taken[1:])}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
