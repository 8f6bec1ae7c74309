"""What the features make of a few orders, that none of them sees the future, and that what is built is served."""

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from definitions import last_order, user_spend

import mlforge as mlf
from mlforge.store import LocalStore
from mlforge.testing import MemoryStore, assert_no_leakage, freeze, values_at

ORDERS = pl.DataFrame(
    {
        "order_id": [1, 2, 3],
        "user_id": ["ann", "ann", "ben"],
        "ordered_at": [datetime(2026, 1, 5, 9), datetime(2026, 1, 20, 18), datetime(2026, 1, 6, 12)],
        "amount": [10.0, 32.0, 5.0],
        "country": ["FR", "BE", "DE"],
    }
)


def test_windows_hold_the_orders_of_their_days() -> None:
    ann, ben = values_at(user_spend, ORDERS, at="2026-01-22").to_dicts()
    assert (ann["amount__sum__7d"], ann["amount__sum__30d"]) == (32.0, 42.0)
    assert (ben["amount__count__7d"], ben["amount__count__30d"]) == (0, 1)


def test_an_order_counts_from_the_next_midnight_on() -> None:
    assert values_at(user_spend, ORDERS, at="2026-01-05T23:59:59").is_empty()
    assert values_at(user_spend, ORDERS, at="2026-01-06")["amount__sum__7d"].to_list() == [10.0]


def test_a_last_order_holds_for_90_days() -> None:
    assert values_at(last_order, ORDERS, at="2026-04-07").to_dicts() == [
        {"user_id": "ann", "amount": 32.0, "country": "BE"},
    ]


@pytest.mark.parametrize("feature", [user_spend, last_order], ids=lambda feature: feature.name)
def test_no_feature_sees_the_future(feature: mlf.Feature) -> None:
    assert_no_leakage(feature, ORDERS)


def test_what_is_built_is_served(tmp_path: Path) -> None:
    defs = mlf.Definitions(features=[user_spend, last_order], store=LocalStore(tmp_path), online_store=MemoryStore())
    with freeze("2026-02-01"):
        defs.build(online=True)
        served = defs.get_online_features(["user_spend:amount__sum__7d", "last_order:country"], [{"user_id": "ann"}])
    assert served.to_dicts() == [{"user_id": "ann", "amount__sum__7d": 65.0, "country": "BE"}]
