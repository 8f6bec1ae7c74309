"""What is online against what is to go there: whether that may replace it, and whether the difference will do."""

from datetime import datetime

from mlforge.errors import RequestError
from mlforge.online.status import Status
from mlforge.store.snapshot import Snapshot


def require_same_project(snapshot: Snapshot, online: Status) -> None:
    """Refuses what another project has put there.

    Raises:
        RequestError: The message names both tables.
    """
    if online.location != snapshot.location:
        raise RequestError(
            f"Feature {snapshot.feature_name!r} is online from {online.location!r}, not from {snapshot.location!r}: "
            f"give one of the two projects another prefix, or, if the table has moved, build with force=True (--force)."
        )


def require_compatible(snapshot: Snapshot, online: Status) -> None:
    """Refuses another MAJOR version, and another table without the columns: readers may look for them in vain.

    Raises:
        RequestError: The message names the columns.
    """
    if online.content == snapshot.content:
        # A rollback has brought back what is online, under another number.
        return
    old, new = online.schema, snapshot.value_schema
    gone = [f"{name!r} is no longer there" for name in old if name not in new]
    other = [f"{name!r} is {new[name]}, was {old[name]}" for name in old if name in new and new[name] != old[name]]
    major = online.version.split(".")[0] != snapshot.version.split(".")[0]
    if gone or other or (major and online.table_id == snapshot.table_id):
        what = "; ".join([*gone, *other]) or "its keys or its timestamp have other types"
        raise RequestError(
            f"Feature {snapshot.feature_name!r}: version {snapshot.version} cannot stand in for {online.version}, "
            f"which is online ({what}): once no reader needs the old columns, build with allow_breaking=True "
            f"(--allow-breaking)."
        )


def later(snapshot: Snapshot, as_of: datetime, online: Status) -> str | None:
    """Why what is online comes after what is to go there; None if it does not."""
    if online.table_id == snapshot.table_id and snapshot.delta_version < online.delta_version:
        return f"version {online.version} is online, which is later than {snapshot.version}"
    if as_of < online.as_of:
        return f"what is online holds at {online.as_of:%Y-%m-%dT%H:%M:%S.%fZ}, which is later"
    return None


def other(snapshot: Snapshot, online: Status) -> str | None:
    """Why what is online cannot be compared with what is to go there; None if it can."""
    if online.table_id != snapshot.table_id:
        return "the table was made again"
    if online.location != snapshot.location:
        return "the table has moved"
    if online.delta_version == snapshot.delta_version and online.content not in (None, snapshot.content):
        return f"version {online.version} has been made again with other rows"
    if online.definition_hash != snapshot.record.definition_hash:
        return "the definition has changed"
    if online.schema != snapshot.value_schema or online.key_columns != snapshot.record.keys:
        return "the columns have changed"
    return None


def still_holds(snapshot: Snapshot, as_of: datetime, online: Status) -> bool:
    """Whether every value that is online holds at this version and instant as well."""
    # A commit that changed no row left the content as it was.
    same = online.content == snapshot.content and as_of >= online.as_of
    return same and (online.next_change is None or as_of < online.next_change)
