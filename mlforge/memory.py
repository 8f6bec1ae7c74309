"""How much memory a build may take, as in "2GB"."""

import re
from dataclasses import dataclass
from pathlib import Path

from mlforge.errors import DefinitionError

_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
# What Python and Polars take, with what these keep of what they have freed: of a build, and of a sync.
OWN, SYNC_OWN = 600 * 10**6, 200 * 10**6
LEAST = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a build may take where not everything fits into memory.

    Attributes:
        folder: Where the rest goes.
        memory_limit: How many bytes the process may take.
    """

    folder: Path
    memory_limit: int

    @property
    def left(self) -> int:
        """How many bytes there are beside what Python and Polars take."""
        return self.memory_limit - OWN


def as_bytes(text: str) -> int:
    """The bytes that a limit stands for.

    >>> as_bytes("2GB"), as_bytes("1.5 GiB")
    (2000000000, 1610612736)

    Raises:
        DefinitionError: It is none, or less than a build needs.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text.strip()) if isinstance(text, str) else None
    units = {name.lower(): size for name, size in _UNITS.items()}
    if found is None or (unit := units.get(found[2].lower())) is None:
        raise DefinitionError(f"{text!r} is no amount of memory: write a number and one of {', '.join(_UNITS)}: '2GB'.")
    if (size := int(float(found[1]) * unit)) < LEAST:
        raise DefinitionError(f"A memory_limit of {text!r} is less than a build needs: write '1GB' or more.")
    return size
