"""Runs in the environment of mlforge-sdk: builds windows over events, and prints the seconds as JSON."""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import mlforge as mlf


def main(folder: Path, engine: str) -> None:
    """Builds them with one of the engines, and leaves the table as found.parquet."""

    @mlf.feature(
        keys=["user"],
        source=str(folder / "events" / "all.parquet"),
        timestamp="ts",
        interval="1d",
        metrics=[mlf.Rolling(windows=["7d", "30d"], aggregations={"amount": ["sum", "mean", "count"]})],
        engine=engine,
    )
    def spend(df):
        return df.select("user", "ts", "amount")

    with tempfile.TemporaryDirectory() as store:
        project = mlf.Definitions(name="bench", features=[spend], offline_store=mlf.LocalStore(store))
        began = time.perf_counter()
        built = project.build(preview=False)
        seconds = time.perf_counter() - began
        shutil.copy(built.paths["spend"], folder / "found.parquet")
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
