"""Where a feature's data comes from."""

import hashlib
import json
import re
from collections.abc import Sequence
from glob import escape, glob, has_magic
from pathlib import Path

import polars as pl

from mlforge.delta import Table, local_uri
from mlforge.errors import DataError, DefinitionError


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


class FileSource(Source):
    """Parquet, CSV or NDJSON files, or one Delta table.

    Args:
        paths: A path, a glob or a URL, or several of them; the ending tells the format (`.parquet`, `.csv`,
            `.ndjson`, `.jsonl`), a folder with a `_delta_log` is a Delta table. Relative paths start at the
            working directory.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path]) -> None:
        several = [paths] if isinstance(paths, str | Path) else list(paths)
        if not several or not all(isinstance(path, str | Path) and str(path) for path in several):
            raise DefinitionError(f"A source is a path, a glob, a URL, or a list of them, not {paths!r}.")
        self.paths = tuple(str(path) for path in several)

    def __repr__(self) -> str:
        return f"FileSource({', '.join(repr(without_credentials(path)) for path in self.paths)})"

    def scan(self) -> pl.LazyFrame:
        """The rows of all files; CSV columns that hold dates and times are parsed.

        Raises:
            DataError: A file does not exist, a glob finds nothing, or an ending is not known.
        """
        frames = [_scan(file) for path in self.paths for file in _files(path)]
        return frames[0] if len(frames) == 1 else pl.concat(frames)

    def fingerprint(self) -> str | None:
        """Path, size and modification time of every file, or a Delta table's id and version; None for URLs."""
        found: list[object] = []
        for path in self.paths:
            if "://" in path:
                return None
            for file in map(Path, _files(path)):
                if _is_table(file):
                    table = Table(local_uri(file))
                    found.append([str(file.resolve()), table.metadata().id, table.version()])
                else:
                    stat = file.stat()
                    found.append([str(file.resolve()), stat.st_size, stat.st_mtime_ns])
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()


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


def without_credentials(path: str) -> str:
    """A path or URL as it may be shown: without user, password and the parameters of a signed URL.

    >>> without_credentials("https://ann:s3cret@host/x.parquet?sig=abc")
    'https://***@host/x.parquet?***'
    """
    scheme, there, rest = path.partition("://")
    return scheme + there + re.sub(r"\?[^/]*=.*", "?***", re.sub("^[^/]*@", "***@", rest)) if there else path


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


def _is_table(folder: Path) -> bool:
    return (folder / "_delta_log").is_dir()


def _scan(file: str) -> pl.LazyFrame:
    if "://" not in file and Path(file).is_dir():
        if not _is_table(Path(file)):
            raise DataError(
                f"The source {file!r} is a folder but no Delta table: write a glob such as '{file}/*.parquet'."
            )
        return pl.scan_delta(Table(local_uri(file)))
    local = "://" not in file
    if local and Path(file).stat().st_size == 0:
        raise DataError(f"The source {file!r} is an empty file.")
    name = file.lower()
    # A local file's brackets belong to its name: globs have been resolved.
    if name.endswith((".parquet", ".pq")):
        return pl.scan_parquet(file, glob=not local)
    if name.endswith((".csv", ".csv.gz")):
        return pl.scan_csv(file, try_parse_dates=True, glob=not local)
    if name.endswith((".ndjson", ".jsonl")):
        return pl.scan_ndjson(escape(file) if local else file)
    shown = without_credentials(file)
    raise DataError(f"The ending of the source {shown!r} is none of .parquet, .csv, .ndjson, .jsonl.")
