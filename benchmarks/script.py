"""A script of measurements: its command line, its sections one after the other, and where their results go."""

import argparse
import datetime as dt
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import results
from measure import Measurement, asked
from redis_server import redis_server, server_version
from results import BUILD, Line, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every section is given.

    Attributes:
        folder: Where data and tables are kept.
        rows: How many entities a feature has, or offline how many events.
        rounds: How often everything is measured, all kinds in turn.
        port: Where the server listens on the loopback interface; 0 where there is none.
    """

    folder: Path
    rows: int
    rounds: int
    port: int = 0


# What one section of a script finds.
Section = Callable[[Bench], list[Line]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a script of measurements consists of.

    Attributes:
        doc: Its description.
        sections: What there is to choose from.
        measures: What runs in processes of their own.
        rows: How many rows there are by default.
        quick: How many with `--quick`.
        what: What they are.
        rounds: How often everything is measured by default.
        packages: Those whose versions matter.
        server: Whether it needs a Redis server.
        extra: Sections that only run when they are asked for.
    """

    doc: str
    sections: Mapping[str, Section]
    measures: Mapping[str, Measurement]
    rows: int
    quick: int
    what: str
    rounds: int
    packages: Sequence[str]
    server: bool = False
    extra: Sequence[str] = ()

    def main(self) -> None:
        """Runs the sections that are asked for; exits with 1 if one of them failed."""
        if asked(self.measures):
            return
        chosen = self._chosen()
        server = redis_server() if self.server else nullcontext(0)
        with _kept(chosen.cache) as folder, server as port:
            bench = Bench(folder=folder, rows=chosen.rows, rounds=chosen.rounds, port=port)
            failed = [name for name in chosen.sections if not self._section(name, bench, chosen.results)]
        if failed:
            sys.exit(f"{_name()}: failed and kept as before: {', '.join(failed)}.")

    def _section(self, name: str, bench: Bench, folder: Path) -> bool:
        date, load, began = dt.datetime.now(dt.UTC), os.getloadavg()[0], time.perf_counter()
        print(f"{_name()} {name}, {bench.rows:,} rows, {bench.rounds} rounds", flush=True)
        try:
            lines = self.sections[name](bench)
        # What it takes away is this section only: a process or a server that ended, different values, no such peer.
        except (subprocess.SubprocessError, AssertionError, RuntimeError, OSError, LookupError):
            traceback.print_exc()
            return False
        for line in lines:
            print(f"  {line.work}: {line.figure}, {line.bar}{'' if line.met else ', MISSED'}", flush=True)
        run = Run(
            script=_name(),
            section=name,
            date=date.isoformat(timespec="seconds"),
            machine=machine(),
            versions=self._versions(),
            rounds=bench.rounds,
            rows=bench.rows,
            load=round(load, 1),
            seconds=round(time.perf_counter() - began, 1),
            lines=tuple(lines),
        )
        path = folder / f"{_name()}.json"
        results.write(path, results.newest([*results.read(path), run]))
        return True

    def _versions(self) -> str:
        found = [f"{name} {version(name)}" for name in self.packages] + [f"Python {platform.python_version()}"]
        return ", ".join([server_version(), *found] if self.server else found)

    def _chosen(self) -> argparse.Namespace:
        parser = argparse.ArgumentParser(description=self.doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("sections", nargs="*", metavar="section", help=", ".join(self.sections))
        parser.add_argument("--rows", type=int, help=f"{self.what}; {self.rows:,} by default")
        parser.add_argument("--rounds", type=int, help=f"how often everything is measured; {self.rounds} by default")
        parser.add_argument("--quick", action="store_true", help=f"once, with {self.quick:,}: to see that it works")
        parser.add_argument(
            "--cache", type=Path, help="a folder to keep data and tables in; a temporary one by default"
        )
        parser.add_argument("--results", type=Path, help="where the JSON goes; build/bench or build/bench-quick")
        found = parser.parse_args()
        if unknown := [name for name in found.sections if name not in self.sections]:
            parser.error(f"there is no section {unknown[0]!r}: {', '.join(self.sections)}")
        found.sections = found.sections or [name for name in self.sections if name not in self.extra]
        found.rows = found.rows or (self.quick if found.quick else self.rows)
        found.rounds = found.rounds or (1 if found.quick else self.rounds)
        found.results = found.results or BUILD / ("bench-quick" if found.quick else "bench")
        return found


def machine() -> str:
    """What this runs on."""
    models = {line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores ({', '.join(models) or platform.machine()}), {memory:.0f} GB, {platform.system()}"


def _name() -> str:
    return Path(sys.argv[0]).stem


@contextmanager
def _kept(cache: Path | None) -> Generator[Path]:
    """The folder that is kept, or a temporary one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = (cache or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
