"""What a feature is called in Dagster, and all else that a team may want to be otherwise."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Literal

import dagster as dg

from mlforge.definition import definition_hash
from mlforge.describe import describe_source
from mlforge.features import Feature
from mlforge.online.codec import CODEC_VERSION
from mlforge.source import FileSource, Source, without_credentials
from mlforge_dagster.engine import StepSettings

Kind = Literal["source", "offline", "online"]
# What keys of sources have before the name, so that a feature may be called as its file is.
SOURCES = "sources"
# What Dagster takes as a tag, and as an owner: an address or a team.
_TAG = re.compile(r"[A-Za-z0-9_]{1,63}")
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]*@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}|team:.+")
# What Dagster has an icon for, by the ending of a file; a Delta table is a folder.
_KINDS = {
    "": "deltalake",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".ndjson": "json",
    ".jsonl": "json",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetData:
    """What an asset is made of.

    Attributes:
        project: The name of the `mlforge.Definitions`.
        kind: `source`: what features read; `offline`: a feature's history; `online`: its values that hold now.
        feature: The feature; None for a source.
        source: The source; None for a feature.
    """

    project: str
    kind: Kind
    feature: Feature | None = None
    source: Source | None = None


class MlforgeTranslator:
    """Makes a Dagster asset spec of a source, a feature and what is online of it.

    Subclass it and override `get_asset_spec` to change keys, groups, tags, owners, descriptions, kinds, automation:

    ```python
    class Ours(MlforgeTranslator):
        def get_asset_spec(self, data):
            spec = super().get_asset_spec(data)
            return spec.replace_attributes(group_name="features", owners=["team:ml"])
    ```

    Override `get_step` to say how single features are computed, and what the pods or workers that do it ask for:

    ```python
    class Large(MlforgeTranslator):
        def get_step(self, data):
            pod = {"container_config": {"resources": {"requests": {"memory": "4Gi"}}}}
            return StepSettings(memory_limit="3GB", op_tags={"dagster-k8s/config": pod})
    ```

    Sources that are assets already (of dbt, dlt, or your own) are named in `sources` of `build_definitions` instead.
    """

    def get_asset_spec(self, data: AssetData) -> dg.AssetSpec:
        """The spec without dependencies, which mlforge adds: of an online asset on the offline one, and so on.

        Args:
            data: What the asset is made of.
        """
        # The name of the folder `/` is empty.
        project = identifier(data.project) or "mlforge"
        if data.source is not None:
            about = describe_source(data.source)
            shown = ", ".join(about.get("paths", [about["type"]]))
            return dg.AssetSpec(
                key=[project, SOURCES, source_name(data.source)],
                description=f"Read by features of {data.project}: {shown}.",
                kinds=source_kinds(data.source),
                group_name=project,
            )
        feature = data.feature
        if feature is None:
            raise ValueError("An asset is made of a source or of a feature.")
        online = data.kind == "online"
        what = f"The values of {feature.name} that hold now, for serving." if online else feature.description
        return dg.AssetSpec(
            key=[project, f"{feature.name}_online" if online else feature.name],
            description=what,
            kinds={"redis"} if online else {"polars", "deltalake"},
            group_name=project,
            tags={tag: "" for tag in map(identifier, feature.tags) if _TAG.fullmatch(tag)},
            owners=[owner for owner in feature.owners if _OWNER.fullmatch(owner)],
            code_version=str(CODEC_VERSION) if online else _code_version(feature),
            metadata=_metadata(feature),
        )

    def get_step(self, data: AssetData) -> StepSettings:
        """How the step of a feature, or of what is online of it, is run; by default as everything is.

        Args:
            data: What the asset is made of.
        """
        return StepSettings()


@cache
def _code_version(feature: Feature) -> str:
    """Once a process: jobs and sensors ask for the keys of all features again, and code is loaded only once."""
    return definition_hash(feature)


def _metadata(feature: Feature) -> dict[str, str]:
    shown = {"keys": ", ".join(feature.keys)}
    if feature.interval:
        shown["interval"] = feature.interval
    # What Dagster takes as neither, is still to be seen.
    for name, given in {
        "tags": [tag for tag in feature.tags if not _TAG.fullmatch(identifier(tag))],
        "owners": [owner for owner in feature.owners if not _OWNER.fullmatch(owner)],
    }.items():
        if given:
            shown[name] = ", ".join(given)
    return shown


def identifier(text: str) -> str:
    """A text as Dagster takes it in names.

    >>> identifier("our shop-2.0")
    'our_shop_2_0'
    """
    return re.sub(r"[^A-Za-z0-9_]", "_", text)


def op_name(key: dg.AssetKey) -> str:
    """What the step of an asset is called."""
    return "__".join(map(identifier, key.path))


def source_name(source: Source) -> str:
    """The last part of a source's key: the stem of its first file, or else its class.

    >>> source_name(FileSource("data/transactions/2026-*.parquet"))
    'transactions'
    >>> source_name(FileSource("https://host/events.parquet?sig=abc"))
    'events'
    """
    if not isinstance(source, FileSource):
        return identifier(type(source).__name__)
    parts = [part for part in PurePosixPath(_plain(source.paths[0])).parts if not set("*?[") & set(part)]
    return identifier(PurePosixPath(parts[-1]).stem) if parts else "files"


def source_kinds(source: Source) -> set[str]:
    """The icon of a source: the format of its files; none where the ending does not tell it.

    >>> source_kinds(FileSource("https://host/x.csv.gz?sig=abc.S3CRET"))
    {'csv'}
    """
    if not isinstance(source, FileSource):
        return {"python"}
    path = _plain(source.paths[0]).lower().removesuffix(".gz")
    kind = _KINDS.get(PurePosixPath(path).suffix)
    return set() if kind is None else {kind}


def _plain(path: str) -> str:
    """A path or URL without credentials and without the parameters of a signed URL."""
    return without_credentials(path).removesuffix("?***")
