"""The engine that runs functions over DuckDB relations."""

import datetime as dt
import inspect
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from mlforge.engines.base import Engine, failed, reading, running, scanned
from mlforge.engines.interruptible import interruptible
from mlforge.errors import DataError, DefinitionError, one_line
from mlforge.features import EngineName, Feature, Frame
from mlforge.memory import Room
from mlforge.source import Source
from mlforge.span import Span

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation
    from duckdb.sqltypes import DuckDBPyType

# Nothing is downloaded, and a result does not hang on what others have installed on a machine.
_CONFIG: dict[str, Any] = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
# How much a thread needs at least, by DuckDB's manual.
_A_THREAD = 125 * 10**6
_MICROSECOND = dt.timedelta(microseconds=1)
# The types of instants, and what they count in.
_UNITS = {
    "date": dt.timedelta(days=1),
    "timestamp_s": dt.timedelta(seconds=1),
    "timestamp_ms": dt.timedelta(milliseconds=1),
    "timestamp": _MICROSECOND,
    "timestamp_ns": _MICROSECOND,
    "timestamp with time zone": _MICROSECOND,
    "timestamptz_ns": _MICROSECOND,
}
_NUMBERS = ("tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint")
# What Polars reads as it is, be it from memory or from a file.
_KNOWN = frozenset({*_NUMBERS, *_UNITS, "boolean", "float", "double", "decimal"})
# JSON is a VARCHAR as well.
_CASTS = {
    "varchar": "VARCHAR",
    "enum": "VARCHAR",
    "uuid": "VARCHAR",
    "timestamp_s": "TIMESTAMP",
    "timestamp_ms": "TIMESTAMP",
}
_HUGE = ("hugeint", "uhugeint")
# Instead of other types.
_WAYS_OUT = {
    "interval": "epoch({})",
    "blob": "hex({})",
    "map": "map_entries({})",
    "null": "CAST({} AS DOUBLE), or the type that its values would have",
}


class DuckDBEngine(Engine):
    """A function gets its source as a DuckDB relation, and returns a relation, or SQL as text.

    In SQL the source is a table that is called as the function's parameter is. DuckDB itself reads local Parquet files,
    and no more of them than it needs; all else is read by Polars and handed over in a file. Instants are UTC. Whole
    numbers of 128 bits, as the sum of others is one, become `BIGINT`.

    Raises:
        DefinitionError: DuckDB is not installed.
    """

    name: EngineName = "duckdb"

    def __init__(self) -> None:
        try:
            import duckdb  # noqa: F401 -- only whether it is there
        except ImportError:
            raise DefinitionError("The engine 'duckdb' needs DuckDB: pip install 'mlforge[duckdb]'.") from None

    def __repr__(self) -> str:
        return "DuckDBEngine()"

    def run(self, feature: Feature, source: Source, span: Span | None = None, room: Room | None = None) -> Frame:
        """With a folder for it, a file in which the result is; else the result."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if room is None else room.folder
            connection = stack.enter_context(_connected(folder, room))
            if room is not None:
                # Without checks nobody asks in which order rows are.
                _set(connection, preserve_insertion_order=bool(feature.checks))
            frame = scanned(source)
            with _executing(feature, source):
                table = _table(connection, source, frame, folder)
            result = _result(connection, feature, source, table)
            with _executing(feature, source):
                asked = _asked(feature, result, span)
                if room is None:
                    return interruptible(lambda: pl.DataFrame(asked), connection.interrupt)
                file = folder / "result.parquet"
                interruptible(lambda: asked.write_parquet(str(file), compression="lz4"), connection.interrupt)
                return pl.scan_parquet(file, glob=False, hive_partitioning=False)


@contextmanager
def _connected(folder: Path, room: Room | None) -> "Generator[DuckDBPyConnection]":
    """A database in memory, which puts into a folder what does not fit there."""
    import duckdb

    with duckdb.connect(":memory:", config=_CONFIG) as connection:
        _set(connection, TimeZone="UTC", temp_directory=str(folder / "duckdb"))
        if room is not None:
            threads = connection.sql("SELECT current_setting('threads')").fetchall()[0][0]
            _set(connection, memory_limit=f"{room.left}B", threads=max(1, min(threads, room.left // _A_THREAD)))
        yield connection


def _set(connection: "DuckDBPyConnection", **settings: str | int) -> None:
    for name, value in settings.items():
        connection.execute(f"SET {name} = {_text(value) if isinstance(value, str) else value}")


def _table(connection: "DuckDBPyConnection", source: Source, frame: pl.LazyFrame, folder: Path) -> "DuckDBPyRelation":
    """A source, with the columns and rows that it has for Polars."""
    schema = frame.collect_schema()
    files = _files(source, schema)
    if not files:
        files = [str(folder / "source.parquet")]
        huge = [name for name, dtype in schema.items() if _is_huge(dtype)]
        frame.with_columns(pl.col(huge).cast(pl.Decimal(38, 0))).sink_parquet(files[0], compression="lz4")
    listed = ", ".join(_text(_without_glob(file)) for file in files)
    table = connection.sql(f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false)")  # noqa: S608 -- quoted
    for name, other in zip(schema, table.columns, strict=True):
        if name != other:
            raise DataError(
                f"The source {source!r} has a column {name!r}, which would be {other!r} in DuckDB, to which upper and "
                f"lower case are the same: rename it, or use the engine 'polars'."
            )
    return table.project(", ".join(_as_read(name, dtype) for name, dtype in schema.items()))


def _files(source: Source, schema: pl.Schema) -> list[str]:
    """The local Parquet files that a source is, if DuckDB finds there what Polars does; else none."""
    files = source.parquet_files() or []
    if any("://" in file for file in files) or any(map(_is_huge, schema.values())):
        return []
    found = (pl.scan_parquet(file, glob=False, hive_partitioning=False).collect_schema() for file in files)
    return files if all(each == schema for each in found) else []


def _is_huge(dtype: pl.DataType) -> bool:
    """Whether DuckDB would take the numbers in a file of Polars for something else."""
    return isinstance(dtype, pl.Int128 | pl.UInt128)


def _as_read(name: str, dtype: pl.DataType) -> str:
    """A column, of durations as intervals, since Parquet knows these as numbers."""
    if not isinstance(dtype, pl.Duration):
        return _quoted(name)
    microseconds = {"ms": f"{_quoted(name)} * 1000", "us": _quoted(name), "ns": f"{_quoted(name)} // 1000"}
    return f"to_microseconds({microseconds[dtype.time_unit]}) AS {_quoted(name)}"


def _result(
    connection: "DuckDBPyConnection", feature: Feature, source: Source, table: "DuckDBPyRelation"
) -> "DuckDBPyRelation":
    """What a function returns."""
    import duckdb

    name = next(iter(inspect.signature(feature.function).parameters), "source")
    table.create_view(name)
    with running(feature, source):
        try:
            result = feature.function(connection.view(name))
        except Exception as error:
            error.add_note("Its engine is 'duckdb', so that what it gets is a duckdb.DuckDBPyRelation.")
            raise
    relation = result
    if isinstance(result, str):
        # A table that SQL names is none of the variables here.
        _set(connection, python_enable_replacements=False)
        with _executing(feature, source):
            relation = connection.sql(result)
    if not isinstance(relation, duckdb.DuckDBPyRelation):
        what = "SQL that selects nothing" if isinstance(result, str) else type(result).__name__
        raise DefinitionError(
            f"Feature {feature.name!r}: the function returns {what}, not a DuckDB relation or the text of a SELECT."
        )
    return relation


def _asked(feature: Feature, result: "DuckDBPyRelation", span: Span | None) -> "DuckDBPyRelation":
    """The rows of a span, with every column in a type that Polars and the stores can hold."""
    types = dict(zip(result.columns, result.types, strict=True))
    folded = [name.casefold() for name in result.columns]
    if twice := [name for name in result.columns if folded.count(name.casefold()) > 1]:
        raise DefinitionError(
            f"Feature {feature.name!r}: the function returns two columns {twice[0]!r}, since to DuckDB upper and lower "
            f"case are the same: rename one of them."
        )
    if span is not None and feature.timestamp in types:
        result = result.filter(_within(feature.timestamp, types[feature.timestamp], span))
    return result.project(", ".join(_as_stored(feature, name, type_) for name, type_ in types.items()))


def _within(column: str, type_: "DuckDBPyType", span: Span) -> str:
    """Whether the instants in a column are in a span, or around its edges."""
    kind: str = type_.id
    if kind not in _UNITS:
        return "true"
    outer = span.rounded(_UNITS[kind])
    # As values of the column's own type: what is cast cannot be compared with what files say of their row groups.
    zone = "+00" if kind.endswith("zone") or kind.startswith("timestamptz") else ""
    return " AND ".join(
        f"{_quoted(column)} {comparison} {_text(f'{edge:%Y-%m-%d %H:%M:%S.%f}{zone}')}::{type_}"
        for comparison, edge in ((">=", outer.start), ("<", outer.end))
        if edge is not None
    )


def _as_stored(feature: Feature, name: str, type_: "DuckDBPyType") -> str:
    """A column in the type in which it leaves DuckDB.

    Raises:
        DataError: There is none.
    """
    value = column = _quoted(name)
    kind: str = type_.id
    if kind in _HUGE:
        beyond = _refused(name, f"which is beyond BIGINT: write CAST({column} AS DOUBLE) or AS DECIMAL(38, 0)")
        return f"coalesce(try_cast({column} AS BIGINT), CASE WHEN {column} IS NOT NULL THEN {beyond} END) AS {column}"
    if kind in _UNITS:
        # Of instants in nanoseconds with a zone it does not tell.
        finite = f"isfinite({column}{'::TIMESTAMPTZ' if kind == 'timestamptz_ns' else ''})"
        infinite = _refused(name, f"which is no instant: write CASE WHEN {finite} THEN {column} END")
        value = f"CASE WHEN {column} IS NULL OR {finite} THEN {column} ELSE {infinite} END"
    try:
        return f"CAST({value} AS {_stored(type_)}) AS {column}"
    except TypeError as error:
        way_out = _WAYS_OUT.get(kind, "CAST({} AS VARCHAR)").format(column)
        raise DataError(
            f"Feature {feature.name!r}: column {name!r} is {type_}, and no store can hold {error}: write {way_out} in "
            f"the function."
        ) from None


def _stored(type_: "DuckDBPyType") -> str:
    """The type in which a column leaves DuckDB, which `storable` takes for what it is.

    Raises:
        TypeError: There is none.
    """
    kind: str = type_.id
    if kind in _CASTS:
        return _CASTS[kind]
    if kind in _KNOWN:
        return str(type_)
    if kind not in ("list", "array", "struct"):
        raise TypeError(str(type_))
    # Of an array there is its size, too.
    fields = [(name, _stored(field)) for name, field in type_.children if not isinstance(field, int | list)]
    if kind == "struct":
        return f"STRUCT({', '.join(f'{_quoted(name)} {field}' for name, field in fields)})"
    return f"{fields[0][1]}[]"


def _refused(name: str, why: str) -> str:
    """What makes the query fail that meets a value."""
    return f"error({_text(f'column {name!r} holds ')} || {_quoted(name)} || {_text(f', {why} in the function.')})"


@contextmanager
def _executing(feature: Feature, source: Source) -> Generator[None]:
    """Says what DuckDB, or Polars, could not read or compute."""
    import duckdb

    with reading(feature, source):
        try:
            yield
        except (duckdb.Error, pl.exceptions.PolarsError) as error:
            raise failed(feature, source, DataError(_said(error))) from None


def _said(error: Exception) -> str:
    # What would have been right stands in a second line, and after an empty one the query.
    text = str(error).partition("\n\n")[0].replace("\n", " ")
    for prefix in ("got external error: ", "Invalid Input Error: "):
        text = text.removeprefix(prefix)
    return one_line(text)


def _without_glob(path: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in path)


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def _text(text: str) -> str:
    return "'{}'".format(text.replace("'", "''"))
