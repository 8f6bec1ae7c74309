"""A project as Dagster definitions: sources, features, what is online of them, and what sets them off."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import dagster as dg

from mlforge.core import Definitions
from mlforge.errors import DefinitionError, RequestError
from mlforge.instant import instant
from mlforge.online import OnlineStore
from mlforge_dagster.assets import offline_asset, online_asset
from mlforge_dagster.automation import require_unpartitioned
from mlforge_dagster.graph import Graph, Key
from mlforge_dagster.online import ONLINE_STORE
from mlforge_dagster.resources import RedisStoreResource
from mlforge_dagster.sources import source_asset
from mlforge_dagster.translator import MlforgeTranslator

# Partitions as Dagster has them, or a day in the first of months.
Partitions = dg.TimeWindowPartitionsDefinition | str | datetime


def feature_assets(
    defs: Definitions,
    *,
    online_store: OnlineStore | RedisStoreResource | None = None,
    translator: MlforgeTranslator | None = None,
    partitions: Mapping[str, Partitions] | None = None,
    sources: Mapping[str, Key] | None = None,
    freshness: bool = True,
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The assets of a project, for those who compose `dagster.Definitions` by hand.

    Args:
        defs: The project.
        online_store: Where values are served from, instead of `defs.online_store`. A resource has to be among the
            `resources` as `"online_store"`.
        translator: Makes the asset specs.
        partitions: By feature its partitions, or a day in the first of its months.
        sources: The keys of sources that are assets already (of dbt, dlt, or your own), by the last part of the key
            that they would have: the stem of the file.
        freshness: Whether a feature with an interval (and what is online of it) is to be materialised as often as
            that, an hour at least: Dagster warns after two intervals and says after three that it is not fresh. Not
            where the project has an `as_of`, since time stands still there, and not over a policy of the translator.

    Returns:
        The sources, which can be observed if they tell whether their data has changed, and for every feature an asset
        of its history and one of what is online of it. Making them reads nothing.

    Raises:
        DefinitionError: Two assets have the same key, a feature without timestamp is partitioned or by anything but
            time, or there is none of that name.
    """
    graph = Graph(
        defs, translator, online_store, partitions=_partitioned(partitions), sources=sources, freshness=freshness
    )
    return _assets(defs, graph)


def build_definitions(
    defs: Definitions,
    *,
    online_store: OnlineStore | RedisStoreResource | None = None,
    translator: MlforgeTranslator | None = None,
    partitions: Mapping[str, Partitions] | None = None,
    sources: Mapping[str, Key] | None = None,
    freshness: bool = True,
    jobs: Sequence[dg.JobDefinition] = (),
    schedules: Sequence[dg.ScheduleDefinition] = (),
    sensors: Sequence[dg.SensorDefinition] = (),
) -> dg.Definitions:
    """A project as `dagster.Definitions`; see `feature_assets`.

    ```python
    definitions = build_definitions(defs, online_store=RedisStoreResource(host="redis.internal"))
    ```

    Args:
        defs: The project.
        online_store: As for `feature_assets`; a resource is among the definitions' resources.
        translator: As for `feature_assets`, as are `partitions`, `sources` and `freshness`.
        partitions: By feature its partitions.
        sources: The keys of sources that are assets already.
        freshness: Whether there are freshness policies.
        jobs: Jobs beside.
        schedules: Schedules beside.
        sensors: Sensors beside.

    Raises:
        DefinitionError: As for `feature_assets`, or a `feature_job` names a feature with partitions.
    """
    graph = Graph(
        defs, translator, online_store, partitions=_partitioned(partitions), sources=sources, freshness=freshness
    )
    for each in (*jobs, *schedules):
        require_unpartitioned(each, graph.partitioned)
    resources = {ONLINE_STORE: online_store} if isinstance(online_store, RedisStoreResource) else {}
    assets = _assets(defs, graph)
    return dg.Definitions(assets=assets, resources=resources, jobs=jobs, schedules=schedules, sensors=sensors)


def _assets(defs: Definitions, graph: Graph) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [source_asset(spec, source) for spec, source in graph.sources]
    for feature in defs.features.values():
        assets.append(offline_asset(defs, graph, feature))
        if graph.online_store is not None:
            assets.append(online_asset(defs, graph, feature, graph.online_store))
    return assets


def _partitioned(given: Mapping[str, Partitions] | None) -> dict[str, dg.TimeWindowPartitionsDefinition]:
    """The partitions of features; of a day the months from its own to the running one, whose events are built too."""
    found = {}
    for name, partitions in (given or {}).items():
        if isinstance(partitions, str | datetime):
            try:
                first = instant(partitions)
            except RequestError as error:
                raise DefinitionError(f"The first month of partitions: {error}") from None
            partitions = dg.MonthlyPartitionsDefinition(start_date=f"{first:%Y-%m}-01", end_offset=1)
        if not isinstance(partitions, dg.TimeWindowPartitionsDefinition):
            raise DefinitionError(
                f"Partitions are dagster's, of time, or a day of the first month, not {partitions!r}."
            )
        found[name] = partitions
    return found
