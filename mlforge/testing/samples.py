"""What the suite writes into a store, and what it expects to find."""

import datetime as dt
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import uuid4

import polars as pl

from mlforge.online.base import OnlineStore, Published
from mlforge.online.status import Status

AS_OF = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)
_CET = dt.timezone(dt.timedelta(hours=1))

# By column: what is written, and what is read. Nothing here is taken from the code that is tested.
VALUES: dict[str, tuple[Any, Any]] = {
    "null": (None, None),
    "true": (True, True),
    "false": (False, False),
    "zero": (0, 0),
    "largest integer": (2**63 - 1, 2**63 - 1),
    "smallest integer": (-(2**63), -(2**63)),
    "beyond the integers of a float": (2**53 + 1, 2**53 + 1),
    "whole float": (1.0, 1.0),
    "negative zero": (-0.0, -0.0),
    "smallest float": (5e-324, 5e-324),
    "largest float": (1.7976931348623157e308, 1.7976931348623157e308),
    "seventeen digits": (0.1 + 0.2, 0.30000000000000004),
    "NaN": (math.nan, None),
    "infinity": (math.inf, None),
    "minus infinity": (-math.inf, None),
    "empty text": ("", ""),
    "unicode": ("é\u0301ß🎉", "é\u0301ß🎉"),
    "NUL in text": ("a\x00b", "a\x00b"),
    "text to escape": ("\"'\\\r\n\t{}", "\"'\\\r\n\t{}"),
    "text like a number": ("0123", "0123"),
    "text like a null": ("null", "null"),
    "text like a date": ("2026-01-31", "2026-01-31"),
    "decimal": (Decimal("12345678901234567890.10"), "12345678901234567890.10"),
    "decimal with an exponent": (Decimal("1E+3"), "1000"),
    "date": (dt.date(2026, 1, 31), "2026-01-31"),
    "naive datetime": (dt.datetime(2026, 1, 31, 12), "2026-01-31T12:00:00.000000Z"),
    "datetime": (dt.datetime(2026, 1, 31, 0, 30, 0, 7, tzinfo=_CET), "2026-01-30T23:30:00.000007Z"),
    "list": ([1, None, -0.0, [], ["é"]], [1, None, -0.0, [], ["é"]]),
    "tuple": ((1, 2), [1, 2]),
    "dict": ({"a": {"b": [dt.date(2026, 1, 31)]}, "c": {}}, {"a": {"b": ["2026-01-31"]}, "c": {}}),
}
# What no column can hold, by column.
REFUSED: dict[str, dict[Any, Any]] = {
    "bytes": {"x": b"bytes"},
    "an integer beyond 64 bits": {"x": 2**63},
    "an object": {"x": object()},
    "a set": {"x": {1}},
    "bytes in a list": {"x": [1, b"bytes"]},
    "a column without a name": {1: 1},
}


def exact(values: Mapping[str, Any] | None) -> dict[str, str] | None:
    """Values in a form that is equal only for the same ones: `1`, `1.0` and `True` differ, and so do 0.0 and -0.0."""
    if values is None:
        return None
    return {column: json.dumps(value, sort_keys=True, default=repr) for column, value in values.items()}


def new_name() -> str:
    """The name of a feature that no store has seen."""
    return f"conformance_{uuid4().hex}"


def frame(rows: Mapping[Any, int]) -> pl.DataFrame:
    """A frame to publish: for every user, the number that all of the values are made of."""
    return pl.DataFrame(
        {"user_id": list(rows), "x": list(rows.values())}, schema={"user_id": pl.Int64, "x": pl.Int64}
    ).with_columns((pl.col("x") / 2).alias("half"), pl.format("n{}", "x").alias("text"))


def row(x: int) -> dict[str, Any]:
    """The values of a user in such a frame."""
    return {"x": x, "half": x / 2, "text": f"n{x}"}


def user(number: int) -> dict[str, str]:
    """The entity keys of a user in such a frame."""
    return {"user_id": str(number)}


def status_of(rows: pl.DataFrame, *key_columns: str, version: int = 1, total: int | None = None) -> Status:
    """What a store shall say that it holds once a frame is published.

    Args:
        rows: The frame.
        key_columns: The key columns; `user_id` if there are none.
        version: The version of the offline table; a later one holds at a later time.
        total: How many entities there are afterwards, if not those of the frame.
    """
    keys = key_columns or ("user_id",)
    return Status(
        key_columns=keys,
        schema=dict(rows.drop(keys).schema),
        table_id="7e1a2c52-table",
        delta_version=version,
        version=f"1.0.{version}",
        location="/store/conformance",
        definition_hash="d41d8cd98f00",
        as_of=AS_OF + dt.timedelta(days=version),
        next_change=AS_OF + dt.timedelta(days=version, hours=1),
        rows=rows.height if total is None else total,
    )


def publish(
    store: OnlineStore, feature_name: str, rows: pl.DataFrame, vanished: pl.DataFrame | None, status: Status
) -> Published:
    """Publish in a turn of its own."""
    with store.turn(feature_name) as turn:
        return turn.publish(rows, vanished, status)


def kept(store: OnlineStore, feature_name: str, status: Status) -> bool:
    """Whether the store keeps account; if it does, it has to say that it holds exactly this."""
    found = store.status(feature_name)
    if found is None:
        return False
    assert found.state == "complete"
    assert found.synced, "a status needs the token of its writer"
    assert found.finished_at is not None
    assert list(found.schema.items()) == list(status.schema.items())
    own = {
        name: getattr(found, name)
        for name in ("token", "started_at", "finished_at", "run_id", "evicted_keys", "ttl", "codec")
    }
    # The rest is what only the store knows.
    assert found == replace(status, state="complete", **own)
    return True


def hashes(store: OnlineStore, feature_name: str) -> set[str] | None:
    """The key hashes that the store lists, each once; None if it lists none."""
    listed = store.entity_hashes(feature_name)
    if listed is None:
        return None
    assert listed.dtype == pl.String
    assert listed.is_unique().all(), "an entity is listed twice"
    return set(listed)
