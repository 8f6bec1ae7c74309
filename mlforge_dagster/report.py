"""Builds that Dagster did not run, told to a Dagster instance, so that its UI shows them as well."""

from collections.abc import Iterable

import dagster as dg

from mlforge.build import BuildReport
from mlforge.core import Definitions
from mlforge_dagster import metadata
from mlforge_dagster.checks import online_version
from mlforge_dagster.graph import Graph
from mlforge_dagster.translator import MlforgeTranslator, identifier

_CODE_VERSION, _DATA_VERSION = "dagster/code_version", "dagster/data_version"


def report(
    defs: Definitions,
    reports: Iterable[BuildReport],
    *,
    instance: dg.DagsterInstance | None = None,
    translator: MlforgeTranslator | None = None,
) -> None:
    """Tells a Dagster instance what builds did: materialisations, checks, versions.

    ```python
    report(defs, defs.build(online=True))
    ```

    Args:
        defs: The project that was built.
        reports: What its builds have returned.
        instance: The instance; by default the one that `DAGSTER_HOME` leads to.
        translator: The one that made the assets.
    """
    told = dg.DagsterInstance.get() if instance is None else instance
    graph = Graph(defs, translator or MlforgeTranslator(), online=defs.online_store is not None)
    for each in reports:
        feature, spec = defs.feature(each.feature), graph.offline[each.feature]
        for result in each.checks:
            told.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    asset_key=spec.key,
                    check_name=identifier(result.name),
                    passed=result.passed,
                    severity=metadata.SEVERITY[result.severity],
                    metadata=metadata.of_check(result),
                )
            )
        told.report_runless_asset_event(
            dg.AssetMaterialization(
                asset_key=spec.key,
                metadata=metadata.of_build(each, defs.store.require(each.feature)),
                tags={_DATA_VERSION: each.version, _CODE_VERSION: spec.code_version or ""},
            )
        )
        if each.online is not None and not each.online.dry_run and each.online.mode != "stale":
            online = graph.online[each.feature]
            version = online_version(feature, each.online.version, each.online.as_of)
            told.report_runless_asset_event(
                dg.AssetMaterialization(
                    asset_key=online.key,
                    metadata=metadata.of_sync(each.online),
                    tags={_DATA_VERSION: version, _CODE_VERSION: online.code_version or ""},
                )
            )
