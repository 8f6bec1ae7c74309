"""The engine for data beyond one machine: Spark splits the rows by entity, and every part is computed in Polars."""

import importlib
import inspect
import os
import pickle
import re
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import polars as pl

from mlforge import progress, verdicts
from mlforge.engines import shape
from mlforge.engines.base import Computed, reading, scanned
from mlforge.engines.polars import PolarsEngine
from mlforge.engines.task import ShardReport, Task, arrow, one_schema, require_keys
from mlforge.errors import DataError, DefinitionError, one_line
from mlforge.features import EngineName, Feature
from mlforge.modules import is_own
from mlforge.source import Source, hidden
from mlforge.span import Span
from mlforge.stage import RowsInFiles, Workplace
from mlforge.verdicts import EXAMPLES, CheckResult

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# What Spark does not know in files, or takes for something else, and how it is sent.
_SENT_AS: dict[type[pl.DataType], pl.DataType] = {
    pl.Time: pl.Int64(),
    pl.Duration: pl.Int64(),
    pl.Int128: pl.Decimal(38, 0),
    pl.Float16: pl.Float32(),
    pl.Categorical: pl.String(),
    pl.Enum: pl.String(),
}


class SparkEngine(PolarsEngine):
    """A function is the one of Polars, and gets all rows of some entities: each machine has its own.

    So a function has to be local to an entity: what it returns for one must not depend on the rows of others, as a
    mean or a rank over all of them does; `mlforge validate --shards` finds out. The keys are columns of the source. A
    check is a condition on each row, or `checks.unique` over the keys.

    Parquet and features are read by the machines; a Source of one's own is asked for `spark(session)`, which returns a
    Spark DataFrame, if it has that; anything else is read by this machine and put beside the table. The table, and what
    is read from a folder, have to be where all machines reach them. These need mlforge (and so Polars) and PyArrow.
    What a task leaves that was lost or done twice is no part of the table, and goes at a vacuum.

    Args:
        session: A session of Spark's, classic or Connect; by default the active one, or one that is begun when it is
            first needed and ends with the process.
        master: Where that one runs, as Spark writes it: `"spark://host:7077"`, `"local[4]"`, `"sc://host"` for Spark
            Connect; by default as Spark is configured, or else on this machine.
        conf: Further settings of that one, by name.
        shards: Into how many parts the entities are split, each of which has to fit into a task's memory; by default
            as many as Spark takes for right.
    """

    name: EngineName = "spark"

    def __init__(
        self,
        session: "SparkSession | None" = None,
        *,
        master: str | None = None,
        conf: Mapping[str, str] | None = None,
        shards: int | None = None,
    ) -> None:
        self._session = session
        self._master = master
        self._conf = dict(conf or {})
        self._shards = shards

    def __repr__(self) -> str:
        return f"SparkEngine(master={self._master!r}, shards={self._shards})"

    @property
    def session(self) -> "SparkSession":
        """The session; one is begun if there is none.

        Raises:
            DefinitionError: Spark or Java is not installed.
        """
        if self._session is None:
            self._session = _session(self._master, self._conf)
        return self._session

    def compute(
        self, feature: Feature, source: Source, part: Span | None, workplace: Workplace, memory_limit: int | None = None
    ) -> Computed:
        """As every engine; what a task may take is a matter of Spark's own settings."""
        progress.begin("computing")
        session = self.session
        with _spark_errors(feature, source):
            rows, schema = _spark_rows(session, feature, source, workplace)
            task = Task(
                # What it reads may hold what no other process can have, such as a connection.
                feature=replace(feature, source=Source()),
                source=repr(source),
                columns=rows.columns,
                schema=schema,
                part=part,
                folder=workplace.shared.folder,
            )
            reports = self._reports(rows, task)
        for report in reports:
            workplace.shared.files += report.files
        for report in reports:
            if report.error is not None:
                raise report.error
        made = one_schema(feature, [report.schema for report in reports])
        checks = _together(reports)
        verdicts.require(checks, feature=feature.name)
        found, events = (sum(getattr(report, what) for report in reports) for what in ("rows", "events"))
        if part is None:
            shape.require_events(feature, source, found, events)
        return Computed(rows=RowsInFiles(workplace.shared, made), left_out=found - events, checks=checks)

    def _reports(self, rows: "DataFrame", task: Task) -> list[ShardReport]:
        # Under plain names, since Spark takes dots in names for something else.
        plain = {name: f"c{number}" for number, name in enumerate(rows.columns)}
        keys = [plain[key] for key in task.feature.keys]
        renamed = rows.toDF(*plain.values())
        split = renamed.repartition(*keys) if self._shards is None else renamed.repartition(self._shards, *keys)
        payload = _pickled(task)

        def run(batches: Iterator[Any]) -> Iterator[Any]:
            # By name, so that it is found where the code of this process is not.
            from mlforge.engines.task import run

            return run(payload, batches)

        found = split.mapInArrow(run, "report binary").collect()
        return [pickle.loads(bytes(row[0])) for row in found]  # noqa: S301 -- what our own tasks have written


def _session(master: str | None, conf: Mapping[str, str]) -> "SparkSession":
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise DefinitionError(f"Spark is not installed ({error}): pip install 'mlforge[spark]'.") from error
    if (active := SparkSession.getActiveSession()) is not None:
        return active
    # Its workers are to be this Python.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("mlforge").config("spark.ui.showConsoleProgress", "false")
    if master is not None:
        builder = builder.remote(master) if master.startswith("sc://") else builder.master(master)
    for name, value in conf.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except PySparkException as error:
        raise DefinitionError(
            f"Spark does not start ({one_line(error)}): it needs Java 17 or later; is JAVA_HOME right?"
        ) from error
    if not (master or "").startswith("sc://"):
        session.sparkContext.setLogLevel("ERROR")
    return session


def _together(reports: Sequence[ShardReport]) -> list[CheckResult]:
    """The verdicts of all machines as one each."""
    found: dict[str, CheckResult] = {}
    for result in (result for report in reports for result in report.checks):
        if (so_far := found.get(result.name)) is None:
            found[result.name] = result
        else:
            found[result.name] = replace(
                so_far,
                rows=so_far.rows + result.rows,
                failed=so_far.failed + result.failed,
                examples=[*so_far.examples, *result.examples][:EXAMPLES],
            )
    return list(found.values())


def _spark_rows(
    session: "SparkSession", feature: Feature, source: Source, workplace: Workplace
) -> "tuple[DataFrame, pl.Schema | None]":
    """What a source holds, as Spark reads it, and what its columns are for Polars; None where it is Spark's alone."""
    schema: pl.Schema | None = None
    if (read := getattr(source, "spark", None)) is not None:
        rows: DataFrame = read(session)
    else:
        files, frame = source.parquet_files(), scanned(source)
        with reading(feature, source):
            schema = frame.collect_schema()
            sent = pl.Schema({name: _sent_as(dtype) for name, dtype in schema.items()})
            options = source.storage_options
            if files is None or sent != schema:
                files, options = [workplace.shared.put_aside(frame.cast(sent))], workplace.shared.folder.options
        if any("://" in file for file in files):
            rows = _read_by_tasks(session, files, options, sent)
        else:
            # The months of a table, which are in the names of its folders, are no columns of it.
            rows = session.read.parquet(*map(_address, files)).select(*map(_named, schema))
    require_keys(feature, rows.columns)
    return rows, schema


def _sent_as(dtype: pl.DataType) -> pl.DataType:
    if isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns":
        return pl.Datetime("us", dtype.time_zone)
    return _SENT_AS.get(type(dtype), dtype)


def _read_by_tasks(
    session: "SparkSession", files: list[str], options: Mapping[str, str] | None, schema: pl.Schema
) -> "DataFrame":
    """What is in files of a bucket, which Polars reads in tasks: it knows the store's options, Spark may not."""
    from pyspark.sql.pandas.types import from_arrow_schema

    def run(batches: Iterator[Any]) -> Iterator[Any]:
        from mlforge.engines.task import read

        return read(batches, options, schema)

    found: DataFrame = session.createDataFrame([(file,) for file in files], "file string")
    split = found.repartition(len(files), "file")
    return split.mapInArrow(run, from_arrow_schema(arrow(pl.DataFrame(schema=schema)).schema))


def _named(column: str) -> "Column":
    from pyspark.sql.functions import expr

    # By SQL, in which every name can be written.
    return expr("`{}`".format(column.replace("`", "``")))


def _address(file: str) -> str:
    """A local file as Spark wants it, which takes a path for a pattern in a file system of the cluster's."""
    return "file://" + re.sub(r"([\[\]{}*?\\])", r"\\\1", str(Path(file).absolute()))


def _pickled(task: Task) -> bytes:
    """A task for other processes, with what its function names of the project, which they do not have."""
    cloudpickle: Any = importlib.import_module("pyspark.cloudpickle")
    home = getattr(inspect.unwrap(task.feature.function), "__globals__", {})
    modules = [module for name, module in sys.modules.items() if isinstance(module, ModuleType) and name != "__main__"]
    own = [module for module in modules if module.__name__ in sys.modules and is_own(vars(module), home)]
    new = [module for module in own if module.__name__ not in cloudpickle.list_registry_pickle_by_value()]
    for module in new:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(task))
    except Exception as error:
        # What the function names may refuse as it likes.
        raise DefinitionError(
            f"Feature {task.feature.name!r}: its function cannot be sent to Spark's machines ({one_line(error)}): make "
            f"what it names inside of it."
        ) from error
    finally:
        for module in new:
            cloudpickle.unregister_pickle_by_value(module)


@contextmanager
def _spark_errors(feature: Feature, source: Source) -> Generator[None]:
    """Says in one line what went wrong in Spark, and not in a feature's function."""
    from pyspark.errors import PySparkException

    kinds: tuple[type[Exception], ...] = (PySparkException,)
    # A client of Spark Connect has none.
    with suppress(ImportError):
        kinds = (*kinds, importlib.import_module("py4j.protocol").Py4JError)
    try:
        yield
    except kinds as error:
        why = one_line(hidden(_cause(str(error)), source))
        if why.startswith("ModuleNotFoundError"):
            why += ": Spark's workers run another Python; set PYSPARK_PYTHON to the right one before the session begins"
        # Without the cause, which shows what is hidden.
        raise DataError(f"Feature {feature.name!r}, which reads {source!r}, on Spark: {why}") from None


def _cause(text: str) -> str:
    """Of what Spark says the line that tells most: the last error of a Python process, or else the first line."""
    found = re.findall(r"^\s*(?:[\w.]+\.)?(\w+(?:Error|Exception): .+)$", text, re.MULTILINE)
    return found[-1] if found and "Traceback" in text else text
