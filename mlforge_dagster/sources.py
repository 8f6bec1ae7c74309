"""What features read as Dagster assets, and which version of it a build has read."""

import hashlib
import warnings
from collections.abc import Iterator

import dagster as dg

from mlforge.source import FileSource, Source
from mlforge_dagster.translator import op_name

DATA_VERSION, INPUT_DATA_VERSION = "dagster/data_version", "dagster/input_data_version"


def source_asset(spec: dg.AssetSpec, source: Source) -> dg.AssetSpec | dg.AssetsDefinition:
    """A source that can be observed, if it can tell whether its data has changed; else its spec alone.

    Making it reads nothing.
    """
    if not _tells(source):
        return spec

    def observe() -> Iterator[dg.ObserveResult]:
        found = version(source)
        yield dg.ObserveResult(asset_key=spec.key, data_version=None if found is None else dg.DataVersion(found))

    with warnings.catch_warnings():
        # Nothing else in Dagster can be observed, and has a version that changes without being built.
        warnings.simplefilter("ignore", dg.BetaWarning)
        made: dg.AssetsDefinition = dg.multi_observable_source_asset(
            name=f"observe__{op_name(spec.key)}", specs=[spec]
        )(observe)
        return made


def version(source: Source) -> str | None:
    """A hash of the fingerprint of a source, as the version of its data; None where it cannot tell.

    Raises:
        DataError: It cannot be read.
    """
    found = source.fingerprint()
    return None if found is None else hashlib.sha256(found.encode()).hexdigest()[:16]


def was_read(key: dg.AssetKey, version: str) -> dict[str, str]:
    """The tags of a materialisation that say at which version it has read what is upstream."""
    return {f"{INPUT_DATA_VERSION}/{key.to_user_string()}": version}


def _tells(source: Source) -> bool:
    if isinstance(source, FileSource):
        return not any("://" in path for path in source.paths)
    return type(source).fingerprint is not Source.fingerprint
