"""Builds of one feature at once, interrupted builds, and builds that others overtake: real processes, real tables."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

import mlforge as mlf
from mlforge import Definitions
from mlforge.build import ATTEMPTS
from mlforge.errors import StoreError
from mlforge.store import LocalStore, Store

# Enough for the writing to take a while: with a thousand, commits that should have failed often did not meet.
ROWS = 100_000
# A builder builds whenever it is told to and says what came of it. Its source waits until as many builders as
# `together` read at once, so that all of them have opened the table before any of them commits.
BUILDER = """
import sys, time
from pathlib import Path
import polars as pl
import mlforge as mlf
from mlforge import Definitions
from mlforge.store import LocalStore, Store

class Waiting(mlf.Source):
    def __init__(self, folder, together, rows, value):
        self.folder, self.together, self.rows, self.value = folder, together, rows, value
        self.first = True

    def scan(self):
        if self.first:
            self.first = False
            (self.folder / f"reads-{time.time_ns()}").touch()
            while len(list(self.folder.glob("reads-*"))) < self.together:
                time.sleep(0.001)
        moment = pl.lit(10**15).cast(pl.Datetime("us"))
        return pl.LazyFrame({"k": pl.int_range(self.rows, eager=True)}).with_columns(ts=moment, n=pl.lit(self.value))

def f(df):
    return df

for line in sys.stdin:
    folder, kind, together, rows, value = line.split()
    source = Waiting(Path(folder), int(together), int(rows), int(value))
    store = LocalStore(Path(folder, "store")) if kind == "lock" else Store(str(Path(folder, "store")))
    feature = mlf.feature(keys=["k"], source=source, timestamp="ts")(f)
    report, = Definitions(features=[feature], store=store).build()
    print(report.outcome, report.version, flush=True)
"""


class Builder:
    """A process that builds."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", BUILDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, folder: Path, kind: str, *, together: int = 1, rows: int = ROWS, value: int = 1) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{folder} {kind} {together} {rows} {value}\n")
        self.process.stdin.flush()

    def outcome(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def builders() -> Iterator[list[Builder]]:
    four = [Builder() for _ in range(4)]
    yield four
    for builder in four:
        builder.kill()


def table_of(folder: Path) -> Path:
    return folder / "store" / "f"


@pytest.mark.parametrize("kind", ["lock", "no-lock"])
def test_four_first_builds_at_once_leave_one_right_table(kind: str, builders: list[Builder], tmp_path: Path) -> None:
    for builder in builders:
        builder.begin(tmp_path, kind, together=1 if kind == "lock" else 4)
    assert sorted(builder.outcome() for builder in builders) == ["built 1.0.0", *["unchanged 1.0.0"] * 3]
    rows = pl.read_delta(str(table_of(tmp_path)))
    assert rows["k"].sort().to_list() == list(range(ROWS))
    assert DeltaTable(table_of(tmp_path)).version() == 0


def test_builds_on_one_machine_queue_before_they_read(builders: list[Builder], tmp_path: Path) -> None:
    with LocalStore(tmp_path / "store").building("f"):
        builders[0].begin(tmp_path, "lock")
        time.sleep(0.2)
        assert list(tmp_path.glob("reads-*")) == []
    assert builders[0].outcome() == "built 1.0.0"


def test_four_builds_of_different_data_at_once_each_publish_theirs_whole(
    builders: list[Builder], tmp_path: Path
) -> None:
    for value, builder in enumerate(builders):
        builder.begin(tmp_path, "no-lock", together=4, value=value)
    assert sorted(builder.outcome() for builder in builders) == [f"built 1.0.{patch}" for patch in range(4)]
    versions = [pl.read_delta(str(table_of(tmp_path)), version=version) for version in range(4)]
    assert all(rows["k"].sort().to_list() == list(range(ROWS)) for rows in versions)
    assert sorted(rows["n"].unique().to_list() for rows in versions) == [[0], [1], [2], [3]]


def test_a_killed_build_leaves_the_last_good_version(builders: list[Builder], tmp_path: Path) -> None:
    doomed = [Builder() for _ in range(4)]
    builders[0].begin(tmp_path, "lock")
    assert builders[0].outcome() == "built 1.0.0"
    # At different times: while it reads, while it computes, and while it writes.
    for number, delay in enumerate((0.0, 0.03, 0.06, 0.09)):
        doomed[number].begin(tmp_path, "lock", value=2 + number, together=99 if delay == 0 else 1)
        while len(list(tmp_path.glob("reads-*"))) < 2 + number:
            time.sleep(0.001)
        time.sleep(delay)
        doomed[number].kill()
        found = pl.read_delta(str(table_of(tmp_path)))
        assert found["k"].n_unique() == found.height == ROWS
        assert found["n"].n_unique() == 1
        assert found["n"][0] == 1 or delay > 0
    builders[0].begin(tmp_path, "lock", value=99)
    assert builders[0].outcome().startswith("built 1.0.")
    assert pl.read_delta(str(table_of(tmp_path)))["n"].unique().to_list() == [99]


class Overtaken(mlf.Source):
    """Something happens each time the source is read, for a while."""

    def __init__(self, happens: Callable[[], object], times: int) -> None:
        self.happens = happens
        self.times = times
        self.scans = 0

    def scan(self) -> pl.LazyFrame:
        self.scans += 1
        if self.scans <= self.times:
            self.happens()
        return pl.LazyFrame({"k": ["a"], "n": [self.scans + 100 * (self.times > 0)]})


def project(tmp_path: Path, source: mlf.Source, store: Store | None = None) -> Definitions:
    feature = mlf.feature(keys=["k"], source=source, name="f")(same)
    return Definitions(features=[feature], store=store or LocalStore(tmp_path / "store"))


def same(df: pl.LazyFrame) -> pl.LazyFrame:
    return df


def commit(tmp_path: Path) -> None:
    DeltaTable(table_of(tmp_path)).alter.set_table_properties(
        {"delta.checkpointInterval": str(time.time_ns() % 1000 + 1)}
    )


def test_a_build_that_is_overtaken_computes_again(tmp_path: Path) -> None:
    project(tmp_path, Overtaken(lambda: None, 0)).build()
    source = Overtaken(lambda: commit(tmp_path), ATTEMPTS - 1)
    (report,) = project(tmp_path, source).build()
    assert (report.outcome, source.scans) == ("built", ATTEMPTS)
    assert report.version == f"1.0.{ATTEMPTS}"
    assert pl.read_delta(str(table_of(tmp_path)))["n"].to_list() == [100 + ATTEMPTS]


def test_a_build_that_is_overtaken_again_and_again_gives_up_and_writes_nothing(tmp_path: Path) -> None:
    project(tmp_path, Overtaken(lambda: None, 0)).build()
    source = Overtaken(lambda: commit(tmp_path), 99)
    with pytest.raises(StoreError, match=f"Feature 'f': others committed to .* during each of {ATTEMPTS} attempts"):
        project(tmp_path, source).build()
    assert source.scans == ATTEMPTS
    assert pl.read_delta(str(table_of(tmp_path)))["n"].to_list() == [1]


def test_a_first_build_that_is_overtaken_by_another_is_the_next_version(tmp_path: Path) -> None:
    other = project(tmp_path, Overtaken(lambda: None, 0), Store(str(tmp_path / "store")))
    source = Overtaken(other.build, 1)
    (report,) = project(tmp_path, source).build()
    assert (report.outcome, report.version, source.scans) == ("built", "1.0.1", 2)
    assert pl.read_delta(str(table_of(tmp_path)))["n"].to_list() == [102]


def test_a_first_build_that_finds_the_table_of_somebody_else_leaves_it_alone(tmp_path: Path) -> None:
    source = Overtaken(lambda: write_deltalake(table_of(tmp_path), pl.DataFrame({"theirs": [1]})), 1)
    with pytest.raises(StoreError, match="is a Delta table that mlforge did not write"):
        project(tmp_path, source).build()
    assert pl.read_delta(str(table_of(tmp_path))).columns == ["theirs"]


def test_a_table_that_goes_away_during_a_build_is_one_line(tmp_path: Path) -> None:
    project(tmp_path, Overtaken(lambda: None, 0)).build()
    source = Overtaken(lambda: shutil.rmtree(table_of(tmp_path)), 1)
    with pytest.raises(StoreError, match=f"The table '{table_of(tmp_path)}' of feature 'f' cannot be written: "):
        project(tmp_path, source).build()
    assert not table_of(tmp_path).exists()
