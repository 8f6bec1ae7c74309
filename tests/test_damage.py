"""Tables that have lost something: one line with the table and the way out, and a build that repairs what it can."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

import mlforge as mlf
from mlforge import Definitions, MlforgeError, RequestError, StoreError
from mlforge.online import RedisStore
from mlforge.store import LocalStore, Store

START = datetime(2026, 1, 10, tzinfo=UTC)
LATE = START + timedelta(60)
LABELS = pl.DataFrame({"user": ["ann"], "at": [LATE]})
LAST = 2


def spend(df: pl.LazyFrame) -> pl.LazyFrame:
    return df


class Shop:
    """A feature with three versions, each with a file in two months."""

    def __init__(self, folder: Path, **arguments: Any) -> None:
        self.source = folder / "events.parquet"
        self.store = LocalStore(folder / "store")
        self.table = self.store.path / "spend"
        feature = mlf.feature(keys=["user"], source=self.source, timestamp="ts")(spend)
        self.definitions = Definitions("shop", features=[feature], store=self.store, **arguments)

    def build(self, value: float, **options: Any) -> str:
        times = [START, START + timedelta(30)]
        pl.DataFrame({"user": ["ann"] * 2, "ts": times, "n": [value] * 2}).write_parquet(self.source)
        (report,) = self.definitions.build(**options)
        return report.outcome

    def commit(self, version: int) -> Path:
        return self.table / "_delta_log" / f"{version:020}.json"

    def files(self) -> list[Path]:
        """The files of the newest version, by month."""
        return sorted(self.table / path for paths in self.store.require("spend").files.values() for path in paths)

    def trained(self) -> list[float]:
        return self.definitions.get_training_data(["spend"], LABELS, timestamp="at")["n"].to_list()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    for value in range(LAST + 1):
        shop.build(float(value))
    return shop


def cut(file: Path, part: float = 0.5) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])


def lose_lines(file: Path, keep: int) -> None:
    file.write_text("\n".join(file.read_text().splitlines()[:keep]))


def asks(shop: Shop) -> dict[str, Callable[[], object]]:
    return {
        "training": shop.trained,
        "build": lambda: shop.definitions.build(),
        "forced build": lambda: shop.definitions.build(force=True),
        "versions": lambda: shop.definitions.versions("spend"),
        "diff": lambda: shop.definitions.diff("spend", "1.0.0", "1.0.2"),
        "rollback": lambda: shop.definitions.rollback("spend", "1.0.0"),
        "vacuum": lambda: shop.definitions.vacuum(["spend"]),
    }


LOGS: dict[str, Callable[[Shop], object]] = {
    "newest commit cut": lambda shop: cut(shop.commit(LAST)),
    "newest commit empty": lambda shop: shop.commit(LAST).write_text(""),
    "newest commit without its files": lambda shop: lose_lines(shop.commit(LAST), 3),
    "earlier commit empty": lambda shop: shop.commit(1).write_text(""),
    "earlier commit cut": lambda shop: cut(shop.commit(1)),
    "earlier commit gone": lambda shop: shop.commit(1).unlink(),
    "first commit gone": lambda shop: shop.commit(0).unlink(),
    "checkpoint gone": lambda shop: (shop.table / "_delta_log" / "_last_checkpoint").write_text(
        '{"version":2,"size":1}'
    ),
    "a file in place of the log": lambda shop: (
        shutil.rmtree(shop.table / "_delta_log"),
        (shop.table / "_delta_log").write_text("x"),
    ),
}


@pytest.mark.parametrize("damage", LOGS)
def test_a_damaged_log_is_one_line_everywhere(damage: str, shop: Shop) -> None:
    LOGS[damage](shop)
    for ask in asks(shop).values():
        with pytest.raises(StoreError) as caught:
            ask()
        line = str(caught.value)
        assert line.startswith(f"The table '{shop.table}' of feature 'spend' cannot be read: ")
        assert line.endswith("restore it from a copy, or delete the whole folder and build the feature again.")
        assert "\n" not in line
        assert "unknown" not in line
        assert len(line) < 700


def test_versions_never_get_each_others_numbers_where_a_commit_is_empty(shop: Shop) -> None:
    DeltaTable(shop.table).alter.set_table_properties({"delta.checkpointInterval": "7"})
    shop.build(3.0)
    shop.commit(LAST + 1).write_text("")
    assert shop.trained() == [3.0]
    for name in ("versions", "diff", "rollback", "vacuum"):
        with pytest.raises(StoreError, match="a commit in its log is empty or missing"):
            asks(shop)[name]()


@pytest.mark.parametrize("log", ["gone", "empty"])
def test_a_lost_log_is_told_from_a_feature_that_was_never_built(log: str, shop: Shop) -> None:
    shutil.rmtree(shop.table / "_delta_log")
    if log == "empty":
        (shop.table / "_delta_log").mkdir()
    for name in ("training", "versions", "diff", "rollback", "vacuum"):
        with pytest.raises(RequestError) as caught:
            asks(shop)[name]()
        assert "Feature 'spend' has not been built: run `mlforge build --features spend`." in str(caught.value)
        assert f"Its folder '{shop.table}' has files and no log" in str(caught.value)
        assert "if the log was lost, restore _delta_log from a copy" in str(caught.value)
    # As after a first build that was killed, the next one begins anew.
    assert shop.build(7.0) == "built"
    assert shop.trained() == [7.0]
    assert shop.store.require("spend").version == "1.0.0"


FILES: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "cut": cut,
    "empty": lambda file: file.write_bytes(b""),
    "garbled": lambda file: file.write_bytes(b"x" * file.stat().st_size),
    # What says where the columns are is whole: only reading these shows it.
    "rows garbled": lambda file: file.write_bytes((content := file.read_bytes())[:4] + b"x" * 60 + content[64:]),
}


@pytest.mark.parametrize("month", [0, 1])
@pytest.mark.parametrize("damage", FILES)
def test_a_damaged_file_is_one_line_and_a_build_repairs_it(
    damage: str, month: int, shop: Shop, redis_store: RedisStore
) -> None:
    FILES[damage](shop.files()[month])
    shop.definitions.online_store = redis_store
    reads = {name: ask for name, ask in asks(shop).items() if name in ("training", "diff")}
    reads["sync"] = lambda: shop.definitions.build(online=True)
    for ask in reads.values():
        with pytest.raises(StoreError) as caught:
            ask()
        line = " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
        assert line.startswith(f"Version 1.0.2 of feature 'spend' cannot be read from the table '{shop.table}' (")
        assert "build all of the feature with `mlforge build --features spend --force`" in line
        assert "\n" not in line
        assert "panic" not in line.lower()
    if "garbled" not in damage:
        # What is in a file is not looked at.
        assert [version.readable for version in shop.definitions.versions("spend")] == [False, True, True]
    assert len(shop.definitions.versions("spend")) == LAST + 1
    assert shop.definitions.build()[0].outcome == "skipped"
    (report,) = shop.definitions.build(force=True, online=True)
    assert (report.outcome, report.version) == ("built", "1.0.3")
    assert report.online is not None
    assert report.online.mode == "full"
    assert shop.trained() == [2.0]
    assert [verified.agrees for verified in shop.definitions.verify()] == [True]


def test_a_build_by_force_is_no_way_to_an_old_version(shop: Shop) -> None:
    old = shop.store.open_version("spend", "1.0.1")
    for paths in old.files.values():
        for path in paths:
            (shop.table / path).unlink()
    with pytest.raises(StoreError) as caught:
        shop.definitions.diff("spend", "1.0.1", "1.0.2")
    assert str(caught.value).endswith(
        ": `mlforge versions spend` shows which ones can be, since a vacuum deletes what only old ones need."
    )
    assert "--force" not in str(caught.value)
    assert [version.readable for version in shop.definitions.versions("spend")] == [True, False, True]
    # Of a store that is no folder it is not known.
    assert {version.readable for version in Store(str(shop.store.path)).versions("spend")} == {None}


def test_new_data_repair_a_table_without_being_asked(shop: Shop) -> None:
    shop.files()[0].unlink()
    assert shop.build(9.0) == "built"
    assert shop.trained() == [9.0]


def test_some_events_are_not_built_into_a_damaged_month(shop: Shop) -> None:
    shop.files()[0].unlink()
    before = DeltaTable(shop.table).version()
    with pytest.raises(StoreError, match="mlforge build --features spend --force"):
        shop.build(9.0, start=START, end=START + timedelta(1))
    assert DeltaTable(shop.table).version() == before


def test_months_without_damage_can_still_be_read(shop: Shop) -> None:
    shop.files()[0].unlink()
    snapshot = shop.store.require("spend")
    assert snapshot.collect(snapshot.scan(months=["2026-02"]))["n"].to_list() == [2.0]
    assert snapshot.collect(snapshot.scan(after=START + timedelta(25)))["n"].to_list() == [2.0]
    with pytest.raises(MlforgeError):
        snapshot.scan(until=START)


def test_a_file_that_is_cut_short_prints_no_stack(shop: Shop, tmp_path: Path) -> None:
    for file in shop.files():
        cut(file)
    program = """
import sys
from mlforge import StoreError
from mlforge.store import LocalStore
snapshot = LocalStore(sys.argv[1]).require("spend")
try:
    snapshot.collect(snapshot.scan())
except StoreError as error:
    print(error)
"""
    arguments = [sys.executable, "-c", program, str(shop.store.path)]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert ended.stdout.count("\n") == 1
    assert ended.stderr == ""
