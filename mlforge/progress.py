"""How far a build is, told to whoever watches; where nobody does, nothing is counted."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T")
Phase = Literal["reading", "computing", "publishing", "syncing"]


class Watcher:
    """Is told what is being done to a feature; this one remembers no more than that.

    Attributes:
        counts: Whether it wants to know how many rows were read, for which a function is called with every batch.
        phase: What is being done; empty before anything is.
    """

    counts = False
    phase: Phase | Literal[""] = ""

    def begin(self, phase: Phase, unit: str, total: int | None) -> None:
        """Something is begun, or the same thing once more with a count of its own.

        Args:
            phase: What.
            unit: What is counted; empty: nothing is.
            total: How many there are; None where that is not known.
        """
        self.phase = phase

    def part(self, number: int, of: int) -> None:
        """The next part of it is begun, counted from 1."""

    def advance(self, count: int) -> None:
        """So many more are done; not always told by the same thread."""


_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Generator[None]:
    """While it lasts, the watcher is told what this thread does."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def begin(phase: Phase, unit: str = "", total: int | None = None) -> None:
    """As `Watcher.begin`."""
    if (watcher := _watcher.get()) is not None:
        watcher.begin(phase, unit, total)


def advance(phase: Phase, count: int) -> None:
    """As `Watcher.advance`; nothing where something else is being done."""
    if (watcher := _watcher.get()) is not None and watcher.phase == phase:
        watcher.advance(count)


def parts(items: Sequence[T]) -> Iterator[T]:
    """The same items, each of which is a part of the work."""
    for number, item in enumerate(items, start=1):
        if len(items) > 1 and (watcher := _watcher.get()) is not None:
            watcher.part(number, len(items))
        yield item


def counted(frame: "pl.LazyFrame") -> "pl.LazyFrame":
    """The same rows, counted as they are read."""
    watcher = _watcher.get()
    if watcher is None or not watcher.counts:
        return frame

    def count(batch: "pl.DataFrame") -> "pl.DataFrame":
        watcher.advance(len(batch))
        return batch

    return frame.map_batches(count, streamable=True, validate_output_schema=False)
