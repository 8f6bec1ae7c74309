"""Change points of events that become visible later than they happen.

An event at `e` that is available at `a` enters a window at the later of the two, rounded up as in `points`, and leaves
it by its event time. So events come in another order than they go, and those inside a window at a change point are no
span of tiles. Instead each event is put down once for every change point at which it is inside: what belongs to a
change point then stands together, and is a span again.
"""

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from mlforge.duration import microseconds
from mlforge.metrics import Output, Rolling
from mlforge.windows.aggregates import Column, Spans, median, tiles_of
from mlforge.windows.plain import Plain
from mlforge.windows.points import Grid, grouped, wanted_columns

# So many events at change points are held in memory at once.
AT_ONCE = 4_000_000


def late_change_points(
    events: pl.DataFrame,
    *,
    keys: Sequence[str],
    timestamp: str,
    available_at: str,
    interval: str | None,
    metrics: Sequence[Rolling],
) -> pl.DataFrame:
    """As `change_points`, for events that are visible once their time and another one have passed.

    It takes as long as there are events in windows at change points: much longer than `change_points` where there is no
    interval.

    Args:
        events: As for `change_points`, with the column `available_at`, of the timestamp's dtype and without nulls; of
            events at one time the one that was known last is the last.
        keys: The entity key columns.
        timestamp: The column of the event times.
        available_at: The column of the times from which on an event is known.
        interval: What the ends of windows are multiples of; None: every instant.
        metrics: What is computed.

    Returns:
        As `change_points`; an event that is available only after it has left all windows makes its entity visible.

    Raises:
        DataError: As for `change_points`.
    """
    outputs = [output for metric in metrics for output in metric.outputs]
    windows = {output.window: microseconds(output.window) for output in outputs}
    grid = Grid.of(interval, list(windows))
    wanted = wanted_columns(outputs, events.schema)
    plain = Plain(events, keys, {timestamp: "at", available_at: "known"}, wanted)
    entities = plain.frame.select(plain.keys).unique().sort(plain.keys).with_row_index("entity")
    # Nothing is known before it happens.
    frame = (
        plain.frame.with_columns(known=pl.max_horizontal("at", "known"))
        .join(entities, on=plain.keys)
        .sort("entity", "at", "known", *plain.ties, nulls_last=False)
        .with_row_index("row")
        .with_columns(grid.tile_end(pl.col("at", "known").to_physical()))
        .with_columns(enters=grid.up(pl.max_horizontal("at", "known")))
        .with_columns(grid.up(pl.col("at") + length).alias(window) for window, length in windows.items())
    )
    columns = {
        name: Column(alias, frame[alias], wanted[name]) for name, alias in plain.columns.items() if name in wanted
    }
    leaves = tiles_of(frame.with_columns(id="row"), ["id"], columns.values())
    parts = [
        _values(part, frame, leaves, columns, outputs)
        for part in _in_parts(frame.select("entity", "row", "enters", *windows), windows)
    ]
    found = pl.concat(parts)
    return plain.named(timestamp, found, entities, found.to_dict(), outputs)


def _in_parts(frame: pl.DataFrame, windows: Mapping[str, int]) -> Iterator[pl.DataFrame]:
    """The events of some entities after the other, as many as can be put down at once, but whole entities."""
    longest = max(windows, key=lambda window: windows[window])
    inside = pl.max_horizontal(pl.col(longest) - pl.col("enters"), 0) > 0
    # No more change points are inside an event's longest window than the entity has events times windows and one.
    sizes = frame.group_by("entity").agg(size=inside.sum().cast(pl.Int64) * pl.len() * (len(windows) + 1))
    groups = sizes.sort("entity").select("entity", group=pl.col("size").cum_sum() // AT_ONCE)
    yield from frame.join(groups, on="entity", maintain_order="left").partition_by("group", include_key=False) or [
        frame
    ]


def _values(
    part: pl.DataFrame,
    frame: pl.DataFrame,
    leaves: pl.DataFrame,
    columns: Mapping[str, Column],
    outputs: Sequence[Output],
) -> pl.DataFrame:
    """The change points of some entities, with `entity`, `at` and the outputs."""
    by_window: dict[str, list[tuple[str, dict[str, Output]]]] = {}
    for (name, window), group in grouped(outputs).items():
        by_window.setdefault(window, []).append((name, group))
    changes = [part.select("entity", at="enters")]
    changes += [part.filter(pl.col(window) > pl.col("enters")).select("entity", at=window) for window in by_window]
    points = pl.concat(changes).unique().sort("entity", "at").with_row_index("point")
    values = [points["entity"], points["at"]]
    for window, groups in by_window.items():
        inside = _inside(part, points, window)
        spans = Spans(
            start=inside["point"].search_sorted(points["point"], side="left").cast(pl.Int64),
            stop=inside["point"].search_sorted(points["point"], side="right").cast(pl.Int64),
        )
        tiles = leaves[inside["row"]]
        for name, group in groups:
            column = columns[name]
            found = column.over(tiles, spans, frame[column.name], group)
            here = inside.select(entity="point", at=pl.lit(0, pl.Int64)).with_columns(
                frame[column.name].gather(inside["row"])
            )
            if "n_unique" in group:
                counted = here.drop_nulls(column.name).group_by("entity").agg(pl.col(column.name).n_unique())
                joined = points.join(counted, left_on="point", right_on="entity", how="left", maintain_order="left")
                found["n_unique"] = joined[column.name].fill_null(0).cast(pl.Int64)
            if "median" in group:
                found["median"] = median(here, column.name, points.select(entity="point", at=pl.lit(0, pl.Int64)), 1)
            values += [found[aggregation].alias(output.name) for aggregation, output in group.items()]
    return pl.DataFrame(values)


def _inside(part: pl.DataFrame, points: pl.DataFrame, window: str) -> pl.DataFrame:
    """Which events, as `row`, are inside a window at which change points, sorted by these and by row."""
    present = part.filter(pl.col(window) > pl.col("enters"))
    # Both are change points of the entity themselves, so that all between them are neighbours.
    first = present.join(points, left_on=["entity", "enters"], right_on=["entity", "at"], maintain_order="left")
    both = first.join(points, left_on=["entity", window], right_on=["entity", "at"], maintain_order="left")
    runs = pl.int_ranges(pl.col("point").cast(pl.Int64), pl.col("point_right").cast(pl.Int64))
    return (
        both.select("row", point=runs)
        .explode("point")
        .with_columns(pl.col("point").cast(pl.UInt32))
        .sort("point", "row")
    )
