"""Vacuuming a feature's table: files that no version needs any more are deleted."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from mlforge.errors import RequestError, StoreError
from mlforge.online.base import OnlineStore
from mlforge.store.base import Store
from mlforge.store.history import Version, find
from mlforge.store.snapshot import Snapshot

KEEP, LONGEST = timedelta(days=30), timedelta(days=36_500)
# What no version names may be of a build that is about to commit it: none takes longer from its first file on.
UNNAMED = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class VacuumReport:
    """What a vacuum did, or would do.

    Attributes:
        feature: The feature's name.
        versions: How many versions there are.
        kept: How many of them are kept for sure: where files of others are deleted, those can no longer be read.
        kept_versions: Which ones these are, MAJOR.MINOR.PATCH, the newest first.
        files: How many files were deleted. Only a `LocalStore` counts those that no version names, as killed builds
            leave them, and leaves out those that an earlier vacuum has deleted.
        bytes: How many bytes they had.
        dry_run: Whether nothing was done; the numbers then say what would be.
    """

    feature: str
    versions: int
    kept: int
    kept_versions: Sequence[str]
    files: int
    bytes: int
    dry_run: bool = False


def vacuum(
    feature_name: str,
    store: Store,
    online_store: OnlineStore | None,
    *,
    keep: timedelta = KEEP,
    pinned: Collection[str] = (),
    dry_run: bool = False,
) -> VacuumReport:
    """Deletes the files that only versions need which nothing refers to and which have long been replaced.

    Kept are the newest version, those that were the newest at some time in `keep`, those that the online store names,
    the one that a rollback has left, and those that are pinned. Delta notes a vacuum in two commits (four where `keep`
    is less than a day), each of which counts as a version with the same rows.

    Args:
        feature_name: The feature.
        store: Where its table is.
        online_store: What is online of it can go on to be compared; None: nothing is.
        keep: How long a version is kept after it was replaced.
        pinned: Versions that are needed, MAJOR.MINOR.PATCH.
        dry_run: Deletes nothing.

    Raises:
        RequestError: `keep` is negative or more than a century, the feature has not been built, or has no version
            that is pinned.
        StoreError: A store cannot be read or written, or others committed to the table at the same time; the message
            says whether files may be gone.
    """
    if not timedelta() <= keep <= LONGEST:
        raise RequestError(f"{keep} is no time to keep versions for: write 0 to {LONGEST.days} days.")
    with store.building(feature_name):
        # Only now: whoever else has the table may have it for long.
        since = datetime.now(UTC) - keep
        found = store.versions(feature_name)
        newest = store.require(feature_name)
        named = {find(version, found, feature_name).delta_version for version in pinned}
        named |= {newest.delta_version} | _online(newest, online_store)
        if newest.record.left is not None:
            named.add(newest.record.left)
        kept_numbers = named | _young(found, since)
        kept = [each for each in found if each.delta_version in kept_numbers]
        loaded = [each.delta_version for each in kept if each.delta_version in named or _forgotten(each, since)]
        sizes = store.sizes(feature_name)
        # delta-rs names files again that it has deleted before.
        files = _vacuum(newest, loaded, keep, dry_run=True) & sizes.keys()
        if files and not dry_run:
            _vacuum(newest, loaded, keep, dry_run=False)
    return VacuumReport(
        feature=feature_name,
        versions=len(found),
        kept=len(kept),
        kept_versions=list(dict.fromkeys(each.version for each in kept)),
        files=len(files),
        bytes=sum(sizes[file] for file in files),
        dry_run=dry_run,
    )


def _young(newest_first: Sequence[Version], since: datetime) -> set[int]:
    """The versions that were the newest at this instant or later, but for the one that is."""
    return {older.delta_version for newer, older in pairwise(newest_first) if newer.committed_at >= since}


def _forgotten(young: Version, since: datetime) -> bool:
    """Whether a version that is young may have files that Delta would delete, if it were not told to keep them.

    Once its log forgets when files were replaced, it goes by when they were written. What builds have written since is
    young as well; what was there before, or was brought back, is not. Each version that Delta is told of costs time.
    """
    return young.committed_at < since + UNNAMED or young.kind in ("rollback", "restore")


def _online(newest: Snapshot, online_store: OnlineStore | None) -> set[int]:
    """The versions of which values are online, or may still be while a sync is under way."""
    status = None if online_store is None else online_store.status(newest.feature_name)
    if status is None or status.table_id != newest.table_id:
        return set()
    return {status.delta_version, *(version for version, _ in status.earlier or ())}


def _vacuum(newest: Snapshot, needed: Collection[int], keep: timedelta, *, dry_run: bool) -> set[str]:
    # A full vacuum also deletes what no version names, by when it was written.
    passes = [(keep, True)] if keep >= UNNAMED else [(keep, False), (UNNAMED, True)]
    files: set[str] = set()
    table, commits = newest.table, newest.delta_version + 1
    try:
        for period, full in passes:
            files.update(
                table.vacuum(
                    math.ceil(period / timedelta(hours=1)),
                    dry_run=dry_run,
                    enforce_retention_duration=False,
                    # What somebody else commits at the same time, such as a rollback, may need these files.
                    commit_properties=CommitProperties(max_commit_retries=0),
                    full=full,
                    keep_versions=sorted(needed),
                )
            )
    except (DeltaError, OSError) as error:
        overtaken = isinstance(error, CommitFailedError)
        why = "somebody else committed to the table" if overtaken else newest.why(error).rstrip(".")
        raise StoreError(
            f"The vacuum of {newest.location!r} was interrupted ({why}): {_left_behind(table, commits)}."
        ) from error
    return files


def _left_behind(table: DeltaTable, commits: int) -> str:
    """What a vacuum that did not end has done: Delta commits that it begins, deletes, and commits that it has ended."""
    try:
        began = any(commit["operation"] == "VACUUM START" for commit in table.history()[:-commits])
    except (DeltaError, OSError):
        began = True
    return "files of old versions may be gone" if began else "nothing was deleted"
