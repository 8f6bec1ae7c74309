"""Features whose source is another feature: what they read, and in which order they are built."""

import hashlib
from collections.abc import Iterable, Mapping

import polars as pl

from mlforge.errors import DefinitionError, RequestError
from mlforge.features import Feature
from mlforge.source import FileSource, Source
from mlforge.store.base import Store
from mlforge.store.snapshot import Snapshot


class TableSource(Source):
    """The rows of a feature, as one version of its table holds them.

    Args:
        snapshot: The version.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def __repr__(self) -> str:
        return f"feature {self.snapshot.feature_name!r} {self.snapshot.version}"

    def scan(self) -> pl.LazyFrame:
        """Keys, timestamp and feature columns of the whole history."""
        return self.snapshot.scan()

    def parquet_files(self) -> list[str] | None:
        """The files of the version."""
        return self.snapshot.parquet_files()

    @property
    def storage_options(self) -> Mapping[str, str] | None:
        """Those of its store."""
        return self.snapshot.options

    def fingerprint(self) -> str:
        """The table and the files that its version has."""
        return f"{self.snapshot.table_id}:{self.snapshot.content}"


def source_of(feature: Feature, store: Store) -> Source:
    """What a feature reads: its source, or the newest version of the feature that is its source.

    Raises:
        RequestError: That one is not built.
        StoreError: Its table cannot be read.
    """
    if not isinstance(feature.source, Feature):
        return feature.source
    try:
        return TableSource(store.require(feature.source.name))
    except RequestError as error:
        error.add_note(f"(Feature {feature.name!r} reads it.)")
        raise


def identity(source: Source) -> str:
    """16 hex digits that stay for as long as a feature reads the same thing; of a source of one's own, its class."""
    if isinstance(source, TableSource):
        text = f"feature {source.snapshot.feature_name}"
    elif isinstance(source, FileSource):
        text = repr(source)
    else:
        text = f"{type(source).__module__}.{type(source).__qualname__}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def in_order(features: Iterable[Feature], known: Mapping[str, Feature]) -> list[Feature]:
    """The features, each after those among them that it reads, otherwise as they were given.

    Args:
        features: What is built.
        known: All features of the project by name.

    Raises:
        DefinitionError: One reads a feature that the project does not have, or they read each other.
    """
    chosen = {feature.name: feature for feature in features}
    ordered: dict[str, Feature] = {}

    def add(feature: Feature, readers: tuple[str, ...] = ()) -> None:
        if feature.name in readers:
            raise DefinitionError(f"Features read each other in a circle: {', '.join(readers)}.")
        if isinstance(feature.source, Feature):
            # By name: in a notebook the source may have been made again since, also from what reads it.
            source = feature.source.name
            if source not in known:
                raise DefinitionError(
                    f"Feature {feature.name!r} reads {source!r}, which is none of the project's features: add it to "
                    f"features=[...]."
                )
            if source in chosen:
                add(chosen[source], (*readers, feature.name))
        ordered.setdefault(feature.name, feature)

    for feature in chosen.values():
        add(feature)
    return list(ordered.values())
