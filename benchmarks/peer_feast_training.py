"""Runs in the environment of Feast: makes a training set, and prints the seconds as JSON."""

import json
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

FEATURE, COLUMNS = "state", ["a", "b", "c", "d"]


def main(folder: Path, calls: int) -> None:
    """Makes it several times with the DuckDB store, and leaves it as found.parquet."""
    labels = pd.read_parquet(folder / "labels.parquet").rename(columns={"at": "event_timestamp"})
    taken = []
    with tempfile.TemporaryDirectory() as registry:
        store = _store(registry, folder / "rows.parquet")
        for _ in range(calls):
            began = time.perf_counter()
            features = [f"{FEATURE}:{name}" for name in COLUMNS]
            found = store.get_historical_features(entity_df=labels, features=features).to_df()
            taken.append(time.perf_counter() - began)
    found.rename(columns={"event_timestamp": "at"}).to_parquet(folder / "found.parquet")
    print(json.dumps({"first": taken[0], "seconds": statistics.median(taken[1:])}))


def _store(registry: str, rows: Path) -> FeatureStore:
    user = Entity(name="user", join_keys=["user"], value_type=ValueType.INT64)
    view = FeatureView(
        name=FEATURE,
        entities=[user],
        schema=[Field(name=name, dtype=Float64) for name in COLUMNS],
        source=FileSource(path=str(rows.resolve()), timestamp_field="at"),
        ttl=timedelta(0),
    )
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=f"{registry}/registry.db",
            offline_store={"type": "duckdb"},
            online_store={"type": "sqlite", "path": f"{registry}/online.db"},
            entity_key_serialization_version=3,
        )
    )
    store.apply([user, view])
    return store


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
