"""The sensor that keeps online what offline says."""

import datetime as dt
import json
from collections.abc import Sequence

import dagster as dg

from mlforge.core import Definitions
from mlforge.errors import DefinitionError, MlforgeError, UnavailableError
from mlforge.features import Feature
from mlforge.online import OnlineStore
from mlforge_dagster.checks import CADENCE, behind
from mlforge_dagster.graph import ASSETS, asset_key
from mlforge_dagster.online import keeps_status, online_store_of, resource_keys
from mlforge_dagster.pace import pace
from mlforge_dagster.resources import RedisStoreResource
from mlforge_dagster.translator import MlforgeTranslator, identifier

# Tags of the runs that a sensor asks for: its name, and what it asked for as JSON, by feature the reason.
RECONCILE, LATE = "mlforge/reconcile", "mlforge/late"
# After a run that failed, what has not changed since is asked for again this much later.
RETRY_AFTER = dt.timedelta(minutes=10)
# A run of which nothing was heard for so long is lost with the machine that it was on.
LOST_AFTER = dt.timedelta(hours=1)
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
UNDER_WAY = [status for status in dg.DagsterRunStatus if status not in ENDED]


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
    status that is online. Where nothing has changed it asks for a look once an interval (an hour at least), which
    writes nothing, and keeps up to date as of when values hold, and the freshness. It remembers nothing, so that
    nothing is lost where it was off, a run failed, or several versions came between two looks. While a run that it has
    asked for is under way it asks for no other, unless nothing was heard of it for an hour; what a run has failed to
    do, it asks for again ten minutes later, or as soon as there is something newer. A feature whose table cannot be
    read does not keep it from the others.

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
    keys = {each: asset_key(defs, translator, each, "online") for each in defs.in_order(features)}
    name = name or f"{identifier(defs.name)}_online_reconcile"

    @dg.sensor(
        name=name,
        target=dg.AssetSelection.assets(*keys.values()),
        minimum_interval_seconds=minimum_interval_seconds,
        required_resource_keys=resource_keys(given),
        metadata={ASSETS: ", ".join(key.to_user_string() for key in keys.values())},
        description="Requests what is online where it is not what offline says, or time has moved a window.",
    )
    def reconcile(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        heard = dt.datetime.now(dt.UTC) - LOST_AFTER
        running = dg.RunsFilter(tags={RECONCILE: name}, statuses=UNDER_WAY, updated_after=heard)
        if runs := context.instance.get_runs(running, limit=1):
            return dg.SkipReason(f"Run {runs[0].run_id} is under way.")
        store, now = online_store_of(given, context), defs.now()
        failed = _failed(context.instance, name)
        late: dict[Feature, str] = {}
        left: list[str] = []
        for feature in keys:
            try:
                snapshot, status = defs.store.open(feature.name), store.status(feature.name)
                every = pace(feature)
                reason = behind(feature, snapshot, status, now=now, cadence=cadence, at_least_every=every)
            except UnavailableError:
                # The others would wait for it as well.
                raise
            except MlforgeError as error:
                context.log.error(str(error))
                left.append(f"{feature.name}: {error}")
                continue
            if reason is not None and (feature.name, reason) in failed:
                left.append(f"{feature.name}: {reason}, and a run has just failed to mend it")
            elif reason is not None:
                late[feature] = reason
        if not late:
            return dg.SkipReason("; ".join(left) or "All is online.")
        reasons = {feature.name: reason for feature, reason in late.items()}
        context.log.info("; ".join(f"{feature}: {reason}" for feature, reason in reasons.items()))
        return dg.RunRequest(
            asset_selection=[keys[feature] for feature in late], tags={RECONCILE: name, LATE: json.dumps(reasons)}
        )

    return reconcile


def _failed(instance: dg.DagsterInstance, name: str) -> set[tuple[str, str]]:
    """What runs of a sensor have failed to mend not long ago: features, and why they were late."""
    runs = dg.RunsFilter(
        tags={RECONCILE: name},
        statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED],
        updated_after=dt.datetime.now(dt.UTC) - RETRY_AFTER,
    )
    return {each for run in instance.get_runs(runs) for each in json.loads(run.tags.get(LATE, "{}")).items()}
