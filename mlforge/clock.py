"""The clock: what "now" is to everything that computes, builds, serves or reports.

What has to be the real time reads the real clock: how long something took, locks, times to live, when something was
committed.
"""

import datetime as dt
from collections.abc import Generator
from contextlib import contextmanager

# The instants at which it stands still, for everybody who has asked for one: the last of them is now.
_standing: list[tuple[object, dt.datetime]] = []


def now() -> dt.datetime:
    """This instant, in UTC, or the one at which the clock stands still."""
    return _standing[-1][1] if _standing else dt.datetime.now(dt.UTC)


@contextmanager
def standing_still(at: dt.datetime) -> Generator[None]:
    """While it lasts it is this instant, UTC-aware, in all threads of this process."""
    mine = object(), at
    _standing.append(mine)
    try:
        yield
    finally:
        # Not the last one where somebody else has begun later and goes on.
        _standing.remove(mine)
