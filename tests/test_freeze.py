"""A clock that stands still: what "now" is for mlforge, and what stays real."""

import datetime as dt
import re
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import mlforge as mlf
from mlforge import Definitions, Feature, RequestError
from mlforge.instant import instant
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from mlforge.testing import MemoryStore, freeze, values_at

ROOT = Path(__file__).parent.parent
UTC = dt.UTC
ORDERS = pl.DataFrame(
    {
        "user_id": ["ann", "ann", "ben"],
        "ts": [dt.datetime(2026, 1, 5, 9), dt.datetime(2026, 1, 20, 18), dt.datetime(2026, 1, 6, 12)],
        "amount": [10.0, 32.0, 5.0],
    }
)


class Orders(mlf.Source):
    def scan(self) -> pl.LazyFrame:
        return ORDERS.lazy()


@mlf.feature(
    keys=["user_id"],
    source=Orders(),
    timestamp="ts",
    metrics=[mlf.Rolling(windows=["7d"], aggregations={"amount": ["sum"]})],
)
def spend(df: pl.LazyFrame) -> pl.LazyFrame:
    return df


@mlf.feature(keys=["user_id"], source=Orders(), timestamp="ts", max_age="3d")
def last_order(df: pl.LazyFrame) -> pl.LazyFrame:
    return df


def shop(folder: Path, online: Any = None, *, features: list[Feature] | None = None, **how: Any) -> Definitions:
    found = [spend, last_order] if features is None else features
    return Definitions("shop", features=found, store=LocalStore(folder / "store"), online_store=online, **how)


def test_of_two_that_overlap_the_one_that_goes_on_keeps_its_instant() -> None:
    one, other = freeze("2026-01-22"), freeze("2026-01-23")
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert instant("now") == dt.datetime(2026, 1, 23, tzinfo=UTC)
    other.__exit__(None, None, None)
    assert abs(instant("now") - dt.datetime.now(UTC)) < dt.timedelta(minutes=1)


def test_a_class_is_refused_since_pytest_would_not_find_its_tests() -> None:
    class TestShop: ...

    with pytest.raises(RequestError, match=r"TestShop is a class: put @freeze"):
        freeze("2026-01-22")(TestShop)


def test_now_is_the_instant_for_as_long_as_it_lasts() -> None:
    before = instant("now")
    with freeze("2026-01-22"):
        assert instant("now") == dt.datetime(2026, 1, 22, tzinfo=UTC)
        with freeze(dt.datetime(2026, 1, 23, 12)):
            assert instant("now") == dt.datetime(2026, 1, 23, 12, tzinfo=UTC)
        assert instant("now") == dt.datetime(2026, 1, 22, tzinfo=UTC)
    assert before <= instant("now") <= dt.datetime.now(UTC)


def test_it_ends_where_a_test_fails() -> None:
    with pytest.raises(ZeroDivisionError), freeze("2026-01-22"):
        raise ZeroDivisionError
    assert abs(instant("now") - dt.datetime.now(UTC)) < dt.timedelta(minutes=1)


def test_it_is_so_in_all_threads() -> None:
    found: list[dt.datetime] = []
    with freeze("2026-01-22"):
        thread = threading.Thread(target=lambda: found.append(instant("now")))
        thread.start()
        thread.join()
    assert found == [dt.datetime(2026, 1, 22, tzinfo=UTC)]


def test_a_function_may_be_decorated_and_calls_itself() -> None:
    @freeze("2026-01-22")
    def days(count: int, *, name: str = "now") -> list[str]:
        """What it does."""
        return [str(instant(name).date())] * count + (days(count - 1) if count else [])

    assert days(2) == ["2026-01-22"] * 3
    assert (days.__name__, days.__doc__) == ("days", "What it does.")
    assert abs(instant("now") - dt.datetime.now(UTC)) < dt.timedelta(minutes=1)


@pytest.fixture
@freeze("2026-01-22")
def frozen_fixture(tmp_path: Path) -> tuple[Path, dt.datetime]:
    return tmp_path, instant("now")


def test_a_fixture_may_be_decorated(frozen_fixture: tuple[Path, dt.datetime], tmp_path: Path) -> None:
    assert frozen_fixture == (tmp_path, dt.datetime(2026, 1, 22, tzinfo=UTC))


def test_what_goes_on_after_its_call_is_no_function_to_decorate() -> None:
    async def later() -> None: ...

    def one_by_one() -> Any:
        yield

    async def both() -> Any:
        yield

    for function in (later, one_by_one, both):
        with pytest.raises(RequestError, match=rf"{function.__name__} goes on .* write `with freeze\(...\):` inside"):
            freeze("2026-01-22")(function)


def test_what_is_no_instant_is_refused_at_once() -> None:
    with pytest.raises(RequestError, match="'tomorrow' is no instant"):
        freeze("tomorrow")


def test_an_as_of_of_the_project_comes_first() -> None:
    with freeze("2026-01-22"):
        assert Definitions("shop", features=[]).now() == dt.datetime(2026, 1, 22, tzinfo=UTC)
        as_of = Definitions("shop", features=[], as_of="2026-01-07").now()
    assert as_of == dt.datetime(2026, 1, 7, tzinfo=UTC)


def test_what_goes_online_holds_then(tmp_path: Path) -> None:
    online = MemoryStore()
    defs = shop(tmp_path, online)
    with freeze("2026-01-07"):
        reports = defs.build(online=True)
    assert {report.online.as_of for report in reports if report.online} == {dt.datetime(2026, 1, 7, tzinfo=UTC)}
    assert online.read("spend", {"user_id": "ann"}) == {"amount__sum__7d": 10.0}
    frame = defs.get_online_features({"last_order": ["amount"]}, [{"user_id": "ann"}, {"user_id": "ben"}])
    assert frame["amount"].to_list() == [10.0, 5.0]


def test_a_row_that_has_become_too_old_is_gone_online(tmp_path: Path, redis_store: RedisStore) -> None:
    defs = shop(tmp_path, redis_store, features=[last_order])
    for day, expected in (("2026-01-08", [10.0, 5.0]), ("2026-01-09", [None, 5.0]), ("2026-01-22", [32.0, None])):
        with freeze(day):
            defs.build(online=True)
            found = defs.get_online_features(["last_order"], [{"user_id": "ann"}, {"user_id": "ben"}])
        assert found["amount"].to_list() == expected


def test_training_sets_without_times_hold_then(tmp_path: Path) -> None:
    defs = shop(tmp_path)
    defs.build()
    labels = pl.DataFrame({"user_id": ["ann"]})
    for day, expected in (("2026-01-07", 10.0), ("2026-01-22", 32.0)):
        with freeze(day):
            assert defs.get_training_data({"spend": None}, labels)["amount__sum__7d"].to_list() == [expected]
            assert values_at(spend, ORDERS)["amount__sum__7d"][0] == expected
            assert defs.explain("spend", {"user_id": "ann"}).recomputed.values == {"amount__sum__7d": expected}


def test_ages_are_counted_from_then(tmp_path: Path, redis_store: RedisStore) -> None:
    defs = shop(tmp_path, redis_store, features=[spend])
    with freeze("2026-01-07"):
        defs.build(online=True)
    with freeze("2026-01-09T12:00:00"):
        [found] = defs.status()
    assert found.age == dt.timedelta(days=2, hours=12)


def test_an_event_that_is_still_to_come_does_not_say_how_far_the_others_have_come(tmp_path: Path) -> None:
    path = tmp_path / "orders.parquet"
    ORDERS.write_parquet(path)
    feature = mlf.feature(keys=["user_id"], source=path, timestamp="ts", name="orders")(lambda df: df)
    defs = shop(tmp_path, features=[feature])
    for day, start in (("2026-01-06", "2026-01-05"), ("2026-02-01", "2026-01-19")):
        defs.build(force=True)
        with freeze(day):
            [report] = defs.build(incremental=True, look_back="1d", force=True)
        assert report.events is not None
        assert report.events.start.date().isoformat() == start


def test_how_long_it_took_when_it_was_and_times_to_live_are_real(
    tmp_path: Path, redis_prefix: str, redis_server: Any
) -> None:
    began = dt.datetime.now(UTC)
    with RedisStore.from_url(redis_server.url, prefix=redis_prefix, ttl=3600) as online:
        defs = shop(tmp_path, online, features=[spend])
        with freeze("2026-01-07"):
            [report] = defs.build(online=True)
        with freeze("2099-01-01"):
            [fresh] = defs.status()
        status = online.status("spend")
    assert report.seconds > 0
    assert status is not None
    assert began <= status.started_at <= dt.datetime.now(UTC)
    assert status.finished_at is not None
    assert began <= status.finished_at
    assert fresh.state == "complete"
    [version] = defs.versions("spend")
    assert abs(version.committed_at - began) < dt.timedelta(minutes=5)


def test_the_command_line_in_this_process_says_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    ORDERS.write_parquet("orders.parquet")
    Path("definitions.py").write_text(
        "import mlforge as mlf\nfrom mlforge.testing import MemoryStore\n"
        "orders = mlf.feature(keys=['user_id'], source='orders.parquet', timestamp='ts', name='orders')(lambda x: x)\n"
        "defs = mlf.Definitions(online_store=MemoryStore())\n"
    )
    with freeze("2026-01-22"):
        assert "still to come" not in cli("build --online --as-of 2026-01-21").out
        assert "as of 2026-01-23T00:00:00Z, which is still to come" in cli("build --online --as-of 2026-01-23").out


def test_nothing_else_reads_the_clock() -> None:
    """What has to be real: when files were made, when a sync wrote, times to live, how old versions are."""
    found = {}
    for path in (ROOT / "mlforge").rglob("*.py"):
        reads = re.findall(r"datetime\.(?:now|utcnow|today)\(|date\.today\(|\btime\.time\(", path.read_text())
        if reads:
            found[str(path.relative_to(ROOT / "mlforge"))] = len(reads)
    assert found == {"clock.py": 1, "files.py": 1, "online/status.py": 1, "online/turn.py": 3, "vacuum.py": 1}
