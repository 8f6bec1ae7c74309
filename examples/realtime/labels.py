"""What the model is to foretell: whether a household stays away for the next 28 days."""

from datetime import UTC, datetime, timedelta

import polars as pl
from definitions import TRANSACTIONS

HORIZON = timedelta(days=28)
# Mondays: from when on 91 days have passed, until when 28 more are in the data.
FIRST, LAST = datetime(2017, 4, 3, tzinfo=UTC), datetime(2017, 12, 4, tzinfo=UTC)


def visits() -> pl.LazyFrame:
    """When each household came."""
    time = pl.col("transaction_timestamp").dt.cast_time_unit("us").dt.replace_time_zone("UTC")
    return pl.scan_parquet(TRANSACTIONS).select("household_id", time.alias("visit")).unique()


def labels() -> pl.DataFrame:
    """One row for every household that was seen before, at every Monday.

    Returns:
        `household_id`, `label_time` and `stays_away`: no visit with label_time < visit < label_time + 28 days.
    """
    mondays = pl.select(pl.datetime_range(FIRST, LAST, "1w", time_zone="UTC").alias("label_time")).lazy()
    households = visits().group_by("household_id").agg(pl.col("visit").min().alias("first_visit"))
    asked = households.join(mondays, how="cross").filter(pl.col("first_visit") < pl.col("label_time"))
    next_visit = visits().with_columns(pl.col("visit").alias("next_visit")).sort("visit")
    return (
        asked.sort("label_time", "household_id")
        .join_asof(
            next_visit,
            left_on="label_time",
            right_on="visit",
            by="household_id",
            strategy="forward",
            # A visit at that very instant may be known already: of the newest row features include it.
            allow_exact_matches=False,
            check_sortedness=False,  # cannot be checked by household, and a warning says so
        )
        .select(
            "household_id",
            "label_time",
            (pl.col("next_visit") < pl.col("label_time") + HORIZON).fill_null(value=False).not_().alias("stays_away"),
        )
        .collect()
    )
