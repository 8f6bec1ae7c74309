"""How long the command and an import take to be there.

    python benchmarks/startup.py                       about half a minute
    python benchmarks/startup.py --rounds 5

What counts of `import mlforge`, with what a project's definitions name, is the time beyond `import polars`; the command
is counted whole. Wall time and CPU time, of processes that take turns. What was found goes to build/bench/startup.json.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measure import shown
from results import Line
from script import Bench, Script

NAMES = (
    "import polars, mlforge as mlf; mlf.feature, mlf.Definitions, mlf.Rolling; "
    "from mlforge.store import LocalStore; from mlforge.online import RedisStore"
)
PROGRAMS = {
    "help": [str(Path(sys.executable).with_name("mlforge")), "--help"],
    "polars": [sys.executable, "-c", "import polars"],
    "mlforge": [sys.executable, "-c", NAMES],
}


def seconds(program: list[str]) -> tuple[float, float]:
    """Wall time and CPU time of one process."""
    began = time.perf_counter()
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{program} ended with exit code {process.returncode}.")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def start(bench: Bench) -> list[Line]:
    """The command's help, and the import of what definitions need."""
    for program in PROGRAMS.values():
        seconds(program)  # Only then is everything in the caches of the system.
    runs = [{name: seconds(program) for name, program in PROGRAMS.items()} for _ in range(bench.rounds)]
    wall, cpu = ({name: [run[name][kind] for run in runs] for name in PROGRAMS} for kind in (0, 1))
    beyond = [ours - polars for ours, polars in zip(wall["mlforge"], wall["polars"], strict=True)]
    beyond_cpu = [ours - polars for ours, polars in zip(cpu["mlforge"], cpu["polars"], strict=True)]
    return [
        Line.of(
            "start-up",
            "`mlforge --help`",
            wall["help"],
            mlforge=f"{shown(cpu['help'])} of CPU",
            limit=0.3,
            unit="s",
        ),
        Line.of(
            "start-up",
            "`import mlforge` and what definitions name, beyond Polars",
            beyond,
            beside=f"import polars, {shown(wall['polars'])}",
            mlforge=f"{1000 * statistics.median(beyond_cpu):.0f} ms of CPU",
            limit=0.25,
            unit="s",
        ),
    ]


SCRIPT = Script(
    doc=__doc__,
    sections={"start": start},
    measures={},
    rows=1,
    quick=1,
    what="not used",
    rounds=15,
    packages=("polars", "cyclopts", "rich"),
)

if __name__ == "__main__":
    SCRIPT.main()
