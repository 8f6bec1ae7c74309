"""A project as Dagster definitions: sources, features, what is online of them, and what sets them off."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from mlforge.core import Definitions
from mlforge.engines import Engine
from mlforge.features import EngineName
from mlforge.online import OnlineStore
from mlforge_dagster.assets import offline_asset, online_asset
from mlforge_dagster.automation import require_fitting
from mlforge_dagster.engine import ENGINE, EngineResource, is_resource
from mlforge_dagster.graph import Graph, Key
from mlforge_dagster.online import ONLINE_STORE
from mlforge_dagster.partitions import Partitions, chosen
from mlforge_dagster.resources import RedisStoreResource
from mlforge_dagster.sources import source_asset
from mlforge_dagster.translator import MlforgeTranslator


def feature_assets(
    defs: Definitions,
    *,
    online_store: OnlineStore | RedisStoreResource | None = None,
    translator: MlforgeTranslator | None = None,
    partitions: Mapping[str, Partitions] | None = None,
    sources: Mapping[str, Key] | None = None,
    freshness: bool = True,
    engine: EngineResource | Engine | EngineName | None = None,
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
        engine: What runs the functions of features that name no engine, instead of the project's. A resource, which
            also says how much memory a build may take, has to be among the `resources` as `"engine"`. A translator's
            `get_step` goes before.

    Returns:
        The sources, which can be observed if they tell whether their data has changed, and for every feature an asset
        of its history and one of what is online of it. Making them reads nothing.

    Raises:
        DefinitionError: Two assets have the same key, a feature without timestamp is partitioned or by anything but
            time, or there is none of that name.
    """
    graph = Graph(
        defs,
        translator,
        online_store,
        partitions=chosen(partitions),
        sources=sources,
        freshness=freshness,
        engine=engine,
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
    engine: EngineResource | Engine | EngineName | None = None,
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
        engine: As for `feature_assets`; a resource is among the definitions' resources.
        jobs: Jobs beside.
        schedules: Schedules beside.
        sensors: Sensors beside.

    Raises:
        DefinitionError: As for `feature_assets`, a `feature_job` names a feature with partitions, or a job, schedule or
            sensor was made with another translator.
    """
    graph = Graph(
        defs,
        translator,
        online_store,
        partitions=chosen(partitions),
        sources=sources,
        freshness=freshness,
        engine=engine,
    )
    for each in (*jobs, *schedules, *sensors):
        require_fitting(each, graph)
    resources: dict[str, Any] = {ONLINE_STORE: online_store} if isinstance(online_store, RedisStoreResource) else {}
    resources |= {ENGINE: engine} if is_resource(engine) else {}
    assets = _assets(defs, graph)
    return dg.Definitions(assets=assets, resources=resources, jobs=jobs, schedules=schedules, sensors=sensors)


def _assets(defs: Definitions, graph: Graph) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [source_asset(spec, source) for spec, source in graph.sources]
    for feature in defs.features.values():
        assets.append(offline_asset(defs, graph, feature))
        if graph.online_store is not None:
            assets.append(online_asset(defs, graph, feature, graph.online_store))
    return assets
