"""Instants: what a person or a program may write for one, as a datetime in UTC."""

import datetime as dt

import polars as pl

from mlforge import clock
from mlforge.errors import RequestError

# How an instant is stored and computed with, everywhere.
INSTANT = pl.Datetime("us", "UTC")
# What instants are counted from, in microseconds.
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# What people and programs may write for one.
Moment = dt.datetime | dt.date | str


def instant(value: Moment) -> dt.datetime:
    """A datetime in UTC; a naive one is taken as UTC, a date as its first moment, text as ISO 8601 or "now".

    >>> instant("2017-12-31").isoformat()
    '2017-12-31T00:00:00+00:00'

    Raises:
        RequestError: It is none of these.
    """
    if isinstance(value, str) and value == "now":
        return clock.now()
    try:
        moment = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, dt.datetime):
            return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
        if isinstance(moment, dt.date):
            return dt.datetime(moment.year, moment.month, moment.day, tzinfo=dt.UTC)
    except (ValueError, OverflowError):
        pass
    raise RequestError(f"{value!r} is no instant: write a datetime, or ISO 8601 as in '2026-01-31T12:00:00Z'.")
