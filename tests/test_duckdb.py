"""DuckDB as an engine: what a function may return, which types come of it, and what is said of what cannot be."""

import datetime as dt
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import mlforge as mlf
from command_line import run
from engines import PLAIN, WAYS, Computed, Frame, Way, in_sql
from mlforge import DataError, DefinitionError, Definitions
from mlforge.engines import DuckDBEngine
from mlforge.engines import duckdb as engine
from mlforge.source import FileSource
from mlforge.span import Span
from mlforge.store import LocalStore

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ONE = Frame(pl.DataFrame({"user": ["a"], "n": [1]}))
IN_MEMORY = WAYS["duckdb"]
# What goes through memory, and what goes through a file.
BOTH = pytest.mark.parametrize(
    "way",
    [Way(engine="duckdb", written=in_sql), WAYS["duckdb in many shards"]],
    ids=["in memory", "in a file"],
)


def computed(function: Callable[[Any], Any], source: Any = ONE, way: Way = IN_MEMORY, **more: Any) -> Computed:
    asked = {"keys": ["user"], "name": "f", **more}
    return way.compute(mlf.feature(source=source, engine="duckdb", **asked)(function))


TYPES: dict[str, tuple[pl.DataType, Any]] = {
    "1::TINYINT": (pl.Int64(), 1),
    "1::UINTEGER": (pl.Int64(), 1),
    "9223372036854775807::UBIGINT": (pl.Int64(), 2**63 - 1),
    "sum(n)": (pl.Int64(), 1),
    "count(*)": (pl.Int64(), 1),
    "(-9223372036854775808)::HUGEINT": (pl.Int64(), -(2**63)),
    "NULL::HUGEINT": (pl.Int64(), None),
    "7::UHUGEINT": (pl.Int64(), 7),
    "avg(n)": (pl.Float64(), 1.0),
    "0.5::FLOAT": (pl.Float32(), 0.5),
    "'nan'::DOUBLE": (pl.Float64(), None),
    "true": (pl.Boolean(), True),
    "1.50::DECIMAL(10, 2)": (pl.Decimal(10, 2), Decimal("1.50")),
    f"{'9' * 38}::DECIMAL(38, 0)": (pl.Decimal(38, 0), Decimal("9" * 38)),
    "'x'": (pl.String(), "x"),
    "'{\"a\": 1}'::JSON": (pl.String(), '{"a": 1}'),
    "'b'::ENUM('a', 'b')": (pl.String(), "b"),
    "'f0d1c0a0-0000-4000-8000-000000000000'::UUID": (pl.String(), "f0d1c0a0-0000-4000-8000-000000000000"),
    "DATE '2026-01-31'": (pl.Date(), dt.date(2026, 1, 31)),
    **{
        f"TIMESTAMP '2026-01-01'::{unit}": (pl.Datetime("us", "UTC"), START)
        for unit in ("TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP", "TIMESTAMP_NS")
    },
    "'1969-12-31 23:59:59.999999999'::TIMESTAMP_NS": (
        pl.Datetime("us", "UTC"),
        dt.datetime(1969, 12, 31, 23, 59, 59, 999999, dt.UTC),
    ),
    "TIMESTAMPTZ '2026-01-01 05:30:00+05:30'": (pl.Datetime("us", "UTC"), START),
    "[1, NULL]": (pl.List(pl.Int64), [1, None]),
    "[1, 2]::INTEGER[2]": (pl.List(pl.Int64), [1, 2]),
    "['b'::ENUM('a', 'b')]": (pl.List(pl.String), ["b"]),
    "{'a b': 1, 'q\"': ['x']}": (pl.Struct({"a b": pl.Int64, 'q"': pl.List(pl.String)}), {"a b": 1, 'q"': ["x"]}),
    "map_entries(MAP {'a': 1})": (
        pl.List(pl.Struct({"key": pl.String, "value": pl.Int64})),
        [{"key": "a", "value": 1}],
    ),
}


@BOTH
@pytest.mark.parametrize("expression", TYPES)
def test_a_type_becomes_the_dtype_in_which_it_is_stored(expression: str, way: Way) -> None:
    dtype, value = TYPES[expression]
    rows = computed(lambda df: f"SELECT 'a' AS user, {expression} AS x FROM df", way=way).rows
    assert rows.schema["x"] == dtype
    assert rows["x"].to_list() == [value]


REFUSED = {
    "TIME '01:02:03'": "column 'x' is TIME, and no store can hold TIME: write CAST(\"x\" AS VARCHAR) in the function.",
    "TIMETZ '01:02:03+02'": 'write CAST("x" AS VARCHAR) in the function.',
    "INTERVAL 1 DAY": "column 'x' is INTERVAL, and no store can hold INTERVAL: write epoch(\"x\") in the function.",
    "'ab'::BLOB": 'write hex("x") in the function.',
    "'101'::BIT": "column 'x' is BIT, and",
    "MAP {'a': 1}": 'write map_entries("x") in the function.',
    "union_value(num := 2)": "column 'x' is UNION(num INTEGER), and",
    "[1::HUGEINT]": "column 'x' is HUGEINT[], and no store can hold HUGEINT: ",
    "{'a': TIME '01:02:03'}": "column 'x' is STRUCT(a TIME), and no store can hold TIME: ",
    "9223372036854775808::HUGEINT": "column 'x' holds 9223372036854775808, which is beyond BIGINT: write CAST(\"x\" AS "
    "DOUBLE) or AS DECIMAL(38, 0) in the function.",
    "340282366920938463463374607431768211455::UHUGEINT": "column 'x' holds 340282366920938463463374607431768211455, ",
    "DATE 'infinity'": 'column \'x\' holds infinity, which is no instant: write CASE WHEN isfinite("x") THEN "x" END',
    "TIMESTAMPTZ '-infinity'": "column 'x' holds -infinity, which is no instant",
    "'infinity'::TIMESTAMP_NS": "column 'x' holds infinity, which is no instant",
    "18446744073709551615::UBIGINT": "column 'x' holds 18446744073709551615, which is beyond Int64",
    "CAST('x' AS DOUBLE)": "Conversion Error: Could not convert string 'x' to DOUBLE",
}
if duckdb.__version__ >= "2":
    # Before, it was an INTEGER.
    REFUSED["NULL"] = 'write CAST("x" AS DOUBLE), or the type that its values would have in the function.'


@BOTH
@pytest.mark.parametrize("expression", REFUSED)
def test_what_cannot_be_stored_is_one_line_that_names_the_column(expression: str, way: Way) -> None:
    with pytest.raises(DataError) as caught:
        computed(lambda df: f"SELECT 'a' AS user, {expression} AS x FROM df", way=way)
    assert str(caught.value).startswith("Feature 'f'")
    assert REFUSED[expression] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_that_does_not_fit_is_found_wherever_it_is() -> None:
    numbers = Frame(pl.DataFrame({"user": range(300_000)}))
    late = "CASE WHEN user = 299999 THEN 9223372036854775808 ELSE user END::HUGEINT"
    with pytest.raises(DataError, match="column 'x' holds 9223372036854775808, which is beyond BIGINT"):
        computed(lambda df: f"SELECT user, {late} AS x FROM df", numbers)


def test_the_source_is_called_as_the_parameter_is() -> None:
    functions: list[Callable[[Any], Any]] = [
        lambda df: df,
        lambda payments: "SELECT * FROM payments",
        lambda order: 'SELECT * FROM "order"',
        lambda df: df.query("t", "SELECT * FROM t"),
        lambda df: df.query("t", "SELECT t.* FROM t JOIN df USING (user)"),
        lambda df, more=1: f"WITH x AS (FROM df) SELECT * FROM x WHERE n >= {more}",
        lambda df: df.filter(duckdb.ColumnExpression("n") > 0),
        lambda df: df.aggregate("user, sum(n) AS n"),
    ]
    for function in functions:
        assert computed(function).rows.rows() == [("a", 1)]


def test_sql_sees_no_variable_of_a_program() -> None:
    with pytest.raises(DataError, match=r"Feature 'f', which reads .*: Catalog Error: Table with name frame does not"):
        computed(lambda df: "SELECT * FROM frame")


WRONG: dict[str, tuple[Any, str]] = {
    "SELECT * FROM gone": (DataError, "Table with name gone does not exist!"),
    "SELECT usr FROM df": (DataError, 'Referenced column "usr" not found in FROM clause! Candidate bindings: "user"'),
    "SELEC 1": (DataError, 'Parser Error: syntax error at or near "SELEC"'),
    "": (DefinitionError, "the function returns SQL that selects nothing, not a DuckDB relation or the text of a "),
    "SELECT user, n, n FROM df": (DefinitionError, "the function returns two columns 'n', since to DuckDB upper"),
    "SELECT user, n, n AS N FROM df": (DefinitionError, "the function returns two columns 'n', since to DuckDB upper"),
    "SELECT n FROM df": (DefinitionError, "the key column 'user' is missing; the function returns 'n'"),
    "SELECT * FROM read_csv('/nowhere/*.csv')": (DataError, "No files found that match the pattern"),
    "LOAD nothing_at_all; SELECT 1": (DataError, "nothing_at_all"),
}


@BOTH
@pytest.mark.parametrize("text", WRONG)
def test_sql_that_is_wrong_is_one_line(text: str, way: Way) -> None:
    kind, says = WRONG[text]
    with pytest.raises(kind) as caught:
        computed(lambda df: text, way=way)
    assert says in str(caught.value)
    assert str(caught.value).startswith("Feature 'f'")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "function",
    [
        lambda df: df.collect(),
        lambda df: df.select(pl.col("user")),
        lambda df: df.group_by("user").agg(pl.len()),
        lambda df: df.project("gone"),
    ],
)
def test_a_function_for_another_engine_is_told_what_it_gets(function: Callable[[Any], Any]) -> None:
    with pytest.raises((AttributeError, TypeError, duckdb.Error)) as caught:
        computed(function)
    assert "Its engine is 'duckdb', so that what it gets is a duckdb.DuckDBPyRelation." in caught.value.__notes__


def test_a_function_that_gives_a_frame_is_told_what_to_give() -> None:
    with pytest.raises(DefinitionError, match="the function returns DataFrame, not a DuckDB relation or the text of a"):
        computed(lambda df: pl.DataFrame(df))


@BOTH
def test_the_connection_is_closed_whatever_happens(way: Way) -> None:
    seen: list[Any] = []

    def broken(df: Any) -> Any:
        seen.append(df)
        raise LookupError

    def fine(df: Any) -> Any:
        seen.append(df)
        return df

    with pytest.raises(LookupError):
        computed(broken, way=way)
    computed(fine, way=way)
    for relation in seen:
        with pytest.raises(duckdb.Error):
            relation.fetchall()


def test_names_that_differ_in_case_only_are_refused_where_duckdb_would_rename_one() -> None:
    both = Frame(pl.DataFrame({"user": ["a"], "n": [1], "N": [2]}))
    with pytest.raises(DataError, match=r"has a column 'N', which would be 'N_1' in DuckDB.*: rename it, or use"):
        computed(lambda df: "SELECT user, n FROM df", both)
    assert PLAIN.compute(PLAIN.feature(both, columns='"user", n')).rows.rows() == [("a", 1)]


@BOTH
def test_dtypes_that_parquet_does_not_know_arrive_as_what_they_are(way: Way, tmp_path: Path) -> None:
    waits = [dt.timedelta(milliseconds=1500), None, dt.timedelta(days=-1)]
    frame = pl.DataFrame({"user": ["a", "b", "c"], "big": pl.Series([2**100, None, -1], dtype=pl.Int128)})
    units = {unit: pl.Series(waits, dtype=pl.Duration(unit)) for unit in ("ms", "us", "ns")}
    frame = frame.with_columns(**units)
    frame.write_parquet(tmp_path / "waits.parquet")
    sql = "SELECT user, big::DOUBLE AS big, epoch(ms) AS ms, epoch(us) AS us, epoch(ns) AS ns FROM df"
    for source in (Frame(frame), tmp_path / "waits.parquet"):
        rows = computed(lambda df: sql, source, way).rows
        for unit in ("ms", "us", "ns"):
            assert rows[unit].to_list() == [1.5, None, -86_400.0]
        assert rows["big"].to_list() == [2.0**100, None, -1.0]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What DuckDB plans."""
    found: list[str] = []
    asked = engine._asked

    def explained(*arguments: Any) -> Any:
        relation = asked(*arguments)
        found.append(relation.explain())
        return relation

    monkeypatch.setattr(engine, "_asked", explained)
    return found


@pytest.mark.parametrize("way", [IN_MEMORY, WAYS["duckdb in many shards"]], ids=["relation", "SQL"])
@pytest.mark.parametrize(
    "times", [pl.Date(), pl.Datetime("ms"), pl.Datetime("us", "UTC"), pl.Datetime("ns"), pl.Datetime("us")], ids=str
)
def test_of_a_part_only_the_row_groups_are_read_that_may_have_it(
    plans: list[str], way: Way, times: pl.DataType, tmp_path: Path
) -> None:
    zone = getattr(times, "time_zone", None)
    moments = [START + day * dt.timedelta(days=1) for day in range(100)]
    frame = pl.DataFrame({"user": 1, "ts": moments, "x": range(100), "unused": "text"})
    moment = pl.col("ts").dt.convert_time_zone(zone) if zone else pl.col("ts").dt.replace_time_zone(None)
    frame.with_columns(moment.cast(times)).write_parquet(tmp_path / "e.parquet", row_group_size=10)
    part = Span(start=moments[40], end=moments[42])
    feature = way.feature(tmp_path / "e.parquet", timestamp="ts", columns='"user", ts, x', condition="x >= 0")
    assert way.compute(feature, part).rows["x"].to_list() == [40, 41]
    (plan,) = plans
    squeezed = plan.replace(" ", "").replace("\n", "")
    assert "READ_PARQUET" in squeezed.upper()
    # In the scan, and nothing is left for an operator of its own; no column is read that is not asked for.
    assert "ts>=" in squeezed
    assert "unused" not in squeezed
    assert "─Filter─" not in squeezed
    assert "│FILTER│" not in squeezed


def test_parquet_files_are_read_where_they_are(plans: list[str], tmp_path: Path) -> None:
    ONE.frame.write_parquet(tmp_path / "one.parquet")
    computed(lambda df: df, tmp_path / "one.parquet")
    base = mlf.feature(keys=["user"], source=tmp_path / "one.parquet", name="base")(lambda df: df)
    derived = mlf.feature(keys=["user"], source=base, name="derived", engine="duckdb")(lambda df: df)
    Definitions("p", features=[base, derived], store=LocalStore(tmp_path / "store")).build()
    computed(lambda df: df, ONE)
    assert len(plans) == 3
    assert not list(tmp_path.rglob("source.parquet"))


class Doubled(FileSource):
    """A source of one's own that makes something else of its files."""

    def scan(self) -> pl.LazyFrame:
        return super().scan().with_columns(n=pl.col("n") * 2)


def test_a_source_that_makes_something_else_of_its_files_is_asked_for_it(tmp_path: Path) -> None:
    ONE.frame.write_parquet(tmp_path / "one.parquet")
    assert computed(lambda df: df, Doubled(tmp_path / "one.parquet")).rows.rows() == [("a", 2)]


class AsText(mlf.Source):
    """A source that knows other columns than its files have, as a table to which others have written does."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def scan(self) -> pl.LazyFrame:
        return pl.scan_parquet(self.file).with_columns(pl.col("n").cast(pl.String))

    def parquet_files(self) -> list[str]:
        return [str(self.file)]


def test_files_that_have_other_dtypes_than_the_source_are_not_read_as_they_are(tmp_path: Path) -> None:
    ONE.frame.write_parquet(tmp_path / "one.parquet")
    assert computed(lambda df: df, AsText(tmp_path / "one.parquet")).rows.rows() == [("a", "1")]


def test_a_check_that_is_about_the_order_sees_that_of_the_source(tmp_path: Path) -> None:
    many = pl.DataFrame({"user": pl.int_range(600_000, eager=True) // 3, "n": pl.int_range(600_000, eager=True)})
    many.write_parquet(tmp_path / "many.parquet", row_group_size=20_000)

    @mlf.feature(
        keys=["user", "n"],
        source=tmp_path / "many.parquet",
        engine="duckdb",
        checks={"in order": pl.col("n").is_sorted(), "one by one": pl.col("n").diff() == 1},
    )
    def numbers(df: Any) -> str:
        return "SELECT user, n, n % 2 = 0 AS even FROM df"

    defs = Definitions("p", features=[numbers], store=LocalStore(tmp_path / "store"))
    assert [check.passed for check in defs.build(memory_limit="1GB")[0].checks] == [True, True]
    assert defs.build(force=True)[0].outcome == "unchanged"


SETTINGS = "TimeZone", "memory_limit", "threads", "preserve_insertion_order", "autoinstall_known_extensions"


def settings_of(way: Way, **more: Any) -> dict[str, Any]:
    asked = ", ".join(f"current_setting('{name}')::VARCHAR AS \"{name}\"" for name in SETTINGS)
    found = computed(lambda df: f"SELECT user, {asked} FROM df", way=way, **more).rows
    return found.drop("user").row(0, named=True)


def test_what_a_build_may_take_duckdb_keeps_to() -> None:
    free = settings_of(IN_MEMORY)
    assert (free["TimeZone"], free["autoinstall_known_extensions"]) == ("UTC", "false")
    bounded = settings_of(WAYS["duckdb in many shards"])
    # What is left of 1 GB beside Python and Polars.
    assert bounded["memory_limit"] == "381.4 MiB"
    assert 1 <= int(bounded["threads"]) <= 3
    assert bounded["preserve_insertion_order"] == "false"
    checked = settings_of(WAYS["duckdb in many shards"], checks={"a user": pl.col("user") == "a"})
    assert checked["preserve_insertion_order"] == free["preserve_insertion_order"] == "true"


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    feature = mlf.feature(keys=["user"], source=ONE, name="f", engine="duckdb")(lambda df: df)
    defs = Definitions("p", features=[feature], store=LocalStore("store"))
    for limit in (None, "1GB"):
        defs.build(force=True, memory_limit=limit)
        defs.validate()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["store", "tmp"]
    assert not list(temporary.iterdir())
    assert not list(tmp_path.rglob("result.parquet"))


def test_a_project_may_have_an_engine_and_a_feature_another_one(tmp_path: Path) -> None:
    def relation(df: Any) -> Any:
        return df.project("*")

    def frame(df: Any) -> Any:
        return df.with_columns(pl.lit(1))

    features = [
        mlf.feature(keys=["user"], source=ONE)(relation),
        mlf.feature(keys=["user"], source=ONE, engine="polars")(frame),
    ]
    for chosen in ("duckdb", DuckDBEngine()):
        defs = Definitions("p", features=features, store=LocalStore(tmp_path / str(chosen)), engine=chosen)
        assert [report.outcome for report in defs.build()] == ["built", "built"]
        assert repr(defs.engines.default) == "DuckDBEngine()"


PROJECT = """
import mlforge as mlf
from mlforge.store import LocalStore

@mlf.feature(keys=["user_id"], source="events.parquet", timestamp="ts", engine="duckdb")
def spend(events):
    return "SELECT user_id, ts, sum(amount) AS amount FROM events GROUP BY ALL"

defs = mlf.Definitions("shop", store=LocalStore("store"))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"user_id": [1, 1], "ts": [START, START], "amount": [1, 2]}).write_parquet("events.parquet")
    Path("definitions.py").write_text(PROJECT)
    return tmp_path


def test_the_command_line_builds_and_shows_it(project: Path) -> None:
    assert run("validate").code == 0
    assert run("build --json").code == 0
    assert "  engine    duckdb\n" in run("list").out
    assert "  engine    duckdb\n" in run("inspect spend").out
    assert "Int64" in run("inspect spend").out
    assert '"engine":"duckdb"' in run("inspect spend --json").out.replace(" ", "")
    explained = run("explain spend user_id=1 --at 2026-01-02")
    assert explained.code == 0
    assert "amount" in explained.out


def test_it_is_described_where_it_is_named(project: Path) -> None:
    plain = mlf.feature(keys=["user"], source=ONE, name="plain")(lambda df: df)
    named = mlf.feature(keys=["user"], source=ONE, name="named", engine="duckdb")(lambda df: df)
    described = Definitions("p", features=[plain, named]).to_dict()["features"]
    assert [each.get("engine", "none") for each in described] == ["duckdb", "none"]


def python(program: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


WITHOUT = """
import sys
for name in {missing!r}:
    sys.modules[name] = None  # What an import of a missing package comes to.
import mlforge as mlf
from mlforge.store import LocalStore

@mlf.feature(keys=["k"], source=sys.argv[1] + "/x.csv", engine="duckdb")
def f(df):
    return "SELECT k, sum(n) AS n FROM df GROUP BY k"

open(sys.argv[1] + "/x.csv", "w").write("k,n\\na,1\\n")
definitions = mlf.Definitions(store=LocalStore(sys.argv[1] + "/store"))
try:
    for limit in (None, "1GB"):
        print(definitions.build(force=True, memory_limit=limit)[0].outcome)
except mlf.DefinitionError as error:
    print(error)
print(definitions.validate()[0].problem)
try:
    mlf.Definitions(engine="duckdb")
except mlf.DefinitionError as error:
    print(error)
"""


def test_without_duckdb_a_line_says_what_to_install(tmp_path: Path) -> None:
    line = "The engine 'duckdb' needs DuckDB: pip install 'mlforge[duckdb]'.\n"
    assert python(WITHOUT.format(missing=["duckdb", "_duckdb"]), str(tmp_path)) == 3 * line


def test_it_needs_neither_pyarrow_nor_pandas_nor_numpy(tmp_path: Path) -> None:
    program = WITHOUT.format(missing=["pyarrow", "pandas", "numpy"])
    assert python(program, str(tmp_path)) == "built\nunchanged\n\n"


def test_duckdb_is_imported_only_where_it_is_used() -> None:
    program = "import sys, mlforge.engines, mlforge.core; print('duckdb' in sys.modules, '_duckdb' in sys.modules)"
    assert python(program) == "False False\n"


class Unreachable(FileSource):
    """Files at URLs, with what is said when one cannot be read."""

    def scan(self) -> pl.LazyFrame:
        def read(frame: pl.DataFrame) -> pl.DataFrame:
            raise OSError(f"cannot read {self.paths[0]}")

        return ONE.frame.lazy().map_batches(read, schema=ONE.frame.schema)


@BOTH
def test_credentials_in_the_url_of_a_source_are_not_shown(way: Way) -> None:
    source = Unreachable("http://ann:s3cret@host/events.parquet?sig=s3cret")
    with pytest.raises(DataError) as caught:
        computed(lambda df: df, source, way)
    said = "".join(traceback.format_exception(caught.value))
    assert "cannot read http://***@host/events.parquet?***" in said
    assert "s3cret" not in said
