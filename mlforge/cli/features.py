"""`mlforge list`: what there is."""

from typing import TYPE_CHECKING, Any, Literal

from cyclopts import App

from mlforge.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlforge.core import Definitions
    from mlforge.features import Feature
    from mlforge.source import Source

EXAMPLES = """Examples:
  mlforge list
  mlforge list sources
  mlforge list entities --json
  mlforge list sets"""


def register(app: App) -> None:
    """Adds the command."""
    app.command(list_, name="list", help_epilogue=EXAMPLES)


def list_(
    what: Literal["features", "sources", "entities", "sets"] = "features",
    /,
    *,
    definitions: str | None = None,
    json: bool = False,
) -> int:
    """List the features, the sources that they read, the entities that they are about, or sets of them.

    Features are shown with their keys, times, windows and source, the version that is built, and to which one it was
    rolled back; sources with whether they are there; entities as the columns that name them; sets with the columns
    and the version that they ask for.

    Args:
        what: features, sources, entities or sets.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print one JSON array.
    """
    with output.working("loading the definitions"):
        from mlforge import describe, loader

        defs = loader.find(definitions)
        features = defs.features.values()
        found: list[dict[str, Any]] = []
        if what == "features":
            found = [_listed(defs, feature) for feature in features]
        elif what == "sources":
            found = [_source(source, read_by) for source, read_by in describe.readers(features)]
        elif what == "sets":
            found = [describe.describe_set(one) for one in defs.sets]
        else:
            found = [{"keys": keys, "features": having} for keys, having in describe.entities(features)]
    if json:
        output.write_json(found)
    elif not found:
        output.write(f"{defs.name} has no {what}.")
    elif what == "features":
        output.write("\n\n".join(map(block, found)))
    else:
        output.write_table([_row(each) for each in found])
    return 0


def definition(feature: "Feature", version: str | None, stored: "Iterable[str]" = ()) -> dict[str, Any]:
    """A feature as it is listed: with the version that is built, and the stored columns where there are no metrics."""
    aggregations: dict[str, list[str]] = {}
    for made in feature.outputs:
        names = aggregations.setdefault(made.column, [])
        names += [made.aggregation] if made.aggregation not in names else []
    return {
        "feature": feature.name,
        "version": version,
        "keys": list(feature.keys),
        "timestamp": feature.timestamp,
        "interval": feature.interval,
        "windows": list(dict.fromkeys(made.window for made in feature.outputs)),
        "aggregations": aggregations,
        "columns": [made.name for made in feature.outputs] or list(stored),
        "max_age": feature.max_age,
        "available_at": feature.available_at,
        "engine": feature.engine,
        "source": _paths(feature.source),
        "description": feature.description,
        "tags": list(feature.tags),
        "owners": list(feature.owners),
    }


def block(feature: "Mapping[str, Any]", more: "Mapping[str, str] | None" = None) -> str:
    """A feature as a few lines: with its source and columns it is too wide for a row of a table."""
    aggregated = [f"{column}: {', '.join(names)}" for column, names in feature["aggregations"].items()]
    lines = {
        "": " ".join(feature["description"].split()),
        "keys": ", ".join(feature["keys"]),
        "time": feature["timestamp"] or "none: a snapshot",
        "interval": feature["interval"],
        "windows": ", ".join(feature["windows"]),
        "known at": feature["available_at"],
        "holds for": feature["max_age"],
        "columns": "; ".join(aggregated) or ", ".join(feature["columns"]),
        "source": ", ".join(feature["source"]),
        "engine": feature["engine"],
        "tags": ", ".join(feature["tags"]),
        "owners": ", ".join(feature["owners"]),
        **(more or {}),
    }
    restored = f", rolled back to {feature['restored']}" if feature.get("restored") else ""
    head = f"{feature['feature']}  {feature['version'] or 'not built'}{restored}"
    return "\n".join([head, *(f"  {f'{name:<10}' if name else ''}{text}" for name, text in lines.items() if text)])


def _listed(defs: "Definitions", feature: "Feature") -> dict[str, Any]:
    snapshot = defs.store.open(feature.name)
    if snapshot is None:
        return definition(feature, None) | {"restored": None}
    return definition(feature, snapshot.version, snapshot.value_schema) | {"restored": snapshot.record.restored}


def _paths(source: "Source | Feature") -> list[str]:
    from mlforge.describe import describe_source
    from mlforge.features import Feature

    if isinstance(source, Feature):
        return [f"feature {source.name}"]
    described = describe_source(source)
    return list(described.get("paths", [described["type"]]))


def _reference(one: dict[str, Any]) -> str:
    columns = f":{','.join(one['columns'])}" if one["columns"] else ""
    return f"{one['name']}{columns}{' ' + one['version'] if one['version'] else ''}"


def _source(source: "Source", read_by: list[str]) -> dict[str, Any]:
    """A source, and whether it is there: None where that cannot be told without reading it."""
    from mlforge.errors import DataError

    problem = None
    try:
        there = True if source.fingerprint() is not None else None
    except DataError as error:
        there, problem = False, str(error)
    return {"source": _paths(source), "features": read_by, "there": there, "problem": problem}


def _row(each: dict[str, Any]) -> dict[str, str]:
    if "name" in each:
        return {"set": each["name"], "features": ", ".join(map(_reference, each["features"]))}
    row = {name: ", ".join(value) for name, value in each.items() if isinstance(value, list)}
    if "there" in each:
        row["there"] = each["problem"] or ("yes" if each["there"] else "not looked at")
    return row
