"""Explanations against the oracle, and `mlforge explain`."""

import json
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import strategies as st

import mlforge as mlf
import shop
from command_line import MLFORGE, cells, run
from mlforge import Definitions
from mlforge.explain import Explanation
from mlforge.online import RedisStore
from mlforge.recompute import Recomputed, recompute
from mlforge.store import LocalStore
from oracle import EPOCH, boundary, duration, value_at, value_of_snapshot, value_of_timestamped
from servers import free_port
from test_windows import (
    ASKED_OF_DTYPES,
    DAY,
    DTYPES,
    FLOATS,
    INTEGERS,
    UNRELATED_FLOATS,
    Case,
    cases,
    for_all,
    integer_cases,
    is_right,
    mixed_cases,
    number_cases,
    outputs,
)

AT = datetime(2026, 1, 10, tzinfo=UTC)
CHANGED = (
    "What is stored differs: since 1.0.0 was built, the source has changed, or code that the definition does not cover."
)


class Frame(mlf.Source):
    """A source in memory, whose rows can be exchanged."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def scan(self) -> pl.LazyFrame:
        return self.frame.lazy()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shop.write()
    return tmp_path


def feature(frame: pl.DataFrame, keys: Any = ("k",), **more: Any) -> mlf.Feature:
    return mlf.feature(keys=keys, source=Frame(frame), name="f", **more)(lambda df: df)


def windowed(case: Case) -> mlf.Feature:
    return feature(case.frame, tuple(case.keys), timestamp=case.timestamp, interval=case.interval, metrics=case.metrics)


def entities(case: Case) -> list[dict[str, Any]]:
    return [dict(zip(case.keys, entity, strict=True)) for entity in case.entities]


def moment(since_epoch: int) -> datetime:
    return EPOCH + timedelta(microseconds=since_epoch)


def instants(case: Case, entity: dict[str, Any], number: int) -> list[int]:
    """Some of the events, the change points, what lies beside them, and long before and after."""
    values = tuple(entity.values())
    exact = {*case.times(values), *case.instants(values)}
    every = {*(t + off for t in exact for off in (-1, 0, 1)), min(exact) - 900 * DAY, max(exact) + 900 * DAY}
    return random.Random(len(every)).sample(sorted(every), min(number, len(every)))


def own(case: Case, entity: dict[str, Any]) -> pl.DataFrame:
    return case.frame.filter(pl.all_horizontal(pl.col(name) == value for name, value in entity.items()))


def is_what_the_oracle_says(case: Case) -> None:
    """The recomputed values, the bounds of the windows, and the events in each."""
    made, kinds = windowed(case), outputs(case)
    for entity in entities(case):
        values = tuple(entity.values())
        for t in instants(case, entity, 9):
            found, expected = recompute(made, own(case, entity), moment(t)), case.expected(values, t)
            end = boundary(t, case.interval)
            assert found.boundary == moment(end)
            has_these_windows(case, found, case.times(values), end)
            if expected is None or found.values is None:
                assert found.values is expected is None
                continue
            assert list(found.values) == list(expected)
            for name, (aggregation, dtype) in kinds.items():
                assert is_right(found.values[name], expected[name], aggregation, dtype), (name, entity, t)


def has_these_windows(case: Case, found: Recomputed, times: list[int], end: int) -> None:
    longest = 0
    for metric in case.metrics:
        for output in metric.outputs:
            window, length = found.windows[output.name], duration(output.window)
            inside = [time for time in times if end - length <= time < end]
            assert (window.start, window.end, window.events) == (moment(end - length), moment(end), len(inside))
            longest = max(longest, length)
    shown = [time for time in times if end - longest <= time < end]
    assert found.rows[case.timestamp].to_physical().to_list() == shown


@pytest.mark.parametrize("family", [*FLOATS, *UNRELATED_FLOATS])
def test_floats_are_explained_by_exact_arithmetic(family: str) -> None:
    for_all(number_cases(family), is_what_the_oracle_says, 8)


@pytest.mark.parametrize("family", INTEGERS)
def test_integers_are_explained_by_exact_arithmetic(family: str) -> None:
    for_all(integer_cases(family), is_what_the_oracle_says, 8)


def test_every_dtype_is_explained_by_exact_arithmetic() -> None:
    for_all(cases(DTYPES, ASKED_OF_DTYPES), is_what_the_oracle_says, 10)


def test_ties_and_several_columns_are_explained() -> None:
    for_all(mixed_cases(), is_what_the_oracle_says, 15)


def agrees_with_what_is_built(case: Case) -> None:
    if not case.rows:
        return
    with TemporaryDirectory() as folder:
        defs = Definitions(features=[windowed(case)], store=LocalStore(folder))
        defs.build()
        for entity in entities(case):
            for t in instants(case, entity, 3):
                found = defs.explain("f", entity, moment(t))
                assert (found.differing, found.stored.version) == ([], "1.0.0"), (entity, t)
                assert (found.stored.values is None) == (found.recomputed.values is None)
                assert found.stored.since is None or found.stored.since <= moment(t)


def test_what_is_stored_is_what_is_recomputed() -> None:
    for_all(mixed_cases(min_events=1), agrees_with_what_is_built, 8)


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.integers(0, 5),
        st.one_of(st.none(), st.integers(0, 2)),
        st.one_of(st.none(), st.sampled_from(["", "x"])),
    ),
    min_size=1,
    max_size=12,
)


def rows_of(rows: list[tuple[Any, ...]], *names: str) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """Rows as a frame and as dicts; of the columns t and u the numbers are seconds in the one, nothing in the other."""
    dtypes = {"k": pl.String, "t": pl.Int64, "x": pl.Int64, "y": pl.String, "u": pl.Int64}
    frame = pl.DataFrame(rows, schema={name: dtypes[name] for name in names}, orient="row")
    times = [name for name in ("t", "u") if name in names]
    return frame.with_columns(pl.from_epoch(name, "s") for name in times), frame.to_dicts()


@contextmanager
def built(frame: pl.DataFrame, **more: Any) -> Iterator[Callable[[str, int], Explanation]]:
    """Explains the value of an entity at a second, and sees to it that it is the stored one."""
    with TemporaryDirectory() as folder:
        defs = Definitions(features=[feature(frame, timestamp="t", **more)], store=LocalStore(folder))
        defs.build()

        def explained(key: str, second: int) -> Explanation:
            found = defs.explain("f", {"k": key}, moment(second * 10**6))
            assert found.differing == [], (key, second)
            assert found.recomputed.values is not None or found.stored.values is None
            return found

        yield explained


def holds_as_the_oracle_says(case: tuple[list[tuple[Any, ...]], str | None]) -> None:
    rows, max_age = case
    frame, events = rows_of(rows, "k", "t", "x", "y")
    micros = [event | {"t": event["t"] * 10**6} for event in events]
    with built(frame, max_age=max_age) as explained:
        for key in ("a", "b", "c"):
            for t in range(-1, 9):
                found = explained(key, t)
                expected = value_of_timestamped(micros, {"k": key}, t * 10**6, timestamp="t", max_age=max_age)
                assert found.stored.values == found.recomputed.values == expected
                assert (found.recomputed.holds is None) == (expected is None)
                if found.recomputed.holds is not None:
                    holding = found.recomputed.rows.row(found.recomputed.holds, named=True)
                    assert {name: holding[name] for name in ("x", "y")} == expected


def test_the_row_that_holds_of_a_timestamped_feature_is_the_oracles() -> None:
    for_all(st.tuples(ROWS, st.sampled_from([None, "1s", "3s"])), holds_as_the_oracle_says, 8)


LATE = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3), st.integers(0, 2), st.integers(-2, 6)),
    min_size=5,
    max_size=12,
)


def counts_once_it_is_known(rows: list[tuple[Any, ...]]) -> None:
    frame, events = rows_of(rows, "k", "t", "x", "u")
    micros = [event | {"t": event["t"] * 10**6, "u": event["u"] * 10**6} for event in events]
    asked: dict[str, Any] = {"windows": ["1s", "4s"], "aggregations": {"x": ["sum", "count", "first", "last"]}}
    for interval in (None, "2s"):
        rolling = mlf.Rolling(**asked)
        # When an event is known breaks ties before its values do, wherever the column stands.
        with built(
            frame.select("k", "t", "u", "x"), interval=interval, metrics=[rolling], available_at="u"
        ) as explained:
            for key, t in product(("a", "b"), range(-1, 13, 2)):
                expected = value_at(
                    micros, {"k": key}, t * 10**6, timestamp="t", available_at="u", interval=interval, **asked
                )
                assert explained(key, t).recomputed.values == expected, (key, t, interval)


def test_events_that_are_known_later_are_explained_from_then_on() -> None:
    for_all(LATE, counts_once_it_is_known, 6)


def holds_once_it_is_known(rows: list[tuple[Any, ...]]) -> None:
    frame, events = rows_of(rows, "k", "t", "x", "u")
    with built(frame, available_at="u") as explained:
        for key, t in product(("a", "b"), range(-1, 10)):
            known = [event for event in events if event["k"] == key and max(event["t"], event["u"]) <= t]
            newest = max(known, key=lambda event: (event["t"], max(event["t"], event["u"]), event["x"]), default=None)
            assert explained(key, t).recomputed.values == (newest and {"x": newest["x"]}), (key, t)


def test_rows_that_are_known_later_hold_from_then_on() -> None:
    for_all(LATE, holds_once_it_is_known, 6)


def test_why_there_is_no_value_is_said_of_late_and_of_old_rows_too() -> None:
    frame = pl.DataFrame({"k": ["a"], "t": [datetime(2026, 1, 1)], "u": [datetime(2026, 2, 1)], "x": [1.0]})
    late = defined(feature(frame, timestamp="t", available_at="u")).explain("f", {"k": "a"})
    assert late.remarks == [
        "The first row of this entity is known at 2026-02-01T00:00:00.000000Z: it has no value yet."
    ]
    old = defined(feature(frame, timestamp="t", max_age="3d")).explain("f", {"k": "a"})
    assert old.remarks == ["The rows of this entity hold for 3d, which has passed since the last one."]
    assert old.recomputed.rows.height == 1


def test_events_that_are_known_only_later_are_counted_beside_the_windows() -> None:
    days = [datetime(2026, 1, day) for day in (1, 3, 4, 5)]
    known = [datetime(2026, 1, 1), datetime(2026, 2, 1), AT.replace(tzinfo=None), datetime(2026, 1, 6)]
    frame = pl.DataFrame({"k": ["a"] * 4, "t": days, "u": known, "x": [1.0, 2.0, 4.0, 8.0]})
    rolling = mlf.Rolling(windows=["1d", "30d"], aggregations={"x": ["sum"]})
    defs = defined(feature(frame, timestamp="t", available_at="u", metrics=[rolling]))
    found = defs.explain("f", {"k": "a"})
    assert (found.recomputed.values or {})["x__sum__30d"] == 9.0
    assert found.remarks == [
        "Events in the windows that do not count, since they are known later: 2, the first from "
        "2026-01-10T00:00:00.000000Z on."
    ]
    assert defs.explain("f", {"k": "a"}, "2026-02-02").remarks == []
    assert defs.explain("f", {"k": "a"}, "2026-01-03").remarks == []
    assert defs.explain("f", {"k": "a"}, "2027-01-03").remarks == []


def test_what_differs_after_a_rollback_is_said_to_be_rolled_back() -> None:
    made = feature(pl.DataFrame({"k": ["a"], "x": [1.0]}))
    defs = defined(made)
    made.source.frame = pl.DataFrame({"k": ["a"], "x": [2.0]})  # type: ignore[union-attr]
    defs.build()
    defs.rollback("f", "1.0.0")
    assert defs.explain("f", {"k": "a"}).remarks == ["What is stored differs: 'f' was rolled back to 1.0.0."]
    defs.build(force=True)
    assert defs.explain("f", {"k": "a"}).remarks == []


def test_what_a_check_refuses_is_explained() -> None:
    made = feature(
        pl.DataFrame({"k": ["a"], "x": [1.0]}), checks={"text": pl.col("x").str.contains("a"), "no": pl.col("x") < 0}
    )
    found = Definitions(features=[made], store=LocalStore("own")).explain("f", {"k": "a"})
    assert found.recomputed.values == {"x": 1.0}


def test_columns_that_are_there_for_checks_alone_are_no_part_of_an_explanation() -> None:
    frame = pl.DataFrame({"k": ["a"], "ts": [datetime(2026, 1, 1)], "x": [1.0], "id": [7]})
    made = feature(
        frame,
        timestamp="ts",
        metrics=[mlf.Rolling(windows=["7d"], aggregations={"x": ["sum"]})],
        checks={"once": pl.col("id").is_unique(), "none": pl.col("id") < 0},
    )
    defs = Definitions(features=[made], store=LocalStore("own"))
    found = defs.explain(made.name, {"k": "a"}, at="2026-01-02")
    assert found.recomputed.values == {"x__sum__7d": 1.0}
    assert found.recomputed.rows.columns == ["k", "ts", "x"]


def test_a_feature_that_is_read_and_out_of_date_is_named() -> None:
    def write(value: float) -> None:
        pl.DataFrame({"k": ["a"], "t": [datetime(2026, 1, 1)], "x": [value]}).write_parquet("rows.parquet")

    def made(times: int) -> list[mlf.Feature]:
        first = mlf.feature(keys=["k"], source="rows.parquet", timestamp="t", name="first")(
            lambda df: df.with_columns(x=pl.col("x") * times)
        )
        second = mlf.feature(keys=["k"], source=first, timestamp="t", name="second")(lambda df: df)
        return [first, second, mlf.feature(keys=["k"], source=second, timestamp="t", name="third")(lambda df: df)]

    def remarks(name: str, times: int = 1) -> list[str]:
        defs = Definitions(features=made(times), store=LocalStore("own"), as_of=AT)
        return list(defs.explain(name, {"k": "a"}).remarks)

    write(1.0)
    defs = Definitions(features=made(1), store=LocalStore("own"), as_of=AT)
    defs.build()
    stale = "It reads 'first', which is built as 1.0.0 and has other data or code by now."
    assert (remarks("second"), remarks("third")) == ([], [])
    assert remarks("second", times=2) == [stale]
    write(2.0)
    assert (remarks("second"), remarks("third")) == ([stale], [stale])
    defs.build(["first"])
    assert remarks("second") == [CHANGED]
    assert remarks("third") == ["It reads 'second', which is built as 1.0.0 and has other data or code by now."]
    defs.build()
    assert (remarks("second"), remarks("third")) == ([], [])
    defs.rollback("first", "1.0.0")
    defs.build(["second", "third"])
    assert (remarks("second"), remarks("third")) == ([], [])
    Path("rows.parquet").unlink()
    assert (remarks("second"), remarks("third")) == ([], [])


def defined(made: mlf.Feature, **more: Any) -> Definitions:
    defs = Definitions(features=[made], store=LocalStore("own"), as_of=AT, **more)
    defs.build(online="online_store" in more)
    return defs


def test_a_snapshot_is_explained_by_its_row() -> None:
    rows = [{"k": "a", "x": 1}, {"k": "b", "x": None}]
    defs = defined(feature(pl.DataFrame(rows)))
    for key in ("a", "b", "c"):
        found = defs.explain("f", {"k": key})
        assert found.stored.values == found.recomputed.values == value_of_snapshot(rows, {"k": key})
        assert (found.differing, found.recomputed.boundary, found.stored.since) == ([], None, None)
        assert found.recomputed.rows.height == (key != "c")


def test_two_rows_of_a_snapshot_are_shown_and_have_no_value() -> None:
    made = feature(pl.DataFrame({"k": ["a"], "x": [1]}))
    defs = defined(made)
    made.source.frame = pl.DataFrame({"k": ["a", "a"], "x": [1, 2]})
    found = defs.explain("f", {"k": "a"})
    assert (found.recomputed.values, found.recomputed.rows.height) == (None, 2)
    assert found.remarks == [
        "The source has 2 rows of this entity, and a build refuses all but one.",
        CHANGED,
    ]


@pytest.mark.parametrize(
    ("dtype", "value", "texts"),
    [
        (pl.Int64, 123, [123, "123"]),
        (pl.UInt8, 7, [7, "7"]),
        (pl.String, "007", ["007"]),
        (pl.Categorical, "ä", ["ä"]),
        (pl.Boolean, True, [True, "true"]),
        (pl.Date, datetime(2026, 1, 31).date(), [datetime(2026, 1, 31).date(), "2026-01-31"]),
        (pl.Datetime("ms"), datetime(2026, 1, 31, 12), [datetime(2026, 1, 31, 12), "2026-01-31T12:00:00.000000Z"]),
        (
            pl.Datetime("us", "Europe/Berlin"),
            datetime(2026, 1, 31, 12, tzinfo=UTC),
            [datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00.000000Z"],
        ),
    ],
)
def test_entities_match_by_their_text(dtype: Any, value: Any, texts: list[Any], redis_store: RedisStore) -> None:
    frame = pl.DataFrame({"x": [1.5, 2.5]}).with_columns(
        pl.Series("k", [value, None], dtype=dtype), pl.Series("l", [1, 2], dtype=pl.Int64)
    )
    defs = defined(feature(frame, ("k", "l")), online_store=redis_store)
    for text in texts:
        found = defs.explain("f", {"l": "1", "k": text})
        assert found.stored.values == found.recomputed.values == found.online.values == {"x": 1.5}
    assert defs.explain("f", {"k": texts[-1], "l": 2}).recomputed.values is None


def test_what_differs_is_named_when_the_source_or_the_definition_has_changed() -> None:
    frame = pl.DataFrame({"k": ["a", "b"], "x": [1.0, 5.0], "y": [2, 2]})
    made = feature(frame)
    defs = defined(made)
    made.source.frame = frame.with_columns(x=pl.col("x") + 1e-12)
    assert defs.explain("f", {"k": "a"}).differing == []
    made.source.frame = frame.with_columns(x=pl.col("x") + 1e-6)
    found = defs.explain("f", {"k": "a"})
    assert found.differing == ["x"]
    assert found.remarks == [CHANGED]
    made.source.frame = frame.filter(pl.col("k") == "b")
    found = defs.explain("f", {"k": "a"})
    assert (found.differing, found.recomputed.values) == (["x", "y"], None)
    assert found.remarks[0] == "The source has no row of this entity."
    other = mlf.feature(keys=["k"], source=Frame(frame), name="f")(lambda df: df.with_columns(pl.col("x") * 2))
    found = Definitions(features=[other], store=LocalStore("own")).explain("f", {"k": "a"})
    assert found.remarks == ["What is stored differs: the definition has changed since 1.0.0 was built."]


def test_a_null_is_not_zero_and_no_row_is_not_a_row_of_nulls() -> None:
    made = feature(pl.DataFrame({"k": ["a", "b"], "x": [None, 0.0]}))
    defs = defined(made)
    assert defs.explain("f", {"k": "a"}).stored.values == {"x": None}
    made.source.frame = pl.DataFrame({"k": ["a", "c"], "x": [0.0, None]})
    assert defs.explain("f", {"k": "a"}).differing == ["x"]
    assert defs.explain("f", {"k": "c"}).differing == ["x"]


def test_lists_structs_and_columns_of_nulls_are_explained(redis_store: RedisStore) -> None:
    frame = pl.DataFrame(
        {
            "k": ["ключ", "b"],
            "list": [["ä", None], None],
            "struct": [{"a": [1, None]}, None],
            "never": pl.Series([None, None], dtype=pl.Date),
            "price": [Decimal("1.50"), None],
        }
    )
    defs = defined(feature(frame), online_store=redis_store)
    found = defs.explain("f", {"k": "ключ"})
    assert found.stored.values == found.recomputed.values == frame.drop("k").row(0, named=True)
    assert (found.differing, found.remarks) == ([], [])
    assert (found.online.values or {})["price"] == "1.50"
    assert set((defs.explain("f", {"k": "b"}).stored.values or {}).values()) == {None}


def test_events_of_nothing_but_nulls_are_events() -> None:
    frame = pl.DataFrame({"k": ["a"], "t": [datetime(2026, 1, 1)], "x": [None]}, schema_overrides={"x": pl.Float64})
    every: Any = ["count", "sum", "mean", "min", "max", "std", "var", "median", "n_unique", "first", "last"]
    made = feature(frame, timestamp="t", metrics=[mlf.Rolling(windows=["30d"], aggregations={"x": every})])
    found = defined(made).explain("f", {"k": "a"})
    assert found.differing == []
    assert {name: value for name, value in (found.recomputed.values or {}).items() if value is not None} == {
        "x__count__30d": 0,
        "x__sum__30d": 0.0,
        "x__n_unique__30d": 0,
    }
    assert {window.events for window in found.recomputed.windows.values()} == {1}


def test_a_sum_that_no_build_accepts_is_an_error_that_names_it() -> None:
    frame = pl.DataFrame({"k": ["a", "a"], "t": [datetime(2026, 1, 1)] * 2, "x": [2**62, 2**62]})
    made = feature(frame, timestamp="t", metrics=[mlf.Rolling(windows=["30d"], aggregations={"x": ["sum"]})])
    with pytest.raises(mlf.DataError, match=r"x__sum__30d: the sum 9223372036854775808 does not fit Int64"):
        Definitions(features=[made], store=LocalStore("own")).explain("f", {"k": "a"}, AT)


@pytest.mark.parametrize("at", ["0001-01-01", "9999-12-31T23:59:59.999999Z"])
def test_the_first_and_the_last_instant_there_are_can_be_explained(at: str) -> None:
    frame = pl.DataFrame({"k": ["a"], "t": [datetime(2026, 1, 1)], "x": [1.0]})
    rolling = mlf.Rolling(windows=["30d", "36525d"], aggregations={"x": ["sum"]})
    for interval in (None, "1w"):
        defs = defined(feature(frame, timestamp="t", interval=interval, metrics=[rolling]))
        found = defs.explain("f", {"k": "a"}, at)
        assert found.differing == []
        assert found.recomputed.values == (None if at < "1" else {"x__sum__30d": 0.0, "x__sum__36525d": 0.0})


def test_a_feature_that_reads_another_is_explained_from_its_table() -> None:
    frame = pl.DataFrame({"k": ["a"], "t": [datetime(2026, 1, 1)], "x": [1.0]})
    base = mlf.feature(keys=["k"], source=Frame(frame), timestamp="t", name="base")(lambda df: df)
    rolling = mlf.Rolling(windows=["30d"], aggregations={"x": ["sum"]})
    derived = mlf.feature(keys=["k"], source=base, timestamp="t", metrics=[rolling], name="f")(lambda df: df)
    defs = Definitions(features=[base, derived], store=LocalStore("own"), as_of=AT)
    with pytest.raises(mlf.RequestError, match="'base' has not been built"):
        defs.explain("f", {"k": "a"})
    defs.build()
    assert defs.explain("f", {"k": "a"}).recomputed.values == {"x__sum__30d": 1.0}


def test_keys_that_are_not_the_features_or_the_tables_are_refused() -> None:
    frame = pl.DataFrame({"k": ["a"], "l": ["b"], "x": [1]})
    defs = defined(feature(frame))
    with pytest.raises(mlf.RequestError, match=r"is keyed by \['k'\], not by \['l'\]"):
        defs.explain("f", {"l": "b"})
    with pytest.raises(mlf.RequestError, match="every entity key needs a value"):
        defs.explain("f", {"k": None})
    other = Definitions(features=[feature(frame, ("l",))], store=LocalStore("own"))
    with pytest.raises(
        mlf.RequestError, match=r"is built with the keys \['k'\] and defined with \['l'\]: run `mlforge"
    ):
        other.explain("f", {"l": "b"})


def test_explain_shows_the_events_behind_each_number(online: str) -> None:
    shop.write(online=online)
    run("build --online")
    answer = run("explain user_spend user_id=123 --at 2026-01-13T05:00:00Z")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0] == "user_spend  user_id=123  at 2026-01-13T05:00:00Z"
    rows = [cells(line) for line in lines]
    assert rows[2] == ["column", "stored", "recomputed", "online"]
    assert rows[4:8] == [
        ["amount__sum__7d", "50.0", "50.0", "60.5"],
        ["amount__sum__30d", "60.5", "60.5", "60.5"],
        ["amount__count__7d", "1", "1", "2"],
        ["amount__count__30d", "2", "2", "2"],
    ]
    assert [rows[9], *rows[11:13]] == [
        ["window", "from", "before", "events"],
        ["7d", "2026-01-06T00:00:00Z", "2026-01-13T00:00:00Z", "1"],
        ["30d", "2025-12-14T00:00:00Z", "2026-01-13T00:00:00Z", "2"],
    ]
    assert [rows[14], *rows[16:18]] == [
        ["ts", "amount"],
        ["2026-01-05T09:00:00Z", "10.5", "in 30d"],
        ["2026-01-06T12:00:00Z", "50.0", "in 7d, in 30d"],
    ]
    assert lines[19:] == [
        "Stored: version 1.0.0, a row that holds from 2026-01-13T00:00:00Z on.",
        "Online: It holds version 1.0.0 as of 2026-01-10T00:00:00Z.",
    ]


def test_explain_as_json_is_one_object(online: str) -> None:
    shop.write(online=online)
    run("build --online")
    found = json.loads(run("explain user_spend user_id=123 --json").out)
    values = {"amount__sum__7d": 60.5, "amount__sum__30d": 60.5, "amount__count__7d": 2, "amount__count__30d": 2}
    assert (found["feature"], found["entity"], found["at"]) == (
        *("user_spend", {"user_id": "123"}, "2026-01-10T00:00:00Z"),
    )
    assert found["stored"] == {"values": values, "version": "1.0.0", "since": "2026-01-07T00:00:00Z"}
    assert found["online"] == {
        "values": values,
        "version": "1.0.0",
        "as_of": "2026-01-10T00:00:00Z",
        "state": "complete",
        "problem": "",
    }
    assert found["recomputed"] == values
    assert found["windows"]["amount__sum__7d"] == {
        "length": "7d",
        "start": "2026-01-03T00:00:00Z",
        "end": "2026-01-10T00:00:00Z",
        "events": 2,
    }
    assert found["rows"][0] == {"user_id": 123, "ts": "2026-01-05T09:00:00Z", "amount": 10.5}
    assert (found["rows_left_out"], found["differing"], found["remarks"]) == (0, [], [])


def test_of_many_events_the_first_and_the_last_are_shown() -> None:
    start = datetime(2026, 1, 1)
    pl.DataFrame(
        {
            "user_id": [1] * 1203,
            "ts": [start + timedelta(minutes=number) for number in range(1203)],
            "amount": [float(number) for number in range(1203)],
        }
    ).write_parquet("events.parquet")
    lines = [cells(line) for line in run("explain user_spend user_id=1").out.splitlines()]
    events = [line[1] for line in lines if line[1:] and (line[-1].startswith("in ") or line[-1] == "...")]
    assert events == ["0.0", "1.0", "2.0", "3.0", "4.0", "...", "1198.0", "1199.0", "1200.0", "1201.0", "1202.0"]
    found = json.loads(run("explain user_spend user_id=1 --json").out)
    assert [row["amount"] for row in found["rows"]] == [float(n) for n in (*range(500), *range(703, 1203))]
    assert found["rows_left_out"] == 203


def test_explain_shows_which_row_of_a_timestamped_feature_holds() -> None:
    run("build")
    lines = [cells(line) for line in run("explain last_amount user_id=123 --at 2026-01-07").out.splitlines()]
    assert ["amount", "50.0", "50.0", "-"] in lines
    assert ["2026-01-05T09:00:00Z", "10.5"] in lines
    assert ["2026-01-06T12:00:00Z", "50.0", "holds"] in lines


def test_explain_shows_what_differs() -> None:
    run("build")
    shop.EVENTS.with_columns(amount=pl.col("amount") + 1).write_parquet("events.parquet")
    lines = run("explain user_spend user_id=7").out.splitlines()
    rows = [cells(line) for line in lines]
    assert ["amount__sum__7d", "2.0", "3.0", "-", "differs"] in rows
    assert ["amount__count__7d", "1", "1", "-"] in rows
    assert lines[-1] == CHANGED


def test_explain_says_in_one_line_what_is_not_there(online: str, redis_store: RedisStore) -> None:
    answer = run("explain user_spend user_id=123")
    assert answer.code == 0
    assert answer.out.endswith(
        "Online: There is no online store.\nIt is not built: run `mlforge build --features user_spend`.\n"
    )
    shop.write(online=online)
    assert "Online: nothing of this entity. Nothing says that it was ever put there" in (
        run("explain user_spend user_id=123").out
    )
    run("build --online")
    unknown = run("explain user_spend user_id=124")
    assert (unknown.code, unknown.err) == (1, "")
    assert ["7d", "2026-01-03T00:00:00Z", "2026-01-10T00:00:00Z", "0"] in map(cells, unknown.out.splitlines())
    assert unknown.out.splitlines()[-3:] == [
        "Stored: version 1.0.0 has no row of this entity for this instant.",
        "Online: nothing of this entity. It holds version 1.0.0 as of 2026-01-10T00:00:00Z.",
        "The source has no row of this entity.",
    ]
    early = run("explain user_spend user_id=123 --at 2026-01-05T12:00:00Z")
    assert early.code == 1
    assert early.out.endswith("The first row of this entity is at 2026-01-05T09:00:00.000000Z: it has no value yet.\n")
    assert ["amount__sum__7d", "-", "-", "60.5"] in [cells(line)[:4] for line in early.out.splitlines()]
    redis_store.write("user_spend", {"user_id": "9"}, {"amount": 1})
    by_hand = run("explain user_spend user_id=9")
    assert (by_hand.code, "written to by hand since." in by_hand.out) == (1, True)


def test_an_online_store_that_is_down_hides_nothing_else() -> None:
    shop.write(online=f"RedisStore('127.0.0.1', {free_port()}, password='s3cret')")
    run("build")
    answer = run("explain user_spend user_id=123")
    assert answer.code == 0
    assert "Online: Redis at 127.0.0.1:" in answer.out
    assert ["amount__sum__7d", "60.5", "60.5", "-"] in [cells(line)[:4] for line in answer.out.splitlines()]
    assert "s3cret" not in answer.out
    found = json.loads(run("explain user_spend user_id=123 --json").out)["online"]
    assert (found["values"], found["problem"].startswith("Redis at")) == (None, True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("explain user_spent user_id=1", "There is no feature 'user_spent'; did you mean 'user_spend'?"),
        ("explain user_spend", "The key 'user_id' is missing: feature 'user_spend' is keyed by user_id"),
        ("explain user_spend user=1", "There is no key 'user': feature 'user_spend' is keyed by user_id"),
        ("explain user_spend user_id=1 --at yesterday", "'yesterday' is no instant"),
    ],
)
def test_what_cannot_be_explained_is_one_line(line: str, message: str) -> None:
    answer = run(line)
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert message in answer.err


def test_a_source_that_is_gone_is_one_line() -> None:
    run("build")
    Path("events.parquet").unlink()
    answer = run("explain user_spend user_id=123")
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert "The source 'events.parquet' does not exist" in answer.err


def test_a_process_says_the_same_and_keeps_what_the_function_prints_out_of_the_json() -> None:
    shop.write(
        project=shop.PROJECT.replace("def user_spend(df):", "def user_spend(df):\n    print('from the function')")
    )
    run("build")
    ended = subprocess.run(
        [MLFORGE, "explain", "user_spend", "user_id=123", "--json"], capture_output=True, text=True, check=True
    )
    assert ended.stderr == "from the function\n"
    assert json.loads(ended.stdout) == json.loads(run("explain user_spend user_id=123 --json").out)
