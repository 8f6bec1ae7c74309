"""Runs in the environment of Feast: writes a frame online and reads it, and prints the seconds as JSON."""

import json
import statistics
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64, Int64

FEATURE = "user_spend"


def main(port: int, path: str, read_rows: int, calls: int) -> None:
    """Writes all rows of the file with `write_to_online_store`, and reads some of them several times."""
    frame = pd.read_parquet(path)
    columns = [name for name in frame.columns if name != "user_id"]
    frame["at"] = datetime(2026, 8, 1, tzinfo=timezone.utc)  # noqa: UP017
    with tempfile.TemporaryDirectory() as folder:
        store = _store(port, folder, frame, columns)
        warm = frame.head(100).assign(at=datetime(2026, 7, 1, tzinfo=timezone.utc))  # noqa: UP017
        store.write_to_online_store(FEATURE, df=warm)
        began = time.perf_counter()
        store.write_to_online_store(FEATURE, df=frame)
        wrote = time.perf_counter() - began
        asked = [{"user_id": user} for user in frame["user_id"].sample(read_rows, random_state=1)]
        names = [f"{FEATURE}:{name}" for name in columns]
        taken = []
        for _ in range(calls):
            began = time.perf_counter()
            found = store.get_online_features(features=names, entity_rows=asked).to_dict()
            taken.append(time.perf_counter() - began)
    if any(value is None for value in found[columns[0]]):
        raise AssertionError("What was written is not there.")
    print(json.dumps({"write": wrote, "read": statistics.median(taken)}))


def _store(port: int, folder: str, frame: pd.DataFrame, columns: list[str]) -> FeatureStore:
    source = Path(folder) / "source.parquet"
    frame.head(100).to_parquet(source)
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    view = FeatureView(
        name=FEATURE,
        entities=[user],
        schema=[Field(name=name, dtype=Int64 if "count" in name else Float64) for name in columns],
        source=FileSource(path=str(source), timestamp_field="at"),
    )
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=f"{folder}/registry.db",
            online_store={"type": "redis", "connection_string": f"127.0.0.1:{port}"},
            entity_key_serialization_version=3,
        )
    )
    store.apply([user, view])
    return store


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
