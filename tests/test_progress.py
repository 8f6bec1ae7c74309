"""What is told of a build while it runs, and what a line on the terminal makes of it."""

import io
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

import mlforge as mlf
from mlforge.building import BuildRequest
from mlforge.cli.progress import Line
from mlforge.engines import spilled
from mlforge.online import RedisStore
from mlforge.progress import Phase, Watcher, advance, begin, counted, parts, watched
from mlforge.store import LocalStore

USERS, EVENTS = 500, 5_000


class Told(Watcher):
    """Writes down what it is told."""

    counts = True

    def __init__(self) -> None:
        self.phases: list[tuple[str, str, int | None]] = []
        self.done: dict[str, int] = {}
        self.parts: list[tuple[int, int]] = []

    def begin(self, phase: Phase, unit: str, total: int | None) -> None:
        super().begin(phase, unit, total)
        self.phases.append((phase, unit, total))

    def part(self, number: int, of: int) -> None:
        self.parts.append((number, of))

    def advance(self, count: int) -> None:
        self.done[self.phase] = self.done.get(self.phase, 0) + count


@pytest.fixture
def defs(tmp_path: Path, redis_store: RedisStore) -> mlf.Definitions:
    pl.DataFrame({"user": pl.int_range(EVENTS, eager=True) % USERS}).with_columns(
        ts=datetime(2026, 1, 1) + pl.duration(minutes=pl.int_range(EVENTS) * 20), amount=pl.lit(1.0)
    ).write_parquet(tmp_path / "events.parquet")

    @mlf.feature(
        keys=["user"],
        source=str(tmp_path / "events.parquet"),
        timestamp="ts",
        interval="1d",
        metrics=[mlf.Rolling(windows=["7d"], aggregations={"amount": ["sum"]})],
    )
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    return mlf.Definitions(
        "shop", features=[spend], store=LocalStore(tmp_path / "store"), online_store=redis_store, as_of="2026-06-01"
    )


def test_a_build_tells_what_it_reads_computes_publishes_and_syncs(defs: mlf.Definitions) -> None:
    told = Told()
    with watched(told):
        (report,) = defs.build(online=True)
    rows = report.rows
    assert told.phases == [
        ("reading", "rows", None),
        ("computing", "rows", EVENTS),
        ("publishing", "rows", rows),
        ("syncing", "entities", None),
        ("syncing", "entities", USERS),
    ]
    assert told.done == {"reading": EVENTS, "publishing": rows, "syncing": USERS}
    assert told.parts == []


def test_a_build_with_a_memory_limit_tells_how_many_rows_are_computed(
    defs: mlf.Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So little memory that there are several frames.
    monkeypatch.setattr(spilled, "OWN", 10**9 - 1_000_000)
    told = Told()
    with watched(told):
        (report,) = defs.build(memory_limit="1GB")
    assert told.phases == [
        ("reading", "rows", None),
        ("computing", "rows", EVENTS),
        ("publishing", "rows", report.rows),
    ]
    assert told.done["reading"] == told.done["computing"] == EVENTS


def test_a_sync_in_parts_tells_which_one_it_is_at(defs: mlf.Definitions, monkeypatch: pytest.MonkeyPatch) -> None:
    defs.build()
    monkeypatch.setattr("mlforge.shards.LEAST_BYTES", 20_000)
    monkeypatch.setattr("mlforge.shards.SYNC_OWN", 10**9)
    told = Told()
    with watched(told):
        (report,) = defs.build(online=True, memory_limit="1GB")
    assert report.online is not None
    numbers = [number for number, _ in told.parts]
    assert numbers == list(range(1, told.parts[0][1] + 1))
    assert len(numbers) > 1
    assert sum(total or 0 for _, _, total in told.phases) == told.done["syncing"] == report.online.written == USERS


def test_the_rows_of_a_table_are_the_same_whether_or_not_somebody_watches(
    defs: mlf.Definitions, tmp_path: Path
) -> None:
    tables = []
    for watcher in (Told(), None):
        defs.store = LocalStore(tmp_path / f"store{watcher is None}")
        if watcher is None:
            defs.build(memory_limit="1GB")
        else:
            with watched(watcher):
                defs.build(memory_limit="1GB")
        tables.append(defs.store.require("spend").scan().collect().sort("user", "ts"))
    assert tables[0].equals(tables[1])


def test_where_nobody_counts_the_plan_of_polars_is_as_it_is() -> None:
    frame = pl.LazyFrame({"a": [1]})
    assert counted(frame) is frame
    with watched(Watcher()):
        assert counted(frame) is frame
    with watched(Told()):
        assert counted(frame) is not frame


def test_what_is_left_out_by_a_filter_is_not_read_where_rows_are_counted(tmp_path: Path) -> None:
    pl.DataFrame({"a": range(1000), "b": range(1000)}).write_parquet(tmp_path / "x.parquet", row_group_size=100)
    with watched(told := Told()):
        begin("reading", "rows")
        frame = counted(pl.scan_parquet(tmp_path / "x.parquet").filter(pl.col("a") >= 950))
        assert len(frame.collect(engine="streaming")) == 50
    assert told.done == {"reading": 50}


def test_only_what_is_being_done_is_counted() -> None:
    with watched(told := Told()):
        begin("computing", "rows", 10)
        advance("publishing", 5)
        advance("computing", 2)
        assert list(parts(["a"])) == ["a"]
        assert list(parts(["a", "b"])) == ["a", "b"]
    assert (told.done, told.parts) == ({"computing": 2}, [(1, 2), (2, 2)])
    advance("computing", 2)
    assert told.done == {"computing": 2}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_says_how_much_how_fast_and_how_long_it_takes_yet() -> None:
    clock = Clock()
    line = Line("building spend (1 of 1)", clock)
    assert (line.numbers, line.share) == ("", None)
    line.begin("reading", "rows", None)
    line.advance(2_000)
    assert line.numbers == "2,000 rows"
    clock.now = 2.0
    line.advance(2_000)
    assert (line.numbers, line.share) == ("4,000 rows, 2,000 rows/s", None)
    line.begin("computing", "rows", 4_000)
    assert line.numbers == "4,000 rows"
    clock.now = 4.0
    line.advance(1_000)
    assert (line.numbers, line.share) == ("1,000 of 4,000 rows, 500 rows/s, 0:00:06 left", 0.25)
    clock.now = 7.0
    assert line.numbers == "1,000 of 4,000 rows, 500 rows/s, 0:00:03 left"
    line.advance(3_000)
    assert line.numbers == "4,000 of 4,000 rows, 800 rows/s"


def test_of_several_parts_the_time_that_is_left_is_told_from_those_that_are_done() -> None:
    clock = Clock()
    line = Line("building spend (1 of 1)", clock)
    line.begin("syncing", "entities", None)
    line.part(1, 4)
    assert line.numbers == "part 1 of 4"
    clock.now = 2.0
    line.begin("syncing", "entities", 100)
    clock.now = 4.0
    line.advance(50)
    assert (line.numbers, line.share) == ("part 1 of 4, 50 of 100 entities, 25 entities/s, 0:00:28 left", 0.125)
    clock.now = 8.0
    line.part(2, 4)
    assert (line.numbers, line.share) == ("part 2 of 4, 0:00:24 left", 0.25)
    line.begin("publishing", "rows", 3)
    assert line.numbers == "3 rows"


def test_a_line_has_a_bar_where_something_is_known_to_be_done() -> None:
    line = Line("building spend (1 of 1)", Clock())
    line.begin("computing", "rows", 4)
    assert "━" not in shown(line)
    line.advance(2)
    assert "computing ━━━━━━━━━━" in shown(line)
    assert "building spend (1 of 1)" in shown(line)


def shown(line: Line) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    console.print(line.live().get_renderable())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_builds_are_watched_one_feature_at_a_time(defs: mlf.Definitions) -> None:
    building = defs.building(None, BuildRequest())
    with watched(told := Told()):
        next(building)
    assert told.phase == "publishing"
