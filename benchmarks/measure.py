"""One measurement in a process of its own, and the table in which the figures stand beside their bars."""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

Input = TypeVar("Input")
# What runs in a process of its own: arguments and result are JSON.
Measurement = Callable[..., dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every section is given.

    Attributes:
        folder: Where data, tables and the peers' environments are kept.
        rows: How many entities a feature has, or offline how many events.
        rounds: How often everything is measured, all kinds in turn.
        port: Where the server listens on the loopback interface; 0 where there is none.
    """

    folder: Path
    rows: int
    rounds: int
    port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        work: What was done.
        beside: What mlforge is compared with, and its figure.
        mlforge: mlforge's figure.
        found: What the bar is about, once a round.
        limit: The bar.
        unit: Its unit; `x` for a ratio.
        at_least: Whether more is better.
    """

    work: str
    beside: str
    mlforge: str
    found: Sequence[float]
    limit: float
    unit: str = "x"
    at_least: bool = False

    def __str__(self) -> str:
        middle = statistics.median(self.found)
        met = middle >= self.limit if self.at_least else middle <= self.limit
        spread = f" ({min(self.found):.3g} to {max(self.found):.3g})" if len(self.found) > 1 else ""
        bar = f"at {'least' if self.at_least else 'most'} {self.limit:g} {self.unit}"
        figure = f"{middle:.3g} {self.unit}{spread}"
        return f"| {self.work} | {self.beside} | {self.mlforge} | {figure} | {bar} | {'yes' if met else '**no**'} |"


HEAD = "| work | beside | mlforge | median (range) | bar | met |\n|---|---|---|---|---|---|"


def measure(kind: str, /, **arguments: Any) -> dict[str, Any]:
    """What one kind of measurement finds in a process of its own; what goes wrong there is shown."""
    command = [sys.executable, sys.argv[0], "--measure", kind, json.dumps(arguments, default=str)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def asked(measures: Mapping[str, Measurement]) -> bool:
    """Makes the measurement for which `measure` has started this process, if that is what it was started for."""
    if sys.argv[1:2] != ["--measure"]:
        return False
    print(json.dumps(measures[sys.argv[2]](**json.loads(sys.argv[3]))))
    return True


def chosen(doc: str, sections: Collection[str], *, rows: int, what: str, rounds: int) -> argparse.Namespace:
    """The command line of a script: which sections, with how many rows, how often, and where to keep what was made.

    Args:
        doc: The script's description.
        sections: What there is to choose from.
        rows: How many rows there are by default.
        what: What they are.
        rounds: How often everything is measured by default.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="section", help=", ".join(sections))
    parser.add_argument("--rows", type=int, default=rows, help=what)
    parser.add_argument("--rounds", type=int, default=rounds, help="how often everything is measured")
    parser.add_argument("--cache", type=Path, help="a folder to keep; a temporary one by default")
    found = parser.parse_args()
    if unknown := [name for name in found.sections if name not in sections]:
        parser.error(f"there is no section {unknown[0]!r}: {', '.join(sections)}")
    found.sections = found.sections or list(sections)
    return found


def print_table(
    bench: Bench, sections: Mapping[str, Callable[[Bench], list[Row]]], names: Sequence[str], versions: str
) -> None:
    """Runs sections and prints their rows as they come, as Markdown.

    Args:
        bench: What every section is given.
        sections: What there is to choose from.
        names: Which ones.
        versions: What stands above the table.
    """
    print(f"{versions}; {bench.rounds} rounds\n\n{HEAD}", flush=True)
    for name in names:
        for row in sections[name](bench):
            print(row, flush=True)


@contextmanager
def kept(cache: Path | None) -> Generator[Path]:
    """The folder that is kept, or a temporary one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = (cache or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def kinds_in_turns(measurement: str, kinds: Sequence[str], *, rounds: int, **arguments: Any) -> dict[str, list[float]]:
    """The seconds of every kind of a measurement, once a round and each in a process of its own."""
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, seconds in found.items():
            seconds.append(measure(measurement, kind=kind, **arguments)["seconds"])
    return found


def packages(*names: str) -> str:
    """The versions of packages and of Python, and what this runs on."""
    shown = {name: version(name) for name in names} | {"Python": platform.python_version()}
    models = {line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line}
    cores = len(os.sched_getaffinity(0))
    return f"{', '.join(' '.join(pair) for pair in shown.items())}; {cores} cores ({', '.join(models) or 'unknown'})"


def in_turns(
    works: Mapping[str, Callable[[Input], object]], inputs: Sequence[Input], *, rounds: int, calls: int
) -> dict[str, list[float]]:
    """For every kind of work, the median seconds of one call in each round.

    Args:
        works: The kinds, which take turns within a round: each round in the opposite order of the one before.
        inputs: What they are called with, one after the other and from the beginning again.
        rounds: How many rounds are counted; one more goes before, to warm up.
        calls: How many calls of each kind make a round.
    """
    clock = time.perf_counter
    found: dict[str, list[float]] = {kind: [] for kind in works}
    kinds = list(works.items())
    position = 0
    for turn in range(rounds + 1):
        # All kinds of a round get the same inputs.
        chosen = [inputs[(position + number) % len(inputs)] for number in range(calls)]
        position += calls
        for kind, work in kinds:
            taken = []
            for each in chosen:
                began = clock()
                work(each)
                taken.append(clock() - began)
            if turn:
                found[kind].append(statistics.median(taken))
        kinds.reverse()
    return found


def peak() -> float:
    """The most memory that this process has ever had, in millions of bytes, as Linux says it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """One ratio a round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def shown(seconds: Sequence[float]) -> str:
    """The median of some times in the unit that suits it.

    >>> shown([0.0021, 0.002, 0.009])
    '2.1 ms'
    """
    middle = statistics.median(seconds)
    if middle < 1e-3:
        return f"{middle * 1e6:.0f} us"
    return f"{middle * 1e3:.3g} ms" if middle < 1 else f"{middle:.2f} s"


def rate(rows: float, seconds: Sequence[float]) -> str:
    """Rows a second, at the median time.

    >>> rate(1_000_000, [2.0])
    '500,000 rows/s'
    """
    return f"{rows / statistics.median(seconds):,.0f} rows/s"
