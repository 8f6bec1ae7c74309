"""`mlforge inspect`: what there is to know about a feature."""

from datetime import datetime
from math import ceil
from typing import TYPE_CHECKING, Any

from cyclopts import App

from mlforge.cli import output
from mlforge.cli.features import block, definition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlforge.features import Feature
    from mlforge.inspection import Built, Inspection
    from mlforge.profile import ColumnProfile

EXAMPLES = """Examples:
  mlforge inspect user_spend
  mlforge inspect user_spend --at 2018-01-01 --version 1.0.3
  mlforge inspect user_spend --json"""
WORDS = {"column", "type", "most frequent", "histogram"}
EMPTY, BARS = "▁", "▂▃▄▅▆▇█"


def register(app: App) -> None:
    """Adds the command."""
    app.command(inspect, usage="Usage: mlforge inspect FEATURE [OPTIONS]", help_epilogue=EXAMPLES)


def inspect(
    feature: str,
    /,
    *,
    version: str | None = None,
    at: str | None = None,
    definitions: str | None = None,
    json: bool = False,
) -> int:
    """Show a feature: its definition, its table, what is online, and what its values are like.

    Profiled are the values that hold at one instant, one for each entity, as they are served: over all rows of the
    table an entity with many changes would count more than one with few. The histograms have ten equal parts from the
    least to the greatest value.

    Args:
        feature: The name of the feature.
        version: Which version of the table, as in 1.0.3; by default the newest.
        at: The instant of which the values are profiled, in ISO 8601; by default the as_of of the Definitions, or
            else now.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print one JSON object.
    """
    with output.working(f"inspecting {feature}"):
        from mlforge import loader

        defs = loader.find(definitions)
        found = defs.inspect(feature, at=at, version=version)
    if json:
        output.write_json(_plain(found))
    else:
        _show(found, defs.feature(feature))
    return 0


def _plain(found: "Inspection") -> dict[str, Any]:
    from dataclasses import asdict

    plain = asdict(found)
    if found.online is not None and found.online.age is not None:
        plain["online"]["age"] = found.online.age.total_seconds()
    return plain


def _show(found: "Inspection", feature: "Feature") -> None:
    built = found.built
    checks = [
        name if check.severity == "error" else f"{name} ({check.severity})" for name, check in feature.checks.items()
    ]
    listed = definition(feature, None) if built is None else definition(feature, built.version, built.columns)
    lines = {"checks": "; ".join(checks)}
    if built is not None:
        between = "" if built.first is None else f", from {_text(built.first)} to {_text(built.last)}"
        lines["table"] = f"{built.rows:,} rows of {built.entities:,} entities{between}"
        lines["where"] = built.location
        lines["stored"] = "" if set(built.columns) == set(listed["columns"]) else ", ".join(built.columns)
        lines["changed"] = "" if built.current else "the definition is another one than when this was built"
    lines["online"] = _online(found)
    output.write(block(listed, lines))
    if built is not None and not built.visible:
        output.write(f"\nNo entity has a value at {_text(built.at)}.")
    elif built is not None:
        output.write(f"\nThe values that hold at {_text(built.at)}, of {built.visible:,} entities:")
        _profiles(built)


def _online(found: "Inspection") -> str:
    online = found.online
    if online is None:
        return found.problem
    if online.state == "absent":
        return "nothing"
    if online.version is None or online.as_of is None:
        return "written by hand, not by a build"
    return (
        f"{online.version} as of {_text(online.as_of)} ({str(online.age).split('.')[0]} ago), {online.state}, "
        f"{online.rows:,} entities"
    )


def _profiles(built: "Built") -> None:
    """What all columns have; then how numbers are spread; then, since each is as wide as three numbers, times."""
    spread = [column for column in built.profile if column.quantiles]
    times = [column for column in spread if column.dtype.startswith("Date")]
    numbers = [column for column in spread if column not in times]
    texts = any(column.top for column in built.profile)
    _table([_row(column, texts=texts) for column in built.profile])
    _table([_spread(column, tuple(column.quantiles)) for column in numbers])
    _table([_spread(column, ("min", "50%", "max")) for column in times])


def _table(rows: list[dict[str, str]]) -> None:
    if rows:
        output.write("")
        output.write_table(rows, numbers=rows[0].keys() - WORDS)


def _row(column: "ColumnProfile", *, texts: bool) -> dict[str, str]:
    row = {
        "column": column.column,
        "type": "Datetime" if column.dtype.startswith("Datetime") else column.dtype,
        "null": "-" if column.null_rate is None else f"{100 * column.null_rate:.3g}%",
        "distinct": f"{column.distinct:,}",
    }
    if texts:
        # As Python writes it, so that spaces and what cannot be printed are seen.
        row["most frequent"] = ", ".join(f"{str(value)[:30]!r} {rows:,}" for value, rows in column.top)
    return row


def _spread(column: "ColumnProfile", labels: "Sequence[str]") -> dict[str, str]:
    row = {"column": column.column}
    for label in labels:
        value = column.quantiles[label]
        row[label] = f"{value:%Y-%m-%dT%H:%MZ}" if isinstance(value, datetime) else _text(value)
    return row | {"histogram": _bars(column.histogram)}


def _bars(counts: "Sequence[int]") -> str:
    """A histogram in a line; the lowest bar is for a part without a value.

    >>> _bars([0, 1, 20])
    '▁▂█'
    """
    most = max(counts)
    return "".join(BARS[ceil(count / most * len(BARS)) - 1] if count else EMPTY for count in counts)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return output.moment(value.replace(microsecond=0))
    if isinstance(value, float):
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
    return str(value)
