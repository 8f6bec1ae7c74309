"""One measurement in a process of its own, kinds of work that take turns, and how figures are written."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Input = TypeVar("Input")
# What runs in a process of its own: arguments and result are JSON.
Measurement = Callable[..., dict[str, Any]]
# Seconds after which a measurement has failed; nobody may be there to end it.
LONGEST = 3_600


def measure(kind: str, /, **arguments: Any) -> dict[str, Any]:
    """What one kind of measurement finds in a process of its own; what goes wrong there is shown."""
    command = [sys.executable, sys.argv[0], "--measure", kind, json.dumps(arguments, default=str)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=LONGEST)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def asked(measures: Mapping[str, Measurement]) -> bool:
    """Makes the measurement for which `measure` has started this process, if that is what it was started for."""
    if sys.argv[1:2] != ["--measure"]:
        return False
    print(json.dumps(measures[sys.argv[2]](**json.loads(sys.argv[3]))))
    return True


def kinds_in_turns(measurement: str, kinds: Sequence[str], *, rounds: int, **arguments: Any) -> dict[str, list[float]]:
    """The seconds of every kind of a measurement, once a round and each in a process of its own."""
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, seconds in found.items():
            seconds.append(measure(measurement, kind=kind, **arguments)["seconds"])
    return found


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
