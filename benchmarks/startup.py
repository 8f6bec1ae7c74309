"""How long the command and an import take to be there: wall time and CPU time, medians of runs that take turns.

    python benchmarks/startup.py
    python benchmarks/startup.py --rounds 5

What counts is the time beyond what it cannot do without: Python itself for `mlforge --help`, and Polars for
`import mlforge` with what a project's definitions name. The table goes to the standard output as Markdown.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

NAMES = (
    "import polars, mlforge as mlf; mlf.feature, mlf.Definitions, mlf.Rolling; "
    "from mlforge.store import LocalStore; from mlforge.online import RedisStore"
)
PROGRAMS = {
    "python": [sys.executable, "-c", "pass"],
    "mlforge --help": [str(Path(sys.executable).with_name("mlforge")), "--help"],
    "import polars": [sys.executable, "-c", "import polars"],
    "import mlforge": [sys.executable, "-c", NAMES],
}
# What may be taken, and beyond what.
BARS = {"mlforge --help": (0.3, None), "import mlforge": (0.25, "import polars")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one process took, in seconds."""

    wall: float
    cpu: float


def measured(program: list[str]) -> Run:
    """One run of a program; what it says is thrown away."""
    began = time.perf_counter()
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{program} ended with exit code {process.returncode}.")
    return Run(wall=time.perf_counter() - began, cpu=used.ru_utime + used.ru_stime)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    runs: dict[str, list[Run]] = {name: [measured(program)] for name, program in PROGRAMS.items()}
    for found in runs.values():
        # Only then is everything in the caches of the system.
        found.clear()
    for _ in range(rounds):
        for name, program in PROGRAMS.items():
            runs[name].append(measured(program))
    print("| what | wall ms | CPU ms | beyond | wall ms | CPU ms | bar ms |\n|---|---|---|---|---|---|---|")
    for name, found in runs.items():
        bar, base = BARS.get(name, (None, None))
        cells = [name, *(_median(found, kind) for kind in ("wall", "cpu"))]
        cells += (
            ["", "", ""] if base is None else [base, *(_beyond(found, runs[base], kind) for kind in ("wall", "cpu"))]
        )
        print(f"| {' | '.join([*cells, '' if bar is None else f'{1000 * bar:.0f}'])} |")


def _median(runs: list[Run], kind: str) -> str:
    return f"{1000 * statistics.median(getattr(run, kind) for run in runs):.0f}"


def _beyond(runs: list[Run], bases: list[Run], kind: str) -> str:
    differences = (getattr(run, kind) - getattr(base, kind) for run, base in zip(runs, bases, strict=True))
    return f"{1000 * statistics.median(differences):.0f}"


if __name__ == "__main__":
    main()
