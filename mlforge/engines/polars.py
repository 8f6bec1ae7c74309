"""The engine that runs functions over Polars frames."""

import polars as pl

from mlforge.engines import shape
from mlforge.engines.base import Engine, reading, running, scanned
from mlforge.errors import DefinitionError
from mlforge.features import EngineName, Feature, Frame
from mlforge.memory import Room
from mlforge.source import Source
from mlforge.span import Span


class PolarsEngine(Engine):
    """A function gets its source as a `LazyFrame`, and returns a `LazyFrame` or a `DataFrame`."""

    name: EngineName = "polars"

    def __repr__(self) -> str:
        return "PolarsEngine()"

    def run(self, feature: Feature, source: Source, span: Span | None = None, room: Room | None = None) -> Frame:
        """Of a `LazyFrame` the plan: where it filters, Polars leaves out what files hold besides."""
        frame = scanned(source)
        with running(feature, source):
            result = feature.function(frame)
        if not isinstance(result, pl.LazyFrame | pl.DataFrame):
            raise DefinitionError(
                f"Feature {feature.name!r}: the function returns {type(result).__name__}, not a LazyFrame or DataFrame."
            )
        with reading(feature, source):
            return result if span is None else shape.within(result, feature, span)
