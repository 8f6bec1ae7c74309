"""What sets features off: jobs, schedules, and a sensor that keeps online what offline says."""

import datetime as dt
from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from mlforge.core import Definitions
from mlforge.errors import DefinitionError
from mlforge.online import OnlineStore
from mlforge_dagster.checks import CADENCE, behind
from mlforge_dagster.graph import Graph
from mlforge_dagster.online import getter, keeps_status, resource_keys
from mlforge_dagster.resources import RedisStoreResource
from mlforge_dagster.translator import MlforgeTranslator, identifier

# Marks the runs of the sensor, so that it does not ask for one while another is under way.
RECONCILE = "mlforge/reconcile"


def feature_job(
    defs: Definitions,
    features: Sequence[str] | None = None,
    *,
    name: str | None = None,
    translator: MlforgeTranslator | None = None,
    online: bool = True,
) -> UnresolvedAssetJobDefinition:
    """A job that builds features and, in the same run, what is online of them.

    Args:
        defs: The project.
        features: Names; all features by default.
        name: The job's name.
        translator: The one that made the assets.
        online: Whether the online assets are part of it.
    """
    graph = Graph(defs, translator or MlforgeTranslator(), online=online)
    chosen = [feature.name for feature in defs.in_order(features)]
    keys = [graph.offline[each].key for each in chosen] + [graph.online[each].key for each in chosen if online]
    return dg.define_asset_job(name or f"{identifier(defs.name)}_features", dg.AssetSelection.assets(*keys))


def feature_schedule(
    defs: Definitions,
    cron: str,
    features: Sequence[str] | None = None,
    *,
    name: str | None = None,
    translator: MlforgeTranslator | None = None,
    online: bool = True,
    timezone: str = "UTC",
) -> dg.ScheduleDefinition:
    """A schedule of a `feature_job`; it is switched on in Dagster's UI.

    Args:
        defs: The project.
        cron: When, as in `"0 2 * * *"`.
        features: Names; all features by default.
        name: The job's name; the schedule is called after it.
        translator: The one that made the assets.
        online: Whether the online assets are part of it.
        timezone: The time zone of `cron`.
    """
    job = feature_job(defs, features, name=name, translator=translator, online=online)
    return dg.ScheduleDefinition(name=f"{job.name}_schedule", job=job, cron_schedule=cron, execution_timezone=timezone)


def online_reconcile_sensor(
    defs: Definitions,
    features: Sequence[str] | None = None,
    *,
    online_store: OnlineStore | RedisStoreResource | None = None,
    name: str | None = None,
    translator: MlforgeTranslator | None = None,
    cadence: dt.timedelta = CADENCE,
    minimum_interval_seconds: int = 30,
) -> dg.SensorDefinition:
    """A sensor that requests a run of the online assets that are not what they should be.

    It compares what is: the newest version of the table and the instant at which time next moves a window, with the
    status that is online. It remembers nothing, so that nothing is lost where it was off, a run failed, or several
    versions came between two looks. While a run that it has asked for is under way it asks for no other.

    Args:
        defs: The project.
        features: Names; all features by default.
        online_store: As for `feature_assets`, a resource among the `resources` included; it has to keep a status.
        name: The sensor's name.
        translator: The one that made the assets.
        cadence: How often features without an interval follow the time.
        minimum_interval_seconds: How often it looks.

    Raises:
        DefinitionError: There is no online store, or it keeps no status.
    """
    given = defs.online_store if online_store is None else online_store
    if given is None:
        raise DefinitionError("The sensor compares with an online store: give one, as in online_store=RedisStore().")
    if not keeps_status(given):
        raise DefinitionError(f"A {type(given).__name__} keeps no status, so nothing says when it is to be written.")
    graph = Graph(defs, translator or MlforgeTranslator(), online=True)
    chosen = defs.in_order(features)
    project = identifier(defs.name)

    @dg.sensor(
        name=name or f"{project}_online_reconcile",
        target=dg.AssetSelection.assets(*(graph.online[feature.name].key for feature in chosen)),
        minimum_interval_seconds=minimum_interval_seconds,
        required_resource_keys=resource_keys(given),
        description="Requests what is online where it is not what offline says, or time has moved a window.",
    )
    def reconcile(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tags = {RECONCILE: project}
        under_way = dg.RunsFilter(tags=tags, statuses=NOT_FINISHED_STATUSES)
        if context.instance.get_runs(under_way, limit=1):
            return dg.SkipReason("A run is under way.")
        store = getter(given)(context)
        reasons = {
            feature.name: behind(feature, defs.store, store, now=defs.now(), cadence=cadence) for feature in chosen
        }
        late = [name for name, reason in reasons.items() if reason is not None]
        if not late:
            return dg.SkipReason("All is online.")
        context.log.info("; ".join(f"{name}: {reasons[name]}" for name in late))
        return dg.RunRequest(asset_selection=[graph.online[name].key for name in late], tags=tags)

    return reconcile
