"""`Definitions.validate` and `mlforge validate`: checks on the data as it is, with nothing computed or written."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import mlforge as mlf
from command_line import Cli, cells, process
from mlforge import Definitions, checks, loader
from mlforge.store import LocalStore
from servers import free_port
from shop import EVENTS

PROJECT = """
import polars as pl
import mlforge as mlf
from mlforge import checks
from mlforge.online import RedisStore
from mlforge.store import LocalStore

@mlf.feature(
    keys=["user_id"],
    source="events.parquet",
    timestamp="ts",
    metrics=[mlf.Rolling(windows=["7d"], aggregations={{"amount": ["sum"]}})],
    checks={{
        "amount is there": checks.not_null("amount"),
        "amount is sane": checks.between("amount", 0, 100),
        "amount is small": checks.between("amount", upper=40, severity="warn"),
    }},
)
def user_spend(df):
    {body}
    return df.select("user_id", "ts", "amount")

@mlf.feature(keys=["user_id"], source="prices.csv", checks={{"a price": checks.matches("price", "[0-9]+ EUR")}})
def prices(df):
    return df.select("user_id", "price")

defs = mlf.Definitions("shop", store=LocalStore("store"), online_store=RedisStore("127.0.0.1", {port}))
"""

BAD = EVENTS.with_columns(amount=pl.Series([-1.0, None, float("nan")]))


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    EVENTS.write_parquet("events.parquet")
    Path("prices.csv").write_text("user_id,price\n1,2 EUR\n2,\n")
    write_project()
    yield
    loader._forget()


def write_project(body: str = "pass") -> None:
    # Nothing listens there: whoever asks the online store fails.
    Path("definitions.py").write_text(PROJECT.format(body=body, port=free_port()))


def test_warnings_are_shown_and_neither_fail_nor_touch_a_store() -> None:
    ended = process("validate")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert cells(lines[0]) == ["feature", "outcome", "rows", "checks", "seconds"]
    assert cells(lines[2])[:4] == ["user_spend", "passed", "3", "2 passed, 1 failed"]
    assert cells(lines[3])[:4] == ["prices", "passed", "2", "1 passed"]
    assert lines[4:] == [
        "user_spend: the check 'amount is small' failed for 1 of 3 rows (severity warn), such as",
        "  amount=50.0 user_id=123 ts=2026-01-06T12:00:00",
    ]
    assert sorted(path.name for path in Path().iterdir() if path.name != "__pycache__") == [
        *("definitions.py", "events.parquet", "prices.csv"),
    ]


def test_a_check_that_fails_is_exit_code_1_with_a_line_for_each(cli: Cli) -> None:
    BAD.write_parquet("events.parquet")
    answer = cli("validate")
    assert (answer.code, answer.err) == (1, "")
    lines = answer.out.splitlines()
    assert cells(lines[2])[:4] == ["user_spend", "failed", "3", "0 passed, 3 failed"]
    assert cells(lines[3])[:2] == ["prices", "passed"]
    assert [line.partition(" rows (")[0] for line in lines[4:]] == [
        "user_spend: the check 'amount is there' failed for 2 of 3",
        "  amount=null user_id=123 ts=2026-01-06T12:00:00",
        "  amount=nan user_id=7 ts=2026-01-08T00:00:00",
        "user_spend: the check 'amount is sane' failed for 2 of 3",
        "  amount=-1.0 user_id=123 ts=2026-01-05T09:00:00",
        "  amount=nan user_id=7 ts=2026-01-08T00:00:00",
        "user_spend: the check 'amount is small' failed for 1 of 3",
        "  amount=nan user_id=7 ts=2026-01-08T00:00:00",
    ]
    assert cli("validate --features prices").code == 0


def test_a_feature_that_cannot_be_run_is_a_line_and_the_others_are_still_validated() -> None:
    Path("events.parquet").unlink()
    Path("prices.csv").write_text("user_id,cost\n1,2 EUR\n")
    ended = process("validate")
    assert (ended.returncode, ended.stderr) == (1, "")
    lines = ended.stdout.splitlines()
    assert [cells(line)[:4] for line in lines[2:4]] == [
        [name, "cannot be run", "-", "-"] for name in ("user_spend", "prices")
    ]
    assert lines[4].startswith("user_spend: cannot be run: The source 'events.parquet' does not exist (looked for '")
    assert lines[5].startswith("prices: cannot be run: Feature 'prices', which reads FileSource('prices.csv'): ")
    assert 'unable to find column "price"' in lines[5]
    assert len(lines) == 6


def test_as_json_it_is_one_array_of_reports(cli: Cli) -> None:
    BAD.with_columns(user_id=pl.Series([1, None, 3])).write_parquet("events.parquet")
    Path("prices.csv").unlink()
    answer = cli("validate --json")
    assert answer.code == 1
    spend, prices = json.loads(answer.out)
    assert (spend["feature"], spend["passed"], spend["rows"], spend["left_out"]) == ("user_spend", False, 3, 1)
    sane = spend["checks"][1]
    assert (sane["name"], sane["severity"], sane["passed"], sane["rows"], sane["failed"]) == (
        *("amount is sane", "error", False, 3, 2),
    )
    assert [row["amount"] for row in sane["examples"]] == [-1.0, None]
    assert (prices["passed"], prices["checks"]) == (False, [])
    assert "'prices.csv' does not exist" in prices["problem"]


def test_rows_that_a_build_would_leave_out_are_counted(cli: Cli) -> None:
    pl.concat([EVENTS, EVENTS.head(2).with_columns(user_id=None)]).write_parquet("events.parquet")
    lines = cli("validate --features user_spend").out.splitlines()
    assert cells(lines[0])[2:4] == ["rows", "left out"]
    assert cells(lines[2])[2:4] == ["5", "2"]


def test_names_are_checked_before_anything_is_run(cli: Cli) -> None:
    write_project(body="raise ZeroDivisionError")
    answer = cli("validate --features user_spend,price")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "mlforge: There is no feature 'price'; did you mean 'prices'?\n"


def test_what_a_function_raises_is_a_line_with_its_place_and_the_others_are_still_validated() -> None:
    write_project(body="{}['gone']")
    line = Path("definitions.py").read_text().splitlines().index("    {}['gone']") + 1
    problem = f"KeyError: 'gone' ({str(Path.cwd() / 'definitions.py')!r}, line {line})"
    ended = process("validate")
    assert (ended.returncode, ended.stderr) == (1, "")
    lines = ended.stdout.splitlines()
    assert [cells(line)[:2] for line in lines[2:4]] == [["user_spend", "cannot be run"], ["prices", "passed"]]
    assert lines[4:] == [f"user_spend: cannot be run: {problem}"]
    ended = process("validate", "--json")
    assert (ended.returncode, ended.stderr) == (1, "")
    spend, prices = json.loads(ended.stdout)
    assert (spend["passed"], spend["problem"], prices["passed"]) == (False, problem, True)


@pytest.mark.parametrize(
    ("raises", "problem"),
    [
        (ValueError(), "ValueError"),
        (ValueError("one\ntwo"), "ValueError: one"),
        (mlf.DataError("no rates for today"), "no rates for today"),
    ],
)
def test_a_problem_is_one_line_whatever_is_raised(raises: Exception, problem: str) -> None:
    def broken(df: pl.LazyFrame) -> pl.LazyFrame:
        raise raises

    read = mlf.feature(keys=["user_id"], source="events.parquet")(broken)

    @mlf.feature(keys=["user_id"], source=read)
    def reads(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    line = broken.__code__.co_firstlineno + 1
    place = "" if isinstance(raises, mlf.MlforgeError) else f" ({__file__!r}, line {line})"
    reports = Definitions("shop", features=[read, reads], store=LocalStore("store")).validate()
    assert [report.problem for report in reports] == [problem + place] * 2


def test_what_sets_name_that_does_not_exist_is_a_line_each(cli: Cli) -> None:
    text = Path("definitions.py").read_text()
    Path("definitions.py").write_text(
        f"""{text}
good = mlf.FeatureSet("good", ["user_spend:amount__sum__7d", "user_spend", prices, "prices:whatever"])
typos = mlf.FeatureSet("typos", ["user_spent", "prices", mlf.FeatureSet("inner", ["user_spend:amount__sum__8d"])])
one = mlf.FeatureRef("price")
"""
    )
    answer = cli("validate --json")
    assert (answer.code, [report["passed"] for report in json.loads(answer.out)]) == (1, [True, True])
    assert answer.err.splitlines() == [
        "mlforge: FeatureSet 'typos': there is no feature 'user_spent'; did you mean 'user_spend'?",
        "mlforge: FeatureSet 'typos': feature 'user_spend' has no column 'amount__sum__8d'; did you mean "
        "'amount__sum__7d'?",
        "mlforge: FeatureRef 'price': there is no feature 'price'; did you mean 'prices'?",
    ]
    assert cli("validate --features prices").code == 0


def test_what_the_users_code_prints_does_not_end_up_in_the_json(cli: Cli) -> None:
    write_project(body="print('from the function')")
    answer = cli("validate --json")
    assert [report["passed"] for report in json.loads(answer.out)] == [True, True]
    assert answer.err == "from the function\n"


def test_a_project_without_features_has_nothing_that_could_fail(cli: Cli) -> None:
    Path("definitions.py").write_text("import mlforge as mlf\ndefs = mlf.Definitions('empty')")
    assert (cli("validate").code, cli("validate").out) == (0, "There are no features.\n")
    assert json.loads(cli("validate --json").out) == []


def test_the_help_shows_examples(cli: Cli) -> None:
    assert "mlforge validate --features user_spend" in cli("validate --help").out.partition("Examples")[2]


@pytest.mark.parametrize(
    ("frame", "arguments", "problem"),
    [
        (EVENTS, {}, "Feature 'f' has no timestamp, so one row an entity, but 1 entities have more ({'user_id': 123})"),
        (
            EVENTS.with_columns(pl.col("amount").cast(pl.String)),
            {"timestamp": "ts", "metrics": [mlf.Rolling(windows=["7d"], aggregations={"amount": ["sum"]})]},
            "Feature 'f': amount__sum__7d: sum of column 'amount', which is String: cast it in the function",
        ),
        (EVENTS, {"timestamp": "amount"}, "Feature 'f': the timestamp 'amount' is Float64, not a datetime or date"),
        (EVENTS, {"timestamp": "when"}, "Feature 'f': the timestamp 'when' is missing"),
        (EVENTS.clear(), {"timestamp": "ts"}, "Feature 'f' has no data"),
        (EVENTS.with_columns(ts=pl.col("ts").dt.offset_by("-300y")), {"timestamp": "ts"}, "Feature 'f': 3 events are"),
        (EVENTS, {"timestamp": "ts", "checks": {"c": checks.not_null("x")}}, "Check 'c' of feature 'f' cannot be eval"),
    ],
)
def test_what_a_build_would_refuse_is_a_problem(frame: pl.DataFrame, arguments: dict[str, Any], problem: str) -> None:
    frame.write_parquet("events.parquet")
    made = mlf.feature(keys=["user_id"], source="events.parquet", name="f", **arguments)(lambda df: df)
    defs = Definitions("shop", features=[made], store=LocalStore("store"))
    (report,) = defs.validate()
    assert not report.passed
    assert report.problem.startswith(problem)
    with pytest.raises(mlf.MlforgeError) as caught:
        defs.build()
    assert str(caught.value) == report.problem


def test_what_polars_says_inside_a_function_is_a_problem_in_one_line() -> None:
    @mlf.feature(keys=["user_id"], source="events.parquet", timestamp="ts")
    def eager(df: pl.LazyFrame) -> pl.DataFrame:
        return df.collect().select("user_id", "ts", "gone")

    (report,) = Definitions("shop", features=[eager], store=LocalStore("store")).validate()
    assert (report.passed, report.rows, report.problem.partition(";")[0]) == (
        *(False, 0, 'ColumnNotFoundError: unable to find column "gone"'),
    )
    assert report.problem.endswith(f" ({__file__!r}, line {eager.function.__code__.co_firstlineno + 2})")


def test_no_windows_are_computed() -> None:
    pl.DataFrame({"k": [1, 1], "ts": [datetime(2026, 1, 1)] * 2, "n": [2**62, 2**62]}).write_parquet("large.parquet")

    @mlf.feature(
        keys=["k"],
        source="large.parquet",
        timestamp="ts",
        metrics=[mlf.Rolling(windows=["7d"], aggregations={"n": ["sum"]})],
    )
    def large(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    defs = Definitions("shop", features=[large], store=LocalStore("store"))
    (report,) = defs.validate()
    assert (report.passed, report.rows) == (True, 2)
    with pytest.raises(mlf.DataError):
        defs.build()


def test_a_feature_that_reads_another_is_validated_on_what_that_one_gives_now() -> None:
    @mlf.feature(keys=["user_id"], source="events.parquet", timestamp="ts")
    def events(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.select("user_id", "ts", pl.col("amount") * 2)

    @mlf.feature(
        keys=["user_id"],
        source=events,
        timestamp="ts",
        checks={"doubled": checks.is_in("amount", [4.0, 21.0, 100.0]), "little": checks.between("amount", upper=50)},
    )
    def derived(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    defs = Definitions("shop", features=[derived, events], store=LocalStore("store"))
    (report,) = defs.validate(["derived"])
    assert (report.rows, report.passed) == (3, False)
    assert [check.failed for check in report.checks] == [0, 1]
    assert not Path("store").exists()
    Path("events.parquet").unlink()
    assert ["'events.parquet' does not exist" in report.problem for report in defs.validate()] == [True, True]


def test_a_build_stops_where_validation_fails(cli: Cli) -> None:
    BAD.write_parquet("events.parquet")
    assert (cli("validate").code, cli("build").code) == (1, 1)
    EVENTS.write_parquet("events.parquet")
    assert (cli("validate").code, cli("build").code) == (0, 0)
