"""Rolling windows: from events to the rows that a feature's values change at.

`plain` gives the events other names; `points` finds the instants and, for each window at each of them, the span of
tiles inside; `aggregates` says how each aggregation is computed over spans; `late` does the same for events that become
visible late; `exact` sums without rounding, `folds` and `moments` do what cannot be subtracted.
"""

from mlforge.windows.aggregates import MOMENTS, UNTILED
from mlforge.windows.late import late_change_points
from mlforge.windows.points import ALGORITHM, Grid, change_points

__all__ = ["ALGORITHM", "MOMENTS", "UNTILED", "Grid", "change_points", "late_change_points"]
