"""Whether a feature sees the future: its values at an instant with all events, and with those known before it.

What holds at an instant may not depend on whether later events are there. So a feature is computed from all events, and
at each of some instants once more from those that were known by then: the values that hold there have to be equal for
every entity, whatever the function does.
"""

import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from mlforge.engines import Engine, Engines
from mlforge.engines.history import history
from mlforge.engines.shape import times
from mlforge.errors import RequestError, did_you_mean
from mlforge.features import EngineName, Feature
from mlforge.instant import INSTANT, Moment, instant
from mlforge.testing.computed import holding, in_memory, run
from mlforge.verdicts import shown

# At so many instants a feature is computed, and so many of them are where its function has moved times.
INSTANTS, MOVED = 32, 12
# Sums may be added in another order.
TOLERANCE = 1e-9

Values = Mapping[str, Any]
_NOTHING: Values = {}


def assert_no_leakage(
    feature: Feature,
    events: pl.DataFrame | pl.LazyFrame,
    *,
    at: Sequence[Moment] | None = None,
    timestamp: str | pl.Expr | None = None,
    available_at: str | pl.Expr | None = None,
    engine: Engine | EngineName = "polars",
) -> None:
    """Fails where a value of a feature at an instant depends on an event that was not known by then.

    The feature is computed from all events, and again at up to 32 instants, always the same, from those alone that
    were known: so a few thousand events are enough, and what their function cannot see in them is not found.

    Args:
        feature: The feature; what it reads is not read.
        events: What its function gets instead. For a feature that reads another one, what that one's function gets.
        at: At which instants; by default at event times, at ends of intervals and where values change, first of all
            where the function has given rows other times than the events have.
        timestamp: The column of the events' own times, or an expression; by default the feature's timestamp.
        available_at: The same for the times from which on they are known; by default the feature's available_at. Of a
            feature that has none it finds events that count before they are known.
        engine: What runs functions of features that name no engine.

    Raises:
        AssertionError: There is such a value; the message has the entity, the instant, the column, the value with and
            without the future, and the event that changed it.
        RequestError: The feature has no timestamp, a column is missing, `at` is no list, or nothing has a value at the
            instants.
    """
    __tracebackhide__ = True
    if isinstance(at, str):
        raise RequestError(f"at is a list: write at=[{at!r}].")
    trial = _Trial(feature, in_memory(events), Engines(engine), timestamp, available_at)
    made = run(feature, trial.events, trial.engines, checked=False).events
    full = history(feature, made)
    instants = _chosen(trial, full, made) if at is None else sorted(instant(moment) for moment in at)
    compared = False
    for moment in instants:
        known = trial.known_at(moment)
        with_future = holding(feature, full, moment)
        # Of no events nothing comes, and a build runs no function on none.
        without = trial.values(moment, known) if known.any() else full.clear()
        if (found := _first_difference(feature, with_future, without)) is not None:
            if known.any() and _first_difference(feature, without, trial.values(moment, known)) is not None:
                raise AssertionError(f"Feature {feature.name!r} has other values each time it is computed.")
            raise AssertionError(_told(trial, moment, *found))
        compared |= not known.all() and not with_future.is_empty()
    if not compared:
        raise RequestError(
            f"Feature {feature.name!r} has no value at any instant before the last event, so there is nothing to "
            f"compare: give it events of several times, further apart than its interval."
        )


class _Trial:
    """A feature and events of which it is computed, or of some of them.

    Attributes:
        known: When each event is known, null where it is not said.
    """

    def __init__(
        self,
        feature: Feature,
        events: pl.DataFrame,
        engines: Engines,
        timestamp: str | pl.Expr | None,
        available_at: str | pl.Expr | None,
    ) -> None:
        if feature.timestamp is None:
            raise RequestError(
                f"Feature {feature.name!r} has no timestamp: its row holds at every instant, so that no event is later "
                f"than another. Where its rows change with time, say timestamp=... in its definition."
            )
        self.feature, self.events, self.engines = feature, events, engines
        # The events are those of the feature that reads them, at the end of the chain.
        chain = list(_chain(feature))
        named = [timestamp, *(each.timestamp for each in reversed(chain))]
        late = [available_at, *(each.available_at for each in reversed(chain))]
        asked = {
            "timestamp": next(name for name in named if name is not None),
            "available_at": next((name for name in late if name is not None), None),
        }
        found = [self._times(role, name) for role, name in asked.items() if name is not None]
        self.known = pl.DataFrame(found).select(pl.max_horizontal(pl.all())).to_series()

    def known_at(self, moment: dt.datetime) -> pl.Series:
        """Which events may count at an instant: windows end before it, a row holds from its own time on."""
        held = self.known < moment if self.feature.metrics else self.known <= moment
        # What has no time is never later.
        return held.fill_null(value=True)

    def values(self, moment: dt.datetime, some: pl.Series) -> pl.DataFrame:
        """What holds at an instant, of some of the events."""
        try:
            made = run(self.feature, self.events.filter(some), self.engines, checked=False).events
        except Exception as error:
            error.add_note(f"It ran on the {some.sum()} of {len(some)} events known at {moment.isoformat()}.")
            raise
        return holding(self.feature, history(self.feature, made), moment)

    def _times(self, role: str, name: str | pl.Expr) -> pl.Series:
        columns = self.events.columns
        if isinstance(name, str) and name not in columns:
            near = did_you_mean(name, columns).removesuffix(".")
            raise RequestError(
                f"The events have no column {name!r}{near}: say {role}=..., the column of their own times, or an "
                f"expression."
            )
        expression = pl.col(name) if isinstance(name, str) else name
        found = self.events.select(expression.alias(role)).to_series()
        if not isinstance(found.dtype, pl.Date | pl.Datetime):
            raise RequestError(
                f"The times of the events are {found.dtype}, neither datetimes nor dates: say "
                f"{role}=pl.col(...).str.to_datetime(), or the like."
            )
        return found.cast(INSTANT)


def _chain(feature: Feature) -> Iterator[Feature]:
    """A feature, that which it reads, and so on."""
    yield feature
    if isinstance(feature.source, Feature):
        yield from _chain(feature.source)


def _chosen(trial: _Trial, full: pl.DataFrame, made: pl.DataFrame) -> list[dt.datetime]:
    """At which instants to look: a value holds from a row on, and may depend on less there than at any later instant.

    Args:
        trial: The feature and its events.
        full: The history of all events.
        made: What the function has made of them.
    """
    feature, known = trial.feature, trial.known.drop_nulls()
    rows = full[str(feature.timestamp)].unique().sort()
    # A function that leaves the times of its events alone makes no others.
    moved = made.select(pl.max_horizontal(times(feature))).to_series().unique()
    moved = moved.filter(~moved.is_in(known.implode()))
    after = rows.search_sorted(moved, side="right" if feature.metrics else "left")
    suspicious = rows.gather(after.filter(after < len(rows))).unique().sort()
    if known.is_empty():
        return []
    last = known.max()
    to_come = [each.filter(each <= last if feature.metrics else each < last) for each in (suspicious, rows, known)]
    first = _spread(to_come[0], MOVED)
    return sorted({*first, *_spread(pl.concat(to_come).unique().sort(), INSTANTS - len(first))})


def _spread(moments: pl.Series, most: int) -> list[dt.datetime]:
    """Some instants, the first, the last, and others evenly between them."""
    if len(moments) <= most:
        return moments.to_list()
    return [moments[round(number * (len(moments) - 1) / (most - 1))] for number in range(most)]


def _first_difference(
    feature: Feature, with_future: pl.DataFrame, without: pl.DataFrame
) -> tuple[Values, str, Values, Values] | None:
    """An entity, a column and the values of the entity, as they are different; None where none are."""
    if with_future.equals(without):
        return None
    one, other = (_by_entity(feature, rows) for rows in (with_future, without))
    for entity in {**one, **other}:
        values, expected = one.get(entity, _NOTHING), other.get(entity, _NOTHING)
        for column in {**values, **expected}:
            if not _same(values, expected, column):
                return dict(zip(feature.keys, entity, strict=True)), column, values, expected
    return None


def _by_entity(feature: Feature, rows: pl.DataFrame) -> dict[tuple[Any, ...], Values]:
    count = len(feature.keys)
    ordered = rows.select(*feature.keys, pl.exclude(feature.keys))
    names = ordered.columns[count:]
    return {row[:count]: dict(zip(names, row[count:], strict=True)) for row in ordered.iter_rows()}


def _same(one: Values, other: Values, column: str) -> bool:
    # No row is another thing than a row of nulls, a column that only some data have is not.
    return bool(one) == bool(other) and _close(one.get(column), other.get(column))


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_close(one[name], other[name]) for name in one)
    return bool(one == other)


def _told(trial: _Trial, moment: dt.datetime, entity: Values, column: str, values: Values, expected: Values) -> str:
    """What an assertion says about a value that depends on the future."""

    def text(held: Values) -> str:
        return shown({column: held.get(column)}) if held else "no value"

    changed, alone = _culprit(trial, moment, entity, column, expected)
    others = "" if alone else ", with others before it"
    name, when = trial.feature.name, shown({"at": moment}).removeprefix("at=")
    return "\n".join(
        [
            f"Feature {name!r} sees the future: at {when} it depends on an event that was not known by then.",
            f"  entity:          {shown(entity)}",
            f"  with all events: {text(values)}",
            f"  without later:   {text(expected)}",
            f"  changed by:      {shown(changed)}{others}",
        ]
    )


def _culprit(
    trial: _Trial, moment: dt.datetime, entity: Values, column: str, expected: Values
) -> tuple[dict[str, Any], bool]:
    """A later event that changes a value as it is added to those before it, and whether it does so alone."""
    known, keys = trial.known_at(moment), [key for key in trial.feature.keys if key in trial.events.columns]
    others = pl.any_horizontal(*(pl.col(key).ne_missing(entity[key]) for key in keys), pl.lit(value=False))
    numbered = trial.events.with_row_index("mlforge_row").with_columns(trial.known.alias("mlforge_known"))
    # The entity's own events come first, the nearest of them before the others.
    later = numbered.filter(~known).sort(others, "mlforge_known", "mlforge_row")["mlforge_row"]
    rows = numbered["mlforge_row"]

    def differs(added: pl.Series) -> bool:
        held = _by_entity(trial.feature, trial.values(moment, known | rows.is_in(added.implode())))
        return not _same(held.get(tuple(entity.values()), _NOTHING), expected, column)

    same, different = 0, len(later)
    while different - same > 1:
        middle = (same + different) // 2
        same, different = (same, middle) if differs(later.head(middle)) else (middle, different)
    last = later.slice(different - 1, 1)
    return trial.events.row(last.item(), named=True), differs(last)
