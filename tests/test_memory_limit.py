"""Builds that may not hold everything in memory: what they publish, what they leave behind, and what they refuse."""

import dataclasses
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs
import pytest
from polars.testing import assert_frame_equal

import mlforge as mlf
from mlforge import CheckFailedError, DataError, DefinitionError, Definitions, checks
from mlforge.engines import spilled
from mlforge.errors import StoreError
from mlforge.files import Folder
from mlforge.rows import RowsInMemory
from mlforge.store import LocalStore, base

START = datetime(2026, 1, 1, tzinfo=UTC)
AGGREGATIONS = ["count", "sum", "mean", "min", "max", "std", "median", "n_unique", "first", "last"]


@pytest.fixture(params=[2, 40], ids="{} rows at once".format)
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So few rows that one shard alone has more than may be computed at once, or so many that some have less."""
    monkeypatch.setattr(spilled.Spilled, "_at_once", lambda _self, _limit: request.param)
    monkeypatch.setattr(spilled, "SHARDS", 4)
    return int(request.param)


def write(folder: Path, *, rows: int = 120, seed: int = 0) -> Path:
    drawn = random.Random(seed)
    frame = pl.DataFrame(
        {
            "user": [drawn.choice([*(f"user {n}" for n in range(9)), None]) for _ in range(rows)],
            "ts": [START + timedelta(hours=drawn.randrange(0, 24 * 60)) for _ in range(rows)],
            "amount": [drawn.choice([0.1, 1e9, -3.25, None, float("nan")]) for _ in range(rows)],
            "n": range(rows),
        }
    )
    frame.write_parquet(folder / "events.parquet")
    return folder / "events.parquet"


def project(folder: Path, source: Any, store: str, **definition: Any) -> Definitions:
    @mlf.feature(
        keys=["user"],
        source=source,
        timestamp="ts",
        interval="1d",
        metrics=[mlf.Rolling(windows=["7d", "30d"], aggregations={"amount": AGGREGATIONS, "n": ["sum", "last"]})],
        **definition,
    )
    def spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    @mlf.feature(keys=["user"], source=source, timestamp="ts")
    def newest(df: pl.LazyFrame) -> pl.DataFrame:
        return df.collect()

    @mlf.feature(keys=["user"], source=newest)
    def latest(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.group_by("user").agg(pl.col("n").max())

    return Definitions("shop", features=[spend, newest, latest], store=LocalStore(folder / store))


def rows(defs: Definitions, name: str) -> pl.DataFrame:
    snapshot = defs.store.require(name)
    return snapshot.collect(snapshot.scan()).sort(snapshot.record.index)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_it_publishes_the_same_rows(tmp_path: Path, at_once: int) -> None:
    source = write(tmp_path)
    free, bound = project(tmp_path, source, "free"), project(tmp_path, source, "bound")
    for arguments in ({}, {"start": START + timedelta(days=40), "end": START + timedelta(days=41)}, {"force": True}):
        if arguments and "force" not in arguments:
            write(tmp_path, seed=1)
        one, other = free.build(**arguments), bound.build(**arguments, memory_limit="1GB")
        for here, there in zip(one, other, strict=True):
            assert (here.outcome, here.version, here.rows, here.left_out) == (
                there.outcome,
                there.version,
                there.rows,
                there.left_out,
            )
            # All to the last bit, but for what is merged in a tree: where that begins depends on who else is there.
            merged = cs.contains("__std__")
            free_rows, bound_rows = rows(free, here.feature), rows(bound, here.feature)
            assert free_rows.select(~merged).equals(bound_rows.select(~merged)), (arguments, here.feature)
            assert_frame_equal(free_rows.select(merged), bound_rows.select(merged), rel_tol=1e-12)
    committed = {name for name in files(tmp_path / "bound") if name.endswith(".parquet")}
    versions = [bound.store.open("spend", number) for number in range(3)]
    named = {f"spend/{path}" for each in versions if each for paths in each.files.values() for path in paths}
    assert {name for name in committed if name.startswith("spend/")} == named
    assert not list((tmp_path / "bound").glob(".*.scratch*"))


def test_rows_that_are_stored_already_are_not_published_again(tmp_path: Path, at_once: int) -> None:
    defs = project(tmp_path, write(tmp_path), "store")
    defs.build(memory_limit="1GB")
    before = files(tmp_path / "store")
    assert {report.outcome for report in defs.build(force=True, memory_limit="1GB")} == {"unchanged"}
    assert files(tmp_path / "store") == before


CHECKS: dict[str, Any] = {
    "amount is small": pl.col("amount") < 10,
    "users are there": checks.not_null("user"),
    "n is unique": checks.unique("n"),
    "user is unique": checks.unique("user"),
    "in order": pl.col("n").diff().fill_null(1) == 1,
    "the mean is small": pl.col("n").mean() < 3,
    "always": pl.lit(value=True),
    "never": pl.lit(value=False),
}


def test_checks_find_the_same(tmp_path: Path, at_once: int) -> None:
    source = write(tmp_path)
    warned = {name: mlf.Check(_expression(check), severity="warn") for name, check in CHECKS.items()}
    part = {"start": START + timedelta(days=3), "end": START + timedelta(days=20)}
    verdicts = []
    for store, limit in (("free", None), ("bound", "1GB")):
        defs = project(tmp_path, source, store, checks=warned)
        built = [
            defs.build(["spend"], memory_limit=limit),
            defs.build(["spend"], force=True, **part, memory_limit=limit),
        ]
        verdicts.append([result for [report] in built for result in report.checks])
    assert [result.failed > 0 for result in verdicts[0][: len(CHECKS)]] == [
        *[True] * 2,
        False,
        True,
        False,
        *[True],
        False,
        True,
    ]
    for free, bound in zip(*verdicts, strict=True):
        assert (free.rows, free.failed) == (bound.rows, bound.failed), free.name
        assert str(free.examples) == str(bound.examples), free.name


def _expression(check: Any) -> pl.Expr:
    return check.expression if isinstance(check, mlf.Check) else check


def test_a_failed_check_leaves_nothing_behind(tmp_path: Path) -> None:
    source = write(tmp_path)
    defs = project(tmp_path, source, "store", checks={"small": pl.col("amount") < 10})
    with pytest.raises(CheckFailedError, match="'small': "):
        defs.build(["spend"], memory_limit="1GB")
    assert files(tmp_path / "store") == {".spend.lock"}


def test_what_is_wrong_with_the_data_is_said_as_ever(tmp_path: Path) -> None:
    source = write(tmp_path)
    bad = pl.col("user").str.to_integer() > 0

    def build(function: Any, **definition: Any) -> None:
        feature = mlf.feature(name="f", source=source, **{"keys": ["user"], "timestamp": "ts"} | definition)(function)
        Definitions("p", features=[feature], store=LocalStore(tmp_path / "s")).build(memory_limit="1GB")

    with pytest.raises(DataError, match="has no data: the function returned no rows"):
        build(lambda df: df.limit(0))
    with pytest.raises(DataError, match="has no data: each of its 120 rows lacks one of"):
        build(lambda df: df.with_columns(user=pl.lit(None, pl.String)))
    with pytest.raises(DefinitionError, match="the key column 'user' is missing"):
        build(lambda df: df.drop("user"))
    with pytest.raises(DataError, match=r"'n' is Duration.* which no store can hold"):
        build(lambda df: df.with_columns(n=pl.duration(days=1)))
    with pytest.raises(DataError, match="entities have more"):
        build(lambda df: df.drop("ts"), timestamp=None)
    with pytest.raises(DataError, match="which reads"):
        build(lambda df: df.with_columns(n=pl.col("user").str.to_integer()))
    with pytest.raises(DataError, match="Check 'it' of feature 'f' cannot be evaluated"):
        build(lambda df: df, checks={"it": bad})
    with pytest.raises(ZeroDivisionError):
        build(lambda _df: 1 / 0)
    assert files(tmp_path / "s") == {".f.lock"}


def test_what_a_killed_build_has_left_is_taken_away_and_what_others_use_is_not(tmp_path: Path) -> None:
    defs = project(tmp_path, write(tmp_path), "store")
    (left, used, elsewhere) = (defs.store.workplace("spend", "ts") for _ in range(3))
    for place in (left, used):
        (place.scratch / "shards").mkdir()
    # As its process does that ends.
    left._lock.close()  # type: ignore[union-attr]
    other = elsewhere.scratch.rename(elsewhere._scratch.with_name(".spend.scratch-another-machine"))
    elsewhere._lock.close()  # type: ignore[union-attr]
    defs.build(["spend"], memory_limit="1GB")
    assert {*(tmp_path / "store").glob(".spend.scratch*")} == {used.scratch, other}
    used.clear()


@pytest.mark.parametrize("limit", ["2 gigabytes", "100MB", "GB", 2, "-1GB", ""])
def test_a_limit_that_is_none_is_one_line(tmp_path: Path, limit: Any) -> None:
    defs = project(tmp_path, write(tmp_path), "store")
    with pytest.raises(DefinitionError, match=r"amount of memory|less than a build needs"):
        defs.build(memory_limit=limit)
    with pytest.raises(DefinitionError):
        Definitions("p", features=[], memory_limit=limit)


def test_a_disk_that_is_full_is_said_to_be_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path)
    defs = project(tmp_path, source, "store")
    defs.build(["spend"])
    before = files(tmp_path / "store")
    whole, written = Folder.write, []

    def fails(folder: Folder, frame: pl.LazyFrame, name: str) -> int:
        written.append(name)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        return whole(folder, frame, name)

    write(tmp_path, seed=1)
    monkeypatch.setattr(Folder, "write", fails)
    part = {"start": START + timedelta(days=35), "end": START + timedelta(days=36)}
    for arguments in ({}, part):
        written.clear()
        with pytest.raises(StoreError, match=r"cannot be written: .*No space left on device"):
            defs.build(["spend"], **arguments, memory_limit="1GB")
        assert len(written) == 3
        assert files(tmp_path / "store") == before


def test_a_build_that_was_overtaken_computes_again_and_leaves_what_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defs = project(tmp_path, write(tmp_path), "store")
    defs.build(["spend"])
    whole, overtaken = base.Store.replace, []

    def replaced(store: base.Store, *arguments: Any) -> Any:
        if not overtaken:
            overtaken.append(1)
            other = defs.store.open("spend")
            assert other is not None
            record = dataclasses.replace(other.record, fingerprint="another")
            whole(store, "spend", RowsInMemory(other.scan().collect(), "ts"), record, other, [])
        return whole(store, *arguments)

    write(tmp_path, seed=1)
    monkeypatch.setattr(base.Store, "replace", replaced)
    assert defs.build(["spend"], memory_limit="1GB")[0].outcome == "built"
    free = project(tmp_path, tmp_path / "events.parquet", "free")
    free.build(["spend"])
    assert rows(defs, "spend").drop(cs.contains("__std__")).equals(rows(free, "spend").drop(cs.contains("__std__")))


def test_the_limit_of_the_project_is_that_of_its_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []
    whole = spilled.Spilled.frames
    monkeypatch.setattr(spilled.Spilled, "frames", lambda self, limit: (limits.append(limit), whole(self, limit))[1])
    defs = project(tmp_path, write(tmp_path), "store")
    bound = Definitions("p", features=list(defs.features.values()), store=defs.store, memory_limit="1.5GB")
    bound.build(["spend"])
    bound.build(["spend"], memory_limit="2GB", force=True)
    assert limits == [1_500_000_000, 2_000_000_000]
