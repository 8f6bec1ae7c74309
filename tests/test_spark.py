"""Features on Spark: real sessions, real workers, and what Polars alone gives as the measure."""

import os
import random
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import polars.selectors as cs
import pytest
from polars.testing import assert_frame_equal

import mlforge as mlf
from buckets import Buckets
from mlforge import CheckFailedError, DataError, DefinitionError, Definitions, checks
from mlforge.engines import SparkEngine
from mlforge.errors import StoreError
from mlforge.store import LocalStore, ObjectStore
from sparks import local_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.slow

START = datetime(2026, 1, 1, tzinfo=UTC)
AGGREGATIONS = ["count", "sum", "mean", "min", "max", "std", "median", "n_unique", "first", "last"]
LIMIT = 100


@pytest.fixture(scope="module")
def session() -> Iterator["SparkSession"]:
    with local_session() as session:
        yield session


@pytest.fixture
def engine(session: "SparkSession") -> SparkEngine:
    return SparkEngine(session, shards=5)


def events(rows: int = 400, seed: int = 0) -> pl.DataFrame:
    drawn = random.Random(seed)
    return pl.DataFrame(
        {
            "user": [drawn.choice([*(f"user {n}" for n in range(40)), None]) for _ in range(rows)],
            "day": [START.date() + timedelta(days=drawn.randrange(3)) for _ in range(rows)],
            "ts": [START + timedelta(hours=drawn.randrange(0, 24 * 100)) for _ in range(rows)],
            "amount": [drawn.choice([0.1, 1e9, -3.25, None, float("nan")]) for _ in range(rows)],
            "n": range(rows),
        }
    )


# Below the module's own names, as in a project: another process has none of them.
def small(column: str) -> pl.Expr:
    return pl.col(column).fill_null(0) < LIMIT


def features(source: Any, **definition: Any) -> list[mlf.Feature]:
    @mlf.feature(
        keys=["user", "day"],
        source=source,
        timestamp="ts",
        interval="1d",
        metrics=[mlf.Rolling(windows=["7d", "30d"], aggregations={"amount": AGGREGATIONS, "n": ["sum", "last"]})],
        **definition,
    )
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.select("user", "day", "ts", "amount", "n").filter(small("n") | (pl.col("n") >= LIMIT))

    @mlf.feature(keys=["user"], source=source, timestamp="ts")
    def newest(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.select("user", "ts", "amount", "n")

    @mlf.feature(keys=["user"], source=newest)
    def latest(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.group_by("user").agg(pl.col("n").max())

    return [spend, newest, latest]


def rows(defs: Definitions, name: str) -> pl.DataFrame:
    snapshot = defs.store.require(name)
    return snapshot.collect(snapshot.scan()).sort(snapshot.record.index)


def assert_same(one: Definitions, other: Definitions, name: str) -> None:
    merged = cs.contains("__std__")
    assert rows(one, name).select(~merged).equals(rows(other, name).select(~merged)), name
    assert_frame_equal(rows(one, name).select(merged), rows(other, name).select(merged), rel_tol=1e-12)


def projects(folder: Path, source: Any, engine: SparkEngine, **definition: Any) -> tuple[Definitions, Definitions]:
    found = features(source, **definition)
    polars = Definitions("shop", features=found, store=LocalStore(folder / "polars"))
    return polars, Definitions("shop", features=found, store=LocalStore(folder / "spark"), engine=engine)


def test_it_publishes_what_polars_does(tmp_path: Path, engine: SparkEngine) -> None:
    source = tmp_path / "events.parquet"
    events().write_parquet(source)
    polars, spark = projects(tmp_path, source, engine)
    part = {"start": START + timedelta(days=40), "end": START + timedelta(days=60)}
    for arguments in ({}, part, {"force": True}):
        if arguments is part:
            events(seed=1).write_parquet(source)
        for here, there in zip(polars.build(**arguments), spark.build(**arguments), strict=True):
            told = [(each.outcome, each.version, each.rows, each.left_out, each.events) for each in (here, there)]
            assert told[0] == told[1]
            assert_same(polars, spark, here.feature)
    assert {report.outcome for report in spark.build()} == {"skipped"}
    assert {report.outcome for report in spark.build(force=True)} == {"unchanged"}
    named = {
        f"{name}/{path}"
        for name in spark.features
        for version in spark.versions(name)
        for paths in spark.store.open(name, version.delta_version).files.values()  # type: ignore[union-attr]
        for path in paths
    }
    there = {path.relative_to(tmp_path / "spark").as_posix() for path in (tmp_path / "spark").rglob("*.parquet")}
    assert there == named


@pytest.mark.parametrize("kind", ["csv", "ndjson", "delta", "nanoseconds", "glob", "own", "its own way"])
def test_any_source_will_do(tmp_path: Path, session: "SparkSession", engine: SparkEngine, kind: str) -> None:
    frame, folder = events().drop_nulls("user"), tmp_path / "in [a] {b}"
    folder.mkdir()
    source: Any = folder / "events.parquet"
    match kind:
        case "csv":
            source = folder / "events.csv"
            frame.write_csv(source)
        case "ndjson":
            source = folder / "events.ndjson"
            frame.select("user", "amount", pl.col("ts", "day").cast(pl.String), "n").write_ndjson(source)
        case "delta":
            source = tmp_path / "table"
            frame.write_delta(source, delta_write_options={"partition_by": ["day"]})
        case "nanoseconds":
            frame.with_columns(pl.col("ts").cast(pl.Datetime("ns", "UTC")), pl.col("n").cast(pl.UInt64)).write_parquet(
                source
            )
        case "glob":
            for number, some in enumerate(frame.iter_slices(100)):
                some.write_parquet(folder / f"{number}.parquet")
            source = [folder / f"{number}.parquet" for number in range(4)]
        case _:
            source = Own(frame) if kind == "own" else InSpark(frame)

    @mlf.feature(
        keys=["user"], source=source, timestamp="ts", metrics=[mlf.Rolling(windows=["7d"], aggregations={"n": ["sum"]})]
    )
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        text = [name for name, dtype in df.collect_schema().items() if name == "ts" and dtype == pl.String]
        return df.with_columns(pl.col(text).str.to_datetime(time_zone="UTC")).select("user", "ts", "n")

    stores = [LocalStore(tmp_path / name) for name in ("polars", "spark")]
    polars, spark = (
        Definitions("p", features=[spend], store=stores[0]),
        Definitions("p", features=[spend], store=stores[1]),
    )
    polars.build()
    spark.build(engine=engine)
    assert_same(polars, spark, "spend")
    assert {path.suffix for path in (tmp_path / "spark/spend").glob("*.*")} == set()


class Own(mlf.Source):
    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame
        # As a connection: no other process can have it.
        self.lock = __import__("threading").Lock()

    def scan(self) -> pl.LazyFrame:
        return self.frame.lazy()


class InSpark(Own):
    def spark(self, session: "SparkSession") -> "DataFrame":
        return session.createDataFrame(self.frame.with_columns(pl.col("amount").fill_nan(None)).to_dicts())

    def scan(self) -> pl.LazyFrame:
        return self.frame.lazy()


def test_a_function_gets_the_dtypes_of_its_source_whatever_spark_makes_of_them(
    tmp_path: Path, engine: SparkEngine
) -> None:
    source = tmp_path / "events.parquet"
    frame = events().drop_nulls("user").rename({"user": "a.b"}).with_columns(pl.col("n").cast(pl.UInt16))
    frame.with_columns(
        pl.col("a.b").alias("wh`y"),
        pl.col("ts").dt.convert_time_zone("Europe/Berlin").dt.cast_time_unit("ms"),
        local=pl.col("ts").dt.replace_time_zone(None),
        fine=pl.col("ts").dt.cast_time_unit("ns"),
        time=pl.col("ts").dt.time(),
        span=pl.duration(hours=pl.col("n")),
        kind=pl.lit("x").cast(pl.Categorical),
    ).write_parquet(source)
    for file, names in ((source, ["time", "span", "fine", "kind"]), (tmp_path / "plain.parquet", [])):
        pl.read_parquet(source).drop(["time", "span", "fine", "kind"] if not names else []).write_parquet(file)

        @mlf.feature(keys=["a.b", "wh`y"], source=file, timestamp="ts")
        def seen(df: pl.LazyFrame) -> pl.LazyFrame:
            dtypes = [f"{name} {dtype}" for name, dtype in df.collect_schema().items()]
            held = [name for name in ("time", "kind") if name in df.collect_schema()]
            if "span" in df.collect_schema():
                df = df.with_columns(pl.col("span").dt.total_seconds())
            local = df.with_columns(
                dtypes=pl.lit("; ".join(dtypes)), hour=pl.col("ts").dt.hour(), day=pl.col("ts").dt.date()
            )
            return local.with_columns(pl.col(held).cast(pl.String).name.suffix("_text")).drop(held)

        polars, spark = (
            Definitions("p", features=[seen], store=LocalStore(tmp_path / f"{name}{len(names)}")) for name in "ps"
        )
        polars.build()
        spark.build(engine=engine)
        assert_same(polars, spark, "seen")


def test_checks_are_those_of_all_machines(tmp_path: Path, engine: SparkEngine) -> None:
    source = tmp_path / "events.parquet"
    events().write_parquet(source)
    warned = {
        name: mlf.Check(check, severity="warn")
        for name, check in {
            "n is small": pl.col("n") < 250,
            "a day is one": checks.unique("user", "day").expression,
            "all is well": pl.col("n") >= 0,
            "users are there": checks.not_null("user").expression,
        }.items()
    }
    polars, spark = projects(tmp_path, source, engine, checks=warned)
    [here], [there] = polars.build(["spend"]), spark.build(["spend"])
    counts = [[(check.name, check.rows, check.failed) for check in each.checks] for each in (here, there)]
    assert counts[0] == counts[1]
    assert [len(check.examples) for check in there.checks] == [5, 5, 0, 5]

    def build(check: pl.Expr) -> None:
        _, spark = projects(tmp_path / "none", source, engine, checks={"it": check})
        spark.build(["spend"])

    with pytest.raises(CheckFailedError, match="'it': 150 of 400 rows"):
        build(pl.col("n") < 250)
    with pytest.raises(DefinitionError, match="the check 'it' looks at all rows at once"):
        build(pl.col("n").mean() > 0)
    with pytest.raises(DefinitionError, match="the check 'it' looks at all rows at once"):
        build(checks.unique("n").expression)
    assert not list((tmp_path / "none").rglob("*.parquet"))


class OddError(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}\nand more")

    @staticmethod
    def fails() -> None:
        raise OddError("two", "words")


def test_what_goes_wrong_is_said_as_on_one_machine(tmp_path: Path, engine: SparkEngine) -> None:
    source = tmp_path / "events.parquet"
    events().write_parquet(source)
    store = LocalStore(tmp_path / "store")

    def build(function: Any, **definition: Any) -> None:
        feature = mlf.feature(name="f", **{"keys": ["user"], "timestamp": "ts", "source": source} | definition)(
            function
        )
        Definitions("p", features=[feature], store=store, engine=engine).build()

    with pytest.raises(DefinitionError, match="its source has no column 'client'"):
        build(lambda df: df.rename({"user": "client"}), keys=["client"])
    with pytest.raises(DefinitionError, match=r"makes the entity \{'user': 'USER .*'\} of rows of others"):
        build(lambda df: df.with_columns(pl.col("user").str.to_uppercase()))
    with pytest.raises(DataError, match="the function returned no rows"):
        build(lambda df: df.limit(0))
    with pytest.raises(DataError, match="'n' is Duration"):
        build(lambda df: df.with_columns(n=pl.duration(days=1)))
    with pytest.raises(DataError, match="entities have more"):
        build(lambda df: df.drop("ts"), timestamp=None)
    with pytest.raises(ZeroDivisionError) as raised:
        build(lambda _df: 1 / 0)
    assert "in a task of Spark's" in "".join(raised.value.__notes__)
    with pytest.raises(DefinitionError, match=r"makes Int64 and Float64 of the column 'v'|makes Float64 and Int64 of"):
        build(lambda df: df.collect().with_columns(v=pl.lit(1 if df.select(pl.first()).collect().height % 2 else 1.0)))
    with pytest.raises(SystemExit):
        build(lambda _df: sys.exit(3))
    with pytest.raises(DataError, match=r"^Feature 'f': OddError: two words \('.*test_spark.py', line \d+\)$"):
        build(lambda _df: OddError.fails())
    lock = threading.Lock()
    with pytest.raises(DefinitionError, match="its function cannot be sent to Spark's machines"):
        build(lambda df: df.filter(bool(lock)))
    with pytest.raises(DataError, match=r"does not exist \(looked for"):
        build(lambda df: df, source=tmp_path / "gone.parquet")
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="Feature 'f', which reads"):
        build(lambda df: df, source=tmp_path / "bad.parquet")
    shutil.rmtree(tmp_path / "store/f")
    (tmp_path / "store/f").mkdir()
    (tmp_path / "store/f/mlforge_month=2026-02").write_text("no folder")
    with pytest.raises(StoreError, match=r"'.*store/f' cannot be written: "):
        build(lambda df: df)
    assert not list((tmp_path / "store").rglob("*.parquet"))


def test_the_table_may_be_in_a_bucket(tmp_path: Path, engine: SparkEngine) -> None:
    source = tmp_path / "events.parquet"
    events().write_parquet(source)
    with Buckets() as buckets:
        store = ObjectStore("s3://features/spark", buckets.options())
        there = Definitions("shop", features=features(source), store=store, engine=engine)
        here = Definitions("shop", features=features(source), store=LocalStore(tmp_path / "store"))
        part = {"start": START + timedelta(days=40), "end": START + timedelta(days=60)}
        for arguments in ({}, part | {"force": True}):
            there.build(**arguments)
            here.build(**arguments)
            for name in here.features:
                assert_same(here, there, name)
        # What is put aside there is read with the options of the store.
        copied = [mlf.feature(keys=["user"], source=Own(events()), timestamp="ts", name="copied")(lambda df: df)]
        for each in (here, there):
            Definitions("shop", features=copied, store=each.store, engine=each.engines.default).build()
        assert_same(here, there, "copied")
        added = {name for name in buckets.names() if name.endswith(".parquet")}
        there.build(force=True)
        assert {name for name in buckets.names() if name.endswith(".parquet")} == added


PROJECT = """
import polars as pl
import mlforge as mlf
from mlforge.store import LocalStore
import helping

@mlf.feature(keys=["user"], source="events.parquet", timestamp="ts",
             metrics=[mlf.Rolling(windows=["7d"], aggregations={"n": ["sum"]})])
def spend(df):
    return helping.chosen(df)

defs = mlf.Definitions("shop", store=LocalStore("store"))
"""


def test_a_command_line_builds_a_project_that_no_other_machine_has(tmp_path: Path) -> None:
    events().write_parquet(tmp_path / "events.parquet")
    (tmp_path / "definitions.py").write_text(PROJECT)
    (tmp_path / "helping.py").write_text(
        'WANTED = ["user", "ts", "n"]\n\ndef chosen(df):\n    return df.select(WANTED)\n'
    )
    mlforge = Path(sysconfig.get_path("scripts")) / "mlforge"
    environment = os.environ | {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    environment |= {"PYSPARK_SUBMIT_ARGS": "--master local[2] --conf spark.ui.enabled=false pyspark-shell"}
    command = [mlforge, "build", "--engine", "spark"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "spend" in ended.stdout
    again = subprocess.run([mlforge, "build", "--force"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "unchanged" in again.stdout, again.stderr
