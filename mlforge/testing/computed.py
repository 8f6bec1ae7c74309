"""What a feature makes of a frame of events: a build without a store."""

import datetime as dt

import polars as pl

from mlforge import verdicts
from mlforge.duration import microseconds
from mlforge.engines import Engine, Engines
from mlforge.engines.base import Loaded
from mlforge.engines.history import history
from mlforge.errors import RequestError
from mlforge.features import EngineName, Feature
from mlforge.instant import INSTANT, Moment, instant
from mlforge.source import FrameSource, Source


def values_at(
    feature: Feature,
    events: pl.DataFrame | pl.LazyFrame,
    at: Moment = "now",
    *,
    engine: Engine | EngineName = "polars",
) -> pl.DataFrame:
    """The values that hold at an instant, if these are all events that there are: a build without a store.

    >>> import mlforge as mlf
    >>> @mlf.feature(keys=["user_id"], source="logins.parquet", timestamp="ts")
    ... def last_login(df):
    ...     return df.select("user_id", "ts", "device")
    >>> logins = pl.DataFrame(
    ...     {"user_id": [7, 7], "ts": [dt.datetime(2026, 1, 5), dt.datetime(2026, 1, 6)], "device": ["phone", "laptop"]}
    ... )
    >>> values_at(last_login, logins, at="2026-01-05T12:00:00").to_dicts()
    [{'user_id': 7, 'device': 'phone'}]

    Args:
        feature: The feature; what it reads is not read.
        events: What its function gets instead. For a feature that reads another one, what that one's function gets.
        at: The instant; by default now.
        engine: What runs functions of features that name no engine.

    Returns:
        The keys and columns of every entity that has values, sorted by keys.

    Raises:
        DataError: A build would refuse the events.
        CheckFailedError: A check of severity error failed.
    """
    moment, engines = instant(at), Engines(engine)
    loaded = run(feature, in_memory(events), engines, checked=True)
    return holding(feature, history(feature, loaded.events), moment)


def in_memory(events: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Events as a frame.

    Raises:
        RequestError: They are something else.
    """
    if not isinstance(events, pl.DataFrame | pl.LazyFrame):
        raise RequestError(
            f"The events are of the type {type(events).__name__}: write a polars.DataFrame or LazyFrame."
        )
    return events.lazy().collect()


def run(feature: Feature, events: pl.DataFrame, engines: Engines, *, checked: bool) -> Loaded:
    """What a feature's function makes of events, or of what the features that it reads make of them.

    Args:
        feature: The feature.
        events: The rows of its source, or of that of the feature that it reads.
        engines: What runs functions.
        checked: Whether what a build would refuse is refused: no rows, and what checks find.

    Raises:
        DataError: A build would refuse the events.
    """
    source: Source = FrameSource(events, "the events of a test")
    if isinstance(feature.source, Feature):
        read = run(feature.source, events, engines, checked=checked)
        source = FrameSource(history(feature.source, read.events), f"feature {feature.source.name!r}")
    engine = engines.of(feature)
    if not checked:
        return engine.examine(feature, source, checked=False)
    loaded = engine.load(feature, source)
    verdicts.require(loaded.checks, feature=feature.name)
    return loaded


def holding(feature: Feature, rows: pl.DataFrame, at: dt.datetime) -> pl.DataFrame:
    """Of a history, sorted by keys and timestamp, the keys and columns that hold at an instant, sorted by keys."""
    if feature.timestamp is None:
        return rows
    held = rows.filter(pl.col(feature.timestamp) <= pl.lit(at, INSTANT))
    newest = held.group_by(feature.keys, maintain_order=True).last()
    if feature.max_age is not None:
        age = pl.lit(at, INSTANT) - pl.col(feature.timestamp)
        newest = newest.filter(age < dt.timedelta(microseconds=microseconds(feature.max_age)))
    return newest.drop(feature.timestamp)
