"""A row with a max_age holds until then and not longer: in training sets, and online as of the last sync."""

import datetime as dt
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlforge as mlf
from mlforge import DefinitionError, Definitions
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from mlforge.testing import MemoryStore
from oracle import value_of_timestamped

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
TICK = dt.timedelta(microseconds=1)
SCHEMA = {"user": pl.Int64, "ts": pl.Datetime("us", "UTC"), "plan": pl.String}


def definitions(folder: Path, online_store: Any, max_age: str | None = "3d") -> Definitions:
    @mlf.feature(keys=["user"], source=folder / "rows.parquet", timestamp="ts", max_age=max_age)
    def plan(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    return Definitions("m", features=[plan], store=LocalStore(folder / "store"), online_store=online_store)


def write(folder: Path, rows: list[tuple[int, float, str]]) -> list[dict[str, Any]]:
    """Rows of users, so many days after START."""
    dicts = [{"user": user, "ts": START + day * DAY, "plan": plan} for user, day, plan in rows]
    pl.DataFrame(dicts, schema=SCHEMA).write_parquet(folder / "rows.parquet")
    return dicts


def test_a_row_holds_until_its_max_age_and_not_a_microsecond_longer(tmp_path: Path) -> None:
    write(tmp_path, [(1, 0, "basic")])
    shop = definitions(tmp_path, None)
    shop.build()
    times = [START - TICK, START, START + 3 * DAY - TICK, START + 3 * DAY]
    labels = pl.DataFrame({"user": [1] * 4, "at": times})
    assert shop.get_training_data(["plan"], labels, "at")["plan"].to_list() == [None, "basic", "basic", None]


DAYS = st.integers(0, 80).map(lambda half: half / 2)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), DAYS, st.sampled_from("abc")), min_size=1, max_size=9),
    max_age=st.sampled_from(["12h", "3d", "20d"]),
    syncs=st.lists(DAYS, min_size=1, max_size=5),
)
def test_training_sets_and_what_is_online_agree_with_the_oracle(
    rows: list[tuple[int, float, str]], max_age: str, syncs: list[float]
) -> None:
    store = MemoryStore()
    with tempfile.TemporaryDirectory() as name:
        dicts = write(Path(name), rows)
        shop = definitions(Path(name), store, max_age)
        shop.build()
        labels = pl.DataFrame(
            {"user": [user for user in range(3) for _ in syncs], "at": [START + d * DAY for d in syncs] * 3}
        )
        trained = shop.get_training_data(["plan"], labels, "at")
        for user, at, found in trained.iter_rows():
            wanted = value_of_timestamped(dicts, {"user": user}, at, timestamp="ts", max_age=max_age)
            assert found == (None if wanted is None else wanted["plan"])


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), DAYS, st.sampled_from("abc")), min_size=1, max_size=9),
    syncs=st.lists(DAYS, min_size=2, max_size=6),
)
def test_syncs_by_difference_take_away_what_is_too_old(
    redis_memory: RedisStore, rows: list[tuple[int, float, str]], syncs: list[float]
) -> None:
    redis_memory.clear("plan")
    with tempfile.TemporaryDirectory() as name:
        dicts = write(Path(name), rows)
        shop = definitions(Path(name), redis_memory)
        for day in syncs:
            shop.build(online=True, as_of=START + day * DAY, force=day < max(syncs))
            for user in range(3):
                wanted = value_of_timestamped(dicts, {"user": user}, START + day * DAY, timestamp="ts", max_age="3d")
                assert redis_memory.read("plan", {"user": str(user)}) == wanted
        (report,) = shop.verify()
        assert report.agrees


@pytest.fixture(scope="module")
def redis_memory(redis_server: Any) -> Any:
    with RedisStore(redis_server.host, redis_server.port, prefix="maxage") as store:
        yield store


def test_the_next_change_is_when_a_row_becomes_too_old(tmp_path: Path, redis_store: RedisStore) -> None:
    write(tmp_path, [(1, 0, "basic"), (2, 1, "gold"), (1, 10, "gold")])
    shop = definitions(tmp_path, redis_store)
    shop.build(online=True, as_of=START + 2 * DAY)
    status = redis_store.status("plan")
    assert status is not None
    assert status.next_change == START + 3 * DAY
    (report,) = shop.build(online=True, as_of=START + 3 * DAY)
    assert report.online is not None
    assert (report.online.mode, report.online.written, report.online.deleted) == ("difference", 0, 1)
    assert redis_store.read("plan", {"user": "1"}) is None


def test_another_max_age_is_another_definition(tmp_path: Path) -> None:
    write(tmp_path, [(1, 0, "basic")])
    definitions(tmp_path, None).build()
    (report,) = definitions(tmp_path, None, "4d").build()
    assert (report.outcome, report.version) == ("built", "1.1.0")
    labels = pl.DataFrame({"user": [1], "at": [START + 3 * DAY]})
    found = definitions(tmp_path, None, "4d").get_training_data(["plan"], labels, "at")
    assert found["plan"].to_list() == ["basic"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_age": "soon"},
        {"timestamp": None},
        {"metrics": [mlf.Rolling(windows=["1d"], aggregations={"plan": ["count"]})]},
    ],
)
def test_a_max_age_that_means_nothing_is_refused(arguments: dict[str, Any]) -> None:
    given_ = {"keys": ["user"], "source": "x.parquet", "timestamp": "ts", "max_age": "3d", "name": "plan"} | arguments
    with pytest.raises(DefinitionError, match="max_age"):
        mlf.feature(**given_)(lambda df: df)
