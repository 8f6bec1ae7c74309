"""What sets features off: jobs and schedules."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from mlforge.core import Definitions
from mlforge.errors import DefinitionError
from mlforge_dagster.graph import ASSETS, ONLINE, PARTITIONED, Graph, asset_key
from mlforge_dagster.translator import MlforgeTranslator, identifier

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

# Which features a job was asked for by name.
NAMED = "mlforge/features"


def feature_job(
    defs: Definitions,
    features: Sequence[str] | None = None,
    *,
    name: str | None = None,
    translator: MlforgeTranslator | None = None,
    online: bool | None = None,
    retry_policy: dg.RetryPolicy | None = None,
) -> "UnresolvedAssetJobDefinition":
    """A job that builds features and, in the same run, what is online of them.

    Features with partitions are left out, since a run of all would not know which to build; what is online of them is
    not. Their partitions are set off by a `partition_schedule`.

    Args:
        defs: The project.
        features: Names; all features by default.
        name: The job's name.
        translator: The one that made the assets.
        online: Whether the online assets are part of it; by default those that there are.
        retry_policy: What is done where a step fails. A check that fails, and a sync that is refused, are not tried
            again.
    """
    chosen = defs.in_order(features)
    keys = [asset_key(defs, translator, each, "offline") for each in chosen]
    offline = dg.AssetSelection.assets(*keys)
    selected: dg.AssetSelection = offline - dg.AssetSelection.tag(PARTITIONED, "")
    if online:
        there = [asset_key(defs, translator, each, "online") for each in chosen]
        selected |= dg.AssetSelection.assets(*there)
        keys += there
    elif online is None:
        # Where the assets go online is known to those who make them.
        selected |= offline.downstream(depth=1) & dg.AssetSelection.tag(ONLINE, "")
    noted = {ASSETS: ", ".join(key.to_user_string() for key in keys)}
    if features is not None:
        noted[NAMED] = ", ".join(each.name for each in chosen)
    return dg.define_asset_job(
        name or f"{identifier(defs.name)}_features", selected, metadata=noted, op_retry_policy=retry_policy
    )


def feature_schedule(
    defs: Definitions,
    cron: str,
    features: Sequence[str] | None = None,
    *,
    name: str | None = None,
    translator: MlforgeTranslator | None = None,
    online: bool | None = None,
    timezone: str = "UTC",
    retry_policy: dg.RetryPolicy | None = None,
) -> dg.ScheduleDefinition:
    """A schedule of a `feature_job`, so not of features with partitions; it is switched on in Dagster's UI.

    Args:
        defs: The project.
        cron: When, as in `"0 2 * * *"`.
        features: Names; all features by default.
        name: The job's name; the schedule is called after it.
        translator: The one that made the assets.
        online: Whether the online assets are part of it; by default those that there are.
        timezone: The time zone of `cron`.
        retry_policy: As for `feature_job`.
    """
    job = feature_job(defs, features, name=name, translator=translator, online=online, retry_policy=retry_policy)
    return dg.ScheduleDefinition(
        name=f"{job.name}_schedule",
        job=job,
        cron_schedule=cron,
        execution_timezone=timezone,
        metadata=job.metadata,
    )


def require_fitting(automation: object, graph: Graph) -> None:
    """Refuses a job, schedule or sensor of mlforge that does not fit the assets.

    Args:
        automation: Any job, schedule or sensor.
        graph: The assets.

    Raises:
        DefinitionError: It was asked for features by name that have partitions, and would leave them out; or it asks
            for assets by names that there are not.
    """
    noted = getattr(automation, "metadata", None) or {}
    # Dagster wraps metadata of a schedule, but not of a job.
    texts = {name: str(getattr(noted[name], "value", noted[name])) for name in (NAMED, ASSETS) if name in noted}
    names, partitioned = texts.get(NAMED, "").split(", "), graph.partitioned
    if lost := [name for name in names if name in partitioned]:
        raise DefinitionError(
            f"{', '.join(map(repr, lost))} has partitions, and a run of feature_job would not know which to build: "
            f"leave it out there, and write a partition_schedule."
        )
    known = {spec.key.to_user_string() for spec in (*graph.offline.values(), *graph.online.values())}
    if lost := [key for key in texts.get(ASSETS, "").split(", ") if key and key not in known]:
        raise DefinitionError(
            f"{getattr(automation, 'name', 'A job')!r} asks for {lost[0]!r}, and no asset is called so: give it the "
            f"online store and the translator that build_definitions has."
        )
