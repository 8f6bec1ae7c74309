"""Builds of some events, in any order, leave the table that one build of all would."""

import datetime as dt
import itertools
import multiprocessing
import random
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlforge as mlf
from computing import rows_of
from mlforge import Definitions, RequestError
from mlforge.build import BuildReport
from mlforge.span import Span, touched
from mlforge.store import LocalStore

DAY = dt.timedelta(days=1)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SCHEMA = {"user": pl.Int64, "ts": pl.Datetime("us", "UTC"), "amount": pl.Int64}
AGGREGATIONS = ["sum", "count", "mean", "min", "max", "n_unique", "first", "last", "median"]
Event = tuple[int, float, int]


class Project:
    """Events, and a feature over them that is built in parts in one store and at once in another."""

    def __init__(self, folder: Path, *, interval: str | None = "1d", windows: Iterable[str] = ("3d", "35d")) -> None:
        self.folder = folder
        self.metrics = [mlf.Rolling(windows=list(windows), aggregations={"amount": AGGREGATIONS})] if windows else []
        self.interval = interval
        self.source = "events.parquet"

    def events(self, events: Iterable[Event]) -> None:
        """Events of users, so many days after START."""
        rows = [{"user": user, "ts": START + day * DAY, "amount": amount} for user, day, amount in events]
        pl.DataFrame(rows, schema=SCHEMA).sort("ts").write_parquet(self.folder / "events.parquet", row_group_size=3)

    def definitions(self, store: str = "parts") -> Definitions:
        @mlf.feature(
            keys=["user"],
            source=self.folder / self.source,
            timestamp="ts",
            interval=self.interval,
            metrics=self.metrics,
        )
        def spend(df: pl.LazyFrame) -> pl.LazyFrame:
            return df

        return Definitions("p", features=[spend], store=LocalStore(self.folder / store))

    def build(self, start: float | None = None, end: float | None = None, **options: Any) -> BuildReport:
        days = {"start": start, "end": end}
        given = {name: START + day * DAY for name, day in days.items() if day is not None}
        (report,) = self.definitions().build(**given, **options)
        return report

    def rows(self, store: str = "parts") -> pl.DataFrame:
        snapshot = LocalStore(self.folder / store).open("spend")
        assert snapshot is not None
        rows = snapshot.collect(snapshot.scan()).sort("user", "ts")
        assert snapshot.record.rows == len(rows)
        return rows

    def agrees(self) -> bool:
        """Whether the parts are the whole."""
        self.definitions("whole").build(force=True)
        return self.rows().equals(self.rows("whole"))


EVENTS: list[Event] = [(1, 0.5, 10), (1, 20.25, 5), (2, 33.0, 7), (1, 62.75, 1), (3, 80.0, 4)]
DAYS = st.integers(0, 4 * 90).map(lambda quarter: quarter / 4)
MANY = st.lists(st.tuples(st.integers(0, 2), DAYS, st.integers(0, 3)), max_size=14)


@settings(max_examples=25, deadline=None)
@given(
    before=MANY.filter(bool),
    after=MANY,
    cuts=st.lists(DAYS, max_size=4),
    interval=st.sampled_from([None, "6h", "1d", "4d", "1w"]),
    windows=st.sampled_from([(), ("6h",), ("3d",), ("1d", "35d")]),
    seed=st.integers(0, 99),
)
def test_parts_in_any_order_that_cover_all_events_make_the_whole(
    before: list[Event],
    after: list[Event],
    cuts: list[float],
    interval: str | None,
    windows: tuple[str, ...],
    seed: int,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), interval=interval if windows else None, windows=windows)
        project.events(before)
        project.build()
        project.events(after)
        edges = [-1.0, *sorted(set(cuts)), 91.0]
        # Each reaches a bit into the next, and the last has no end.
        parts: list[tuple[float, float | None]] = [(a, b + 0.75) for a, b in itertools.pairwise(edges)]
        parts[-1] = (parts[-1][0], None)
        random.Random(seed).shuffle(parts)
        for start, end in parts:
            project.build(start, end)
        if after:
            assert project.agrees()
        else:
            assert project.rows().is_empty()


class Events(mlf.Source):
    def __init__(self, events: Iterable[Event]) -> None:
        rows = [{"user": user, "ts": START + day * DAY, "amount": amount} for user, day, amount in events]
        self.frame = pl.DataFrame(rows, schema=SCHEMA)

    def scan(self) -> pl.LazyFrame:
        return self.frame.lazy()


SOON = st.integers(0, 4 * 25).map(lambda quarter: quarter / 4)


@settings(max_examples=120, deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(0, 1), SOON, st.integers(0, 3)), min_size=1, max_size=12),
    start=SOON,
    length=st.none() | st.integers(1, 40).map(lambda quarter: quarter / 4),
    interval=st.sampled_from([None, "6h", "1d", "4d", "1w"]),
    windows=st.sampled_from([["6h"], ["3d"], ["1d", "2w"], ["9d"]]),
)
def test_a_part_of_the_events_gives_the_rows_of_the_whole_from_no_more_than_it_needs(
    events: list[Event], start: float, length: float | None, interval: str | None, windows: list[str]
) -> None:
    source = Events(events)

    @mlf.feature(
        keys=["user"],
        source=source,
        timestamp="ts",
        interval=interval,
        metrics=[mlf.Rolling(windows=windows, aggregations={"amount": AGGREGATIONS})],
    )
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    part = Span(start=START + start * DAY, end=None if length is None else START + (start + length) * DAY)
    whole = rows_of(spend, source)
    assert rows_of(spend, source, part).equals(whole.filter(touched(spend, part).holds("ts")))


@pytest.mark.parametrize(
    "dtype",
    [
        pl.Date(),
        pl.Datetime("ms"),
        pl.Datetime("us", "Asia/Kolkata"),
        pl.Datetime("ns", "UTC"),
        pl.Datetime("ns"),
    ],
    ids=str,
)
@pytest.mark.parametrize("windows", [[], ["3d"]], ids=["rows", "windows"])
def test_times_of_every_kind_are_cut_where_they_are(dtype: pl.DataType, windows: list[str]) -> None:
    days = [0.0, 1.0, 1.5, 1.500000001, 2.0, 2.25, 7.0]
    source = Events([(1, day, int(4 * day)) for day in days])
    naive = pl.col("ts").dt.replace_time_zone(None)
    zone = getattr(dtype, "time_zone", None)
    source.frame = source.frame.with_columns(pl.col("ts").dt.convert_time_zone(zone) if zone else naive)
    source.frame = source.frame.with_columns(pl.col("ts").cast(dtype)).unique(["user", "ts"], keep="last")
    metrics = [mlf.Rolling(windows=windows, aggregations={"amount": ["sum"]})] if windows else []
    spend = mlf.feature(keys=["user"], source=source, timestamp="ts", metrics=metrics, name="spend")(lambda df: df)
    whole = rows_of(spend, source)
    for start, end in itertools.combinations([-1.0, 0.0, 1.0, 1.25, 1.5, 1.5000000005, 2.0, 7.0, 8.0], 2):
        part = Span(start=START + start * DAY, end=START + end * DAY)
        assert rows_of(spend, source, part).equals(whole.filter(touched(spend, part).holds("ts"))), (start, end)


@settings(max_examples=20, deadline=None)
@given(
    events=MANY.filter(bool),
    start=DAYS,
    length=st.integers(1, 60).map(lambda quarter: quarter / 4),
    changed=MANY,
    interval=st.sampled_from([None, "1d", "4d"]),
)
def test_a_part_is_all_that_has_to_be_built_where_only_its_events_have_changed(
    events: list[Event], start: float, length: float, changed: list[Event], interval: str | None
) -> None:
    end = start + length
    kept = [event for event in events if not start <= event[1] < end]
    changed = [event for event in changed if start <= event[1] < end]
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), interval=interval)
        project.events(events)
        project.build()
        project.events(kept + changed)
        report = project.build(start, end)
        assert (report.reason, report.outcome in ("built", "unchanged")) == ("", True)
        if kept or changed:
            assert project.agrees()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.events(EVENTS)
    return project


def test_where_a_part_cannot_be_built_all_of_it_is(project: Project) -> None:
    report = project.build(20, 21)
    assert (report.outcome, report.events, report.reason) == ("built", None, "there was no table")
    assert project.agrees()
    project.metrics = [mlf.Rolling(windows=["2d"], aggregations={"amount": ["sum"]})]
    report = project.build(20, 21)
    assert (report.outcome, report.version, report.reason) == ("built", "2.0.0", "the definition has changed")
    assert project.agrees()


def test_only_the_months_that_a_part_can_change_are_written(project: Project) -> None:
    project.build()
    before = LocalStore(project.folder / "parts").open("spend")
    project.events([*EVENTS, (1, 80.5, 9)])
    report = project.build(80, 81)
    after = LocalStore(project.folder / "parts").open("spend")
    assert before is not None
    assert after is not None
    assert report.version == "1.0.1"
    changed = {month for month in after.files if before.files.get(month) != after.files[month]}
    assert changed == {"2026-03", "2026-04"}
    assert project.agrees()


def test_no_more_of_the_source_is_read_than_a_part_needs(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.build()
    read: list[pl.DataFrame] = []
    from mlforge.engines import base as engine

    whole = engine.history
    monkeypatch.setattr(
        engine, "history", lambda feature, events, part: (read.append(events), whole(feature, events, part))[1]
    )
    project.build(80, 81, force=True)
    # An interval and the longest window before, a window after.
    assert read[0]["ts"].to_list() == [START + day * DAY for day in (62.75, 80.0)]


def test_an_incremental_build_takes_what_is_new_and_what_is_late(project: Project) -> None:
    project.build()
    assert project.build(incremental=True).outcome == "skipped"
    project.events([*EVENTS, (2, 81.5, 3), (1, 78.5, 2)])
    report = project.build(incremental=True, look_back="2d")
    assert report.outcome == "built"
    assert report.events is not None
    assert START + 76 * DAY < report.events.start <= START + 78 * DAY
    assert project.agrees()
    assert project.build(incremental=True).outcome == "skipped"
    # It knows nothing of what is earlier.
    assert project.build().outcome == "unchanged"
    assert project.build().outcome == "skipped"


def test_an_event_that_is_later_than_the_look_back_waits_for_a_full_build(project: Project) -> None:
    project.build()
    project.events([*EVENTS, (2, 40.0, 3)])
    project.build(incremental=True)
    assert not project.agrees()
    project.build()
    assert project.agrees()


def test_a_quiet_part_is_no_mistake_and_an_empty_one_takes_rows_away(project: Project) -> None:
    project.build()
    assert project.build(40, 41, force=True).outcome == "unchanged"
    project.events(EVENTS[:-1])
    assert project.build(79, 81).outcome == "built"
    assert project.agrees()
    project.events([*EVENTS[:-1], (3, 150.0, 1)])
    assert project.build(150, 151).outcome == "built"
    assert project.agrees()


def test_checks_look_at_the_events_of_the_part(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.events(EVENTS)

    def definitions() -> Definitions:
        @mlf.feature(
            keys=["user"],
            source=tmp_path / "events.parquet",
            timestamp="ts",
            checks={"small": mlf.Check(pl.col("amount") < 10, severity="warn")},
        )
        def spend(df: pl.LazyFrame) -> pl.LazyFrame:
            return df

        return Definitions("p", features=[spend], store=LocalStore(tmp_path / "parts"))

    (report,) = definitions().build()
    assert (report.checks[0].rows, report.checks[0].failed) == (5, 1)
    (report,) = definitions().build(start="2026-01-21", end="2026-02-10", force=True)
    assert (report.checks[0].rows, report.checks[0].failed) == (2, 0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"end": 3}, "write start as well"),
        ({"start": 3, "end": 3}, "is not after the start"),
        ({"start": 3, "incremental": True}, "leave start and end out"),
    ],
)
def test_what_cannot_be_meant_is_refused(project: Project, options: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        project.build(**options)


def _build_part(folder: Path, start: float, end: float, began: Any = None) -> None:
    if began is not None:
        began.set()
    Project(folder).build(start, end)


PARTS = [(-1.0, 31.0), (31.0, 59.0), (59.0, 91.0)]


def some_events(random_: random.Random) -> list[Event]:
    return [(random_.randrange(3), random_.randrange(360) / 4, random_.randrange(4)) for _ in range(20)]


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_processes_that_build_different_months_at_once_all_land(project: Project, rounds: int) -> None:
    context = multiprocessing.get_context("spawn")
    project.build()
    random_ = random.Random(7)
    for _ in range(rounds):
        project.events(some_events(random_))
        processes = [context.Process(target=_build_part, args=(project.folder, *part)) for part in PARTS]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0, 0]
        assert project.agrees()


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_part_whose_build_is_killed_is_all_there_or_not_at_all(project: Project, rounds: int) -> None:
    context = multiprocessing.get_context("spawn")
    project.build()
    random_ = random.Random(11)
    for number in range(rounds):
        project.events(some_events(random_))
        for part in PARTS:
            before = project.rows()
            began = context.Event()
            process = context.Process(target=_build_part, args=(project.folder, *part, began))
            process.start()
            assert began.wait(60)
            # From before it reads to after it has published.
            time.sleep(0.4 * number / rounds)
            process.kill()
            process.join(60)
            found = project.rows()
            project.build(*part)
            after = project.rows()
            assert found.equals(before) or found.equals(after)
        assert project.agrees()


def test_a_part_may_begin_before_and_end_after_all_events(project: Project) -> None:
    project.build()
    for dtype in (pl.Datetime("us", "UTC"), pl.Datetime("ns"), pl.Date):
        pl.DataFrame({"user": [1, 2], "ts": [START, START + 9 * DAY], "amount": [1, 2]}).with_columns(
            pl.col("ts").cast(dtype)
        ).write_parquet(project.folder / "events.parquet")
        for start, end in (("0001-01-01", "9999-12-31"), ("1500-01-01", "2250-01-01"), ("2026-01-01", "9999-12-31")):
            (report,) = project.definitions().build(start=start, end=end, force=True)
            assert report.reason == ""
            assert project.agrees()
    for start, end in (("0001-01-01", "0001-01-02"), ("9999-01-01", "9999-01-02"), ("2500-01-01", None)):
        (report,) = project.definitions().build(start=start, end=end, force=True)
        assert report.outcome == "unchanged"


def test_an_event_that_is_still_to_come_does_not_end_incremental_builds(project: Project) -> None:
    events = [(1, 0.5, 10), (1, 170 * 365.0, 5)]
    project.events(events)
    project.build()
    project.events([*events, (1, 1.0, 7)])
    report = project.build(incremental=True, look_back="36500d")
    assert report.outcome == "built"
    assert project.agrees()
    today = (dt.datetime.now(dt.UTC) - START) / DAY
    project.events([*events, (1, 1.0, 7), (2, today - 0.25, 9)])
    assert project.build(incremental=True).outcome == "built"
    assert project.agrees()


def test_looking_back_further_than_before_is_not_skipped(project: Project) -> None:
    days = [1.0, 10.0]
    project.events((1, day, 1) for day in days)
    project.build()
    days += [3.0, 11.0]
    project.events((1, day, 1) for day in days)
    assert project.build(incremental=True).outcome == "built"
    assert not project.agrees()
    assert project.build(incremental=True).outcome == "skipped"
    assert project.build(incremental=True, look_back="30d").outcome == "built"
    assert project.agrees()
    assert [project.build(incremental=True, look_back=length).outcome for length in ("30d", "1d")] == ["skipped"] * 2
    # Of what is earlier still nothing is known.
    assert project.build().outcome == "unchanged"
    assert project.build(incremental=True, look_back="300d").outcome == "skipped"


def test_a_part_of_another_source_is_no_part(project: Project) -> None:
    project.build()
    (project.folder / "events.parquet").rename(project.folder / "others.parquet")
    project.source = "others.parquet"
    assert project.build(0, 1).reason == "it reads another source than before"
    assert project.build(0, 1, force=True).reason == ""


class First(mlf.Source):
    amount = 1

    def scan(self) -> pl.LazyFrame:
        return pl.LazyFrame({"user": [1, 1], "ts": [START, START + 40 * DAY], "amount": [self.amount] * 2})


class Second(First):
    amount = 7


def test_a_part_of_another_source_of_ones_own_is_no_part(tmp_path: Path) -> None:
    def definitions(source: mlf.Source) -> Definitions:
        feature = mlf.feature(keys=["user"], source=source, timestamp="ts", name="f")(lambda df: df)
        return Definitions("p", features=[feature], store=LocalStore(tmp_path))

    definitions(First()).build()
    (report,) = definitions(Second()).build(start=START + 31 * DAY)
    assert report.reason == "it reads another source than before"
    snapshot = LocalStore(tmp_path).require("f")
    assert snapshot.collect(snapshot.scan())["amount"].to_list() == [7, 7]
