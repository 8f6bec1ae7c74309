"""The clock: what "now" is to everything that computes, builds, serves or reports.

What has to be the real time reads the real clock: how long something took, locks, times to live, when something was
committed.
"""

import datetime as dt
from collections.abc import Generator
from contextlib import contextmanager

_standing: dt.datetime | None = None


def now() -> dt.datetime:
    """This instant, in UTC, or the one at which the clock stands still."""
    return dt.datetime.now(dt.UTC) if _standing is None else _standing


@contextmanager
def standing_still(at: dt.datetime) -> Generator[None]:
    """While it lasts it is this instant, UTC-aware, in all threads of this process."""
    global _standing
    before, _standing = _standing, at
    try:
        yield
    finally:
        _standing = before
