"""Features: what is computed, from what, for which entities."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, get_args

import polars as pl

from mlforge.checks import Check
from mlforge.duration import microseconds
from mlforge.errors import DefinitionError, did_you_mean
from mlforge.metrics import Output, Rolling
from mlforge.source import Source, as_source

P = ParamSpec("P")
R = TypeVar("R")
Frame = pl.LazyFrame | pl.DataFrame
# Of another engine than Polars it gets and gives what that engine works on.
Transform = Callable[[Any], Any]
EngineName = Literal["polars", "duckdb", "spark"]
# Columns of mlforge's own in the stored tables begin like this.
RESERVED = "mlforge_"


@dataclass(frozen=True, kw_only=True, eq=False)
class Feature:
    """A function over a Polars frame and what mlforge has to know to run it; made by `mlf.feature`.

    Attributes:
        name: The name of the feature, which is the function's.
        function: Gets the source as a `LazyFrame`, returns a `LazyFrame` or `DataFrame`; of DuckDB a relation each.
        keys: The columns that name an entity.
        source: Where the data comes from: another feature's history, or a source.
        timestamp: The column of the event times; None for a snapshot feature.
        interval: What the ends of windows are multiples of; None: every event counts at once.
        metrics: The aggregates of a windowed feature.
        max_age: For how long a row of a feature without metrics holds; None: until the next one.
        available_at: The column of the times from which on an event is known; None: when it happens.
        checks: Conditions on what the function returns, by name.
        description: For people; the function's docstring by default.
        tags: For people, to search by.
        owners: For people, to ask.
        engine: What runs the function; None: the project's engine.
    """

    name: str
    function: Transform = field(repr=False)
    keys: tuple[str, ...]
    source: "Source | Feature"
    timestamp: str | None = None
    interval: str | None = None
    metrics: tuple[Rolling, ...] = ()
    max_age: str | None = None
    available_at: str | None = None
    checks: Mapping[str, Check] = field(default_factory=dict, repr=False)
    description: str = field(default="", repr=False)
    tags: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    engine: EngineName | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", self.name, re.ASCII):
            raise self._error("a name is letters, digits and underscores, and begins with a letter")
        if self.engine not in (None, *get_args(EngineName)):
            known = ", ".join(map(repr, get_args(EngineName)))
            raise self._error(f"{self.engine!r} is no engine: write one of {known}")
        if not self.keys or len(set(self.keys)) < len(self.keys):
            raise self._error(f"keys names one or more different columns, not {list(self.keys)}")
        for column in [*self.index, *([] if self.available_at is None else [self.available_at])]:
            if not isinstance(column, str) or not column or column.startswith(RESERVED):
                raise self._error(f"{column!r} is no column name (one that begins with {RESERVED!r} is reserved)")
        if isinstance(self.source, Feature) and self.source.metrics:
            raise self._error(
                f"its source {self.source.name!r} has windows, so its rows are the instants at which a value changes, "
                f"not events: read what {self.source.name!r} reads"
            )
        if self.timestamp in self.keys:
            raise self._error(f"{self.timestamp!r} is both a key and the timestamp")
        if self.metrics and self.timestamp is None:
            raise self._error("metrics need event times: say timestamp=...")
        if self.interval is not None:
            try:
                microseconds(self.interval)
            except DefinitionError as error:
                raise DefinitionError(f"Feature {self.name!r}: interval: {error}") from None
            if not self.metrics:
                raise self._error("an interval is about windows: say metrics=[mlf.Rolling(...)] or leave it out")
        if self.max_age is not None:
            try:
                microseconds(self.max_age)
            except DefinitionError as error:
                raise DefinitionError(f"Feature {self.name!r}: max_age: {error}") from None
            if self.metrics or self.timestamp is None:
                raise self._error("max_age is about rows with a timestamp and no metrics: windows end by themselves")
        if self.available_at is not None:
            if self.timestamp is None:
                raise self._error("available_at is about when events are known: say timestamp=..., when they happen")
            if self.available_at in self.index:
                what = "the timestamp" if self.available_at == self.timestamp else "a key"
                raise self._error(f"available_at names {what}, {self.available_at!r}: it is a column of its own")
            if self.max_age is not None:
                raise self._error("max_age and available_at cannot be together yet: leave one of them out")
        names = [*self.index, *(o.name for o in self.outputs)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise self._error(f"the column {twice[0]!r} would be there twice")

    def __call__(self, df: Any) -> Any:
        """What the function makes of a frame, as it is."""
        return self.function(df)

    @property
    def index(self) -> list[str]:
        """The columns that tell rows apart: the keys, and the timestamp where there is one."""
        return [*self.keys, *([] if self.timestamp is None else [self.timestamp])]

    @property
    def outputs(self) -> list[Output]:
        """The columns that the metrics make, in order; empty without metrics."""
        return [output for metric in self.metrics for output in metric.outputs]

    def _error(self, what: str) -> DefinitionError:
        return DefinitionError(f"Feature {self.name!r}: {what}.")


def _called_right(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a call with other arguments than these an error in one line, as every mistake in a definition is."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        if len(args) > 0:
            raise DefinitionError("Write @mlf.feature(keys=[...], source=...): a feature has at least these two.")
        for name in named:
            if name not in signature.parameters:
                raise DefinitionError(f"@mlf.feature has no {name!r}{did_you_mean(name, signature.parameters)}")
        for name, parameter in signature.parameters.items():
            if parameter.default is parameter.empty and name not in named:
                raise DefinitionError(f"@mlf.feature needs {name}: write @mlf.feature(keys=[...], source=...).")
        return function(*args, **named)

    return call


@_called_right
def feature(
    *,
    keys: Sequence[str],
    source: str | Path | Sequence[str | Path] | Source | Feature,
    timestamp: str | None = None,
    interval: str | None = None,
    metrics: Sequence[Rolling] = (),
    max_age: str | None = None,
    available_at: str | None = None,
    checks: Mapping[str, Check | pl.Expr] | None = None,
    description: str | None = None,
    tags: Sequence[str] = (),
    owners: Sequence[str] = (),
    name: str | None = None,
    engine: EngineName | None = None,
) -> Callable[[Transform], Feature]:
    """Makes a function over a Polars frame a feature.

    The function gets the source as a `LazyFrame` and returns a frame with the keys, the timestamp, and the
    aggregated columns (with metrics) or the feature columns (without). Times are UTC; naive ones are taken as UTC.

    Args:
        keys: One or more columns that name an entity: strings, integers, Booleans, dates or datetimes.
        source: A path, a glob or a URL of Parquet, CSV, NDJSON or Delta, a list of them, an `mlf.Source`, or another
            feature without metrics, whose rows are then what the function gets.
        timestamp: The column of the event times. Without it the feature is a snapshot: one row an entity.
        interval: The granularity of the windows' ends, such as `"1d"`; without it every event counts at once.
        metrics: Rolling aggregates. Without them the newest row at or before an instant is the value.
        max_age: For how long such a row is the value, as in `"30d"`: after that the entity has none until the next
            row. Online that is so as of the last sync.
        available_at: The column of the times from which on an event is known, where that is later than it happened:
            an event counts once both have passed, so that late data cannot leak into training sets. It is no
            feature column itself, and cannot be together with `max_age` yet.
        checks: Conditions by name, as expressions that hold for every row the function returns, or `mlf.Check`s.
        description: The function's docstring by default.
        tags: For people, to search by.
        owners: For people, to ask.
        name: The name of the function by default.
        engine: `"polars"`, `"duckdb"` (the function gets and returns a DuckDB relation, or returns SQL), or `"spark"`
            (many machines run the function, each on the rows of some entities); the project's engine by default.

    Raises:
        DefinitionError: Something here cannot work; the message names the feature and says what.
    """
    if not isinstance(checks, Mapping | None):
        raise DefinitionError(f'checks is a dict: write checks={{"what holds": ...}}, not {checks!r}.')
    for argument, value in (("keys", keys), ("tags", tags), ("owners", owners), ("metrics", metrics)):
        if isinstance(value, str | Rolling):
            raise DefinitionError(f"{argument} is a list: write {argument}=[{value!r}].")

    def decorate(function: Transform) -> Feature:
        label = name if name is not None else getattr(function, "__name__", repr(function))
        if not callable(function) or isinstance(function, Feature):
            raise DefinitionError(f"@mlf.feature goes on a function, not on {function!r}.")
        if wrong := [metric for metric in metrics if not isinstance(metric, Rolling)]:
            raise DefinitionError(f"Feature {label!r}: a metric is an mlf.Rolling, not {wrong[0]!r}.")
        return Feature(
            name=label,
            function=function,
            keys=tuple(keys),
            source=source if isinstance(source, Feature) else as_source(source),
            timestamp=timestamp,
            interval=interval,
            metrics=tuple(metrics),
            max_age=max_age,
            available_at=available_at,
            checks={n: c if isinstance(c, Check) else Check(c) for n, c in (checks or {}).items()},
            description=(function.__doc__ or "").strip() if description is None else description,
            tags=tuple(tags),
            owners=tuple(owners),
            engine=engine,
        )

    return decorate
