"""Offline builds: what a feature's function may return, audit then publish, versions, and what is skipped."""

import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import mlforge as mlf
from mlforge import Definitions, checks
from mlforge.build import BuildReport
from mlforge.errors import CheckFailedError, DataError, DefinitionError
from mlforge.store import LocalStore

NOON = datetime(2026, 1, 31, 12)
EVENTS = pl.DataFrame({"user_id": ["a", "a", "b"], "ts": [NOON, NOON + timedelta(1), NOON], "amount": [1.0, 2.0, 4.0]})
SUM = mlf.Rolling(windows=["7d"], aggregations={"amount": ["sum"]})
USERS = pl.DataFrame({"user_id": ["a", "b"], "amount": [1, 2]})


class Frame(mlf.Source):
    """A frame in memory, with the fingerprints it is told."""

    def __init__(self, frame: pl.DataFrame, *fingerprints: str | None) -> None:
        self.frame = frame
        self.fingerprints = list(fingerprints) or [None]

    def scan(self) -> pl.LazyFrame:
        return self.frame.lazy()

    def fingerprint(self) -> str | None:
        return self.fingerprints.pop(0) if len(self.fingerprints) > 1 else self.fingerprints[0]


def identity(df: pl.LazyFrame) -> pl.LazyFrame:
    return df


class Project:
    """A store, and builds of a feature `f` in it."""

    def __init__(self, folder: Path) -> None:
        self.store = LocalStore(folder / "store")

    def build(
        self, source: Any, function: Callable[..., Any] = identity, *, force: bool = False, **arguments: Any
    ) -> BuildReport:
        source = Frame(source) if isinstance(source, pl.DataFrame) else source
        feature = mlf.feature(**{"keys": ["user_id"], "source": source, "name": "f", **arguments})(function)
        (report,) = Definitions(features=[feature], store=self.store).build(force=force)
        return report

    def windowed(self, source: Any, function: Callable[..., Any] = identity, **arguments: Any) -> BuildReport:
        return self.build(source, function, **{"timestamp": "ts", "metrics": [SUM], "interval": "1d", **arguments})

    @property
    def rows(self) -> pl.DataFrame:
        snapshot = self.store.open("f")
        assert snapshot is not None
        order = [*snapshot.record.keys, *([snapshot.record.timestamp] if snapshot.record.timestamp else [])]
        return snapshot.scan().collect().sort(order)

    @property
    def built(self) -> bool:
        return self.store.open("f") is not None


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_windowed_feature_is_its_change_points(project: Project) -> None:
    report = project.windowed(EVENTS)
    assert (report.feature, report.outcome, report.version, report.left_out) == ("f", "built", "1.0.0", 0)
    day = datetime(2026, 2, 1, tzinfo=UTC)
    assert project.rows.rows() == [
        ("a", day, 1.0),
        ("a", day + timedelta(1), 3.0),
        ("a", day + timedelta(7), 2.0),
        ("a", day + timedelta(8), 0.0),
        ("b", day, 4.0),
        ("b", day + timedelta(7), 0.0),
    ]
    assert report.rows == 6


def test_of_rows_at_one_instant_the_last_in_order_of_value_holds(project: Project) -> None:
    frame = pl.DataFrame(
        {"user_id": ["a"] * 4, "ts": [NOON] * 4, "x": [2, None, 2, 1], "y": [None, 9, 5, 7], "z": [[1], [2], [3], [4]]}
    )
    for order in (frame, frame.reverse()):
        project.build(order, timestamp="ts")
        assert project.rows.rows() == [("a", NOON.replace(tzinfo=UTC), 2, 5, [3])]


@pytest.mark.parametrize("kind", ["lazy", "eager"])
def test_a_function_may_return_either_kind_of_frame(kind: str, project: Project) -> None:
    project.build(USERS, lambda df: df.lazy() if kind == "lazy" else df.collect())
    assert project.rows.equals(USERS)


@pytest.mark.parametrize("value", [None, 7, "df", [1], pl.Series([1])])
def test_a_function_that_returns_something_else_is_named(value: Any, project: Project) -> None:
    with pytest.raises(DefinitionError) as caught:
        project.build(USERS, lambda df: value)
    assert str(caught.value) == (
        f"Feature 'f': the function returns {type(value).__name__}, not a LazyFrame or DataFrame."
    )
    assert not project.built


def test_what_a_function_raises_passes_with_its_traceback_and_the_name_of_the_feature(project: Project) -> None:
    def broken(df: pl.LazyFrame) -> pl.LazyFrame:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        project.build(USERS, broken)
    assert caught.traceback[-1].name == "broken"
    assert any("feature 'f'" in note for note in caught.value.__notes__)
    assert not project.built


def test_what_a_function_raises_late_has_the_name_of_the_feature_too(project: Project) -> None:
    for late in (
        lambda df: df.select("user_id", pl.col("no_such_column")),
        lambda df: df.with_columns(pl.col("user_id").str.to_integer()),
    ):
        with pytest.raises(DataError, match=r"Feature 'f', which reads .+: .+") as caught:
            project.build(USERS, late)
        assert "\n" not in str(caught.value)
    assert not project.built


def test_a_source_that_gives_no_frame_is_named(project: Project) -> None:
    class Wrong(mlf.Source):
        def scan(self) -> pl.LazyFrame:
            return 7  # type: ignore[return-value]

    with pytest.raises(DefinitionError, match=r"scan\(\) of .*Wrong.* returns int, not a LazyFrame"):
        project.build(Wrong())


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda df: df.drop("user_id"), "Feature 'f': the key column 'user_id' is missing; the function returns 'ts',"),
        (lambda df: df.drop("ts"), "the timestamp 'ts' is missing; the function returns 'user_id', 'amount'"),
        (lambda df: df.drop("amount"), "Feature 'f': the aggregated column 'amount' is missing"),
        (lambda df: df.select([]), "the key column 'user_id' is missing; the function returns no column"),
        (
            lambda df: df.with_columns(city=pl.lit("x")),
            "Feature 'f': column 'city' is not aggregated, so it has no value at an instant: aggregate it",
        ),
    ],
)  # fmt: skip
def test_a_windowed_feature_has_exactly_its_columns(function: Any, says: str, project: Project) -> None:
    with pytest.raises(DefinitionError) as caught:
        project.windowed(EVENTS, function)
    assert says in str(caught.value)
    assert not project.built


@pytest.mark.parametrize("late", [{}, {"available_at": "seen"}])
def test_a_column_that_a_check_names_is_checked_and_not_stored(late: dict[str, str], project: Project) -> None:
    last = mlf.Rolling(windows=["7d"], aggregations={"amount": ["sum", "last"]})
    # Whatever it says breaks no tie, and no store has to be able to hold it.
    events = pl.concat([EVENTS, EVENTS.with_columns(amount=pl.col("amount") / 2)]).with_columns(seen="ts")
    frame = events if late else events.drop("seen")
    project.windowed(frame, metrics=[last], **late)
    before = project.rows
    checked = frame.with_columns(id=timedelta(1) * pl.int_range(6, 0, -1), currency=pl.lit("EUR"))
    conditions = {"once": checks.unique("id"), "known": checks.is_in("currency", ["EUR"])}
    report = project.windowed(checked, metrics=[last], checks=conditions, **late)
    assert [check.passed for check in report.checks] == [True, True]
    assert project.rows.equals(before)
    with pytest.raises(CheckFailedError, match="'once': 2 of 6 rows"):
        project.windowed(checked.with_columns(id=pl.col("id").clip(timedelta(2))), checks=conditions, **late)
    with pytest.raises(DefinitionError, match=r"column 'city' is not aggregated, .* name it in a check, or leave it"):
        project.windowed(checked.with_columns(city=pl.lit("x")), checks=conditions, **late)


def test_other_features_need_a_column_and_none_of_ours(project: Project) -> None:
    with pytest.raises(DefinitionError, match="Feature 'f': there is no feature column"):
        project.build(USERS.select("user_id"))
    with pytest.raises(DefinitionError, match="Feature 'f': there is no feature column"):
        project.build(EVENTS.select("user_id", "ts"), timestamp="ts")
    with pytest.raises(DefinitionError, match="'mlforge_month': names with 'mlforge_' are reserved"):
        project.build(USERS.with_columns(mlforge_month=1))


@pytest.mark.parametrize("dtype", [pl.Int64, pl.String, pl.Float64])
def test_a_timestamp_that_is_none_is_named_with_the_conversion(dtype: Any, project: Project) -> None:
    with pytest.raises(DataError, match=rf"Feature 'f': the timestamp 'ts' is {dtype}.*pl.from_epoch"):
        project.windowed(EVENTS.with_columns(ts=pl.lit(1).cast(dtype)))


@pytest.mark.parametrize("aggregation", ["sum", "mean", "std", "var", "median"])
def test_an_aggregation_that_needs_numbers_names_its_feature_and_output(aggregation: Any, project: Project) -> None:
    metric = mlf.Rolling(windows=["7d"], aggregations={"amount": [aggregation]})
    with pytest.raises(DataError, match=f"Feature 'f': amount__{aggregation}__7d: .* which is String"):
        project.windowed(EVENTS.with_columns(amount=pl.lit("x")), metrics=[metric])


def test_an_integer_sum_beyond_int64_names_its_feature_and_output(project: Project) -> None:
    events = EVENTS.with_columns(amount=pl.lit(2**62))
    with pytest.raises(DataError, match="Feature 'f': amount__sum__7d: the sum 9223372036854775808 does not fit Int64"):
        project.windowed(events)
    assert not project.built


def test_duplicate_entities_of_a_snapshot_are_shown(project: Project) -> None:
    frame = pl.DataFrame({"user_id": ["a", "b", "a", "b", "c"], "n": range(5)})
    with pytest.raises(DataError) as caught:
        project.build(frame)
    assert "Feature 'f' has no timestamp, so one row an entity, but 2 entities have more" in str(caught.value)
    assert "{'user_id': 'a'}, {'user_id': 'b'}" in str(caught.value)
    assert not project.built


def test_rows_without_key_or_timestamp_are_left_out_and_counted(project: Project) -> None:
    events = pl.DataFrame(
        {
            "user_id": ["a", None, "a", "b"],
            "ts": [NOON, NOON, None, NOON],
            "amount": [1.0, 9.0, 9.0, None],
        }
    )
    report = project.windowed(events)
    assert report.left_out == 2
    assert project.rows["amount__sum__7d"].to_list() == [1.0, 0.0, 0.0, 0.0]
    composite = pl.DataFrame({"user_id": ["a", "a", None], "shop": [1, None, None], "n": [1, 2, 3]})
    assert project.build(composite, keys=["user_id", "shop"]).left_out == 2


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (EVENTS.clear(), "Feature 'f' has no data: the function returned no rows"),
        (
            EVENTS.with_columns(user_id=pl.lit(None, pl.String)),
            "Feature 'f' has no data: each of its 3 rows lacks one of ['user_id', 'ts']",
        ),
    ],
)
def test_no_data_is_an_error(frame: pl.DataFrame, says: str, project: Project) -> None:
    with pytest.raises(DataError) as caught:
        project.windowed(frame)
    assert says in str(caught.value)
    assert not project.built


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_a_source_without_rows_is_named(name: str, tmp_path: Path, project: Project) -> None:
    path = tmp_path / name
    USERS.clear().write_csv(path) if name == "x.csv" else USERS.clear().write_parquet(path)
    with pytest.raises(DataError, match=f"has no data: the function returned no rows .*{name}"):
        project.build(path)


def test_a_missing_source_is_named_and_nothing_is_written(project: Project, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'no\.parquet' does not exist"):
        project.build("no.parquet")
    assert not (tmp_path / "store" / "f").exists()


@pytest.mark.parametrize(("unit", "number"), [("us", 1_769_860_800 * 10**9), ("ms", 1_769_860_800 * 10**6)])
def test_a_mistaken_unit_of_time_is_asked_about(unit: Any, number: int, project: Project) -> None:
    events = EVENTS.with_columns(ts=pl.lit(number).cast(pl.Datetime(unit)))
    with pytest.raises(DataError) as caught:
        project.windowed(events)
    assert "Feature 'f': 3 events are not between the years 1900 and 2200" in str(caught.value)
    assert "is the unit of 'ts' seconds, milliseconds or microseconds?" in str(caught.value)


@pytest.mark.parametrize(
    ("time", "fits"),
    [
        (datetime(1899, 12, 31, 23, 59, 59, 999999), False),
        (datetime(1900, 1, 1), True),
        (datetime(2200, 12, 31, 23, 59, 59, 999999), True),
        (datetime(2201, 1, 1), False),
        (datetime(9999, 12, 31), False),
        (datetime(1, 1, 1), False),
    ],
)
def test_events_are_between_the_years_1900_and_2200(time: datetime, fits: bool, project: Project) -> None:
    frame = EVENTS.with_columns(ts=pl.lit(time, pl.Datetime("us")))
    if fits:
        assert project.build(frame, timestamp="ts").outcome == "built"
        assert project.rows["ts"].unique().to_list() == [time.replace(tzinfo=UTC)]
    else:
        with pytest.raises(DataError, match=f"3 events are not between .*{time:%m-%d %H:%M:%S}"):
            project.build(frame, timestamp="ts")


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63) + 1])
def test_instants_that_no_calendar_has_are_an_error_and_no_crash(number: int, project: Project) -> None:
    frame = EVENTS.with_columns(ts=pl.lit(number).cast(pl.Datetime("us")))
    with pytest.raises(DataError, match=rf"are not between the years .*{number} microseconds since 1970"):
        project.build(frame, timestamp="ts")


@pytest.mark.parametrize(
    ("times", "meant"),
    [
        (pl.Series([NOON]), datetime(2026, 1, 31, 12)),
        (pl.Series([NOON]).cast(pl.Datetime("ms")), datetime(2026, 1, 31, 12)),
        (pl.Series([NOON]).cast(pl.Datetime("ns")), datetime(2026, 1, 31, 12)),
        (pl.Series([-1]).cast(pl.Datetime("ns")), datetime(1969, 12, 31, 23, 59, 59, 999999)),
        (pl.Series([NOON]).dt.replace_time_zone("Asia/Kolkata"), datetime(2026, 1, 31, 6, 30)),
        (pl.Series([NOON]).cast(pl.Datetime("ns")).dt.replace_time_zone("Asia/Kolkata"), datetime(2026, 1, 31, 6, 30)),
        (pl.Series([date(2026, 1, 31)]), datetime(2026, 1, 31)),
    ],
)
def test_event_times_are_instants_in_utc(times: pl.Series, meant: datetime, project: Project) -> None:
    project.build(pl.DataFrame({"user_id": ["a"], "ts": times, "n": [1]}), timestamp="ts")
    assert project.rows.schema["ts"] == pl.Datetime("us", "UTC")
    assert project.rows["ts"].to_list() == [meant.replace(tzinfo=UTC)]


def test_the_hour_that_comes_twice_is_two_hours(project: Project) -> None:
    twice = pl.Series([datetime(2026, 10, 25, 2, 30)] * 2)
    berlin = pl.concat([
        twice.head(1).dt.replace_time_zone("Europe/Berlin", ambiguous="earliest"),
        twice.head(1).dt.replace_time_zone("Europe/Berlin", ambiguous="latest"),
    ])  # fmt: skip
    project.build(pl.DataFrame({"user_id": ["a", "a"], "ts": berlin, "n": [1, 2]}), timestamp="ts")
    assert [time.hour for time in project.rows["ts"]] == [0, 1]


def test_what_is_not_finite_counts_as_null(project: Project) -> None:
    events = EVENTS.with_columns(amount=pl.Series([float("nan"), float("inf"), 4.0]))
    metric = mlf.Rolling(windows=["7d"], aggregations={"amount": ["sum", "count", "max"]})
    project.windowed(events, metrics=[metric])
    assert project.rows.filter(user_id="a").select(pl.exclude("user_id", "ts")).unique().rows() == [(0.0, 0, None)]


def test_a_failed_check_publishes_nothing_and_the_old_version_stays(project: Project) -> None:
    with pytest.raises(CheckFailedError):
        project.build(USERS, checks={"c": pl.col("amount") > 1})
    assert not project.built
    project.build(USERS)
    before = project.rows
    with pytest.raises(CheckFailedError) as caught:
        project.build(USERS.with_columns(amount=-pl.col("amount")), checks={"c": pl.col("amount") > 0})
    assert str(caught.value) == (
        "Feature 'f' is not published, since a check failed: 'c': 2 of 2 rows, such as amount=-1 user_id='a'."
    )
    assert project.rows.equals(before)
    snapshot = project.store.open("f")
    assert snapshot is not None
    assert snapshot.version == "1.0.0"


def test_a_warning_is_reported_and_published(project: Project) -> None:
    report = project.build(USERS, checks={"c": mlf.Check(pl.col("amount") > 1, severity="warn")})
    (check,) = report.checks
    assert (report.outcome, check.passed, check.failed, check.rows) == ("built", False, 1, 2)


def test_checks_see_what_the_function_returns(project: Project) -> None:
    events = EVENTS.with_columns(amount=pl.Series([1.0, float("nan"), 4.0]), user_id=pl.Series(["a", None, "b"]))
    checks = {
        "finite": pl.col("amount").is_finite(),
        "key": pl.col("user_id").is_not_null(),
        "naive": pl.col("ts") < datetime(2027, 1, 1),
    }
    report = project.windowed(events, checks={name: mlf.Check(c, severity="warn") for name, c in checks.items()})
    assert [(check.name, check.failed) for check in report.checks] == [("finite", 1), ("key", 1), ("naive", 0)]


def test_a_check_that_cannot_be_evaluated_publishes_nothing(project: Project) -> None:
    with pytest.raises(DataError, match="Check 'c' of feature 'f' cannot be evaluated"):
        project.build(USERS, checks={"c": pl.col("no") > 0})
    assert not project.built


def test_a_failing_feature_leaves_those_before_it_built(project: Project) -> None:
    features = [
        mlf.feature(keys=["user_id"], source=Frame(frame), name=name)(identity)
        for name, frame in (("one", USERS), ("two", USERS.clear()), ("three", USERS))
    ]
    with pytest.raises(DataError, match="Feature 'two' has no data"):
        Definitions(features=features, store=project.store).build()
    assert [project.store.open(name) is not None for name in ("one", "two", "three")] == [True, False, False]


def test_nothing_changed_is_skipped_and_force_computes_anyway(project: Project) -> None:
    first = project.build(Frame(USERS, "v1"))
    skipped = project.build(Frame(USERS, "v1"))
    forced = project.build(Frame(USERS, "v1"), force=True)
    assert [r.outcome for r in (first, skipped, forced)] == ["built", "skipped", "unchanged"]
    assert {r.version for r in (first, skipped, forced)} == {"1.0.0"}
    assert (skipped.rows, skipped.checks, skipped.left_out) == (2, (), 0)


def test_a_source_without_a_fingerprint_is_never_skipped(project: Project) -> None:
    assert [project.build(Frame(USERS)).outcome for _ in range(2)] == ["built", "unchanged"]


def test_a_source_that_changed_during_the_read_is_read_again_next_time(project: Project) -> None:
    project.build(Frame(USERS, "v1", "v2"))
    snapshot = project.store.open("f")
    assert snapshot is not None
    assert snapshot.record.fingerprint is None
    assert project.build(Frame(USERS, "v2")).outcome == "unchanged"
    assert project.build(Frame(USERS, "v2")).outcome == "skipped"


def test_a_file_that_was_touched_is_read_and_equal_rows_keep_the_version(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    USERS.write_parquet(path)
    assert project.build(path).outcome == "built"
    assert project.build(path).outcome == "skipped"
    os.utime(path, ns=(0, 0))
    assert [project.build(path).outcome for _ in range(2)] == ["unchanged", "skipped"]
    USERS.head(1).write_parquet(path)
    report = project.build(path)
    assert (report.outcome, report.version, report.rows) == ("built", "1.0.1", 1)


def test_the_order_of_rows_is_no_change(project: Project) -> None:
    # Over several months, so over several files.
    metric = mlf.Rolling(windows=["90d"], aggregations={"amount": ["sum"]})
    project.windowed(EVENTS, metrics=[metric])
    assert project.windowed(EVENTS.reverse(), metrics=[metric]).outcome == "unchanged"


def test_versions_say_what_kind_of_change_it_was(project: Project) -> None:
    wide = USERS.with_columns(city=pl.lit("x"))
    steps: list[tuple[str, Callable[[], BuildReport]]] = [
        ("1.0.0", lambda: project.build(USERS)),
        ("1.0.1", lambda: project.build(USERS.head(1))),
        ("1.0.2", lambda: project.build(USERS)),
        ("1.1.0", lambda: project.build(wide)),
        ("1.1.1", lambda: project.build(wide.head(1))),
        ("1.2.0", lambda: project.build(wide.head(1), lambda df: df.filter(pl.lit(value=True)))),
        ("2.0.0", lambda: project.build(USERS)),
        ("2.0.1", lambda: project.build(USERS.head(1))),
        ("3.0.0", lambda: project.build(USERS.cast({"amount": pl.String}))),
        ("4.0.0", lambda: project.build(USERS.cast({"amount": pl.Float64}))),
        ("5.0.0", lambda: project.build(USERS.rename({"user_id": "user"}), keys=["user"])),
        ("6.0.0", lambda: project.build(EVENTS, timestamp="ts")),
    ]
    for version, step in steps:
        report = step()
        assert (report.outcome, report.version) == ("built", version)


def test_the_definition_changes_the_version_even_where_the_rows_are_equal(project: Project) -> None:
    project.build(Frame(USERS, "v1"))
    report = project.build(Frame(USERS, "v1"), checks={"c": pl.col("amount") > 0})
    assert (report.outcome, report.version) == ("built", "1.1.0")


def test_a_change_of_type_inside_a_column_is_a_major_version(project: Project) -> None:
    project.build(USERS.with_columns(v=pl.struct(x="amount")))
    assert project.build(USERS.with_columns(v=pl.struct(x="user_id"))).version == "2.0.0"


def test_reports_come_in_the_order_asked_for_and_once(project: Project) -> None:
    features = [mlf.feature(keys=["user_id"], source=Frame(USERS), name=n)(identity) for n in ("a", "b", "c")]
    definitions = Definitions(features=features, store=project.store)
    assert [report.feature for report in definitions.build(["c", "a", "c"])] == ["c", "a"]
    assert [report.feature for report in definitions.build()] == ["a", "b", "c"]
    assert all(report.online is None and report.seconds > 0 for report in definitions.build())
