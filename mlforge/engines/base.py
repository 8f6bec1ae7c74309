"""What an engine is: it runs a feature's function; what follows from the result is the same code for all."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl

from mlforge import progress, verdicts
from mlforge.engines import shape
from mlforge.engines.history import history, settled
from mlforge.engines.spilled import Spilled
from mlforge.errors import DataError, DefinitionError, one_line
from mlforge.features import EngineName, Feature, Frame
from mlforge.memory import Room
from mlforge.rows import Rows, RowsInMemory
from mlforge.source import Source, hidden
from mlforge.span import Span, needed
from mlforge.stage import RowsInFiles, Stage, Workplace
from mlforge.verdicts import CheckResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a feature's function returned, checked.

    Attributes:
        events: One row an event, or an entity: keys and timestamp without nulls, columns in storable dtypes.
        left_out: How many rows had no key or no timestamp.
        checks: The verdicts.
        schema: The columns that it returned.
    """

    events: pl.DataFrame
    left_out: int
    checks: Sequence[CheckResult]
    schema: Mapping[str, pl.DataType]


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """A feature's history, or the part that some events can change, and what was found on the way.

    Attributes:
        rows: Keys, timestamp (not for a snapshot) and feature columns in storable dtypes.
        left_out: How many rows had no key or no timestamp.
        checks: The verdicts, none of which keeps the rows from being published.
    """

    rows: Rows
    left_out: int
    checks: Sequence[CheckResult]


class Engine(ABC):
    """Runs the functions of features; by default on this machine.

    Attributes:
        name: What features call it.
    """

    name: EngineName

    @abstractmethod
    def run(self, feature: Feature, source: Source, span: Span | None = None, room: Room | None = None) -> Frame:
        """What a feature's function returns.

        Args:
            feature: The feature.
            source: What it reads.
            span: Only rows in it are asked for; None: all. Others may be among them where dtypes are no instants.
            room: What it may take, and where the rest goes; None: all of it fits into memory.

        Raises:
            DefinitionError: It returns something else than it should.
            DataError: The source cannot be read. What the function itself raises passes through, with a note.
        """

    def load(self, feature: Feature, source: Source, part: Span | None = None, *, checked: bool = True) -> Loaded:
        """Runs a feature's function over its source and its checks over the result.

        Args:
            feature: The feature.
            source: What it reads.
            part: Only these events are checked, and no more of the source is read than what they can change needs;
                None: all.
            checked: Whether checks are run.

        Raises:
            DefinitionError: The result is no frame or does not have the columns that the definition names.
            DataError: The source is missing, or, without a part, empty, or the data is not what the definition says.
        """
        found = self.examine(feature, source, part, checked=checked)
        if part is None:
            shape.require_events(feature, source, len(found.events) + found.left_out, len(found.events))
        return found

    def examine(self, feature: Feature, source: Source, part: Span | None = None, *, checked: bool = True) -> Loaded:
        """As `load`, of a source that may well be empty."""
        progress.begin("reading", "rows")
        frame = self.run(feature, source, None if part is None else needed(feature, part))
        if isinstance(frame, pl.LazyFrame):
            with reading(feature, source):
                frame = progress.counted(frame).collect(engine="streaming")
        shape.require_columns(feature, frame.schema)
        asked = frame if part is None else shape.within(frame, feature, part)
        results = verdicts.run(feature.checks, asked, feature=feature.name) if checked else []
        events = settled(feature, frame)
        return Loaded(events=events, left_out=len(frame) - len(events), checks=results, schema=frame.schema)

    def compute(
        self, feature: Feature, source: Source, part: Span | None, workplace: Workplace, memory_limit: int | None = None
    ) -> Computed:
        """Runs a feature's function over its source, its checks over the result, and its windows over the events.

        Args:
            feature: The feature.
            source: What it reads.
            part: Only the rows that can change where these events do are computed, from no more of the source than
                that needs; only these events are checked. None: all.
            workplace: Where rows go that do not fit into memory.
            memory_limit: How many bytes may be taken; None: what there is.

        Raises:
            DefinitionError: As for `load`.
            DataError: As for `load`.
            CheckFailedError: A check of severity error failed.
        """
        if memory_limit is not None:
            progress.begin("reading", "rows")
            room = Room(folder=workplace.scratch, memory_limit=memory_limit)
            frame = self.run(feature, source, None if part is None else needed(feature, part), room)
            with reading(feature, source):
                spilled = Spilled(feature, progress.counted(frame.lazy()), workplace.scratch)
            return _in_shards(spilled, feature, source, part, workplace.local, memory_limit)
        loaded = self.load(feature, source, part)
        verdicts.require(loaded.checks, feature=feature.name)
        progress.begin("computing", "rows", len(loaded.events))
        rows = history(feature, loaded.events, part)
        return Computed(rows=RowsInMemory(rows, feature.timestamp), left_out=loaded.left_out, checks=loaded.checks)


def _in_shards(
    spilled: Spilled, feature: Feature, source: Source, part: Span | None, stage: Stage, memory_limit: int
) -> Computed:
    checks = spilled.audit(part)
    verdicts.require(checks, feature=feature.name)
    progress.begin("computing", "rows", spilled.height)
    count = 0
    schema: Mapping[str, pl.DataType] = {}
    for frame in spilled.frames(memory_limit):
        events = settled(feature, frame)
        rows = history(feature, events, part)
        stage.write(rows)
        count, schema = count + len(events), rows.schema
        progress.advance("computing", len(frame))
    if part is None:
        shape.require_events(feature, source, spilled.height, count)
    return Computed(rows=RowsInFiles(stage, schema), left_out=spilled.height - count, checks=checks)


@contextmanager
def running(feature: Feature, source: Source) -> Generator[None]:
    """What a function raises passes through, with the feature's name in a note, unless it shows what is hidden."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, OSError | pl.exceptions.PolarsError) and hidden(str(error), source) != str(error):
            raise failed(feature, source, error) from None
        if not isinstance(error, DataError):
            error.add_note(f"This happened while running feature {feature.name!r}, which reads {source!r}.")
        raise


@contextmanager
def reading(feature: Feature, source: Source) -> Generator[None]:
    """Says what went wrong while what a function has planned was done, in one line and without what is hidden."""
    with running(feature, source):
        try:
            yield
        except (OSError, pl.exceptions.PolarsError) as error:
            # A traceback would not lead to the function, but show what is hidden here.
            raise failed(feature, source, error) from None


def scanned(source: Source) -> pl.LazyFrame:
    """A source as a Polars frame.

    Raises:
        DefinitionError: It gives something else.
        DataError: It cannot be read.
    """
    frame = source.scan()
    if not isinstance(frame, pl.LazyFrame):
        raise DefinitionError(f"scan() of {source!r} returns {type(frame).__name__}, not a LazyFrame.")
    return frame


def failed(feature: Feature, source: Source, error: Exception) -> DataError:
    """Says in one line, without what is hidden, that a feature cannot be run."""
    return DataError(f"Feature {feature.name!r}, which reads {source!r}: {one_line(hidden(str(error), source))}")
