"""A small project in the working directory."""

from datetime import datetime
from pathlib import Path

import polars as pl

PROJECT = """
import polars as pl
import mlforge as mlf
from mlforge.online import RedisStore
from mlforge.store import LocalStore

@mlf.feature(
    keys=["user_id"],
    source="events.parquet",
    timestamp="ts",
    interval="1d",
    metrics=[mlf.Rolling(windows=["7d", "30d"], aggregations={"amount": ["sum", "count"]})],
    checks={
        "amount is there": pl.col("amount").is_not_null(),
        "amount is small": mlf.Check(pl.col("amount") < 40, severity="warn", description="Seldom wrong."),
    },
    description="What a user\\n  has spent.",
    tags=["users"],
    owners=["team:risk"],
)
def user_spend(df):
    return df.select("user_id", "ts", "amount")

@mlf.feature(keys=["user_id"], source="events.parquet", timestamp="ts")
def last_amount(df):
    return df.select("user_id", "ts", "amount")

@mlf.feature(keys=["user_id", "day"], source=["prices.csv"])
def prices(df):
    return df.select("user_id", "day", "price", note=pl.lit("äb"))

fraud_v3 = mlf.FeatureSet(
    "fraud_v3", features=["user_spend:amount__sum__7d", mlf.FeatureRef("prices", version="1.2.0")], description="Fraud."
)

defs = mlf.Definitions("shop", store=LocalStore("store"), online_store=ONLINE, as_of="2026-01-10T00:00:00Z")
"""

EVENTS = pl.DataFrame(
    {
        "user_id": [123, 123, 7],
        "ts": [datetime(2026, 1, 5, 9), datetime(2026, 1, 6, 12), datetime(2026, 1, 8)],
        "amount": [10.5, 50.0, 2.0],
    }
)


def write(*, online: str = "None", project: str = PROJECT) -> None:
    """The project, and what it reads."""
    EVENTS.write_parquet("events.parquet")
    Path("prices.csv").write_text("user_id,day,price\n1,2026-01-31,2.5\n2,2026-01-31,\n")
    Path("definitions.py").write_text(project.replace("ONLINE", online))
