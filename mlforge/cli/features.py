"""`mlforge list`: what there is."""

from typing import TYPE_CHECKING, Any

from cyclopts import App

from mlforge.cli import output

if TYPE_CHECKING:
    from mlforge.core import Definitions
    from mlforge.features import Feature

EXAMPLES = """Examples:
  mlforge list
  mlforge list --json"""


def register(app: App) -> None:
    """Adds the command."""
    app.command(list_features, name="list", help_epilogue=EXAMPLES)


def list_features(*, definitions: str | None = None, json: bool = False) -> int:
    """List the features: their keys, times, windows and source, and the version that is built.

    Args:
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print one JSON array.
    """
    with output.working("loading the definitions"):
        from mlforge import loader

        defs = loader.find(definitions)
        found = [_describe(defs, feature) for feature in defs.features.values()]
    if json:
        output.write_json(found)
    elif not found:
        output.write(f"{defs.name} has no features.")
    else:
        output.write("\n\n".join(map(_block, found)))
    return 0


def _describe(defs: "Definitions", feature: "Feature") -> dict[str, Any]:
    snapshot = defs.store.open(feature.name)
    columns = [made.name for made in feature.outputs]
    if not columns and snapshot is not None:
        columns = list(snapshot.value_schema)
    aggregations = {column: list(names) for metric in feature.metrics for column, names in metric.aggregations.items()}
    return {
        "feature": feature.name,
        "version": None if snapshot is None else snapshot.version,
        "keys": list(feature.keys),
        "timestamp": feature.timestamp,
        "interval": feature.interval,
        "windows": list(dict.fromkeys(window for metric in feature.metrics for window in metric.windows)),
        "aggregations": aggregations,
        "columns": columns,
        "source": _source(feature),
        "description": feature.description,
        "tags": list(feature.tags),
        "owners": list(feature.owners),
    }


def _source(feature: "Feature") -> list[str]:
    from mlforge.source import FileSource

    return list(feature.source.paths) if isinstance(feature.source, FileSource) else [repr(feature.source)]


def _block(feature: dict[str, Any]) -> str:
    """A feature as a few lines: with its source and columns it is too wide for a row of a table."""
    aggregated = [f"{column}: {', '.join(names)}" for column, names in feature["aggregations"].items()]
    lines = {
        "": " ".join(feature["description"].split()),
        "keys": ", ".join(feature["keys"]),
        "time": feature["timestamp"] or "none: a snapshot",
        "interval": feature["interval"],
        "windows": ", ".join(feature["windows"]),
        "columns": "; ".join(aggregated) or ", ".join(feature["columns"]),
        "source": ", ".join(feature["source"]),
        "tags": ", ".join(feature["tags"]),
        "owners": ", ".join(feature["owners"]),
    }
    head = f"{feature['feature']}  {feature['version'] or 'not built'}"
    return "\n".join([head, *(f"  {f'{name:<10}' if name else ''}{text}" for name, text in lines.items() if text)])
