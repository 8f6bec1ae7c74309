import dataclasses
import datetime as dt
import json
from pathlib import Path

import polars as pl
import pytest

from mlforge.errors import RequestError, StoreError
from mlforge.online import Status

GOLDEN = json.loads((Path(__file__).parent / "golden" / "status.json").read_text())

SYNCED = Status(
    state="complete",
    key_columns=("store_id", "user_id"),
    schema={
        "amount__sum__7d": pl.Float64(),
        "amount__count__7d": pl.Int64(),
        "price": pl.Decimal(10, 2),
        "tags": pl.List(pl.String()),
        "home": pl.Struct({"city": pl.String(), "since": pl.Date()}),
        "seen": pl.Datetime("us", "UTC"),
    },
    table_id="2f6c5e0e-8a0e-4a35-9f7c-0a4c2d1b7e11",
    delta_version=3,
    version="1.0.3",
    location="file:///srv/feature_store/user_spend",
    definition_hash="9f86d081884c7d65",
    codec=1,
    as_of=dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC),
    next_change=dt.datetime(2026, 2, 1, tzinfo=dt.UTC),
    rows=2469,
    token="5feceb66ffc86f38d952786c6d696c79",
    started_at=dt.datetime(2026, 1, 31, 12, 0, 1, 1, tzinfo=dt.UTC),
    finished_at=dt.datetime(2026, 1, 31, 12, 0, 2, 500_000, tzinfo=dt.UTC),
    run_id="1fc6c301e7c2f8c3e2910aa936fed57f312f75e7",
    evicted_keys=0,
)


def test_the_golden_hash_is_written_and_read() -> None:
    assert SYNCED.to_hash() == GOLDEN["synced"]
    assert Status.from_hash(GOLDEN["synced"]) == SYNCED
    assert SYNCED.synced


def test_the_columns_keep_their_order() -> None:
    assert list(Status.from_hash(GOLDEN["synced"]).schema) == list(SYNCED.schema)


def test_what_never_was_synced_has_a_status_older_than_anything() -> None:
    status = Status.from_hash(GOLDEN["never_synced"])
    assert status == Status(state="dirty", key_columns=("user_id",))
    assert status.to_hash() == GOLDEN["never_synced"]
    assert not status.synced
    assert status.delta_version < 0
    assert status.as_of < dt.datetime(1900, 1, 1, tzinfo=dt.UTC)


def test_what_is_not_known_yet_is_left_out_of_the_hash() -> None:
    begun = dataclasses.replace(SYNCED, state="writing", next_change=None, finished_at=None)
    assert begun.to_hash().keys() == GOLDEN["synced"].keys() - {"next_change", "finished_at"}
    assert Status.from_hash(begun.to_hash()) == begun


def test_fields_of_later_releases_are_passed_over() -> None:
    assert Status.from_hash(GOLDEN["synced"] | {"shards": "4"}) == SYNCED


@pytest.mark.parametrize("name", sorted(GOLDEN["synced"].keys() - {"next_change", "finished_at", "token"}))
def test_a_missing_field_is_an_error_that_names_it_and_the_key(name: str) -> None:
    stored = {key: text for key, text in GOLDEN["synced"].items() if key != name}
    with pytest.raises(StoreError, match=f"mlforge:f:status has no {name}"):
        Status.from_hash(stored, what="mlforge:f:status")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("state", "done"),
        ("key_columns", "user_id"),
        ("key_columns", "[1]"),
        ("key_columns", '"user_id"'),
        ("schema", '{"a":"Int32"}'),
        ("delta_version", "three"),
        ("as_of", "yesterday"),
        ("as_of", "2026-01-31T12:00:00"),
    ],
)
def test_a_damaged_field_is_an_error_that_shows_it(name: str, text: str) -> None:
    with pytest.raises(StoreError, match=f"mlforge:f:status holds .* as {name}"):
        Status.from_hash(GOLDEN["synced"] | {name: text}, what="mlforge:f:status")


def test_a_status_is_checked_when_it_is_made() -> None:
    with pytest.raises(RequestError, match="'done' is not a state"):
        Status(state="done")  # type: ignore[arg-type]
