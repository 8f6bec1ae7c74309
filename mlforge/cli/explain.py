"""`mlforge explain`: where the values of an entity come from."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from cyclopts import App

from mlforge.cli import output
from mlforge.cli.online import account, entity_keys, hint, shown, text

if TYPE_CHECKING:
    import polars as pl

    from mlforge.core import Definitions
    from mlforge.explain import Explanation

EXAMPLES = """Examples:
  mlforge explain user_spend user_id=123
  mlforge explain user_spend user_id=123 --at 2026-01-10T12:00:00Z
  mlforge explain user_spend user_id=123 --json"""
# So many rows are shown to people and to programs; of more, the first and the last half.
SHOWN, GIVEN = 10, 1000
NUMBERS = ("stored", "recomputed", "online", "events")


def register(app: App) -> None:
    """Adds the command."""
    app.command(explain, usage="Usage: mlforge explain FEATURE KEY=VALUE... [OPTIONS]", help_epilogue=EXAMPLES)


def explain(
    feature: str,
    /,
    *entity: str,
    at: str | None = None,
    definitions: str | None = None,
    json: bool = False,
) -> int:
    """Show the events behind the values of an entity, what is stored, and what is online.

    The feature's function is run again; from the entity's own rows its values are computed once more, in plain Python,
    and stand beside those that are stored offline for the instant. What is online is shown as it is, whatever the
    instant. The exit code is 1 where the entity has no value at the instant.

    Args:
        feature: The name of the feature.
        entity: The keys of the entity, as in user_id=123.
        at: The instant, in ISO 8601 (UTC unless it says otherwise); by default the as_of of the Definitions, or else
            now.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print one JSON object; of more than 1,000 events the first and the last 500.
    """
    with output.working("explaining"):
        from mlforge import loader

        defs = loader.find(definitions)
        found = defs.explain(feature, entity_keys(defs.feature(feature), entity), at=at)
    if json:
        output.write_json(_plain(found))
    else:
        _show(found, defs)
    return int(found.stored.values is None and found.recomputed.values is None)


def _plain(found: "Explanation") -> dict[str, Any]:
    from dataclasses import asdict

    first, last = _ends(found.recomputed.rows, GIVEN)
    rows = [*first.to_dicts(), *last.to_dicts()]
    return {
        "feature": found.feature,
        "entity": found.entity,
        "at": found.at,
        "boundary": found.recomputed.boundary,
        "stored": asdict(found.stored),
        "recomputed": found.recomputed.values,
        "differing": found.differing,
        "windows": {column: asdict(window) for column, window in found.recomputed.windows.items()},
        "rows": rows,
        "rows_left_out": len(found.recomputed.rows) - len(rows),
        "holds": found.recomputed.holds,
        "online": {"values": found.online.values, **account(found.online.status), "problem": found.online.problem},
        "remarks": found.remarks,
    }


def _show(found: "Explanation", defs: "Definitions") -> None:
    output.write(f"{found.feature}  {shown(found.entity)}  at {output.moment(found.at)}")
    for table in (_values(found), _windows(found), _rows(found, defs.feature(found.feature).timestamp)):
        if table:
            output.write("")
            output.write_table(table, numbers=NUMBERS)
    output.write("")
    if found.stored.version is not None:
        output.write(f"Stored: {_stored(found)}.")
    output.write(f"Online: {_online(found, defs)}")
    for remark in found.remarks:
        output.write(remark)


def _values(found: "Explanation") -> list[dict[str, str]]:
    """A row for each column of the feature, wherever it has a value."""
    stored, recomputed, online = (place.values or {} for place in (found.stored, found.recomputed, found.online))
    places = {"stored": stored, "recomputed": recomputed, "online": online}
    table = []
    for column in {**recomputed, **stored, **online}:
        cells = {"column": column}
        cells |= {name: _cell(values[column]) if column in values else "-" for name, values in places.items()}
        if found.differing:
            cells[""] = "differs" if column in found.differing else ""
        table.append(cells)
    return table


def _windows(found: "Explanation") -> list[dict[str, str]]:
    """A row for each length, since the windows of that length are the same for every column."""
    different = {window.length: window for window in found.recomputed.windows.values()}
    return [
        {
            "window": window.length,
            "from": output.moment(window.start),
            "before": output.moment(window.end),
            "events": f"{window.events:,}",
        }
        for window in different.values()
    ]


def _rows(found: "Explanation", timestamp: str | None) -> list[dict[str, str]]:
    """A row for each event, the first and the last where there are many, and what it counts for."""
    rows, holds = found.recomputed.rows, found.recomputed.holds
    if timestamp is None and holds is not None:
        # It is what is recomputed.
        return []
    first, last = _ends(rows, SHOWN)
    lengths = {window.length: window.start for window in found.recomputed.windows.values()}
    table = []
    for number, row in enumerate([*first.to_dicts(), *last.to_dicts()]):
        cells = {name: _cell(value) for name, value in row.items() if name not in found.entity}
        inside = [f"in {length}" for length, start in lengths.items() if start <= row[timestamp or ""]]
        # Under a heading that no column has.
        cells[""] = "holds" if number == holds else ", ".join(inside)
        if number == len(first) and last.height:
            table.append(dict.fromkeys(cells, "..."))
        table.append(cells)
    return table


def _ends(rows: "pl.DataFrame", number: int) -> "tuple[pl.DataFrame, pl.DataFrame]":
    return (rows.head(number // 2), rows.tail(number // 2)) if len(rows) > number else (rows, rows.clear())


def _cell(value: Any) -> str:
    return output.moment(value) if isinstance(value, datetime) else text(value)


def _stored(found: "Explanation") -> str:
    if found.stored.values is None:
        return f"version {found.stored.version} has no row of this entity for this instant"
    since = "" if found.stored.since is None else f", a row that holds from {output.moment(found.stored.since)} on"
    return f"version {found.stored.version}{since}"


def _online(found: "Explanation", defs: "Definitions") -> str:
    online = found.online
    if online.problem or defs.online_store is None:
        return online.problem
    what = "nothing of this entity. " if online.values is None else ""
    return what + hint(found.feature, defs.online_store, online.status)
