"""Features whose events are built in partitions: which there are, when each begins and ends, and a schedule of them."""

from collections.abc import Iterator, Mapping
from datetime import datetime

import dagster as dg

from mlforge.core import Definitions
from mlforge.errors import DefinitionError, RequestError
from mlforge.instant import instant
from mlforge.span import Span
from mlforge_dagster.graph import ASSETS, asset_key
from mlforge_dagster.translator import MlforgeTranslator, identifier

# Partitions as Dagster has them, or a day in the first of months.
Partitions = dg.TimeWindowPartitionsDefinition | str | datetime
# Tags of a run that builds all partitions from one to another.
FIRST, LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def chosen(given: Mapping[str, Partitions] | None) -> dict[str, dg.TimeWindowPartitionsDefinition]:
    """The partitions of features; of a day the months from its own to the running one, whose events are built too.

    Raises:
        DefinitionError: They are neither.
    """
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


def built(spec: dg.AssetSpec, events: Span | None) -> Iterator[tuple[str, dg.TimeWindow]]:
    """The partitions whose events a build has built, each with when it begins and ends; of some, the whole ones.

    Args:
        spec: The asset; without partitions there are none.
        events: Which events were built; None: all.
    """
    partitions = spec.partitions_def
    if isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        for key in partitions.get_partition_keys():
            window = partitions.time_window_for_partition_key(key)
            if events is None or (events.start <= window.start and (events.end is None or window.end <= events.end)):
                yield key, window


def partition_schedule(
    defs: Definitions,
    feature: str,
    cron: str,
    *,
    last: int = 2,
    name: str | None = None,
    translator: MlforgeTranslator | None = None,
    timezone: str = "UTC",
) -> dg.ScheduleDefinition:
    """A schedule that builds the newest partitions of a feature, in one run: the running one, and those before it.

    Two are enough for events that come up to a partition late; what has not changed since is skipped or rewritten as it
    was. What is online of the feature follows by `online_reconcile_sensor` or a `feature_schedule`.

    Args:
        defs: The project.
        feature: The feature, which has partitions in `build_definitions` or by the translator.
        cron: When, as in `"0 2 * * *"`.
        last: How many partitions.
        name: The schedule's name.
        translator: The one that made the assets.
        timezone: The time zone of `cron`.

    Raises:
        DefinitionError: `last` is no number from 1.
    """
    if isinstance(last, bool) or not isinstance(last, int) or last < 1:
        raise DefinitionError(f"{last!r} is no number of partitions: write one from 1.")
    key = asset_key(defs, translator, defs.feature(feature), "offline")

    @dg.schedule(
        name=name or f"{identifier(defs.name)}_{feature}_partitions",
        cron_schedule=cron,
        execution_timezone=timezone,
        target=dg.AssetSelection.assets(key),
        metadata={ASSETS: key.to_user_string()},
    )
    def newest(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        partitions = context.repository_def.asset_graph.get(key).partitions_def if context.repository_def else None
        if partitions is None:
            raise DefinitionError(f"Feature {feature!r} has no partitions: name it in partitions of build_definitions.")
        keys = list(partitions.get_partition_keys(context.scheduled_execution_time))[-last:]
        if not keys:
            return dg.SkipReason("The first partition has not begun.")
        return dg.RunRequest(tags={FIRST: keys[0], LAST: keys[-1]})

    return newest
