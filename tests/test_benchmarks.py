"""The page of the benchmarks is made from what the scripts have found, and loses nothing when it is made again."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
BEGIN, END = "<!-- made by benchmarks/report.py: from here -->", "<!-- made by benchmarks/report.py: to here -->"
PAGE = f"# Benchmarks\n\nAbove, by hand.\n\n{BEGIN}\nold\n{END}\n\nBelow, by hand.\n"
SCRIPT = """
from results import Line
from script import Script

def line(work, *found):
    return lambda bench: [Line.of("reads", work, found, limit=2, at_least=True, against="a peer", reason="No idea.")]

def broken(bench):
    raise RuntimeError("The server is gone.")

sections = {{"first": line({work!r}, 4, 1, 3), "second": {second}, "third": line("listing", 1)}}
Script(doc="", sections=sections, measures={{}}, rows=5, quick=1, what="rows", rounds=3, packages=["polars"]).main()
"""


def run(folder: Path, script: str | Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def measure(
    folder: Path, *sections: str, work: str = "reading", second: str = 'line("writing", 9)'
) -> subprocess.CompletedProcess[str]:
    (folder / "shop.py").write_text(SCRIPT.format(work=work, second=second))
    return run(folder, "shop.py", *sections, "--results", "found")


def report(folder: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        module = importlib.import_module("report")
    module.report(folder / "found", folder / "kept.json", folder / "docs")
    return (folder / "docs" / "benchmarks.md").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "benchmarks.md").write_text(PAGE)
    return tmp_path


def test_a_line_has_the_median_the_range_the_bar_and_who_is_beside(folder: Path) -> None:
    assert measure(folder).returncode == 0
    page = report(folder)
    assert "| **Reads** | | | | | |\n| reading | a peer |  | 3 x (1 to 4) | at least 2 x: met | 1 |" in page
    assert "| listing | a peer |  | 1 x | at least 2 x: **missed** | 1 |" in page
    assert "1. `shop.py` first, second, third: " in page
    assert "3 rounds, 5 rows" in page
    assert "Python 3." in page


def test_what_is_lost_stands_there_with_its_reason(folder: Path) -> None:
    measure(folder)
    lost = report(folder).split("### Where mlforge loses")[1]
    assert "- listing beside a peer: 1 x, at least 2 x; its bar is missed. No idea." in lost
    assert "- reading" not in lost


def test_what_is_written_by_hand_stays(folder: Path) -> None:
    measure(folder)
    page = report(folder)
    assert page.startswith(f"# Benchmarks\n\nAbove, by hand.\n\n{BEGIN}\n")
    assert page.endswith(f"{END}\n\nBelow, by hand.\n")
    assert "old" not in page


def test_made_again_the_page_and_the_plots_are_the_same(folder: Path) -> None:
    measure(folder)
    plot = folder / "docs" / "images" / "bench-reads.svg"
    page, drawn = report(folder), plot.read_bytes()
    assert "![Reads: how many times as fast mlforge is](images/bench-reads.svg)" in page
    assert b"beside a peer" in drawn
    assert report(folder) == page
    assert plot.read_bytes() == drawn


def test_a_run_of_one_section_changes_its_own_lines_only(folder: Path) -> None:
    measure(folder)
    report(folder)
    (folder / "found" / "shop.json").unlink()
    measure(folder, "first", work="reading anew")
    page = report(folder)
    assert "| reading anew |" in page
    assert "| reading |" not in page
    assert "| writing |" in page
    assert "| listing |" in page


def test_an_older_run_does_not_replace_a_newer_one(folder: Path) -> None:
    measure(folder)
    report(folder)
    found = folder / "found" / "shop.json"
    runs = json.loads(found.read_text())
    for each in runs:
        each["date"] = "2020-01-01T00:00:00+00:00"
        each["lines"][0]["work"] = "long ago"
    found.write_text(json.dumps(runs))
    assert "long ago" not in report(folder)


def test_a_section_that_fails_takes_nothing_else_away(folder: Path) -> None:
    measure(folder)
    done = measure(folder, work="reading anew", second="broken")
    assert done.returncode == 1
    assert "The server is gone." in done.stderr
    assert done.stderr.splitlines()[-1] == "shop: failed and kept as before: second."
    page = report(folder)
    assert "| reading anew |" in page
    assert "| writing |" in page
    assert "| listing |" in page


def test_a_page_without_the_marks_is_left_alone(folder: Path) -> None:
    page = folder / "docs" / "benchmarks.md"
    page.write_text("# By hand\n")
    measure(folder)
    with pytest.raises(SystemExit, match=r"^benchmarks.md has no place for the results: write the lines "):
        report(folder)
    assert page.read_text() == "# By hand\n"


@pytest.mark.parametrize("damaged", ["", "null", '[{"script": "shop"}]', '[{"script": NaN}]', "\x00"])
def test_results_that_are_damaged_are_named_and_nothing_is_changed(folder: Path, damaged: str) -> None:
    measure(folder)
    page = report(folder)
    (folder / "found" / "other.json").write_text(damaged)
    with pytest.raises(SystemExit, match=r"other\.json holds no results: .* Delete it, and measure again"):
        report(folder)
    assert (folder / "docs" / "benchmarks.md").read_text() == page


def test_an_unknown_section_is_named(folder: Path) -> None:
    assert "there is no section 'forth': first, second, third" in measure(folder, "forth").stderr


def test_the_page_of_this_project_is_what_the_results_make(tmp_path: Path) -> None:
    docs, results = BENCHMARKS.parent / "docs", (BENCHMARKS / "results.json").read_text()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "benchmarks.md").write_text((docs / "benchmarks.md").read_text())
    (tmp_path / "kept.json").write_text(results)
    assert report(tmp_path) == (docs / "benchmarks.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "sections", "lines"),
    [("online", ["write", "unchanged"], 5), ("offline", ["training", "builds"], 3), ("windows", [], 5)],
)
def test_scripts_run_with_few_rows(tmp_path: Path, script: str, sections: list[str], lines: int) -> None:
    done = run(tmp_path, BENCHMARKS / f"{script}.py", *sections, "--quick", "--results", "found")
    assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "found" / f"{script}.json").read_text())
    assert sum(len(each["lines"]) for each in runs) == lines
