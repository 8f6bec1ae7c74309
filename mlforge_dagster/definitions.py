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
    store = defs.online_store if online_store is None else online_store
    graph = _graph(defs, translator, partitions, sources, online=store is not None, freshness=freshness)
    return _assets(defs, graph, store)


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
    store = defs.online_store if online_store is None else online_store
    graph = _graph(defs, translator, partitions, sources, online=store is not None, freshness=freshness)
    for each in (*jobs, *schedules):
        require_unpartitioned(each, graph.partitioned)
    resources = {ONLINE_STORE: online_store} if isinstance(online_store, RedisStoreResource) else {}
    assets = _assets(defs, graph, store)
    return dg.Definitions(assets=assets, resources=resources, jobs=jobs, schedules=schedules, sensors=sensors)


def _graph(
    defs: Definitions,
    translator: MlforgeTranslator | None,
    partitions: Mapping[str, Partitions] | None,
    sources: Mapping[str, Key] | None,
    *,
    online: bool,
    freshness: bool,
) -> Graph:
    return Graph(
        defs,
        translator or MlforgeTranslator(),
        online=online,
        partitions={defs.feature(name).name: _partitions(each) for name, each in (partitions or {}).items()},
        sources=sources,
        freshness=freshness and defs.as_of is None,
    )


def _assets(
    defs: Definitions, graph: Graph, store: OnlineStore | RedisStoreResource | None
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [source_asset(spec, source) for spec, source in graph.sources]
    for feature in defs.features.values():
        assets.append(offline_asset(defs, graph, feature))
        if store is not None:
            assets.append(online_asset(defs, graph, feature, store))
    return assets


def _partitions(given: Partitions) -> dg.TimeWindowPartitionsDefinition:
    if isinstance(given, dg.TimeWindowPartitionsDefinition):
        return given
    if isinstance(given, str | datetime):
        return _months(given)
    raise DefinitionError(f"Partitions are dagster's, of time, or a day of the first month, not {given!r}.")


def _months(first: str | datetime) -> dg.MonthlyPartitionsDefinition:
    """The months from that of an instant to the running one: events of it are built as well."""
    try:
        start = instant(first)
    except RequestError as error:
        raise DefinitionError(f"The first month of partitions: {error}") from None
    return dg.MonthlyPartitionsDefinition(start_date=f"{start:%Y-%m}-01", end_offset=1)
