"""Aggregates of many spans of rows at once, for whatever can be merged but not subtracted.

Both work one level at a time and on all spans together, and no value outside a span touches its result.
"""

from collections.abc import Callable
from typing import cast

import polars as pl

Merge = Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]


def fold(leaves: pl.DataFrame, start: pl.Series, stop: pl.Series, merge: Merge) -> pl.DataFrame:
    """The merged rows `start <= row < stop` of `leaves`, one row a span; all null where a span is empty.

    A segment tree: level `k` holds the merged pairs of level `k - 1`, and a span takes at most two nodes of each.

    Args:
        leaves: One state a row.
        start: First row of each span.
        stop: The row after its last.
        merge: Merges two frames of states row by row; associative and commutative; a row of nulls is neutral.
    """
    state = leaves.columns
    spans = pl.DataFrame({"span": pl.int_range(len(start), eager=True), "lo": start, "hi": stop})
    open_spans = spans.filter(pl.col("lo") < pl.col("hi"))
    open_spans = open_spans.hstack(_rows(leaves, pl.repeat(None, len(open_spans), dtype=pl.Int64, eager=True)))
    closed: list[pl.DataFrame] = [open_spans.clear()]
    nodes = leaves
    while len(open_spans):
        ends = open_spans.select(
            left=pl.when(pl.col("lo") % 2 == 1).then("lo"),
            right=pl.when(pl.col("hi") % 2 == 1).then(pl.col("hi") - 1),
        )
        merged = open_spans.select(state)
        for end in ends.get_columns():
            merged = merge(merged, _rows(nodes, end))
        spanned = open_spans.select("span", lo=(pl.col("lo") + 1) // 2, hi=pl.col("hi") // 2).hstack(merged)
        done = pl.col("lo") >= pl.col("hi")
        closed.append(spanned.filter(done))
        open_spans = spanned.filter(~done)
        evens = nodes.gather_every(2)
        odds = nodes.gather_every(2, offset=1)
        nodes = merge(evens, _rows(odds, pl.int_range(len(evens), eager=True).replace(len(odds), None)))
    return spans.select("span").join(pl.concat(closed), on="span", how="left", maintain_order="left").select(state)


def extreme(
    leaves: pl.Series, start: pl.Series, stop: pl.Series, pick: Callable[[pl.Series, pl.Series], pl.Expr]
) -> pl.Series:
    """The least or greatest of `leaves` from row `start` up to, not including, `stop`; null where there is none.

    A sparse table: level `k` holds the extreme of the `2**k` rows from each row on, and two of them that overlap
    cover a span.

    Args:
        leaves: One value a row; nulls are left out.
        start: First row of each span.
        stop: The row after its last.
        pick: `pl.min_horizontal` or `pl.max_horizontal`.
    """
    spans = pl.DataFrame({"span": pl.int_range(len(start), eager=True), "start": start, "stop": stop})
    wide = spans.filter(pl.col("start") < pl.col("stop"))
    wide = wide.with_columns(level=63 - (pl.col("stop") - pl.col("start")).bitwise_leading_zeros().cast(pl.Int64))
    found = pl.repeat(None, len(spans), dtype=leaves.dtype, eager=True)
    for level in range(cast("int", wide["level"].max()) + 1 if len(wide) else 0):
        here = wide.filter(pl.col("level") == level)
        head, tail = leaves.gather(here["start"]), leaves.gather(here["stop"] - (1 << level))
        found.scatter(here["span"], pl.select(pick(head, tail)).to_series())
        leaves = pl.select(pick(leaves, leaves.shift(-(1 << level)))).to_series()
    return found


def _rows(frame: pl.DataFrame, numbers: pl.Series) -> pl.DataFrame:
    return frame.select(pl.all().gather(numbers))
