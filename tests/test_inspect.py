"""Profiles against plain Python, and `mlforge inspect`."""

import json
import math
import os
import pty
import re
import statistics
import subprocess
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import shop
from command_line import MLFORGE, all_of, cells, run
from mlforge import RequestError, loader
from mlforge.online import RedisStore
from mlforge.profile import ColumnProfile, profile
from servers import free_port

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UTC_TIME = pl.Datetime("us", "UTC")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shop.write()
    return tmp_path


def profiled(values: Sequence[Any], dtype: Any) -> ColumnProfile:
    [found] = profile(pl.DataFrame({"x": values}, schema={"x": dtype}))
    return found


def bins(values: Sequence[Any]) -> tuple[list[int], int]:
    """How many values are in each tenth, by exact arithmetic; and how many are so near to an edge that floats err."""
    exact, counts, near = list(map(Fraction, values)), [0] * 10, 0
    width = max(exact) - min(exact)
    for value in exact:
        part = (value - min(exact)) / width * 10 if width else Fraction(0)
        counts[min(int(part), 9)] += 1
        near += 0 < abs(part - round(part)) < 1e-9
    return counts, near


def is_what_python_says(values: Sequence[Any], dtype: Any) -> None:
    found, present = profiled(values, dtype), [value for value in values if value is not None]
    assert found.null_rate == (None if not values else pytest.approx(1 - len(present) / len(values)))
    assert found.distinct == len(set(present))
    assert sum(found.histogram) == len(present)
    assert found.top == []
    if not present:
        assert set(found.quantiles.values()) == {None}
        return
    assert (found.quantiles["min"], found.quantiles["max"]) == (min(present), max(present))
    between = [float(min(present))] * 3
    if len(present) > 1:
        between = statistics.quantiles(map(float, present), n=4, method="inclusive")
    assert [found.quantiles[label] for label in ("25%", "50%", "75%")] == pytest.approx(between, rel=1e-9, abs=1e-9)
    counts, near = bins(present)
    assert sum(abs(a - b) for a, b in zip(found.histogram, counts, strict=True)) <= 2 * near


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5), st.integers(-(2**53), 2**53))))
def test_integers_are_profiled_as_in_plain_python(values: list[int | None]) -> None:
    is_what_python_says(values, pl.Int64)


@given(st.lists(st.one_of(st.none(), st.integers(-50, 50).map(lambda n: n / 8))))
def test_floats_are_profiled_as_in_plain_python(values: list[float | None]) -> None:
    is_what_python_says(values, pl.Float64)


@given(st.lists(st.one_of(st.none(), st.decimals(-999, 999, places=2)), max_size=20))
def test_decimals_are_profiled_as_in_plain_python(values: list[Decimal | None]) -> None:
    is_what_python_says(values, pl.Decimal(10, 2))


@given(st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "é", "a b", "\N{GRINNING FACE}", "\n"]))))
@example([])
def test_the_most_frequent_texts_come_first_and_ties_in_order(values: list[str | None]) -> None:
    found = profiled(values, pl.String)
    counted = Counter(value for value in values if value is not None)
    assert found.top == sorted(counted.items(), key=lambda each: (-each[1], each[0]))[:5]
    assert (found.distinct, found.quantiles, found.histogram) == (len(counted), {}, [])


@given(st.lists(st.one_of(st.none(), st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)))))
def test_times_are_profiled_as_numbers_are(values: list[datetime | None]) -> None:
    aware = [None if value is None else value.replace(tzinfo=UTC) for value in values]
    found = profiled(aware, UTC_TIME)
    present = [(value - EPOCH) / timedelta(microseconds=1) for value in aware if value is not None]
    assert sum(found.histogram) == len(present)
    if present:
        middle = EPOCH + timedelta(microseconds=statistics.median(present))
        assert abs(found.quantiles["50%"] - middle) <= timedelta(microseconds=1)
        known = [value for value in aware if value is not None]
        assert (found.quantiles["min"], found.quantiles["max"]) == (min(known), max(known))


def test_the_ends_of_a_dtype_do_not_overflow() -> None:
    assert profiled([-(2**63), 0, 2**63 - 1], pl.Int64).histogram == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert profiled([-1.7e308, 0.0, 1.7e308], pl.Float64).histogram == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert profiled([2**62, 2**62 + 10], pl.Int64).histogram == [1, *[0] * 8, 1]
    assert profiled([date(1900, 1, 1), date(2200, 12, 31)], pl.Date).histogram == [1, *[0] * 8, 1]


ODD: dict[str, tuple[Any, list[Any]]] = {
    "whole": (pl.Int64, [1, None]),
    "number": (pl.Float64, [0.5, None]),
    "single": (pl.Float32, [0.5, None]),
    "text": (pl.String, ["ä", None]),
    "flag": (pl.Boolean, [True, None]),
    "day": (pl.Date, [date(2026, 1, 1), None]),
    "time": (UTC_TIME, [datetime(2026, 1, 1, tzinfo=UTC), None]),
    "price": (pl.Decimal(10, 2), [Decimal("1.50"), None]),
    "list": (pl.List(pl.String), [["a", None], None]),
    "struct": (pl.Struct({"a": pl.List(pl.Int64)}), [{"a": [1, None]}, None]),
    "nested": (pl.List(pl.List(pl.Struct({"a": pl.Date}))), [[[{"a": None}]], None]),
}


@pytest.mark.parametrize("kind", ODD)
def test_every_dtype_that_can_be_stored_has_a_profile(kind: str) -> None:
    dtype, values = ODD[kind]
    found = profiled(values, dtype)
    assert (found.null_rate, found.distinct) == (0.5, 1)
    assert all(value == values[0] for value in found.quantiles.values())
    nothing, empty = profiled([None, None], dtype), profiled([], dtype)
    assert (nothing.null_rate, nothing.distinct) == (1.0, 0)
    assert (empty.null_rate, empty.distinct) == (None, 0)
    assert set(empty.quantiles.values()) | set(nothing.quantiles.values()) <= {None}
    assert not any([*empty.histogram, *nothing.histogram, *empty.top, *nothing.top])
    assert [profiled([values[0]], dtype).null_rate, profiled([values[0]], dtype).distinct] == [0.0, 1]


def test_a_frame_without_columns_has_no_profile() -> None:
    assert profile(pl.DataFrame()) == []


def test_inspect_shows_definition_table_online_and_profile(online: str) -> None:
    shop.write(online=online)
    run("build --online")
    answer = run("inspect user_spend")
    assert (answer.code, answer.err) == (0, "")
    head, _, values = answer.out.partition("\n\n")
    assert head == (
        "user_spend  1.0.0\n"
        "  What a user has spent.\n"
        "  keys      user_id\n"
        "  time      ts\n"
        "  interval  1d\n"
        "  windows   7d, 30d\n"
        "  columns   amount: sum, count\n"
        "  source    events.parquet\n"
        "  tags      users\n"
        "  owners    team:risk\n"
        "  checks    amount is there; amount is small (warn)\n"
        "  table     9 rows of 2 entities, from 2026-01-06T00:00:00Z to 2026-02-08T00:00:00Z\n"
        f"  where     {Path('store/user_spend').absolute()}\n"
        "  online    1.0.0 as of 2026-01-10T00:00:00Z (0:00:00 ago), complete, 2 entities"
    )
    lines = values.splitlines()
    assert lines[0] == "The values that hold at 2026-01-10T00:00:00Z, of 2 entities:"
    rows = [cells(line) for line in lines]
    assert rows[2:6] == [
        ["column", "type", "null", "distinct"],
        [lines[3]],
        ["user_id", "Int64", "0%", "2"],
        ["ts", "Datetime", "0%", "2"],
    ]
    assert ["column", "min", "25%", "50%", "75%", "max", "histogram"] in rows
    assert ["amount__sum__7d", "2", "16.62", "31.25", "45.88", "60.5", "█▁▁▁▁▁▁▁▁█"] in rows
    assert rows[-1] == ["ts", "2026-01-07T00:00Z", "2026-01-08T00:00Z", "2026-01-09T00:00Z", "█▁▁▁▁▁▁▁▁█"]
    assert max(map(len, values.splitlines())) <= 80


def test_inspect_as_json_is_one_object(online: str) -> None:
    shop.write(online=online)
    run("build --online")
    found = json.loads(run("inspect user_spend --json").out)
    assert found["definition"]["checks"][1]["description"] == "Seldom wrong."
    assert len(found["definition"]["definition_hash"]) == 32
    built = found["built"]
    assert (built["version"], built["current"], built["rows"], built["entities"], built["visible"]) == (
        *("1.0.0", True, 9, 2, 2),
    )
    assert (built["first"], built["last"]) == ("2026-01-06T00:00:00Z", "2026-02-08T00:00:00Z")
    assert [(column["column"], column["dtype"]) for column in built["profile"]][:3] == [
        ("user_id", "Int64"),
        ("ts", "Datetime(time_unit='us', time_zone='UTC')"),
        ("amount__sum__7d", "Float64"),
    ]
    assert built["profile"][2]["quantiles"]["max"] == 60.5
    assert (found["online"]["state"], found["online"]["age"], found["problem"]) == ("complete", 0.0, "")


def test_profiled_are_the_values_that_hold_at_one_instant() -> None:
    run("build")

    def sums(at: str) -> tuple[int, float | None]:
        built = json.loads(run(f"inspect user_spend --json --at {at}").out)["built"]
        [column] = [each for each in built["profile"] if each["column"] == "amount__sum__7d"]
        return built["visible"], column["quantiles"]["max"]

    assert sums("2026-01-06") == (1, 10.5)
    assert sums("2026-01-09") == (2, 60.5)
    assert sums("2030-01-01") == (2, 0.0)
    assert sums("2000-01-01") == (0, None)
    answer = run("inspect user_spend --at 2000-01-01")
    assert answer.code == 0
    assert answer.out.endswith("there is no online store\n\nNo entity has a value at 2000-01-01T00:00:00Z.\n")


def test_texts_numbers_and_times_are_shown_each_in_its_way() -> None:
    run("build")
    rows = [cells(line) for line in run("inspect prices").out.splitlines()]
    assert ["column", "type", "null", "distinct", "most frequent"] in rows
    assert ["note", "String", "0%", "1", "'äb' 2"] in rows
    assert ["price", "Float64", "50%", "1"] in rows
    assert ["price", "2.5", "2.5", "2.5", "2.5", "2.5", "█▁▁▁▁▁▁▁▁▁"] in rows
    assert rows[-1] == ["day", "2026-01-31", "2026-01-31", "2026-01-31", "█▁▁▁▁▁▁▁▁▁"]


def test_long_numbers_are_shown_short_and_whole_ones_whole() -> None:
    amounts = [1 / 3, 12_345.678, 98_765_432.1, 1.5e12]
    shop.EVENTS.clear().vstack(
        pl.DataFrame({"user_id": range(4), "ts": [datetime(2026, 1, 5)] * 4, "amount": amounts})
    ).write_parquet("events.parquet")
    run("build")
    rows = [cells(line) for line in run("inspect last_amount").out.splitlines()]
    assert ["amount", "0.3333", "9259", "49388889", "3.751e+11", "1.5e+12", "█▁▁▁▁▁▁▁▁▄"] in rows


def test_what_is_not_built_is_inspected_all_the_same() -> None:
    answer = run("inspect user_spend")
    assert answer.code == 0
    assert answer.out.startswith("user_spend  not built\n")
    assert answer.out.endswith("  online    there is no online store\n")
    assert json.loads(run("inspect user_spend --json").out)["built"] is None


def test_another_version_can_be_inspected() -> None:
    run("build")
    shop.EVENTS.head(2).write_parquet("events.parquet")
    run("build")
    assert run("inspect user_spend").out.startswith("user_spend  1.0.1\n")
    old = run("inspect user_spend --version 1.0.0")
    assert old.out.startswith("user_spend  1.0.0\n")
    assert "9 rows of 2 entities" in old.out
    wrong = run("inspect user_spend --version 3.0.0")
    assert (wrong.code, wrong.out, wrong.err.count("\n")) == (1, "", 1)
    assert "has no version '3.0.0'" in wrong.err


def test_a_definition_that_has_changed_since_the_build_is_said() -> None:
    run("build")
    assert "changed" not in run("inspect user_spend").out
    shop.write(project=shop.PROJECT.replace('windows=["7d", "30d"]', 'windows=["7d"]'))
    assert "  changed   the definition is another one than when this was built\n" in run("inspect user_spend").out


def test_after_a_rollback_the_columns_that_are_stored_are_shown_beside_those_that_are_defined() -> None:
    run("build")
    assert "  columns   amount\n" in run("inspect last_amount").out
    shop.write(
        project=shop.PROJECT.replace('windows=["7d", "30d"]', 'windows=["7d"]').replace(
            'def last_amount(df):\n    return df.select("user_id", "ts", "amount")',
            'def last_amount(df):\n    return df.select("user_id", "ts", paid="amount")',
        )
    )
    run("build")
    for name in ("user_spend", "last_amount"):
        assert "  stored  " not in run(f"inspect {name}").out
        run(f"rollback {name} 1.0.0 --yes")
    columns = "amount__sum__7d, amount__sum__30d, amount__count__7d, amount__count__30d"
    found = run("inspect user_spend").out
    assert f"  stored    {columns}\n  changed   the definition is another one than when this was built\n" in found
    assert "  windows   7d\n" in found
    assert json.loads(run("inspect user_spend --json").out)["built"]["columns"] == columns.split(", ")
    assert "  columns   amount\n" in run("inspect last_amount").out


def test_a_feature_is_inspected_in_python_as_on_the_command_line() -> None:
    run("build")
    defs = loader.find(None)
    loader._forget()
    found = defs.inspect("user_spend")
    assert found.built is not None
    assert (found.built.version, found.built.visible, found.built.at) == ("1.0.0", 2, defs.as_of)
    early = defs.inspect("user_spend", at="2026-01-06", version="1.0.0").built
    assert early is not None
    assert (early.visible, early.at) == (1, datetime(2026, 1, 6, tzinfo=UTC))
    with pytest.raises(RequestError, match=r"has no version '3\.0\.0'"):
        defs.inspect("user_spend", version="3.0.0")
    with pytest.raises(RequestError, match="'soon' is no instant"):
        defs.inspect("user_spend", at="soon")


def test_an_online_store_that_is_down_hides_nothing_else() -> None:
    shop.write(online=f"RedisStore('127.0.0.1', {free_port()}, password='s3cret')")
    run("build")
    answer = run("inspect user_spend")
    assert answer.code == 0
    assert "  online    Redis at 127.0.0.1:" in answer.out
    assert "The values that hold at" in answer.out
    assert "s3cret" not in answer.out


def test_what_is_online_is_said_however_it_came_there(online: str, redis_store: RedisStore) -> None:
    shop.write(online=online)
    run("build")
    assert "  online    nothing\n" in run("inspect user_spend").out
    redis_store.write("user_spend", {"user_id": "1"}, {"amount": 1})
    assert "  online    written by hand, not by a build\n" in run("inspect user_spend").out


def test_a_feature_that_is_unknown_is_one_line() -> None:
    answer = run("inspect user_spent")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "mlforge: There is no feature 'user_spent'; did you mean 'user_spend'?\n"


def test_odd_data_is_inspected(folder: Path) -> None:
    pl.DataFrame(
        {"k": ["ключ"], **{name: values[:1] for name, (_, values) in ODD.items()}, "never": [None]},
        schema={"k": pl.String, **{name: dtype for name, (dtype, _) in ODD.items()}, "never": pl.Float64},
    ).write_parquet("odd.parquet")
    (folder / "definitions.py").write_text(
        "import mlforge as mlf\n"
        "@mlf.feature(keys=['k'], source='odd.parquet')\n"
        "def odd(df):\n    return df\n"
        "defs = mlf.Definitions('odd')\n"
    )
    assert run("build").code == 0
    lines = [cells(line) for line in run("inspect odd").out.splitlines()]
    assert ["k", "String", "0%", "1", "'ключ' 1"] in lines
    assert ["never", "Float64", "100%", "0"] in lines
    assert ["never", "-", "-", "-", "-", "-", "▁▁▁▁▁▁▁▁▁▁"] in lines
    assert ["list", "List(String)", "0%", "1"] in [line[:4] for line in lines]
    found = json.loads(run("inspect odd --json").out)["built"]["profile"]
    assert len(found) == len(ODD) + 2
    assert not any(isinstance(each["null_rate"], float) and math.isnan(each["null_rate"]) for each in found)


def test_a_terminal_and_a_pipe_see_the_same_histogram() -> None:
    run("build")
    piped = subprocess.run([MLFORGE, "inspect", "prices"], capture_output=True, check=True)
    assert "█▁▁▁▁▁▁▁▁▁" in piped.stdout.decode()
    assert (piped.stderr, b"\x1b" in piped.stdout) == (b"", False)
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([MLFORGE, "inspect", "prices"], stdout=terminal, stderr=subprocess.PIPE, env=environment)
    os.close(terminal)
    shown = all_of(controller)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert [line.rstrip() for line in plain.splitlines()] == piped.stdout.decode().splitlines()
