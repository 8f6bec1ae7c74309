"""What a machine of a cluster does with the rows of some entities; test_spark.py has the cluster."""

import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import mlforge as mlf
from mlforge import DataError, DefinitionError, Feature, checks
from mlforge.engines.task import ShardReport, Task, arrow, one_schema, read, require_keys, run
from mlforge.features import Transform
from mlforge.files import Folder

EVENTS = pl.DataFrame(
    {
        "user": ["ann", "ann", "ben", None],
        "ts": [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)],
        "amount": [1.0, 2.5, -4.0, 8.0],
    }
)


def as_it_is(df: pl.LazyFrame) -> pl.LazyFrame:
    return df


def spend(function: Transform = as_it_is, **more: Any) -> Feature:
    asked = {"metrics": [mlf.Rolling(windows=["1d"], aggregations={"amount": ["sum"]})], **more}
    return mlf.feature(keys=["user"], source="events.parquet", timestamp="ts", name="spend", **asked)(function)


def done(folder: Path, feature: Feature, schema: dict[str, Any] | None = None) -> ShardReport:
    task = Task(
        feature=feature,
        source="'events.parquet'",
        columns=EVENTS.columns,
        schema=schema,
        part=None,
        folder=Folder(path=str(folder)),
    )
    # As Spark hands them over: under plain names.
    return task(EVENTS.rename({name: f"c{number}" for number, name in enumerate(EVENTS.columns)}))


def files(folder: Path) -> list[Path]:
    return list(folder.rglob("*.parquet"))


def test_the_history_of_its_entities_is_written_beside_the_table(tmp_path: Path) -> None:
    report = done(tmp_path, spend(checks={"is positive": mlf.Check(pl.col("amount") > 0, severity="warn")}))
    assert report.error is None
    assert (report.rows, report.events) == (4, 3)
    assert [(check.name, check.failed) for check in report.checks] == [("is positive", 1)]
    written = pl.concat([pl.read_parquet(file) for file in files(tmp_path)]).sort("user", "ts")
    assert len(report.files) == len(files(tmp_path))
    assert set(report.schema) == {"user", "ts", "amount__sum__1d"}
    assert written.filter(user="ben")["amount__sum__1d"].to_list() == [-4.0, 0.0]


def test_columns_become_what_polars_reads_of_the_source(tmp_path: Path) -> None:
    feature = spend(lambda df: df.with_columns(pl.col("amount").cast(pl.Float64)))
    report = done(tmp_path, feature, {"user": pl.Categorical(), "ts": pl.Datetime("ms", "UTC"), "amount": pl.Float32()})
    assert report.error is None
    assert report.schema["user"] == pl.String


def raises(df: pl.LazyFrame) -> pl.LazyFrame:
    raise ZeroDivisionError(f"of {len(df.collect())} rows")


def leaves(df: pl.LazyFrame) -> pl.LazyFrame:
    raise SystemExit(3)


class Unpicklable(Exception):  # noqa: N818 -- as somebody may call it
    def __reduce__(self) -> Any:
        raise TypeError("no")


def raises_what_cannot_travel(df: pl.LazyFrame) -> pl.LazyFrame:
    raise Unpicklable("it is what it is")


@pytest.mark.parametrize(
    ("function", "kind", "said"),
    [
        (raises, ZeroDivisionError, "of 4 rows"),
        (leaves, SystemExit, "3"),
        (raises_what_cannot_travel, DataError, "Feature 'spend': Unpicklable: it is what it is"),
    ],
)
def test_whatever_a_function_raises_is_reported_as_something_that_can_travel(
    function: Transform, kind: type[BaseException], said: str, tmp_path: Path
) -> None:
    error = pickle.loads(pickle.dumps(done(tmp_path, spend(function)).error))
    assert type(error) is kind
    assert said in str(error)
    assert files(tmp_path) == []


def test_another_entity_than_was_given_is_an_error(tmp_path: Path) -> None:
    error = done(tmp_path, spend(lambda df: df.with_columns(user=pl.lit("zoe")))).error
    assert isinstance(error, DefinitionError)
    assert "makes the entity {'user': 'zoe'} of rows of others" in str(error)


def test_a_check_that_looks_at_all_rows_is_an_error_unless_they_are_of_one_entity(tmp_path: Path) -> None:
    mean = {"mean": pl.col("amount").mean() > 0}
    assert "the check 'mean' looks at all rows at once" in str(done(tmp_path, spend(checks=mean)).error)
    assert done(tmp_path, spend(checks={"once": checks.unique("user", "ts")})).error is None
    assert "the check 'once' looks at" in str(done(tmp_path, spend(checks={"once": checks.unique("ts")})).error)


def test_the_keys_have_to_be_columns_of_the_source() -> None:
    require_keys(spend(), EVENTS.columns)
    with pytest.raises(DefinitionError, match="its source has no column 'user'"):
        require_keys(spend(), ["ts", "amount"])


def test_all_machines_have_to_make_the_same_columns() -> None:
    whole = {"user": pl.String(), "x": pl.Int64()}
    assert one_schema(spend(), []) == {}
    assert one_schema(spend(), [whole, whole]) == whole
    with pytest.raises(DefinitionError, match="makes Int64 and Float64 of the column 'x'"):
        one_schema(spend(), [whole, whole | {"x": pl.Float64()}])
    with pytest.raises(DefinitionError, match="makes Int64 and nothing of the column 'x'"):
        one_schema(spend(), [whole, {"user": pl.String()}])


def batches(frame: pl.DataFrame) -> Iterator[Any]:
    return iter(arrow(frame).to_batches())


def test_a_pickled_task_does_rows_of_arrow_and_no_rows_make_no_report(tmp_path: Path) -> None:
    task = Task(
        feature=spend(),
        source="'events.parquet'",
        columns=EVENTS.columns,
        schema=None,
        part=None,
        folder=Folder(path=str(tmp_path)),
    )
    [answer] = run(pickle.dumps(task), batches(EVENTS))
    [report] = answer.column("report").to_pylist()
    assert pickle.loads(report).events == 3
    assert list(run(pickle.dumps(task), iter([]))) == []


def test_files_are_read_with_the_columns_and_dtypes_that_are_wanted(tmp_path: Path) -> None:
    EVENTS.write_parquet(tmp_path / "events.parquet")
    names = pl.DataFrame({"file": [str(tmp_path / "events.parquet")]})
    found = list(read(batches(names), None, {"amount": pl.Float32(), "user": pl.String()}))
    frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(found)))
    assert frame.schema == {"amount": pl.Float32, "user": pl.String}
    assert frame["amount"].to_list() == EVENTS["amount"].to_list()
