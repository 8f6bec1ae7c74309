"""Plots of how many times as fast mlforge is, a topic a file."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from results import Line, Topic

# Each has a contrast of 3 or more on white and on the dark grey of a page at night.
TEXT, MET, MISSED, BAR = "#7b7b83", "#2f86c9", "#d9701a", "#8a63c4"
SETTINGS = {
    "svg.fonttype": "none",
    # Without it the ids of an unchanged plot are others each time.
    "svg.hashsalt": "mlforge",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": TEXT,
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
}
LEGEND = [
    Line2D([], [], color=MET, marker="o", markersize=8, linewidth=3, label="median and range, bar met"),
    Line2D([], [], color=MISSED, marker="X", markersize=8, linewidth=3, label="bar missed"),
    Line2D([], [], color=BAR, marker="|", markersize=12, markeredgewidth=2, linestyle="", label="bar"),
]


def draw(topic: Topic, lines: Sequence[Line], folder: Path) -> Path:
    """Draws the lines of a topic that are ratios beside somebody; the file."""
    path = folder / f"bench-{topic.replace(' ', '-')}.svg"
    labels = [f"{fill(line.work, 50)}\nbeside {line.against}" for line in reversed(lines)]
    height = sum(0.2 * label.count("\n") + 0.4 for label in labels)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(9, 1.2 + height), layout="constrained")
        axes = figure.subplots()
        for place, line in enumerate(reversed(lines)):
            _mark(axes, place, line)
        axes.set_yticks(range(len(lines)), labels)
        _scale(axes, len(lines))
        figure.legend(handles=LEGEND, loc="outside lower center", ncols=len(LEGEND), frameon=False)
        figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    # The writer leaves blanks at the ends of lines.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))
    return path


def _mark(axes: Axes, place: int, line: Line) -> None:
    found = line.times_as_fast
    assert found is not None
    median, low, high, bar = found
    colour, marker = (MET, "o") if line.met else (MISSED, "X")
    axes.plot([low, high], [place, place], color=colour, linewidth=3, alpha=0.6)
    axes.plot([bar, bar], [place - 0.28, place + 0.28], color=BAR, linewidth=2)
    axes.plot(median, place, marker=marker, color=colour, markersize=8)
    axes.annotate(f"{median:.3g} x", (1.02, place), xycoords=("axes fraction", "data"), va="center", color=colour)


def _scale(axes: Axes, count: int) -> None:
    axes.set_ylim(-0.6, count - 0.4)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.4), max(high, 2.5))
    axes.axvline(1, color=TEXT, linewidth=1, linestyle=":", zorder=0)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} x"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("times as fast")
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
