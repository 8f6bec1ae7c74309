"""How far a command is, in a line on the terminal: what it does, how much of it is done, how fast, and what is left."""

import time
from collections.abc import Callable
from datetime import timedelta

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mlforge.progress import Phase, Watcher

BAR_WIDTH = 20
# Before so many seconds are over, a rate and what is left of the time say nothing.
SETTLED = 1.0


class Line(Watcher):
    """What a line says about the work that it watches.

    Args:
        what: What is done, before anything is known of it.
        clock: Gives seconds.
    """

    counts = True

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._spinner = Spinner("dots")
        self._unit, self._done = "", 0
        self._total: int | None = None
        self._part, self._of = 0, 1
        self._began = self._parts_began = self._counted = clock()

    def begin(self, phase: Phase, unit: str, total: int | None) -> None:
        """Counts from 0 again; parts go on where the same thing is begun once more."""
        if phase != self.phase:
            self._part, self._of = 0, 1
        super().begin(phase, unit, total)
        self._unit, self._done, self._total = unit, 0, total
        self._began = self._counted = self._clock()

    def part(self, number: int, of: int) -> None:
        """The time that is left is told from the parts that are done."""
        self._counted = self._clock()
        if number == 1:
            self._parts_began = self._counted
        self._part, self._of, self._done, self._total = number, of, 0, None

    def advance(self, count: int) -> None:
        """The rate and what is left are those of now until the next call, however long that takes."""
        self._done += count
        self._counted = self._clock()

    def live(self) -> Live:
        """It on stderr, as long as that context lasts."""
        return Live(console=Console(stderr=True), get_renderable=self._row, refresh_per_second=10, transient=True)

    @property
    def share(self) -> float | None:
        """How much of the whole is done, up to 1; None where nothing is, or that is not known."""
        share = min(self._done / self._total, 1.0) if self._total else 0.0
        return (max(self._part - 1, 0) + share) / self._of or None

    @property
    def numbers(self) -> str:
        """How much, how fast, and how long it takes yet."""
        parts = []
        if self._of > 1:
            parts.append(f"part {self._part} of {self._of}")
        if self._done or self._total:
            of = f" of {self._total:,}" if self._total else ""
            parts.append(f"{self._done:,}{of} {self._unit}" if self._done else f"{self._total:,} {self._unit}")
        took = self._counted - self._began
        if self._done and took >= SETTLED:
            parts.append(f"{self._done / took:,.0f} {self._unit}/s")
        began, share = self._began if self._of == 1 else self._parts_began, self.share
        if share and share < 1 and (took := self._counted - began) >= SETTLED:
            left = took / share - (self._clock() - began)
            parts.append(f"{timedelta(seconds=max(round(left), 0))} left")
        return ", ".join(parts)

    def _row(self) -> RenderableType:
        row = Table.grid(padding=(0, 1))
        cells: list[RenderableType] = [self._spinner, Text(self._what), Text(self.phase, style="bold")]
        if (share := self.share) is not None:
            cells.append(ProgressBar(total=1.0, completed=share, width=BAR_WIDTH))
        cells.append(Text(self.numbers, style="dim"))
        for _ in cells:
            row.add_column(no_wrap=True)
        row.add_row(*cells)
        return row
