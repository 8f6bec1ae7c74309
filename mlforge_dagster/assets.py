"""Features as Dagster assets: each with its history offline, and downstream of it the values that hold now."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from mlforge.building import BuildRequest
from mlforge.core import Definitions
from mlforge.errors import CheckFailedError, DefinitionError, RequestError
from mlforge.features import Feature
from mlforge.online import OnlineStore
from mlforge.validate import validate
from mlforge.verdicts import CheckResult
from mlforge_dagster import metadata
from mlforge_dagster.checks import DESCRIPTIONS, IN_SYNC, PARITY, in_sync, parity
from mlforge_dagster.engine import ENGINE, engine_of, is_resource, limit_of
from mlforge_dagster.graph import Graph
from mlforge_dagster.online import CONFIG_FIELDS, OnlineConfig, keeps_status, online_store_of, resource_keys, written
from mlforge_dagster.online_version import online_version
from mlforge_dagster.partitions import built
from mlforge_dagster.resources import RedisStoreResource
from mlforge_dagster.sources import DATA_VERSION, was_read
from mlforge_dagster.translator import identifier, op_name

Result = dg.MaterializeResult[Any] | dg.AssetCheckResult


def offline_asset(defs: Definitions, graph: Graph, feature: Feature) -> dg.AssetsDefinition:
    """The history of a feature, built by `Definitions.build`, with one asset check for each of its checks.

    A check of severity error blocks: where it fails nothing is published, and what is downstream is left as it is.
    """
    spec, step = graph.offline[feature.name], graph.step("offline", feature)
    checks = [
        dg.AssetCheckSpec(
            identifier(name),
            asset=spec.key,
            description=check.description or name,
            blocking=check.severity == "error",
        )
        for name, check in feature.checks.items()
    ]

    def verdicts(context: dg.AssetExecutionContext, results: Sequence[CheckResult]) -> Iterator[dg.AssetCheckResult]:
        for result in results:
            if dg.AssetCheckKey(spec.key, identifier(result.name)) in context.selected_asset_check_keys:
                yield dg.AssetCheckResult(**metadata.verdict(spec.key, result))

    @dg.multi_asset(
        name=op_name(spec.key),
        specs=[spec],
        check_specs=checks,
        # What makes the verdicts optional as well: a build that is skipped has none.
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run() if spec.partitions_def else None,
        required_resource_keys={ENGINE} if is_resource(graph.engine) else set(),
        op_tags=step.op_tags,
        pool=step.pool,
    )
    def build(context: dg.AssetExecutionContext) -> Iterator[Result]:
        try:
            engine = engine_of(step, graph.engine, context)
            memory_limit = limit_of(step, graph.engine, context)
        except DefinitionError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        if spec.key not in context.selected_asset_keys:
            found = validate(feature, defs.engines.instead(engine))
            yield from verdicts(context, found.checks)
            if found.problem:
                raise dg.Failure(f"Feature {feature.name!r}: {found.problem}")
            return
        request = BuildRequest(engine=engine, memory_limit=memory_limit)
        if partitioned := context.has_partition_key_range or context.has_partition_key:
            window = context.partition_time_window
            request = replace(request, start=window.start, end=window.end)
        # Dagster takes the versions of what is upstream before a step begins; here it is what the build finds.
        seen, tags = graph.seen(feature), None
        if seen is not None:
            context.log_event(seen)
            tags = was_read(seen.asset_key, seen.tags[DATA_VERSION])
        try:
            [report] = defs.building([feature.name], request)
        except (CheckFailedError, DefinitionError, RequestError) as error:
            if isinstance(error, CheckFailedError):
                yield from verdicts(context, error.results)
            raise dg.Failure(str(error), allow_retries=False) from error
        snapshot = defs.store.require(feature.name)
        yield from verdicts(context, report.checks)
        # Reads the whole history.
        shown = metadata.of_build(report, snapshot)
        if partitioned:
            asked = set(context.partition_keys)
            # One run may build many, each of which is an event of its own.
            for key, each in built(spec, report.events):
                if key in asked:
                    context.add_asset_metadata(metadata.of_partition(snapshot, each), spec.key, partition_key=key)
                elif report.outcome == "built":
                    # All of it had to be built.
                    of_key, version = shown | metadata.of_partition(snapshot, each), {DATA_VERSION: report.version}
                    context.log_event(dg.AssetMaterialization(spec.key, metadata=of_key, partition=key, tags=version))
        yield dg.MaterializeResult(
            asset_key=spec.key,
            metadata=shown,
            data_version=dg.DataVersion(report.version),
            tags=tags,
        )

    return build


def online_asset(
    defs: Definitions, graph: Graph, feature: Feature, given: OnlineStore | RedisStoreResource
) -> dg.AssetsDefinition:
    """The values of a feature that hold now, kept by a sync: it reads the offline table itself."""
    spec, step = graph.online[feature.name], graph.step("online", feature)
    checks = [IN_SYNC, PARITY] if keeps_status(given) else [PARITY]

    @dg.multi_asset(
        name=op_name(spec.key),
        specs=[spec],
        check_specs=[dg.AssetCheckSpec(name, asset=spec.key, description=DESCRIPTIONS[name]) for name in checks],
        can_subset=True,
        required_resource_keys=resource_keys(given) | ({ENGINE} if is_resource(graph.engine) else set()),
        # As a parameter, Dagster would work it out anew for every feature.
        config_schema=CONFIG_FIELDS,
        op_tags=step.op_tags,
        pool=step.pool,
    )
    def write(context: dg.AssetExecutionContext) -> Iterator[Result]:
        online_store, config = online_store_of(given, context), OnlineConfig(**context.op_execution_context.op_config)
        chosen = spec.key in context.selected_asset_keys
        memory_limit = limit_of(step, graph.engine, context)
        report = written(defs, feature, online_store, config, memory_limit) if chosen else None
        snapshot = defs.store.require(feature.name)
        if report is not None:
            version = online_version(feature, snapshot, report.version, report.as_of)
            columns = metadata.of_online_columns(snapshot, graph.offline[feature.name].key)
            yield dg.MaterializeResult(
                asset_key=spec.key,
                metadata=metadata.of_sync(report) | columns,
                data_version=dg.DataVersion(version),
            )
        for name in checks:
            if dg.AssetCheckKey(spec.key, name) in context.selected_asset_check_keys:
                if name == IN_SYNC:
                    found = in_sync(feature, snapshot, online_store.status(feature.name), now=defs.now())
                else:
                    found = parity(feature, defs.store, online_store, now=defs.now())
                yield found._replace(asset_key=spec.key, check_name=name)

    return write
