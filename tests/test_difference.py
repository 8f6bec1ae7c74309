"""What differs between two contents is what turns the one into the other, and no more."""

import datetime as dt
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

import mlforge as mlf
from mlforge import Definitions
from mlforge.difference import differences
from mlforge.store import LocalStore
from mlforge.store.snapshot import Snapshot

ENTITIES, MONTHS = 4, 14
SCHEMA = {"user": pl.Int64, "ts": pl.Datetime("us", "UTC"), "amount": pl.Int64}
Amounts = dict[tuple[int, int], int]
# Of most entities and months there is a row, so that a month is a small part of all.
AMOUNTS = st.dictionaries(
    st.tuples(st.integers(0, ENTITIES - 1), st.integers(0, MONTHS - 1)), st.integers(0, 3), min_size=30
)
INSTANTS = st.integers(0, 2 * MONTHS)


def built(folder: Path, amounts: Amounts) -> Snapshot:
    """The table of a feature with one row in the middle of a month for each amount."""

    @mlf.feature(keys=["user"], source=folder / "rows.parquet", timestamp="ts")
    def balance(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    rows = [{"user": user, "ts": moment(2 * month + 1), "amount": n} for (user, month), n in amounts.items()]
    pl.DataFrame(rows, schema=SCHEMA).write_parquet(folder / "rows.parquet")
    store = LocalStore(folder / "store")
    Definitions("d", features=[balance], store=store).build(force=True)
    snapshot = store.open("balance")
    assert snapshot is not None
    return snapshot


def moment(half: int) -> dt.datetime:
    """The beginning of a month, or its middle."""
    month, middle = divmod(half, 2)
    return dt.datetime(2024 + month // 12, month % 12 + 1, 15 if middle else 1, tzinfo=dt.UTC)


def content(snapshot: Snapshot, instant: dt.datetime) -> dict[int, int]:
    rows = snapshot.at(instant).select("user", "amount")
    return dict(rows.iter_rows())


@given(
    before=AMOUNTS,
    changes=st.lists(st.tuples(st.integers(0, ENTITIES - 1), st.integers(0, 3)), max_size=4),
    month=st.integers(0, MONTHS - 1),
    was=INSTANTS,
    now=INSTANTS,
)
@settings(max_examples=25, deadline=None)
def test_a_difference_turns_one_content_into_the_other_and_says_no_more(
    before: Amounts, changes: list[tuple[int, int]], month: int, was: int, now: int
) -> None:
    # An amount of 0 takes the row of that month away.
    after = before | {(user, month): amount for user, amount in changes}
    after = {place: amount for place, amount in after.items() if amount or place[1] != month}
    with tempfile.TemporaryDirectory() as folder:
        old, new = built(Path(folder), before), built(Path(folder), after)
        [found] = differences(old, moment(was), new, moment(now))
        wanted = content(new, moment(now))
        had = content(old, moment(was))
    changed: dict[Any, Any] = dict(found.rows.select("user", "amount").iter_rows())
    vanished = set(found.vanished["user"])
    assert {user: amount for user, amount in (had | changed).items() if user not in vanished} == wanted
    assert changed == {user: amount for user, amount in wanted.items() if had.get(user) != amount}
    assert vanished == had.keys() - wanted.keys()
    assert found.appeared == len(wanted.keys() - had.keys())
