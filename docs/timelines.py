"""Draws the timelines of guide/windows-and-time.md from what mlforge computes: python docs/timelines.py.

Each is one entity: its events as dots, and the value of a window at every instant as steps.
"""

import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import polars as pl

import mlforge as mlf
from mlforge.store import LocalStore

IMAGES = Path(__file__).parent / "images"
FIRST, LAST = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 8, tzinfo=UTC)
EVENTS = [
    (datetime(2026, 1, 1, 9, tzinfo=UTC), 10.0),
    (datetime(2026, 1, 2, 15, tzinfo=UTC), 20.0),
    (datetime(2026, 1, 4, 12, tzinfo=UTC), 40.0),
]
# Grey and orange are readable on white and on black.
GREY, ORANGE = "#888888", "#e8632b"


def values(moments: Sequence[datetime], known: timedelta | None = None, **settings: Any) -> list[float | None]:
    """The sum of a window of two days at each moment, as a training set has it."""
    events = pl.DataFrame(EVENTS, schema=["ts", "amount"], orient="row").with_columns(user=pl.lit("ann"))
    if known is not None:
        late = pl.col("amount") == EVENTS[1][1]
        events = events.with_columns(known_at=pl.when(late).then(pl.col("ts") + known).otherwise("ts"))
        settings["available_at"] = "known_at"
    with tempfile.TemporaryDirectory() as folder:
        events.write_parquet(f"{folder}/events.parquet")

        @mlf.feature(
            keys=["user"],
            source=f"{folder}/events.parquet",
            timestamp="ts",
            metrics=[mlf.Rolling(windows=["2d"], aggregations={"amount": ["sum"]})],
            **settings,
        )
        def spend(df: pl.LazyFrame) -> pl.LazyFrame:
            return df

        defs = mlf.Definitions(name="timeline", features=[spend], store=LocalStore(f"{folder}/store"))
        defs.build()
        labels = pl.DataFrame({"user": ["ann"] * len(moments), "t": moments})
        return defs.get_training_data(["spend"], labels, timestamp="t")["amount__sum__2d"].to_list()


def draw(name: str, lines: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """One picture with a row of steps for each line."""
    moments = [FIRST + timedelta(minutes=10 * n) for n in range(int((LAST - FIRST) / timedelta(minutes=10)) + 1)]
    figure, axes = plt.subplots(len(lines) + 1, 1, figsize=(8, 1 + 1.5 * len(lines)), sharex=True, layout="constrained")
    figure.patch.set_alpha(0)
    for axis in axes:
        axis.patch.set_alpha(0)
        axis.tick_params(colors=GREY)
        axis.grid(axis="x", color=GREY, alpha=0.35)
        for side, spine in axis.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(GREY)
    axes[0].set_yticks([])
    axes[0].set_title("events", loc="left", color=GREY, fontsize=10)
    axes[0].set_ylim(-1, 2)
    for moment, amount in EVENTS:
        axes[0].plot([moment], [0], "o", color=ORANGE)
        axes[0].annotate(f"{amount:g}", (moment, 0.4), color=GREY, ha="center", va="bottom")
    for axis, (title, settings) in zip(axes[1:], lines, strict=True):
        axis.step(
            moments, [float("nan") if v is None else v for v in values(moments, **settings)], where="post", color=ORANGE
        )
        axis.set_title(title, loc="left", color=GREY, fontsize=10)
        axis.set_ylim(-5, 70)
        axis.set_yticks([0, 30, 60])
    axes[-1].xaxis.set_major_locator(mdates.DayLocator())
    axes[-1].xaxis.set_major_formatter(mdates.DateFormatter("%d Jan"))
    axes[-1].set_xlim(FIRST, LAST)
    figure.savefig(IMAGES / f"timeline-{name}.svg", metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Draws all of them."""
    mpl.use("svg")
    # Text as text, and the same names inside the file each time.
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "mlforge", "font.family": "sans-serif"})
    draw(
        "windows",
        [
            ("amount__sum__2d, no interval: an event counts right after it, for two days", {}),
            ('amount__sum__2d, interval="1d": values move at midnight', {"interval": "1d"}),
        ],
    )
    draw(
        "late",
        [
            ("known when they happen", {}),
            ("the 20 is known a day and a half later", {"known": timedelta(hours=36)}),
        ],
    )


if __name__ == "__main__":
    os.environ.setdefault("TZ", "UTC")
    main()
