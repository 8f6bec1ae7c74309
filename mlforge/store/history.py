"""The versions of a table, as the commits in its log tell them."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import escape
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from mlforge.errors import RequestError, StoreError
from mlforge.store.record import BuildRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of a feature.

    Attributes:
        version: MAJOR.MINOR.PATCH.
        delta_version: The version of the Delta table.
        committed_at: When it was committed, UTC.
        kind: What made it: a `full` or `partial` build, a `rollback`, or the name that Delta has for any other commit,
            such as `vacuum start`, `vacuum end` or `optimize`; the rest is then as in the version before.
        rows: How many rows it has.
        definition_hash: The hash of the definition that made the rows.
        restored: Which version a rollback has brought back; else None.
        readable: Whether all of its files are there; None where that cannot be told cheaply.
    """

    version: str
    delta_version: int
    committed_at: datetime
    kind: str
    rows: int
    definition_hash: str
    restored: str | None = None
    readable: bool | None = None


def versions(table: DeltaTable) -> list[Version]:
    """The versions up to the one that is loaded, the newest first.

    Raises:
        StoreError: The log lacks commits, or a record in it is damaged.
    """
    found: list[Version] = []
    record: BuildRecord | None = None
    count = table.version() + 1
    # Not by their `version`: delta-rs counts that down from the version that is loaded, also where later commits come
    # before that one, and where a commit has no information and is left out.
    commits = table.history()[-count:]
    if len(commits) < count:
        raise StoreError("a commit in its log is empty or missing.")
    for number, commit in enumerate(reversed(commits)):
        own = BuildRecord.from_commit(commit)
        record = own or record
        if record is None:
            continue
        version = Version(
            version=record.version(number),
            delta_version=number,
            committed_at=datetime.fromtimestamp(commit["timestamp"] / 1000, UTC),
            kind=str(commit["operation"]).lower() if own is None else own.kind,
            rows=record.rows,
            definition_hash=record.definition_hash,
            restored=None if own is None else own.restored,
        )
        found.append(version)
    return found[::-1]


def incomplete(log: Path, sizes: Mapping[str, int]) -> set[int]:
    """The Delta versions of a table that lack files, or have files that are cut short.

    Args:
        log: The folder of its commits.
        sizes: The files that are there, and how many bytes each has.
    """
    schema = {"add": pl.Struct({"path": pl.String, "size": pl.Int64}), "remove": pl.Struct({"path": pl.String})}
    actions = pl.scan_ndjson(f"{escape(str(log))}/*.json", schema=schema, include_file_paths="commit")
    number = pl.col("commit").str.extract(r"(\d{20})\.json$").cast(pl.Int64)
    commits = actions.group_by(number).agg(pl.col("add", "remove").drop_nulls()).drop_nulls().sort("commit")
    found: set[int] = set()
    lost: set[str] = set()
    for commit, added, removed in commits.collect().iter_rows():
        lost -= {file["path"] for file in removed}
        lost |= {file["path"] for file in added if sizes.get(file["path"]) != file["size"]}
        if lost:
            found.add(commit)
    return found


def find(version: str, newest_first: Sequence[Version], feature_name: str) -> Version:
    """The version of a text among those of a feature; the newest where only metadata are new and it has stayed.

    Raises:
        RequestError: There is none; the message names some near it.
    """
    for each in newest_first:
        if each.version == version:
            return each
    known = list(dict.fromkeys(each.version for each in newest_first))
    near = difflib.get_close_matches(str(version), known, n=3)
    shown = [text for text in known if text in near] or known[:3]
    raise RequestError(
        f"Feature {feature_name!r} has no version {version!r}; there is {', '.join(map(repr, shown))}, and "
        f"`mlforge versions {feature_name}` shows all."
    )


def newest_record(table: DeltaTable) -> BuildRecord | None:
    """The newest of mlforge's records up to the version that is loaded; others, such as an OPTIMIZE, may follow it.

    Raises:
        StoreError: The version's own commit is empty or cut short, or a record is damaged.
    """
    commits = table.version() + 1
    for limit in (1, min(10, commits), commits):
        # delta-rs gives that many up to the version that is loaded, and before these all that came later.
        found = table.history(limit)[-limit:]
        if not found:
            raise StoreError("its newest commit is empty.")
        for commit in found:
            if (record := BuildRecord.from_commit(commit)) is not None:
                if limit == 1:
                    _require_rows(table, record)
                return record
    return None


def _require_rows(table: DeltaTable, record: BuildRecord) -> None:
    """Refuses a commit that has lost some of its lines: Delta takes what is left for all of it."""
    counts = table.get_add_actions(flatten=True).column("num_records").to_pylist()
    if None not in counts and sum(counts) != record.rows:
        raise StoreError(
            f"its newest commit says that there are {record.rows} rows, and leaves files with {sum(counts)}."
        )
