"""What was measured, as data: lines beside their bars, kept as JSON by script and section."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

BUILD = Path(__file__).parent.parent / "build"
# In the order of the table.
Topic = Literal[
    "reads", "writes", "syncs", "training sets", "builds", "windows", "memory", "Dagster", "Spark", "start-up"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table.

    Attributes:
        topic: What it belongs to.
        work: What was done.
        against: Who or what does the same work, with its version; empty where nobody does.
        beside: The figure of that, or what else is to be known.
        mlforge: mlforge's figure.
        unit: What the median and the bar are in; `x` for a ratio.
        at_least: Whether more is better.
        limit: The bar.
        median: The median of the rounds.
        low: The least of them.
        high: The most of them.
        reason: Why mlforge is slower there or misses its bar, where it does.
    """

    topic: Topic
    work: str
    against: str
    beside: str
    mlforge: str
    unit: str
    at_least: bool
    limit: float
    median: float
    low: float
    high: float
    reason: str

    @classmethod
    def of(
        cls,
        topic: Topic,
        work: str,
        found: Sequence[float],
        *,
        limit: float,
        mlforge: str = "",
        against: str = "",
        beside: str = "",
        unit: str = "x",
        at_least: bool = False,
        reason: str = "",
    ) -> Self:
        """A line about what was found, once a round.

        >>> Line.of("reads", "one entity", [0.9, 0.5, 0.7], limit=0.8, against="by hand").median
        0.7
        """
        return cls(
            topic=topic,
            work=work,
            against=against,
            beside=beside,
            mlforge=mlforge,
            unit=unit,
            at_least=at_least,
            limit=limit,
            median=statistics.median(found),
            low=min(found),
            high=max(found),
            reason=reason,
        )

    @property
    def met(self) -> bool:
        """Whether the median meets the bar."""
        return self.median >= self.limit if self.at_least else self.median <= self.limit

    @property
    def times_as_fast(self) -> tuple[float, float, float, float] | None:
        """Median, low, high and bar as how many times as fast mlforge is; None where nobody does the same work."""
        if not self.against or self.unit != "x":
            return None
        if self.at_least:
            return self.median, self.low, self.high, self.limit
        return 1 / self.median, 1 / self.high, 1 / self.low, 1 / self.limit

    @property
    def bar(self) -> str:
        """The bar in words."""
        return f"at {'least' if self.at_least else 'most'} {self.limit:,g} {self.unit}"

    @property
    def figure(self) -> str:
        """The median and, of more than one round, the range."""
        spread = f" ({_short(self.low)} to {_short(self.high)})" if self.low != self.high else ""
        return f"{_short(self.median)} {self.unit}{spread}"

    def as_json(self) -> dict[str, Any]:
        """What is kept of it."""
        return asdict(self) | {"met": self.met}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """What was kept."""
        return cls(**{name: value for name, value in found.items() if name != "met"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one section of a script.

    Attributes:
        script: The script, without `.py`.
        section: Which of its sections.
        date: When it began, as an ISO instant in UTC.
        machine: What it ran on.
        versions: Of what was measured.
        rounds: How often.
        rows: How many rows, entities or events were asked for.
        load: How many processes wanted a core in the minute before; None if nobody wrote that down.
        seconds: How long it took; None likewise.
        lines: What was found.
    """

    script: str
    section: str
    date: str
    machine: str
    versions: str
    rounds: int
    rows: int
    load: float | None
    seconds: float | None
    lines: tuple[Line, ...]

    def as_json(self) -> dict[str, Any]:
        """What is kept of it."""
        return asdict(self) | {"lines": [line.as_json() for line in self.lines]}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """What was kept."""
        return cls(**found | {"lines": tuple(Line.from_json(line) for line in found["lines"])})


def _short(number: float) -> str:
    return f"{number:.3g}" if number < 1_000 else f"{number:,.0f}"


def read(path: Path) -> list[Run]:
    """The runs in a file; none where there is no file."""
    if not path.exists():
        return []
    try:
        return [Run.from_json(run) for run in json.loads(path.read_text(), parse_constant=_no_number)]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise SystemExit(f"{path} holds no results: {error}. Delete it, and measure again.") from None


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no figure")


def newest(runs: Iterable[Run]) -> list[Run]:
    """The newest run of each section, where its first one stood."""
    by_section: dict[tuple[str, str], Run] = {}
    for run in runs:
        section = (run.script, run.section)
        if section not in by_section or run.date >= by_section[section].date:
            by_section[section] = run
    return list(by_section.values())


def write(path: Path, runs: Iterable[Run]) -> None:
    """Writes runs into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([run.as_json() for run in runs], indent=1, ensure_ascii=False) + "\n")
