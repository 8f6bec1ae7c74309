"""Events under plain names: nothing that is computed can clash with a name of the user's, or be read as a pattern."""

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from mlforge.instant import INSTANT
from mlforge.metrics import Output


class Plain:
    """Events with their columns renamed: `k0` and so on for keys, `c0` and so on for others, times as is said.

    Args:
        events: Keys, times and other columns.
        keys: The entity key columns.
        times: The columns of instants, and what they are called.
        wanted: The columns that are aggregated, which may be keys or times as well.

    Attributes:
        frame: The events.
        keys: What the keys are called.
        columns: What the others are called, by name.
        ties: What those are called that break ties in time, in their order.
    """

    def __init__(
        self, events: pl.DataFrame, keys: Sequence[str], times: Mapping[str, str], wanted: Iterable[str]
    ) -> None:
        self._names = {name: f"k{i}" for i, name in enumerate(keys)}
        self.keys = list(self._names.values())
        ties = [name for name in events.columns if name not in {*keys, *times}]
        self.columns = {name: f"c{i}" for i, name in enumerate(dict.fromkeys([*ties, *wanted]))}
        self.ties = [self.columns[name] for name in ties]
        named = [*self._names.items(), *self.columns.items(), *times.items()]
        self.frame = pl.DataFrame([_unsigned_zeros(events.get_column(name)).alias(alias) for name, alias in named])

    def named(
        self,
        timestamp: str,
        points: pl.DataFrame,
        entities: pl.DataFrame,
        values: Mapping[str, pl.Series],
        outputs: Iterable[Output],
    ) -> pl.DataFrame:
        """Change points under the user's names.

        Args:
            timestamp: What the instants are called.
            points: `entity` and `at`.
            entities: The keys; `entity` counts its rows.
            values: The values at the points, by output.
            outputs: In which order.
        """
        keys = [entities[alias].gather(points["entity"]).alias(name) for name, alias in self._names.items()]
        at = points["at"].cast(INSTANT).alias(timestamp)
        return pl.DataFrame([*keys, at, *(values[output.name].alias(output.name) for output in outputs)])


def _unsigned_zeros(values: pl.Series) -> pl.Series:
    """-0.0 as 0.0, which it equals: which of the two is the least must not depend on the order of the rows."""
    if not values.dtype.is_float():
        return values
    return pl.select(pl.when(values == 0).then(pl.lit(0.0, values.dtype)).otherwise(values)).to_series()
