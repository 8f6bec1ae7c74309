import json
import re
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import oracle
from command_line import MLFORGE, opened, printed
from mlforge import Definitions
from mlforge.online import RedisStore
from servers import RedisServer

EXAMPLE = Path(__file__).parent.parent / "examples" / "transactions"
END = datetime(2018, 1, 2, tzinfo=UTC)
HOUSEHOLDS = [1, 5, 10, 900, 2500]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, since it keeps its stores beside itself."""
    made = tmp_path_factory.mktemp("example")
    for file in EXAMPLE.glob("*.py"):
        shutil.copy(file, made)
    return made


@pytest.fixture(scope="module")
def said(folder: Path) -> str:
    """What the demo prints."""
    return printed(folder, sys.executable, "demo.py")


@pytest.fixture(scope="module")
def defs(folder: Path, said: str) -> Iterator[Definitions]:
    assert said
    with opened(folder) as found:
        yield found


@pytest.fixture(scope="module")
def events(defs: Definitions) -> pl.DataFrame:
    return defs.feature("store_sales").function(defs.feature("store_sales").source.scan()).lazy().collect()


def mlforge(folder: Path, *arguments: str, **environment: str) -> Any:
    return json.loads(printed(folder, MLFORGE, *arguments, "--json", **environment))


def expected(defs: Definitions, events: pl.DataFrame, feature: str, entity: dict[str, int], t: datetime) -> Any:
    definition = defs.feature(feature)
    (metric,) = definition.metrics
    ((key, value),) = entity.items()
    return oracle.value_at(
        events.filter(pl.col(key) == value).to_dicts(),
        entity,
        t,
        timestamp="ts",
        interval=definition.interval,
        windows=metric.windows,
        aggregations=metric.aggregations,
    )


def agree(actual: dict[str, Any] | None, wanted: dict[str, Any] | None) -> bool:
    if actual is None or wanted is None:
        return actual is wanted
    return actual.keys() == wanted.keys() and all(oracle.agrees(actual[name], wanted[name]) for name in wanted)


def test_the_demo_shows_the_loop_and_that_the_numbers_agree(said: str) -> None:
    assert len(re.findall(r"^user_spend +built +1\.0\.0 .* 2,469 ", said, re.M)) == 1
    assert "amount__sum__30d                175.93" in said
    assert "user_spend has nothing online for user_id=9999." in said
    assert "redis-cli -s " in said
    assert said.count(": agrees") == 2


@pytest.mark.parametrize("feature", ["user_spend", "user_spend_30d_interval"])
def test_what_is_served_of_households_is_what_the_oracle_computes(
    defs: Definitions, events: pl.DataFrame, feature: str
) -> None:
    assert defs.online_store is not None
    served = defs.online_store.read_batch(feature, [{"user_id": str(household)} for household in HOUSEHOLDS])
    for household, values in zip(HOUSEHOLDS, served, strict=True):
        assert agree(values, expected(defs, events, feature, {"user_id": household}, END)), household


def test_what_is_served_of_stores_is_what_the_oracle_computes(defs: Definitions, events: pl.DataFrame) -> None:
    assert defs.online_store is not None
    few = events.group_by("store_id").len().filter(pl.col("len").is_between(50, 500)).sort("store_id")["store_id"][:5]
    for store in few:
        values = defs.online_store.read("store_sales", {"store_id": str(store)})
        assert agree(values, expected(defs, events, "store_sales", {"store_id": store}, END)), store


@pytest.mark.parametrize("feature", ["user_spend", "user_spend_30d_interval"])
def test_what_is_trained_on_is_what_the_oracle_computes(defs: Definitions, events: pl.DataFrame, feature: str) -> None:
    times = [
        datetime(2017, 1, 1, tzinfo=UTC),
        datetime(2017, 3, 15, 13, tzinfo=UTC),
        datetime(2017, 12, 31, tzinfo=UTC),
    ]
    labels = pl.DataFrame([{"user_id": household, "at": time} for household in HOUSEHOLDS for time in times])
    for row in defs.get_training_data([feature], labels, timestamp="at").iter_rows(named=True):
        entity, time = {"user_id": row.pop("user_id")}, row.pop("at")
        values = None if all(value is None for value in row.values()) else row
        assert agree(values, expected(defs, events, feature, entity, time)), (entity, time)


def test_building_again_skips_what_has_not_changed(folder: Path, said: str) -> None:
    assert said
    reports = mlforge(folder, "build", "--online")
    assert [report["outcome"] for report in reports] == ["skipped"] * 3
    assert [report["online"]["mode"] for report in reports] == ["unchanged"] * 3
    assert [report["online"]["unchanged"] for report in reports] == [2469, 2467, 457]


def test_a_redis_that_the_environment_names_is_used_instead(
    folder: Path, said: str, redis_server: RedisServer, events: pl.DataFrame, defs: Definitions
) -> None:
    assert said
    mlforge(folder, "build", "--online", "--features", "user_spend", MLFORGE_REDIS_URL=redis_server.url)
    with RedisStore(redis_server.host, redis_server.port) as store:
        served = store.read("user_spend", {"user_id": "900"})
    assert agree(served, expected(defs, events, "user_spend", {"user_id": 900}, END))
