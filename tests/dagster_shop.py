"""A project in Dagster, and what its runs and its sensor say."""

import datetime as dt
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

import mlforge as mlf
from mlforge import Definitions
from mlforge.online import OnlineStore
from mlforge.store import LocalStore
from mlforge_dagster import (
    build_definitions,
    feature_assets,
    online_reconcile_sensor,
)

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
AS_OF = dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
ANN = {"user": "1"}


class Four(OnlineStore):
    """A store that has only what it must have."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}

    def write(self, feature_name: str, entity_keys: dict[str, str], values: dict[str, Any]) -> None:
        self.values[str((feature_name, {name: str(key) for name, key in entity_keys.items()}))] = values

    def write_batch(self, feature_name: str, records: list[dict[str, Any]], entity_key_columns: list[str]) -> None:
        for record in records:
            keys = {name: record[name] for name in entity_key_columns}
            self.write(feature_name, keys, {name: each for name, each in record.items() if name not in keys})

    def read(self, feature_name: str, entity_keys: dict[str, str]) -> dict[str, Any] | None:
        return self.values.get(str((feature_name, {name: str(key) for name, key in entity_keys.items()})))

    def read_batch(self, feature_name: str, entity_keys: list[dict[str, str]]) -> list[dict[str, Any] | None]:
        return [self.read(feature_name, keys) for keys in entity_keys]


class Shop:
    """A project of three features over one file, whose second reads the first."""

    def __init__(self, folder: Path, store: OnlineStore | None) -> None:
        self.folder = folder
        self.store = store
        self.as_of = AS_OF
        self.instance = dg.DagsterInstance.ephemeral(tempdir=str(folder))
        self.save({0: 10.0, 40: 5.0, 65: 2.0})

    def save(self, amounts: dict[float, float]) -> None:
        rows = {
            "user": [1] * len(amounts),
            "ts": [START + day * DAY for day in amounts],
            "amount": list(amounts.values()),
        }
        pl.DataFrame(rows).write_parquet(self.folder / "events.parquet")

    def defs(self) -> Definitions:
        @mlf.feature(
            keys=["user"],
            source=self.folder / "events.parquet",
            timestamp="ts",
            interval="1d",
            metrics=[mlf.Rolling(windows=["7d", "30d"], aggregations={"amount": ["sum"]})],
            checks={
                "amount is positive": pl.col("amount") > 0,
                "amount is small": mlf.Check(pl.col("amount") < 9, severity="warn"),
            },
            tags=["money"],
            owners=["team:ml", "Ann"],
        )
        def spend(df: pl.LazyFrame) -> pl.LazyFrame:
            """What is spent."""
            return df

        @mlf.feature(keys=["user"], source=self.folder / "events.parquet", timestamp="ts")
        def last(df: pl.LazyFrame) -> pl.LazyFrame:
            return df

        @mlf.feature(keys=["user"], source=last, timestamp="ts")
        def double(df: pl.LazyFrame) -> pl.LazyFrame:
            return df.with_columns(pl.col("amount") * 2)

        features = [spend, last, double]
        store = LocalStore(self.folder / "store")
        return Definitions("our-shop", features=features, store=store, online_store=self.store, as_of=self.as_of)

    def read(self, name: str) -> dict[str, Any] | None:
        """What is online of Ann."""
        return self.defs().require_online_store().read(name, ANN)

    def check(self, name: str) -> dict[str, dg.AssetCheckEvaluation]:
        """What the checks of an asset say, run alone."""
        only = dg.AssetSelection.checks_for_assets(dg.AssetKey(["our_shop", name]))
        result = dg.materialize(
            feature_assets(self.defs()), selection=only, instance=self.instance, raise_on_error=False
        )
        assert materialisations(result) == {}
        return checks(result)

    def run(self, *keys: str, raises: bool = True, **options: Any) -> dg.ExecuteInProcessResult:
        chosen = [dg.AssetKey(["our_shop", key]) for key in keys]
        return dg.materialize(
            feature_assets(self.defs(), **options),
            selection=dg.AssetSelection.assets(*chosen) if keys else None,
            instance=self.instance,
            raise_on_error=raises,
        )


def materialisations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
    events = result.get_asset_materialization_events()
    return {event.materialization.asset_key.path[-1]: event.materialization for event in events}


def versions(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    found = materialisations(result).items()
    return {name: each.tags["dagster/data_version"] for name, each in found if each.tags is not None}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {f"{each.asset_key.path[-1]}:{each.check_name}": each for each in result.get_asset_check_evaluations()}


def keys_of(job: dg.JobDefinition) -> set[str]:
    return {key.path[-1] for key in job.asset_layer.selected_asset_keys}


def evaluated(shop: Shop, **options: Any) -> set[str] | str:
    sensor = online_reconcile_sensor(shop.defs(), **options)
    return looked(sensor, shop, build_definitions(shop.defs(), sensors=[sensor]))


def looked(sensor: dg.SensorDefinition, shop: Shop, definitions: dg.Definitions) -> set[str] | str:
    """What a sensor asks for, or why it asks for nothing."""
    found = tick(sensor, shop, definitions)
    return found if isinstance(found, str) else {key.path[-1] for key in found.asset_selection or ()}


def tick(sensor: dg.SensorDefinition, shop: Shop, definitions: dg.Definitions) -> dg.RunRequest | str:
    """The sensor looks, as the daemon has it look."""
    with dg.build_sensor_context(
        instance=shop.instance, repository_def=definitions.get_repository_def(), resources=definitions.resources
    ) as context:
        found = sensor.evaluate_tick(context)
    if found.skip_message is not None:
        return found.skip_message
    (request,) = found.run_requests or []
    return request
