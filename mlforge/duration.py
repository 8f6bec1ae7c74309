"""Durations such as `7d`: the one parser, in microseconds."""

import re

from mlforge.errors import DefinitionError

MICROSECONDS = {
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
# A century: beyond that a window reaches out of the years that a table can be partitioned by.
LONGEST = 36_525 * MICROSECONDS["d"]


def microseconds(text: str) -> int:
    """The length of a duration: a whole number and one of s, m, h, d, w.

    Calendar months and years have no fixed length and are refused.

    >>> microseconds("7d")
    604800000000

    Raises:
        DefinitionError: The text is no duration, is zero, or is longer than a century.
    """
    number, unit = _split(text)
    length = number * MICROSECONDS[unit]
    if length > LONGEST:
        raise DefinitionError(f"{text!r} is longer than a century: write at most '36525d'.")
    return length


def origin(text: str) -> int:
    """Where multiples of an interval are counted from, in microseconds since the Unix epoch.

    Weeks are counted from Monday 1970-01-05, since the epoch itself was a Thursday; all else from the epoch.

    >>> origin("1d"), origin("2w")
    (0, 345600000000)
    """
    _, unit = _split(text)
    return 4 * MICROSECONDS["d"] if unit == "w" else 0


def _split(text: str) -> tuple[int, str]:
    match = re.fullmatch(r"([1-9][0-9]{0,17})([smhdw])", text, re.ASCII) if isinstance(text, str) else None
    if match is None:
        hint = ""
        if isinstance(text, str) and re.fullmatch(r"[0-9]+ *(mo|M|q|y|Y)[a-z]*", text):
            hint = " Calendar months and years have no fixed length: use days, as in '30d'."
        raise DefinitionError(
            f"{text!r} is not a duration: write a whole number from 1 and one of s, m, h, d, w, as in '7d'.{hint}"
        )
    return int(match[1]), match[2]
