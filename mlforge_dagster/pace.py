"""How old a feature and what is online of it may be: they are to be looked at once an interval."""

import datetime as dt

import dagster as dg

from mlforge.duration import microseconds
from mlforge.features import Feature

# Nothing is looked at more often, only because time passes.
SHORTEST = dt.timedelta(hours=1)
# So many rounds may be missed before Dagster warns, and before it says that an asset is not fresh.
WARN_AFTER, FAIL_AFTER = 2, 3


def pace(feature: Feature) -> dt.timedelta | None:
    """How often a feature is to be looked at: once an interval; None where it has none."""
    if feature.interval is None:
        return None
    return max(dt.timedelta(microseconds=microseconds(feature.interval)), SHORTEST)


def freshness_policy(feature: Feature) -> dg.FreshnessPolicy | None:
    """What Dagster is to warn of: nothing has been done for two intervals, and for three; None without an interval."""
    every = pace(feature)
    if every is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=FAIL_AFTER * every, warn_window=WARN_AFTER * every)
