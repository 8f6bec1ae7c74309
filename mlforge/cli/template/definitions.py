"""The features of a shop's orders: `mlforge build --online` computes them and puts what holds now online."""

import os
from pathlib import Path

import polars as pl

import mlforge as mlf
from mlforge import checks
from mlforge.online import EmbeddedStore, OnlineStore, RedisStore
from mlforge.store import LocalStore

HERE = Path(__file__).parent
ORDERS = HERE / "data" / "orders.csv"


@mlf.feature(
    keys=["user_id"],
    source=ORDERS,
    timestamp="ordered_at",
    interval="1d",
    metrics=[mlf.Rolling(windows=["7d", "30d"], aggregations={"amount": ["sum", "count"]})],
    checks={
        "each order once": checks.unique("order_id"),
        "an amount is there": checks.not_null("amount"),
        "an amount is sane": checks.between("amount", 0, 10_000),
    },
)
def user_spend(orders: pl.LazyFrame) -> pl.LazyFrame:
    """What a user has spent in the days before the last midnight."""
    return orders.select("order_id", "user_id", "ordered_at", "amount")


@mlf.feature(keys=["user_id"], source=ORDERS, timestamp="ordered_at", max_age="90d")
def last_order(orders: pl.LazyFrame) -> pl.LazyFrame:
    """The last order of a user, for 90 days."""
    return orders.select("user_id", "ordered_at", "amount", "country")


def online_store() -> OnlineStore:
    """The Redis that REDIS_URL names; without it one that comes with mlforge and keeps its data in a folder here."""
    url = os.environ.get("REDIS_URL")
    return RedisStore.from_url(url) if url else EmbeddedStore(HERE / "online_store")


defs = mlf.Definitions(
    name="$name",
    store=LocalStore(HERE / "feature_store"),
    online_store=online_store(),
    # What "now" is, since these orders end there. Leave it out where orders go on: then it is the clock's time.
    as_of="2026-02-01",
)
