"""What changed between two versions, against plain dicts."""

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlforge as mlf
from mlforge import Definitions
from mlforge.diff import Diff, diff
from mlforge.store import LocalStore

START = dt.datetime(2026, 1, 20, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
SCHEMA = {"user": pl.String, "ts": pl.Datetime("us", "UTC"), "n": pl.Float64, "words": pl.List(pl.String)}


class Rows(mlf.Source):
    """Rows that a test has made up."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def scan(self) -> pl.LazyFrame:
        return self.frame.lazy()


def definitions(folder: Path, frame: pl.DataFrame, *, timeless: bool = False) -> Definitions:
    @mlf.feature(keys=["user"], source=Rows(frame), timestamp=None if timeless else "ts")
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    return Definitions("shop", features=[spend], store=LocalStore(folder / "store"))


def of(folder: Path, *frames: pl.DataFrame, **options: Any) -> Diff:
    """Builds frames one after the other, and compares the last with the first."""
    versions = [definitions(folder, frame, **options).build(force=True)[0].version for frame in frames]
    return definitions(folder, frames[-1], **options).diff("spend", versions[0], versions[-1])


def rows(*given: tuple[str, int, float | None, list[str] | None]) -> pl.DataFrame:
    return pl.DataFrame([(user, START + day * DAY, *rest) for user, day, *rest in given], SCHEMA, orient="row")


def test_nothing_changed(tmp_path: Path) -> None:
    found = of(tmp_path, rows(("a", 0, 1.0, ["x"])), rows(("a", 0, 2.0, None)), rows(("a", 0, 1.0, ["x"])))
    assert found.same
    assert (found.before, found.after) == ("1.0.0", "1.0.2")
    assert (found.rows_before, found.rows_after) == (1, 1)
    assert found.examples == {"added": [], "removed": [], "changed": []}


def test_rows_and_values_are_counted_and_shown(tmp_path: Path) -> None:
    before = rows(("a", 0, 1.0, ["x"]), ("a", 30, 2.0, None), ("b", 0, 3.0, []), ("c", 0, None, ["z"]))
    after = rows(("a", 0, 1.5, ["x"]), ("a", 30, 2.0, ["y"]), ("c", 0, None, ["z"]), ("c", 1, 0.0, None))
    found = of(tmp_path, before, after)
    assert not found.same
    assert not found.definition_changed
    assert (found.rows_added, found.rows_removed, found.rows_changed) == (1, 1, 2)
    assert found.values_changed == {"n": 1, "words": 1}
    assert found.examples == {
        "added": [{"row": {"user": "c", "ts": START + DAY}, "after": {"n": 0.0, "words": None}}],
        "removed": [{"row": {"user": "b", "ts": START}, "before": {"n": 3.0, "words": []}}],
        "changed": [
            {"row": {"user": "a", "ts": START}, "before": {"n": 1.0}, "after": {"n": 1.5}},
            {"row": {"user": "a", "ts": START + 30 * DAY}, "before": {"words": None}, "after": {"words": ["y"]}},
        ],
    }


def test_columns_that_come_go_and_change_are_named_and_the_others_compared(tmp_path: Path) -> None:
    before = rows(("a", 0, 1.0, None), ("b", 0, 2.0, None)).with_columns(m=pl.lit(1), same=pl.col("n"))
    after = before.select("user", "ts", "same", m=pl.lit("1"), new=pl.lit(value=True))
    after = after.with_columns(same=pl.when(user="a").then(9.0).otherwise("same"))
    found = of(tmp_path, before, after)
    assert found.columns_added == {"new": "Boolean"}
    assert found.columns_removed == {"n": "Float64", "words": "List(String)"}
    assert found.columns_retyped == {"m": ("Int64", "String")}
    assert (found.rows_added, found.rows_removed, found.rows_changed) == (0, 0, 1)
    assert found.values_changed == {"same": 1}
    assert found.examples["changed"][0]["after"] == {"same": 9.0, "m": "1", "new": True}


def test_another_definition_alone_is_a_change(tmp_path: Path) -> None:
    frame = rows(("a", 0, 1.0, None))
    definitions(tmp_path, frame).build()

    @mlf.feature(keys=["user"], source=Rows(frame), timestamp="ts")
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.filter(pl.lit(value=True))

    defs = Definitions("shop", features=[spend], store=LocalStore(tmp_path / "store"))
    defs.build()
    found = defs.diff("spend", "1.0.0", "1.1.0")
    assert (found.definition_changed, found.same) == (True, False)
    assert (found.rows_added, found.rows_removed, found.rows_changed) == (0, 0, 0)


def test_rows_of_other_keys_are_other_rows(tmp_path: Path) -> None:
    before = pl.DataFrame({"user": [1, 2], "n": [1.0, 2.0]})
    found = of(tmp_path, before, before.with_columns(pl.col("user").cast(pl.String)).head(1), timeless=True)
    assert (found.rows_added, found.rows_removed, found.rows_changed) == (1, 2, 0)
    assert found.columns_retyped == {"user": ("Int64", "String")}
    found = of(tmp_path / "b", before, timeless=True)
    assert found.same


def test_months_that_are_the_same_are_not_read(tmp_path: Path) -> None:
    before = rows(("a", 0, 1.0, None), ("a", 30, 2.0, None))
    defs = definitions(tmp_path, before)
    defs.build()
    definitions(tmp_path, rows(("a", 0, 1.0, None), ("a", 30, 3.0, None))).build()
    for file in defs.store.require("spend").files["2026-01"]:
        (tmp_path / "store" / "spend" / file).unlink()
    assert defs.diff("spend", "1.0.0", "1.0.1").values_changed == {"n": 1}


VALUES = st.one_of(st.none(), st.sampled_from([0.0, 1.0, -2.5]))
TABLES = st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from([0, 1, 15, 40])), VALUES, min_size=1)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=TABLES, other=TABLES)
def test_counts_are_those_of_plain_dicts(
    one: dict[tuple[str, int], float | None], other: dict[tuple[str, int], float | None], tmp_path: Path
) -> None:
    frames = [rows(*((user, day, value, None) for (user, day), value in table.items())) for table in (one, other)]
    versions = [definitions(tmp_path, frame).build(force=True)[0].version for frame in frames]
    store = LocalStore(tmp_path / "store")
    found = diff(*(store.open_version("spend", version) for version in versions))
    changed = [key for key in one.keys() & other.keys() if one[key] != other[key]]
    assert found.rows_added == len(other.keys() - one.keys())
    assert found.rows_removed == len(one.keys() - other.keys())
    assert found.rows_changed == len(changed) == found.values_changed.get("n", 0)
    assert (found.rows_before, found.rows_after) == (len(one), len(other))
    assert [len(some) for some in found.examples.values()] == [
        min(5, count) for count in (found.rows_added, found.rows_removed, found.rows_changed)
    ]
    assert found.same == (one == other)
