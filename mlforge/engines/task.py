"""What a machine of a cluster does: the history of some entities, from their rows to files beside the table's."""

import pickle
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from mlforge.checks import columns_of, unique
from mlforge.engines.base import Engine, Loaded
from mlforge.engines.history import history
from mlforge.engines.polars import PolarsEngine
from mlforge.errors import DataError, DefinitionError, one_line
from mlforge.features import Feature
from mlforge.files import File, Folder, in_batches, scan
from mlforge.modules import origin
from mlforge.source import FrameSource
from mlforge.span import Span
from mlforge.stage import Stage
from mlforge.storable import storable
from mlforge.verdicts import CheckResult, by_row


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What was made of the rows of some entities.

    Attributes:
        rows: How many rows the function returned.
        events: How many of them have a key and a timestamp.
        checks: The verdicts.
        schema: The columns of the history.
        files: What was written.
        error: Why nothing was; None where it was.
    """

    rows: int = 0
    events: int = 0
    checks: Sequence[CheckResult] = ()
    schema: Mapping[str, pl.DataType] = field(default_factory=dict)
    files: Sequence[File] = ()
    error: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A feature's history, for some of its entities.

    Attributes:
        feature: The feature.
        source: What its source is called.
        columns: What its columns are called, in their order.
        schema: The columns of the source as Polars reads them, since Spark knows no zones and fewer dtypes; None: as
            they come.
        part: Only the rows that these events can change; None: all.
        folder: Where files go.
    """

    feature: Feature
    source: str
    columns: Sequence[str]
    schema: Mapping[str, pl.DataType] | None
    part: Span | None
    folder: Folder

    def __call__(self, frame: pl.DataFrame) -> ShardReport:
        """What becomes of the rows of some entities; an error is reported, so that it is told as everywhere else."""
        stage = Stage(self.folder, self.feature.timestamp)
        try:
            frame = frame.rename(dict(zip(frame.columns, self.columns, strict=True)))
            if self.schema is not None:
                frame = frame.cast(pl.Schema(self.schema))
            loaded = local(PolarsEngine(), self.feature, frame, self.source, self.part)
            require_local_checks(self.feature, loaded.schema)
            rows = history(self.feature, loaded.events, self.part)
            stage.write(rows)
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- the function is the user's, and may raise anything
            stage.discard()
            error.add_note(f"This happened in a task of Spark's{origin(error)}.")
            return ShardReport(error=_portable(self.feature, error))
        return ShardReport(
            rows=len(loaded.events) + loaded.left_out,
            events=len(loaded.events),
            checks=loaded.checks,
            schema=rows.schema,
            files=stage.files,
        )


def require_keys(feature: Feature, columns: Collection[str]) -> None:
    """Refuses a source whose rows cannot be split by entity.

    Args:
        feature: The feature.
        columns: Those of its source.

    Raises:
        DefinitionError: A key is none of them.
    """
    for key in feature.keys:
        if key not in columns:
            raise DefinitionError(
                f"Feature {feature.name!r}: its source has no column {key!r}: on Spark the rows are split by entity "
                f"before the function sees them, so the keys have to be columns of the source."
            )


def require_local_checks(feature: Feature, schema: Mapping[str, pl.DataType]) -> None:
    """Refuses checks that no machine can decide, since it would have to see all rows.

    Args:
        feature: The feature.
        schema: What its function returns.

    Raises:
        DefinitionError: There is one.
    """
    for name, check in feature.checks.items():
        columns = columns_of(check)
        # Rows of one entity are on one machine.
        alike = columns and check.expression.meta.eq(unique(*columns).expression)
        if not by_row(check, schema) and not (alike and {*feature.keys} <= {*columns}):
            raise DefinitionError(
                f"Feature {feature.name!r}: the check {name!r} looks at all rows at once, which no machine of Spark's "
                f"sees: make it a condition on each row, or build the feature with engine='polars' and a memory_limit."
            )


def local(
    engine: Engine,
    feature: Feature,
    frame: pl.DataFrame,
    source: str,
    part: Span | None = None,
    *,
    checked: bool = True,
) -> Loaded:
    """What a function makes of all rows of some entities, if these are the entities that it returns.

    Args:
        engine: What runs it.
        feature: The feature.
        frame: The rows.
        source: What their source is called.
        part: As for `Engine.load`, as is `checked`.
        checked: Whether checks are run.

    Raises:
        DefinitionError: It returns another entity: whoever has the rows of others may do so as well.
    """
    loaded = engine.examine(feature, FrameSource(frame, source), part, checked=checked)
    keys = list(feature.keys)
    given = storable(frame.select(keys).unique(), feature=feature.name)
    strange = loaded.events.select(keys).unique()
    if dict(given.schema) == dict(strange.schema):
        strange = strange.join(given, on=keys, how="anti", nulls_equal=True)
    if len(strange):
        raise DefinitionError(
            f"Feature {feature.name!r}: its function makes the entity {strange.row(0, named=True)} of rows of others: "
            f"where rows are split by entity, as on Spark, the keys have to be columns of the source, as they are."
        )
    return loaded


def one_schema(feature: Feature, schemas: Sequence[Mapping[str, pl.DataType]]) -> Mapping[str, pl.DataType]:
    """What all tasks have made, which has to be the same whichever entities they had; of none, nothing.

    Raises:
        DefinitionError: It is not.
    """
    for schema in schemas:
        differing = {*schemas[0].items()} ^ {*schema.items()}
        for name, _ in sorted(differing, key=lambda column: column[0])[:1]:
            what = " and ".join(str(each.get(name, "nothing")) for each in (schemas[0], schema))
            raise DefinitionError(
                f"Feature {feature.name!r}: its function makes {what} of the column {name!r}, of some entities this "
                f"and of others that: give it one dtype in the function."
            )
    return schemas[0] if schemas else {}


def run(payload: bytes, batches: Iterator[Any]) -> Iterator[Any]:
    """Does a pickled task to the rows of some entities; the report, pickled, as one row of Arrow, or none of no rows.

    Args:
        payload: The task.
        batches: The rows, as PyArrow's record batches.
    """
    import pyarrow as pa

    there = list(batches)
    if there:
        frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(there)))
        there.clear()
        task: Task = pickle.loads(payload)  # noqa: S301 -- our own
        yield pa.RecordBatch.from_pydict({"report": [pickle.dumps(task(frame))]})


def read(batches: Iterator[Any], options: Mapping[str, str] | None, schema: Mapping[str, pl.DataType]) -> Iterator[Any]:
    """What is in Parquet files, as PyArrow's record batches.

    Args:
        batches: The URLs of the files, as the column `file`.
        options: The storage options; None: what the environment says.
        schema: Which columns, and their dtypes.
    """
    for file in (file for batch in batches for file in batch.column("file").to_pylist()):
        for frame in in_batches(scan(file, options).select(list(schema)).cast(pl.Schema(schema))):
            yield from arrow(frame).to_batches()


def arrow(frame: pl.DataFrame) -> Any:
    """A frame as a table of PyArrow's that Spark takes: it does not know views."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _portable(feature: Feature, error: BaseException) -> BaseException:
    """An error that another process can raise."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    except Exception:  # noqa: BLE001 -- whatever it is made of
        return DataError(f"Feature {feature.name!r}: {type(error).__name__}: {one_line(error)}{origin(error)}")
    return error
