"""The features in Dagster, and the model as an asset after them: dagster dev -f dagster_definitions.py."""

import dagster as dg
from definitions import defs
from train import auc, auc_of_counting, train

from mlforge_dagster import build_definitions, feature_schedule, online_reconcile_sensor

# Every night, what is new; the sensor puts online what is behind, also after builds of the command line.
features = build_definitions(
    defs,
    schedules=[feature_schedule(defs, "0 2 * * *")],
    sensors=[online_reconcile_sensor(defs)],
)


@dg.asset(
    key=["realtime", "model"],
    deps=[["realtime", name] for name in defs.features],
    group_name="realtime",
    kinds={"scikitlearn"},
    check_specs=[dg.AssetCheckSpec("better_than_counting_visits", asset=["realtime", "model"], blocking=True)],
)
def model() -> dg.MaterializeResult:
    """A regression on what the features were at the times of the labels; saved if it is better than no model."""
    trained, judged = train()
    reached, floor = auc(trained, judged), auc_of_counting(judged)
    passed = reached > floor
    if passed:
        trained.save()
    return dg.MaterializeResult(
        metadata={"AUC": reached, "labels to judge by": judged.height, "trained on": dict(trained.versions)},
        check_results=[dg.AssetCheckResult(passed=passed, metadata={"AUC": reached, "counting visits": floor})],
    )


weekly = dg.ScheduleDefinition(
    name="weekly_training",
    job=dg.define_asset_job("training", dg.AssetSelection.assets(["realtime", "model"])),
    cron_schedule="0 4 * * 1",
)

definitions = dg.Definitions.merge(features, dg.Definitions(assets=[model], schedules=[weekly]))
