"""The first snippet of the documentation, completed with data of its own, from the source to a served value."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

import mlforge as mlf
from mlforge import Definitions
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from servers import RedisServer


def test_the_first_snippet_serves_a_known_entity_and_none_for_an_unknown_one(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    pl.DataFrame(
        {
            "user_id": ["user_123", "user_123", "user_123", "user_456"],
            "ts": [
                datetime(2026, 1, 1, 9),
                datetime(2026, 1, 20, 10),
                datetime(2026, 1, 21, 11),
                datetime(2026, 1, 2),
            ],
            "amount": [10.0, 20.0, 40.0, 5.0],
        }
    ).write_parquet("data/transactions.parquet")

    @mlf.feature(
        keys=["user_id"],
        source="data/transactions.parquet",
        timestamp="ts",
        interval="1d",
        metrics=[mlf.Rolling(windows=["7d", "30d"], aggregations={"amount": ["sum", "mean", "count"]})],
        checks={"amount is not negative": pl.col("amount") >= 0},
        description="What a user has spent.",
        tags=["users"],
        owners=["team:risk"],
    )
    def user_spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.select("user_id", "ts", "amount")

    with RedisStore(
        host=redis_server.host, port=redis_server.port, db=0, password=None, ttl=None, prefix="snippet"
    ) as redis:
        defs = Definitions(
            name="transactions",
            features=[user_spend],
            store=LocalStore(path="./feature_store"),
            online_store=redis,
            as_of=datetime(2026, 1, 22, 8, tzinfo=UTC),
        )
        (offline,) = defs.build(features=["user_spend"])
        (online,) = defs.build(features=["user_spend"], online=True)
        assert (offline.outcome, offline.online) == ("built", None)
        assert online.online is not None
        assert (online.outcome, online.online.written) == ("skipped", 2)

        labels = pl.DataFrame({"user_id": ["user_123"], "label_time": [datetime(2026, 1, 21)]})
        training = defs.get_training_data(features=["user_spend"], entity_df=labels, timestamp="label_time")
        assert training["amount__sum__30d"].to_list() == [30.0]
        served = defs.get_online_features(features=["user_spend"], entities=[{"user_id": "user_123"}])
        assert served["amount__count__30d"].to_list() == [3]
        assert served.schema["amount__count__30d"] == training.schema["amount__count__30d"] == pl.Int64

        batch = defs.online_store.read_batch(
            feature_name="user_spend", entity_keys=[{"user_id": "user_456"}, {"user_id": "user_999"}]
        )
        assert batch == [
            {
                "amount__sum__7d": 0.0,
                "amount__sum__30d": 5.0,
                "amount__mean__7d": None,
                "amount__mean__30d": 5.0,
                "amount__count__7d": 0,
                "amount__count__30d": 1,
            },
            None,
        ]
        known = defs.online_store.read(feature_name="user_spend", entity_keys={"user_id": "user_123"})
        assert known == {
            "amount__sum__7d": 60.0,
            "amount__sum__30d": 70.0,
            "amount__mean__7d": 30.0,
            "amount__mean__30d": 70.0 / 3,
            "amount__count__7d": 2,
            "amount__count__30d": 3,
        }
        assert defs.online_store.read(feature_name="user_spend", entity_keys={"user_id": "user_124"}) is None
