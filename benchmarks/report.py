"""Puts what was measured into docs/benchmarks.md: plots, one table, where mlforge loses, and the runs.

    python benchmarks/report.py                        what build/bench has, beside what was measured before
    python benchmarks/report.py --results FOLDER       other results, as --kept and --docs are for other places

The scripts write build/bench/NAME.json. Of each section the newest run counts, there or in benchmarks/results.json.
The latter is written anew, and belongs to the repository: a run of one script changes its own lines only. On the page
what is between the two marks is made, and everything else is written by hand and stays.
"""

import argparse
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import get_args

import plots
import results
from results import BUILD, Line, Run, Topic

TOPICS = get_args(Topic)
ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- made by benchmarks/report.py: from here -->", "<!-- made by benchmarks/report.py: to here -->"
HEAD = "| work | beside | mlforge | median (range) | bar | run |\n|---|---|---|---|---|---|"


def main() -> None:
    """Reads the results, and writes them into the page and its plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=BUILD / "bench", help="what the scripts wrote")
    parser.add_argument("--kept", type=Path, default=ROOT / "benchmarks" / "results.json", help="what was there before")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where benchmarks.md and images/ are")
    chosen = parser.parse_args()
    report(chosen.results, chosen.kept, chosen.docs)


def report(measured: Path, kept: Path, docs: Path) -> None:
    """Adds what the scripts wrote to what was kept, and makes the page and its plots of all of it."""
    fresh = [run for path in sorted(measured.glob("*.json")) for run in results.read(path)]
    runs = results.newest([*results.read(kept), *fresh])
    page, images = docs / "benchmarks.md", docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    text = page.read_text() if page.exists() else f"{BEGIN}\n{END}\n"
    between(text, "")  # Whether there is a place for it, before anything is drawn.
    page.write_text(between(text, rendered(runs, images)))
    results.write(kept, runs)


def between(page: str, made: str) -> str:
    """A page with something else between the marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"benchmarks.md has no place for the results: write the lines {BEGIN!r} and {END!r} into it.")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def rendered(runs: Sequence[Run], images: Path) -> str:
    """What stands between the marks; draws the plots."""
    numbered = dict(enumerate(_numbered(runs), start=1))
    found = [(line, number) for number, alike in numbered.items() for run in alike for line in run.lines]
    # Within a topic they stay in the order of the runs.
    found.sort(key=lambda pair: TOPICS.index(pair[0].topic))
    lines = [line for line, _ in found]
    for old in images.glob("bench-*.svg"):
        old.unlink()
    parts = [
        *_plots(lines, images),
        "### All of it",
        "\n".join([HEAD, *_rows(found)]),
        "### Where mlforge loses",
        "\n".join(_lost(lines)),
        "### The runs",
        "\n".join(_told(number, alike) for number, alike in numbered.items()),
    ]
    return "\n\n".join(parts)


def _plots(lines: Sequence[Line], images: Path) -> Iterable[str]:
    for topic, group in groupby(lines, key=lambda line: line.topic):
        if of_topic := [line for line in group if line.times_as_fast]:
            path = plots.draw(topic, of_topic, images)
            yield f"### {_title(topic)}"
            yield f"![{_title(topic)}: how many times as fast mlforge is](images/{path.name})"


def _rows(found: Sequence[tuple[Line, int]]) -> Iterable[str]:
    for topic, group in groupby(found, key=lambda pair: pair[0].topic):
        yield f"| **{_title(topic)}** | | | | | |"
        for line, number in group:
            beside = ", ".join(filter(None, [line.against, line.beside]))
            bar = f"{line.bar}: {'met' if line.met else '**missed**'}"
            yield f"| {line.work} | {beside} | {line.mlforge} | {line.figure} | {bar} | {number} |"


def _title(topic: Topic) -> str:
    return topic[0].upper() + topic[1:]


def _lost(lines: Sequence[Line]) -> list[str]:
    found = []
    for line in lines:
        slower = line.times_as_fast is not None and line.times_as_fast[0] < 1
        if line.met and not slower:
            continue
        beside = f" beside {line.against}" if line.against else ""
        verdict = "slower, within its bar" if line.met else "its bar is missed"
        reason = line.reason or "The reason is not known yet."
        found.append(f"- {line.work}{beside}: {line.figure}, {line.bar}; {verdict}. {reason}")
    return found or ["Nowhere: every bar is met and nothing is slower than what it is compared with."]


def _numbered(runs: Sequence[Run]) -> list[list[Run]]:
    """The sections that one run of a script measured, and those that were measured like these on that day."""
    found: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        alike = (run.script, run.date[:10], run.machine, run.versions, run.rounds, run.rows)
        found.setdefault(alike, []).append(run)
    return list(found.values())


def _told(number: int, runs: Sequence[Run]) -> str:
    first = runs[0]
    rounds = f"{first.rounds} round{'s' if first.rounds > 1 else ''}"
    facts = [f"{first.date[:10]}, {rounds}, {first.rows:,} rows"]
    if seconds := [run.seconds for run in runs if run.seconds is not None]:
        facts.append(f"{sum(seconds) / 60:.1f} min")
    if loads := [run.load for run in runs if run.load is not None]:
        facts.append(f"a load of at most {max(loads):g} before")
    sections = ", ".join(run.section for run in runs)
    return f"{number}. `{first.script}.py` {sections}: {', '.join(facts)}; {first.machine}; {first.versions}."


if __name__ == "__main__":
    main()
