"""Where a feature's data comes from."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from glob import escape, glob, has_magic
from pathlib import Path
from typing import Literal

import polars as pl
from deltalake.exceptions import DeltaError

from mlforge.delta import Table, local_uri
from mlforge.errors import DataError, DefinitionError, one_line


class Source:
    """Something that can be read as a Polars frame; subclass it for data that no path leads to.

    A subclass implements `scan`, and `fingerprint` where it can tell cheaply whether the data has changed.
    """

    def scan(self) -> pl.LazyFrame:
        """The data, lazily: a feature's function reads only the columns and rows that it asks for."""
        raise TypeError(f"{type(self).__name__} has to define scan(), which returns a polars.LazyFrame.")

    def fingerprint(self) -> str | None:
        """A text that changes whenever the data does; None where that cannot be told, and nothing is ever skipped."""
        return None

    def parquet_files(self) -> list[str] | None:
        """The Parquet files, as paths and URLs, whose rows are the data; None where it is anything else."""
        return None

    @property
    def storage_options(self) -> Mapping[str, str] | None:
        """What reading these needs that is not in the environment."""
        return None


class FileSource(Source):
    """Parquet, CSV or NDJSON files, or one Delta table.

    Args:
        paths: A path, a glob or a URL, or several of them; the ending tells the format (`.parquet`, `.csv`,
            `.ndjson`, `.jsonl`), a folder with a `_delta_log` is a Delta table. Relative paths start at the
            working directory.
        texts: Columns of CSV files that are text whatever they look like, as 007 does like a number.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path], *, texts: Collection[str] = ()) -> None:
        several = [paths] if isinstance(paths, str | Path) else list(paths)
        if not several or not all(isinstance(path, str | Path) and str(path) for path in several):
            raise DefinitionError(f"A source is a path, a glob, a URL, or a list of them, not {paths!r}.")
        self.paths = tuple(str(path) for path in several)
        self._texts = texts

    def __repr__(self) -> str:
        return f"FileSource({', '.join(repr(without_credentials(path)) for path in self.paths)})"

    def scan(self) -> pl.LazyFrame:
        """The rows of all files; CSV columns that hold dates and times are parsed.

        Raises:
            DataError: A file does not exist, is empty or a damaged table, a glob finds nothing, or an ending is not
                known.
        """
        frames = [_scan(file, self._texts) for path in self.paths for file in _files(path)]
        return frames[0] if len(frames) == 1 else pl.concat(frames)

    def fingerprint(self) -> str | None:
        """Path, size and modification time of every file, or a Delta table's id and version; None for URLs.

        Raises:
            DataError: As for `scan`.
        """
        found = [_identity(file) for path in self.paths for file in _files(path)]
        return None if None in found else hashlib.sha256(json.dumps(found).encode()).hexdigest()

    def parquet_files(self) -> list[str] | None:
        """The files, if all of them are Parquet, and no subclass reads them in another way.

        Raises:
            DataError: As for `scan`.
        """
        if type(self).scan is not FileSource.scan:
            return None
        files = [file for path in self.paths for file in _files(path)]
        return files if all(_format(file) == "parquet" for file in files) else None


class FrameSource(Source):
    """Rows that are in memory.

    Args:
        frame: The rows.
        name: What they are called in messages.
    """

    def __init__(self, frame: pl.DataFrame, name: str) -> None:
        self._frame = frame
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def scan(self) -> pl.LazyFrame:
        """The rows."""
        return self._frame.lazy()


def as_source(source: object) -> Source:
    """A Source, or what `FileSource` takes, as a Source.

    Raises:
        DefinitionError: It is neither.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, str | Path | list | tuple):
        return FileSource(source)
    raise DefinitionError(f"A source is a path, a glob, a URL, a list of them, or an mlf.Source, not {source!r}.")


# User and password at the beginning of what follows `://`, and the parameters of a signed URL at its end.
_SECRETS = re.compile(r"^[^/]*(?=@)|(?<=\?)[^/]*=.*")


def without_credentials(path: str) -> str:
    """A path or URL as it may be shown: without user, password and the parameters of a signed URL.

    >>> without_credentials("https://ann:s3cret@host/x.parquet?sig=abc")
    'https://***@host/x.parquet?***'
    """
    scheme, there, rest = path.partition("://")
    return scheme + there + _SECRETS.sub("***", rest) if there else path


def hidden(text: str, source: Source) -> str:
    """What somebody else says about a source, without what `without_credentials` hides."""
    for path in source.paths if isinstance(source, FileSource) else ():
        for secret in _SECRETS.findall(path.partition("://")[2]):
            text = text.replace(secret, "***") if secret else text
    return text


def _files(path: str) -> list[str]:
    if "://" in path:
        return [path]
    expanded = str(Path(path).expanduser())
    if has_magic(expanded) and not Path(expanded).exists():
        found = sorted(glob(expanded, recursive=True))  # noqa: PTH207 -- pathlib's glob takes no absolute pattern
        if not found:
            raise DataError(f"No file matches the source {path!r}.")
        return found
    if not Path(expanded).exists():
        raise DataError(f"The source {path!r} does not exist (looked for {str(Path(expanded).absolute())!r}).")
    return [expanded]


def _scan(file: str, texts: Collection[str]) -> pl.LazyFrame:
    # A local file's brackets belong to its name: globs have been resolved.
    local = "://" not in file
    match _format(file):
        case "delta":
            table = _table(file)
            try:
                return pl.scan_delta(table)
            except DeltaError as error:
                raise _unreadable(file, error) from error
        case "parquet":
            return pl.scan_parquet(file, glob=not local)
        case "csv":
            schema = dict.fromkeys(texts, pl.String())
            return pl.scan_csv(file, try_parse_dates=True, glob=not local, schema_overrides=schema)
        case "ndjson":
            return pl.scan_ndjson(escape(file) if local else file)


def _identity(file: str) -> list[str | int] | None:
    """What changes whenever a file or a table does; None where that cannot be told."""
    if _format(file) == "delta":
        table = _table(file)
        return [str(Path(file).resolve()), str(table.metadata().id), table.version()]
    if "://" in file:
        return None
    stat = _stat(file)
    return [str(Path(file).resolve()), stat.st_size, stat.st_mtime_ns]


def _format(file: str) -> Literal["delta", "parquet", "csv", "ndjson"]:
    """How a file is read.

    Raises:
        DataError: It cannot be.
    """
    if "://" not in file and Path(file).is_dir():
        if not (Path(file) / "_delta_log").is_dir():
            raise DataError(
                f"The source {file!r} is a folder but no Delta table: write a glob such as '{file}/*.parquet'."
            )
        return "delta"
    if "://" not in file and _stat(file).st_size == 0:
        raise DataError(f"The source {file!r} is an empty file.")
    name = re.sub(r"\?[^/]*=.*", "", file).lower() if "://" in file else file.lower()
    if name.endswith((".parquet", ".pq")):
        return "parquet"
    if name.endswith((".csv", ".csv.gz")):
        return "csv"
    if name.endswith((".ndjson", ".jsonl")):
        return "ndjson"
    shown = without_credentials(file)
    raise DataError(f"The ending of the source {shown!r} is none of .parquet, .csv, .ndjson, .jsonl.")


def _stat(file: str) -> os.stat_result:
    try:
        return Path(file).stat()
    except OSError as error:
        raise _unreadable(file, error) from error


def _table(folder: str) -> Table:
    try:
        return Table(local_uri(folder))
    except (DeltaError, OSError) as error:
        raise _unreadable(folder, error) from error


def _unreadable(file: str, error: DeltaError | OSError) -> DataError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
    return DataError(f"The source {file!r} cannot be read: {why.rstrip('.')}.")
