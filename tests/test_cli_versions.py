"""`mlforge versions`, `diff`, `rollback` and `vacuum`, as they are typed."""

import json
import os
import pty
import shlex
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from command_line import MLFORGE, cells
from mlforge import loader
from mlforge.cli.main import main

PROJECT = """
import mlforge as mlf
from mlforge.store import LocalStore

@mlf.feature(keys=["user"], source="users.parquet", timestamp="ts")
def spend(df):
    return df

defs = mlf.Definitions("shop", store=LocalStore("store"))
"""


class Cli:
    """Runs command lines in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.code: int | str | None = None

    def __call__(self, line: str) -> str:
        """What is printed, errors included."""
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(line))
        self.code = ended.value.code
        captured = self.capsys.readouterr()
        return captured.out + captured.err


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    monkeypatch.chdir(tmp_path)
    Path("definitions.py").write_text(PROJECT)
    cli = Cli(capsys)
    for value, user in ((1.0, "bob"), (2.0, "cid")):
        rows = {"user": ["ann", user], "ts": [datetime(2026, 1, 1)] * 2, "n": [value, 0.0]}
        pl.DataFrame(rows).write_parquet("users.parquet")
        cli("build")
    yield cli
    loader._forget()


def test_versions_is_a_table(cli: Cli) -> None:
    cli("rollback spend 1.0.0 --yes")
    lines = cli("versions spend").splitlines()
    assert cells(lines[0]) == ["version", "committed", "made by", "rows", "definition"]
    rows = [cells(line) for line in lines[2:]]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("1.0.2", "rollback to 1.0.0", "2"),
        ("1.0.1", "full", "2"),
        ("1.0.0", "full", "2"),
    ]
    assert rows[0][1].endswith("Z")
    assert {len(row[4]) for row in rows} == {8}


def test_versions_as_json_is_one_array(cli: Cli) -> None:
    newest, oldest = json.loads(cli("versions spend --json"))
    assert (newest["version"], newest["delta_version"], newest["kind"], newest["rows"]) == ("1.0.1", 1, "full", 2)
    assert datetime.fromisoformat(oldest["committed_at"]) < datetime.fromisoformat(newest["committed_at"])
    assert newest["definition_hash"] == oldest["definition_hash"]
    assert len(newest["definition_hash"]) == 32


def test_diff_says_what_changed(cli: Cli) -> None:
    assert cli("diff spend 1.0.0 1.0.1").splitlines() == [
        "spend, from 1.0.0 to 1.0.1",
        "  the definition is the same",
        "  2 rows became 2: 1 added, 1 removed, 1 with other values",
        "    n: 1 values",
        "  added: user=cid, ts=2026-01-01 00:00:00+00:00: n=0.0",
        "  removed: user=bob, ts=2026-01-01 00:00:00+00:00: n=0.0",
        "  changed: user=ann, ts=2026-01-01 00:00:00+00:00: n=1.0 to 2.0",
    ]
    assert cli("diff spend 1.0.1 1.0.1") == "spend: nothing changed from 1.0.1 to 1.0.1.\n"
    Path("definitions.py").write_text(PROJECT.replace("return df", "return df.rename({'n': 'm'}).with_columns(k=1)"))
    cli("build")
    lines = cli("diff spend 1.0.1 2.0.0").splitlines()
    assert lines[1:5] == [
        "  column m was added: Float64",
        "  column k was added: Int64",
        "  column n was removed: Float64",
        "  the definition changed",
    ]


def test_diff_of_a_wide_feature_has_lines_that_can_be_read(cli: Cli) -> None:
    wide = "return df.with_columns(**{f'c{i}': pl.col('n') + i for i in range(60)})"
    Path("definitions.py").write_text("import polars as pl\n" + PROJECT.replace("return df", wide))
    cli("build")
    rows = {"user": ["ann", "dan"], "ts": [datetime(2026, 1, 1)] * 2, "n": [3.0, 0.0]}
    pl.DataFrame(rows).write_parquet("users.parquet")
    cli("build")
    lines = cli("diff spend 1.1.0 1.1.1").splitlines()
    assert lines[-1] == (
        "  changed: user=ann, ts=2026-01-01 00:00:00+00:00: n=2.0 to 3.0, c0=2.0 to 3.0, c1=3.0 to 4.0, c2=4.0 to 5.0, "
        "c3=5.0 to 6.0, 56 more"
    )
    assert lines[-2].startswith("  removed: user=cid, ts=2026-01-01 00:00:00+00:00: n=0.0, c0=0.0, c1=1.0")
    assert lines[-2].endswith("c3=3.0, 56 more")
    # Of columns that are new, a row that changed in others says nothing.
    line = cli("diff spend 1.0.1 1.1.1").splitlines()[-1]
    assert line == "  changed: user=ann, ts=2026-01-01 00:00:00+00:00: n=2.0 to 3.0"


def test_diff_names_the_parts_of_a_definition_that_are_recorded(cli: Cli) -> None:
    Path("definitions.py").write_text(PROJECT.replace('timestamp="ts"', 'timestamp="ts", max_age="36h"'))
    cli("build")
    Path("definitions.py").write_text(PROJECT.replace('["user"]', '["user", "ts"]').replace(', timestamp="ts"', ""))
    cli("build")
    assert cli("diff spend 1.0.1 1.1.0").splitlines()[1:3] == [
        "  the definition changed",
        "    max_age: none to 1 day, 12:00:00",
    ]
    assert cli("diff spend 1.1.0 1.2.0").splitlines()[1:5] == [
        "  the definition changed",
        "    keys: user to user, ts",
        "    timestamp: ts to none",
        "    max_age: 1 day, 12:00:00 to none",
    ]
    found = json.loads(cli("diff spend 1.0.1 1.1.0 --json"))
    assert found["definition_parts"] == {"max_age": ["none", "1 day, 12:00:00"]}


def test_diff_as_json_is_one_object(cli: Cli) -> None:
    found = json.loads(cli("diff spend 1.0.0 1.0.1 --json"))
    assert (found["rows_added"], found["rows_removed"], found["rows_changed"]) == (1, 1, 1)
    assert found["values_changed"] == {"n": 1}
    assert found["examples"]["changed"] == [
        {"row": {"user": "ann", "ts": "2026-01-01T00:00:00Z"}, "before": {"n": 1.0}, "after": {"n": 2.0}}
    ]


def test_rollback_is_not_done_unasked(cli: Cli) -> None:
    said = cli("rollback spend 1.0.0")
    assert said == "mlforge: spend would go back from 1.0.1 to 1.0.0: write --yes if that is meant.\n"
    assert (cli.code, len(json.loads(cli("versions spend --json")))) == (1, 2)


def on_a_terminal(answer: str, *line: str) -> subprocess.CompletedProcess[str]:
    controller, terminal = pty.openpty()
    os.write(controller, answer.encode())
    ended = subprocess.run([MLFORGE, *line], stdin=terminal, capture_output=True, text=True, check=False)
    os.close(terminal)
    os.close(controller)
    return ended


@pytest.mark.parametrize(("answer", "code", "newest"), [("y\n", 0, "1.0.2"), ("\n", 1, "1.0.1"), ("no\n", 1, "1.0.1")])
def test_rollback_asks_on_a_terminal(answer: str, code: int, newest: str, cli: Cli) -> None:
    ended = on_a_terminal(answer, "rollback", "spend", "1.0.0")
    assert "Take spend back from 1.0.1 to 1.0.0? Type y: " in ended.stderr
    assert ended.returncode == code
    assert json.loads(cli("versions spend --json"))[0]["version"] == newest


def test_list_says_what_was_rolled_back(cli: Cli) -> None:
    assert cli("list").splitlines()[0] == "spend  1.0.1"
    assert json.loads(cli("list --json"))[0]["restored"] is None
    cli("rollback spend 1.0.0 --yes")
    assert cli("list").splitlines()[0] == "spend  1.0.2, rolled back to 1.0.0"
    assert json.loads(cli("list --json"))[0]["restored"] == "1.0.0"
    cli("build --force")
    assert cli("list").splitlines()[0] == "spend  1.0.3"


def test_rollback_says_what_is_there_now(cli: Cli) -> None:
    said = cli("rollback spend 1.0.0 --yes")
    assert said == "spend: 1.0.2 is now what 1.0.0 was, 2 rows. `mlforge build --online` takes it online.\n"
    assert cells(cli("build").splitlines()[2])[:3] == ["spend", "rolled back", "1.0.2"]
    assert json.loads(cli("build --json"))[0]["outcome"] == "rolled back"
    assert cli("rollback spend 1.0.2") == "spend: 1.0.2 is the newest version, so nothing was done.\n"
    report = json.loads(cli("rollback spend 1.0.0 --yes --json"))
    assert (report["outcome"], report["version"], cli.code) == ("current", "1.0.2", 0)
    assert "spend: 1.0.0 is 1.0.2, the newest version, so" in cli("rollback spend 1.0.0 --yes")
    assert cells(cli("build --force").splitlines()[2])[:3] == ["spend", "built", "1.0.3"]


@pytest.mark.parametrize("line", ["rollback spend 1.0.9 --yes", "diff spend 1.0.0 1.0.9"])
def test_a_version_that_is_none_is_one_line(line: str, cli: Cli) -> None:
    assert cli(line) == (
        "mlforge: Feature 'spend' has no version '1.0.9'; there is '1.0.1', '1.0.0', and `mlforge versions spend` "
        "shows all.\n"
    )
    assert cli.code == 1


def test_vacuum_shows_what_it_deletes(cli: Cli) -> None:
    assert cells(cli("vacuum").splitlines()[2]) == ["spend", "2", "2", "0", "0"]
    planned = cli("vacuum --keep-days 0 --dry-run")
    assert "Nothing was deleted: this is what a vacuum would delete." in planned
    assert planned.endswith("\nspend keeps 1.0.1.\n")
    assert len(json.loads(cli("versions spend --json"))) == 2
    (report,) = json.loads(cli("vacuum --features spend --keep-days 0 --yes --json"))
    assert (report["versions"], report["kept"], report["files"], report["dry_run"]) == (2, 1, 1, False)
    assert report["kept_versions"] == ["1.0.1"]
    assert cells(planned.splitlines()[2]) == ["spend", "2", "1", "1", f"{report['bytes']:,}"]
    said = cli("diff spend 1.0.0 1.0.1")
    assert said.startswith("mlforge: Version 1.0.0 of feature 'spend' cannot be read from the table")
    assert (cli.code, said.count("\n")) == (1, 1)


def test_versions_shows_what_a_vacuum_has_deleted(cli: Cli) -> None:
    assert "readable" not in cli("versions spend")
    assert [each["readable"] for each in json.loads(cli("versions spend --json"))] == [True, True]
    cli("vacuum --keep-days 0 --yes")
    lines = cli("versions spend").splitlines()
    assert cells(lines[0]) == ["version", "committed", "made by", "rows", "definition", "readable"]
    assert [(cells(line)[0], cells(line)[2], cells(line)[-1]) for line in lines[2:]] == [
        ("1.0.3", "vacuum end", "yes"),
        ("1.0.2", "vacuum start", "yes"),
        ("1.0.1", "full", "yes"),
        ("1.0.0", "full", "no"),
    ]
    assert [each["readable"] for each in json.loads(cli("versions spend --json"))] == [True, True, True, False]


def test_vacuum_names_no_more_versions_than_a_line_has_room_for(cli: Cli) -> None:
    for _ in range(10):
        cli("build --force")
        rows = pl.read_parquet("users.parquet")
        rows.with_columns(n=pl.col("n") + 1).write_parquet("users.parquet")
    (report,) = json.loads(cli("vacuum --dry-run --json"))
    kept = report["kept_versions"]
    assert len(kept) == 11
    assert cli("vacuum --dry-run").endswith(f"\nspend keeps {', '.join(kept[:10])} and 1 older ones.\n")


def test_vacuum_deletes_nothing_unasked(cli: Cli) -> None:
    (planned,) = json.loads(cli("vacuum --keep-days 0 --dry-run --json"))
    for line in ("vacuum --keep-days 0", "vacuum --keep-days 0 --json"):
        assert cli(line) == (
            f"mlforge: 1 files of old versions, {planned['bytes']:,} bytes, would be deleted for ever: write --yes if "
            f"that is meant.\n"
        )
        assert cli.code == 1
    assert [each["readable"] for each in json.loads(cli("versions spend --json"))] == [True, True]
    # Where there is nothing to delete, nothing is asked.
    assert cells(cli("vacuum").splitlines()[2]) == ["spend", "2", "2", "0", "0"]
    assert cli.code == 0


@pytest.mark.parametrize(("answer", "code", "deleted"), [("y\n", 0, True), ("\n", 1, False), ("no\n", 1, False)])
def test_vacuum_asks_on_a_terminal(answer: str, code: int, deleted: bool, cli: Cli) -> None:
    ended = on_a_terminal(answer, "vacuum", "--keep-days", "0")
    assert "Delete 1 files of old versions, " in ended.stderr
    assert " bytes, for ever? Type y: " in ended.stderr
    assert ended.returncode == code
    assert (not json.loads(cli("versions spend --json"))[-1]["readable"]) == deleted


def test_vacuum_without_tables_says_so(cli: Cli) -> None:
    Path("definitions.py").write_text(PROJECT.replace('"store"', '"other"'))
    assert cli("vacuum") == "There are no features that are built.\n"
    assert json.loads(cli("vacuum --json")) == []
    assert "'spend' has not been built" in cli("vacuum --features spend")


@pytest.mark.parametrize("days", ["-1", "36501", "x"])
def test_days_that_are_none_are_not_understood(days: str, cli: Cli) -> None:
    said = cli(f"vacuum --keep-days={days}")
    assert (cli.code, said.count("\n")) == (2, 1)
    assert "keep-days" in said
