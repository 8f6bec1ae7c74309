"""Features that read features: built after what they read, and of what has changed there no more and no less."""

import datetime as dt
import shutil
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlforge as mlf
from mlforge import DefinitionError, Definitions, RequestError
from mlforge.build import BuildReport
from mlforge.store import LocalStore

DAY = dt.timedelta(days=1)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Chain:
    """Events, a feature of them, and two that read it: rows and windows."""

    def __init__(self, folder: Path, days: list[int], *, factor: int = 1, named: str = "ts") -> None:
        self.folder = folder
        self.factor = factor
        self.named = named
        self.save(days)

    def save(self, days: list[int]) -> None:
        times = [START + day * DAY for day in days]
        rows = {"user": [1] * len(days), "ts": times, "amount": days, "signed_up": [START + 50 * DAY] * len(days)}
        schema = {"user": pl.Int64, "ts": pl.Datetime("us", "UTC"), "amount": pl.Int64}
        frame = pl.DataFrame(rows, schema=schema | {"signed_up": pl.Datetime("us", "UTC")})
        frame.write_parquet(self.folder / "events.parquet")

    def definitions(self, store: str = "store") -> Definitions:
        factor = self.factor

        @mlf.feature(keys=["user"], source=self.folder / "events.parquet", timestamp="ts")
        def base(df: pl.LazyFrame) -> pl.LazyFrame:
            return df.with_columns(pl.col("amount") * factor)

        @mlf.feature(keys=["user"], source=base, timestamp=self.named)
        def double(df: pl.LazyFrame) -> pl.LazyFrame:
            return df.with_columns(pl.col("amount") * 2)

        rolling = mlf.Rolling(windows=["40d"], aggregations={"amount": ["sum", "count"]})

        @mlf.feature(keys=["user"], source=base, timestamp="ts", interval="1d", metrics=[rolling])
        def spend(df: pl.LazyFrame) -> pl.LazyFrame:
            return df.select("user", "ts", "amount")

        return Definitions("chain", features=[spend, double, base], store=LocalStore(self.folder / store))

    def build(self, *features: str, **options: Any) -> dict[str, BuildReport]:
        reports = self.definitions().build(features or None, **options)
        return {report.feature: report for report in reports}

    def rows(self, feature: str, store: str = "store") -> pl.DataFrame:
        snapshot = LocalStore(self.folder / store).require(feature)
        return snapshot.collect(snapshot.scan()).sort(snapshot.record.index)

    def require_whole(self) -> None:
        """What reads `base` is what a full build makes of its newest version."""
        copy = LocalStore(self.folder / "copy")
        base = self.rows("base")
        source = self.folder / "base.parquet"
        base.write_parquet(source)
        for feature in ("double", "spend"):
            if base.is_empty():
                assert self.rows(feature).is_empty()
                continue
            defined = self.definitions().features[feature]
            fresh = mlf.feature(
                keys=["user"],
                source=source,
                timestamp=defined.timestamp,
                interval=defined.interval,
                metrics=defined.metrics,
                name=feature,
            )(defined.function)
            Definitions("copy", features=[fresh], store=copy).build(force=True)
            assert self.rows(feature).equals(self.rows(feature, "copy"))


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    chain = Chain(tmp_path, [0, 30, 60, 90])
    chain.build()
    return chain


def test_a_feature_is_built_after_what_it_reads(tmp_path: Path) -> None:
    chain = Chain(tmp_path, [0, 30])
    with pytest.raises(RequestError, match="'base' has not been built") as caught:
        chain.build("double")
    assert caught.value.__notes__ == ["(Feature 'double' reads it.)"]
    assert list(chain.build()) == ["base", "spend", "double"]
    chain.require_whole()
    assert {report.outcome for report in chain.build().values()} == {"skipped"}


def test_only_the_months_that_have_changed_are_built_and_reported(chain: Chain) -> None:
    chain.save([0, 30, 61, 90])
    reports = chain.build(start=START + 60 * DAY, end=START + 62 * DAY)
    events = reports["double"].events
    assert events is not None
    assert (events.start, events.end) == (
        dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
        dt.datetime(2026, 4, 1, tzinfo=dt.UTC),
    )
    chain.require_whole()
    # Nothing is left to be found out, unlike for what reads events of which only some were named.
    outcomes = {feature: report.outcome for feature, report in chain.build().items()}
    assert outcomes == {"base": "unchanged", "double": "skipped", "spend": "skipped"}


def test_what_was_built_anew_while_nobody_read_is_read_later(chain: Chain) -> None:
    chain.factor = 10
    assert chain.build("base", incremental=True)["base"].reason == "the definition has changed"
    assert chain.build(incremental=True)["double"].outcome == "built"
    chain.require_whole()
    chain.save([1, 30, 60, 90])
    chain.build("base", start=START, end=START + 2 * DAY)
    chain.build(start=START + 90 * DAY)
    chain.require_whole()


def test_a_rollback_is_read_as_well(chain: Chain) -> None:
    chain.save([5, 35, 65, 95])
    chain.build()
    chain.definitions().rollback("base", "1.0.0")
    reports = chain.build(incremental=True)
    assert [reports[name].outcome for name in ("base", "double")] == ["rolled back", "built"]
    chain.require_whole()
    assert chain.build(incremental=True)["double"].outcome == "skipped"


def test_where_it_cannot_be_told_what_has_changed_all_of_it_is_built(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Chain(tmp_path / "other", [0, 30, 60], named="signed_up")
    other.build()
    other.save([0, 30, 60, 90])
    report = other.build(start=START + 90 * DAY)["double"]
    assert report.reason == "it cannot be told what has changed in 'base'"
    assert other.rows("double")["amount"].to_list() == [180]
    # The table was deleted, and so were the versions that its readers know.
    for file in sorted((chain.folder / "store" / "base").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    chain.save([0, 30, 60, 91])
    chain.build("base")
    chain.save([0, 30, 60, 92])
    chain.build(incremental=True)
    chain.require_whole()


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_readers_that_are_built_in_parts_are_what_a_full_build_makes(data: st.DataObject) -> None:
    days = st.lists(st.integers(0, 120), min_size=1, max_size=5, unique=True)
    with tempfile.TemporaryDirectory() as folder:
        chain = Chain(Path(folder), data.draw(days))
        chain.build()
        for _ in range(data.draw(st.integers(1, 4))):
            event = data.draw(st.sampled_from(["events", "definition", "rollback", "part"]))
            if event == "definition":
                chain.factor += 1
            elif event == "rollback":
                chosen = data.draw(st.sampled_from(chain.definitions().versions("base")))
                chain.definitions().rollback("base", chosen.version)
            else:
                chain.save(data.draw(days))
            if event == "part":
                chain.build("base", start=START + data.draw(st.integers(0, 120)) * DAY)
            elif event != "rollback":
                chain.build("base")
        chain.build("double", "spend", incremental=True)
        chain.require_whole()


def test_features_that_read_each_other_are_refused(tmp_path: Path) -> None:
    def same(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    first = mlf.feature(keys=["user"], source="x.parquet", timestamp="ts", name="a")(same)
    reader = mlf.feature(keys=["user"], source=first, timestamp="ts", name="b")(same)
    again = mlf.feature(keys=["user"], source=reader, timestamp="ts", name="a")(same)
    definitions = Definitions("c", features=[again, reader], store=LocalStore(tmp_path))
    for work in (definitions.build, definitions.validate):
        with pytest.raises(DefinitionError, match="read each other in a circle: a, b"):
            work()
    alone = Definitions("c", features=[reader], store=LocalStore(tmp_path))
    for work in (alone.build, alone.validate):
        with pytest.raises(DefinitionError, match="'b' reads 'a', which is none of the project's features"):
            work()


def test_a_feature_over_windows_is_no_source() -> None:
    @mlf.feature(
        keys=["user"],
        source="x.parquet",
        timestamp="ts",
        metrics=[mlf.Rolling(windows=["1d"], aggregations={"amount": ["sum"]})],
    )
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    with pytest.raises(DefinitionError, match="its source 'spend' has windows"):
        mlf.feature(keys=["user"], source=spend, timestamp="ts", name="more")(lambda df: df)


def test_a_table_that_was_made_again_is_not_the_one_that_was_read(chain: Chain) -> None:
    chain.save([5, 30, 60, 90])
    # Deleted, and built until it has as many versions.
    shutil.rmtree(chain.folder / "store" / "base")
    chain.build("base")
    chain.save([5, 30, 61, 90])
    chain.build("base")
    chain.build("double", "spend", incremental=True)
    chain.require_whole()
