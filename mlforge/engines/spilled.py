"""What a function returned, split by entity into files, so that no more than some entities are in memory at once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from mlforge import verdicts
from mlforge.engines import shape
from mlforge.features import RESERVED, Feature
from mlforge.memory import OWN
from mlforge.span import Span
from mlforge.storable import expression
from mlforge.verdicts import CheckResult
from mlforge.windows import MOMENTS, UNTILED

# So many as Polars writes at once.
SHARDS = 128
# Of each so many rows are gathered before they are written.
ROWS_AT_ONCE = 16_000
_SHARD, ROW = f"{RESERVED}shard", f"{RESERVED}row"


class Spilled:
    """The rows that a function returned, in a file for each shard of its entities.

    Args:
        feature: The feature.
        frame: What its function returned.
        folder: Where the files go.

    Raises:
        DefinitionError: The result does not have the columns that the definition names.
        DataError: A column is of a dtype that no store can hold.
    """

    def __init__(self, feature: Feature, frame: pl.LazyFrame, folder: Path) -> None:
        schema = frame.collect_schema()
        shape.require_columns(feature, schema)
        self._feature = feature
        self._schema = schema
        self._folder = folder / "shards"
        # In the form in which they are stored, in which two may be the same that are not before.
        keys = [
            expression(pl.col(key), schema[key], f"Feature {feature.name!r}: column {key!r}") for key in feature.keys
        ]
        self._entity = pl.struct(keys).hash()
        # Without checks nobody asks in which order they were.
        rows = frame.with_row_index(ROW) if feature.checks else frame
        rows.sink_parquet(
            pl.PartitionBy(
                self._folder,
                key=(self._entity % SHARDS).alias(_SHARD),
                include_key=False,
                approximate_bytes_per_file=None,
            ),
            compression="lz4",
            statistics=False,
            row_group_size=ROWS_AT_ONCE,
            mkdir=True,
        )
        # Of one shard there may be several files.
        self._rows = {place: _count(_scan(place)) for place in sorted(self._folder.glob("*"))}

    @property
    def height(self) -> int:
        """How many rows there are."""
        return sum(self._rows.values())

    def audit(self, part: Span | None) -> list[CheckResult]:
        """The verdicts of the feature's checks on the rows, or those of a part."""
        rows = _scan(*self._rows) if self._rows else pl.LazyFrame(schema={ROW: pl.UInt32, **self._schema})
        asked = rows if part is None else shape.within(rows, self._feature, part)
        return verdicts.run_lazily(self._feature.checks, asked, order=ROW, feature=self._feature.name)

    def frames(self, memory_limit: int) -> Iterator[pl.DataFrame]:
        """The rows, all of some entities at once, as many as can be computed in so many bytes; at least one frame."""
        at_once = self._at_once(memory_limit)
        places: list[Path] = []
        for place in self._rows:
            if places and sum(self._rows[each] for each in (*places, place)) > at_once:
                yield from self._read(places, at_once)
                places = []
            places.append(place)
        yield from self._read(places, at_once)

    def _read(self, places: list[Path], at_once: int) -> Iterator[pl.DataFrame]:
        if not places:
            yield pl.DataFrame(schema=self._schema)
            return
        # What has no key is all in one shard, and what is no event is only counted.
        rows = _scan(*places).select(self._schema.names())
        rows = rows.drop_nulls([*self._feature.keys, *shape.times(self._feature)])
        # More than one, where a shard is too large by itself.
        parts = -(-sum(self._rows[place] for place in places) // at_once)
        for part in range(parts):
            some = rows if parts == 1 else rows.filter(self._entity // SHARDS % parts == part)
            yield some.collect(engine="streaming")
        for place in places:
            shutil.rmtree(place)

    def _at_once(self, memory_limit: int) -> int:
        """How many rows can be computed at once."""
        width = 0.0
        if self._rows:
            sample = _scan(min(self._rows, key=self._rows.__getitem__)).head(ROWS_AT_ONCE).collect(engine="streaming")
            width = sample.estimated_size() / max(len(sample), 1)
        return max(int((memory_limit - OWN) / footprint(self._feature, width)), 1)


def footprint(feature: Feature, width: float) -> float:
    """How many bytes of memory an event takes while a feature is computed, by what was measured, rather too many.

    Args:
        feature: The feature.
        width: How many bytes its row has.
    """
    outputs = feature.outputs
    # A change point has a place among the events, and its values.
    heavy = any(output.aggregation in MOMENTS | UNTILED for output in outputs)
    point = 170 + 8 * len(outputs) + 130 * heavy
    # Of each event there is one where it comes, and one where it leaves each window.
    return 4 * width + point * (1 + len({output.window for output in outputs}))


def _scan(*places: Path) -> pl.LazyFrame:
    files = [file for place in places for file in sorted(place.iterdir())]
    return pl.scan_parquet(files, glob=False, hive_partitioning=False)


def _count(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect().item())
