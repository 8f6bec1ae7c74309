"""Rolling windows: from events to the rows that a feature's values change at.

`points` finds the instants and, for each window at each of them, the span of tiles inside; `aggregates` says how each
aggregation is computed over spans; `exact` sums without rounding, `folds` and `moments` do what cannot be subtracted.
"""

from mlforge.windows.points import ALGORITHM, change_points

__all__ = ["ALGORITHM", "change_points"]
