"""Delta tables in local folders, whatever these are called."""

from pathlib import Path
from typing import Any
from urllib.parse import unquote

from deltalake import DeltaTable

from mlforge.errors import DefinitionError

# What delta-rs does not find again or panics at in the name of a folder, and what Polars takes for a partition.
_IMPOSSIBLE = "%#?=[]^|\\"


class Table(DeltaTable):
    """A Delta table whose files Polars finds: it takes the escapes in their URIs for parts of the names."""

    def file_uris(self, *arguments: Any, **named: Any) -> list[str]:
        """The files as paths where they are local, as URIs where they are not."""
        uris = super().file_uris(*arguments, **named)
        escaped = self.table_uri.removeprefix("file://")
        if escaped == self.table_uri:
            return uris
        return [unquote(escaped) + uri.removeprefix(escaped) for uri in uris]


def local_uri(folder: str | Path) -> str:
    """The URI under which delta-rs knows a folder.

    >>> local_uri("/data/feature store")
    'file:///data/feature%20store'

    Raises:
        DefinitionError: Its name has a character with which tables cannot be written or read.
    """
    path = Path(folder).expanduser().absolute()
    if bad := [character for character in str(path) if character in _IMPOSSIBLE or not character.isprintable()]:
        raise DefinitionError(
            f"A Delta table cannot be in {str(path)!r}, because of the {bad[0]!r}: rename the folder."
        )
    return path.as_uri()
