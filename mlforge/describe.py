"""A project as plain data, to be compared, kept, or shown by other programs: the same in every process."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from mlforge.definition import definition_hash
from mlforge.features import Feature
from mlforge.references import FeatureSet, references
from mlforge.source import FileSource, Source, without_credentials

# Raised whenever the same project would be described in another form.
FORMAT = 1


def describe(name: str, features: Iterable[Feature], sets: Iterable[FeatureSet]) -> dict[str, Any]:
    """What a project defines, as lists, dicts, texts and numbers that JSON knows; nothing is read for it.

    Features, sets, sources and entities are sorted, so that it makes no difference where in the code a feature stands.
    Stores are left out, since they are other ones wherever a project runs, and so are credentials.
    """
    named = sorted(features, key=lambda feature: feature.name)
    sources = [{**describe_source(source), "features": read_by} for source, read_by in readers(named)]
    return {
        "format": FORMAT,
        "name": name,
        "sources": sorted(sources, key=lambda source: (source["type"], source.get("paths", []), source["features"])),
        "entities": [{"keys": keys, "features": having} for keys, having in entities(named)],
        "features": [describe_feature(feature) for feature in named],
        "sets": [describe_set(one) for one in sorted(sets, key=lambda one: one.name)],
    }


def describe_set(named: FeatureSet) -> dict[str, Any]:
    """A set with what it asks for of each feature; without columns all of them."""
    return {
        "name": named.name,
        "description": named.description,
        "features": [
            {"name": one.name, "columns": one.columns and list(one.columns), "version": one.version}
            for one in references(named)
        ],
    }


def describe_feature(feature: Feature) -> dict[str, Any]:
    """What a feature is; without metrics, its columns are only known once it is built."""
    source = feature.source
    return {
        "name": feature.name,
        "description": feature.description,
        "keys": list(feature.keys),
        "source": {"feature": source.name} if isinstance(source, Feature) else describe_source(source),
        "timestamp": feature.timestamp,
        "interval": feature.interval,
        "outputs": [{"name": made.name, **asdict(made)} for made in feature.outputs],
        "max_age": feature.max_age,
        "available_at": feature.available_at,
        # Only where it is there, so that others are described as ever.
        **({} if feature.engine is None else {"engine": feature.engine}),
        "checks": [
            {"name": name, "severity": check.severity, "description": check.description}
            for name, check in feature.checks.items()
        ],
        "tags": list(feature.tags),
        "owners": list(feature.owners),
        "definition_hash": definition_hash(feature),
    }


def describe_source(source: Source) -> dict[str, Any]:
    """The kind of a source and, of files, the paths as they are written.

    Of a source of the project's own no more than its class: what it holds may be secret, or another text each time.
    """
    kind: dict[str, Any] = {"type": type(source).__name__}
    if isinstance(source, FileSource):
        kind["paths"] = [without_credentials(path) for path in source.paths]
    return kind


def readers(features: Iterable[Feature]) -> list[tuple[Source, list[str]]]:
    """The sources, each with the names of the features that read it; not the features that others read."""
    found: dict[Any, tuple[Source, list[str]]] = {}
    for feature in features:
        if isinstance(source := feature.source, Source):
            same = (type(source), source.paths) if isinstance(source, FileSource) else id(source)
            found.setdefault(same, (source, []))[1].append(feature.name)
    return list(found.values())


def entities(features: Iterable[Feature]) -> list[tuple[list[str], list[str]]]:
    """The key columns that name entities, each set once and sorted, with the names of the features that have them."""
    found: dict[tuple[str, ...], list[str]] = {}
    for feature in features:
        found.setdefault(tuple(sorted(feature.keys)), []).append(feature.name)
    return [(list(keys), found[keys]) for keys in sorted(found)]
