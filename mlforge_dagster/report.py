"""Builds that Dagster did not run, told to a Dagster instance, so that its UI shows them as well."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import dagster as dg

from mlforge.build import BuildReport
from mlforge.core import Definitions
from mlforge.errors import CheckFailedError, RequestError, one_line
from mlforge_dagster import metadata
from mlforge_dagster.graph import Graph, Key
from mlforge_dagster.online_version import online_version
from mlforge_dagster.partitions import Partitions, built, chosen
from mlforge_dagster.sources import DATA_VERSION, was_read
from mlforge_dagster.translator import MlforgeTranslator

CODE_VERSION = "dagster/code_version"
Ended = BuildReport | CheckFailedError
# What Dagster calls the version of an asset of which it has heard nothing.
UNKNOWN = "INITIAL"


def report(
    defs: Definitions,
    reports: Iterable[Ended],
    *,
    instance: dg.DagsterInstance | None = None,
    translator: MlforgeTranslator | None = None,
    partitions: Mapping[str, Partitions] | None = None,
    sources: Mapping[str, Key] | None = None,
) -> None:
    """Tells a Dagster instance what builds did: materialisations, checks, versions.

    Call it right after the builds: what features read is told as of now. What was only looked at is left out.

    ```python
    report(defs, defs.build(online=True))
    ```

    Args:
        defs: The project that was built.
        reports: What its builds have returned, or raised where a check has failed.
        instance: The instance; by default the one that `DAGSTER_HOME` leads to.
        translator: The one that made the assets.
        partitions: As for `build_definitions`: those whose events were built as a whole are told of.
        sources: As for `build_definitions`.

    Raises:
        RequestError: `DAGSTER_HOME` is not set, or leads nowhere.
    """
    reporter(defs, instance=instance, translator=translator, partitions=partitions, sources=sources)(reports)


def reporter(
    defs: Definitions,
    *,
    instance: dg.DagsterInstance | None = None,
    translator: MlforgeTranslator | None = None,
    partitions: Mapping[str, Partitions] | None = None,
    sources: Mapping[str, Key] | None = None,
) -> Callable[[Iterable[Ended]], None]:
    """A `report` that is set up before the builds, as `mlforge build --report` wants it.

    Args:
        defs: The project that will be built.
        instance: As for `report`, as are `translator`, `partitions` and `sources`.
        translator: The one that made the assets.
        partitions: As for `build_definitions`: those whose events were built as a whole are told of.
        sources: As for `build_definitions`.

    Raises:
        RequestError: `DAGSTER_HOME` is not set, or leads nowhere.
    """
    try:
        told = dg.DagsterInstance.get() if instance is None else instance
    except (dg.DagsterError, OSError) as error:
        raise RequestError(f"Builds are told to the Dagster instance of DAGSTER_HOME: {one_line(error)}") from error
    return partial(_tell, defs, Graph(defs, translator, partitions=chosen(partitions), sources=sources), told)


def _tell(defs: Definitions, graph: Graph, told: dg.DagsterInstance, reports: Iterable[Ended]) -> None:
    """Tells of each build what Dagster would know of it, had it run it."""
    for each in reports:
        feature, spec = defs.feature(each.feature), graph.offline[each.feature]
        for result in each.results if isinstance(each, CheckFailedError) else each.checks:
            told.report_runless_asset_event(dg.AssetCheckEvaluation(**metadata.verdict(spec.key, result)))
        if isinstance(each, CheckFailedError):
            continue
        if each.outcome == "outdated" or (each.online is not None and each.online.dry_run):
            continue
        snapshot = defs.store.require(each.feature)
        read = graph.upstream[each.feature]
        if (seen := graph.seen(feature)) is not None:
            told.report_runless_asset_event(seen)
        shown = metadata.of_build(each, snapshot)
        tags = _versions(spec, each.version) | _read(read, _current(told, read))
        if spec.partitions_def is None:
            told.report_runless_asset_event(dg.AssetMaterialization(spec.key, metadata=shown, tags=tags))
        for key, window in built(spec, each.events):
            of_key = shown | metadata.of_partition(snapshot, window)
            told.report_runless_asset_event(
                dg.AssetMaterialization(spec.key, metadata=of_key, partition=key, tags=tags)
            )
        if each.online is not None and each.online.mode != "stale":
            there = graph.online[each.feature]
            told.report_runless_asset_event(
                dg.AssetMaterialization(
                    asset_key=there.key,
                    metadata=metadata.of_sync(each.online) | metadata.of_online_columns(snapshot, spec.key),
                    tags=_versions(there, online_version(feature, snapshot, each.online.version, each.online.as_of))
                    | _read(spec.key, each.online.version),
                )
            )


def _versions(spec: dg.AssetSpec, data_version: str) -> dict[str, str]:
    return {DATA_VERSION: data_version} | ({CODE_VERSION: spec.code_version} if spec.code_version else {})


def _read(key: dg.AssetKey, version: str) -> dict[str, str]:
    # By the version alone: Dagster wants to hear of the event that told it, too, and NULL is its word for none.
    return was_read(key, version) | {f"dagster/input_event_pointer/{key.to_user_string()}": "NULL"}


def _current(instance: dg.DagsterInstance, key: dg.AssetKey) -> str:
    """The version of an asset that Dagster knows last; as Dagster has it of an asset of which it knows none."""
    event = instance.get_latest_materialization_event(key)
    if event is not None and event.asset_materialization is not None:
        return (event.asset_materialization.tags or {}).get(DATA_VERSION, UNKNOWN)
    for record in instance.fetch_observations(key, limit=1).records:
        if record.asset_observation is not None:
            return record.asset_observation.tags.get(DATA_VERSION, UNKNOWN)
    return UNKNOWN
