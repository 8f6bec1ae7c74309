"""Rolling aggregates, and the one place that spells the names of their columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mlforge.duration import microseconds
from mlforge.errors import DefinitionError, did_you_mean

Aggregation = Literal["count", "sum", "mean", "min", "max", "std", "var", "median", "n_unique", "first", "last"]
AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One column that a metric makes: which column is aggregated, how, over which window."""

    column: str
    aggregation: str
    window: str

    @property
    def name(self) -> str:
        """The name of the column in every store: `{column}__{aggregation}__{window}`.

        >>> Output(column="amount", aggregation="sum", window="7d").name
        'amount__sum__7d'
        """
        return f"{self.column}__{self.aggregation}__{self.window}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolling:
    """Aggregates over the time windows that end at, and exclude, the instant a value is asked for.

    Nulls are left out of every aggregate. Where a window holds no value, `count`, `n_unique` and `sum` are 0
    and everything else is null; `std` and `var` are of a sample, so null for a single value as well.

    Args:
        windows: Lengths such as `"7d"`: whole numbers of s, m, h, d, w.
        aggregations: For each column, one or more of count, sum, mean, min, max, std, var, median, n_unique,
            first, last. count and n_unique give Int64, an integer sum Int64, mean, std, var and median
            Float64; the others keep the dtype of the column.

    Raises:
        DefinitionError: There is no window or no aggregation, or one that is not known or stands twice.

    >>> Rolling(windows=["7d"], aggregations={"amount": ["sum"]}).columns
    ['amount__sum__7d']
    """

    windows: Sequence[str]
    aggregations: Mapping[str, Sequence[Aggregation]]

    def __post_init__(self) -> None:
        if isinstance(self.windows, str):
            raise DefinitionError(f"windows is a list: write windows=[{self.windows!r}].")
        if not isinstance(self.aggregations, Mapping):
            raise DefinitionError('aggregations is a dict: write aggregations={"amount": ["sum"]}.')
        object.__setattr__(self, "windows", tuple(self.windows))
        object.__setattr__(self, "aggregations", {c: _names(c, a) for c, a in self.aggregations.items()})
        if not self.windows or not self.aggregations:
            raise DefinitionError("A Rolling needs at least one window and one aggregated column.")
        for window in self.windows:
            microseconds(window)
        names = self.columns
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise DefinitionError(f"A Rolling makes {', '.join(twice)} twice: leave out the repetition.")

    @property
    def outputs(self) -> list[Output]:
        """What is computed, in the order of the columns: by column, then aggregation, then window."""
        return [
            Output(column=column, aggregation=aggregation, window=window)
            for column, aggregations in self.aggregations.items()
            for aggregation in aggregations
            for window in self.windows
        ]

    @property
    def columns(self) -> list[str]:
        """The names of the columns that this metric makes."""
        return [output.name for output in self.outputs]


def _names(column: str, aggregations: Sequence[Aggregation]) -> tuple[Aggregation, ...]:
    if isinstance(aggregations, str):
        raise DefinitionError(f"The aggregations of {column!r} are a list: write [{aggregations!r}].")
    for aggregation in aggregations:
        if aggregation not in AGGREGATIONS:
            raise DefinitionError(
                f"{aggregation!r} is not an aggregation (column {column!r})"
                f"{did_you_mean(str(aggregation), AGGREGATIONS)}"
            )
    if not aggregations:
        raise DefinitionError(f"Column {column!r} has no aggregations: write at least one, as in ['sum'].")
    return tuple(aggregations)
