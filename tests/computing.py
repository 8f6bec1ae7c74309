"""A feature's rows as an engine computes them, without a store."""

import tempfile
from pathlib import Path

import polars as pl

from mlforge import Feature
from mlforge.engines.polars import PolarsEngine
from mlforge.files import Folder
from mlforge.source import Source
from mlforge.span import Span
from mlforge.stage import Workplace


def rows_of(
    feature: Feature, source: Source, part: Span | None = None, memory_limit: int | None = None
) -> pl.DataFrame:
    """The rows, sorted by keys and timestamp."""
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder, "scratch"), Folder(path=f"{folder}/table"), feature.timestamp)
        with place:
            found = PolarsEngine().compute(feature, source, part, place, memory_limit).rows
            return pl.concat(list(found.batches())).sort(feature.index)
