"""The features of this example in Dagster: `make dagster` opens it in the browser."""

from definitions import defs

from mlforge_dagster import build_definitions, feature_schedule, online_reconcile_sensor

definitions = build_definitions(
    defs,
    schedules=[feature_schedule(defs, "0 2 * * *")],
    sensors=[online_reconcile_sensor(defs)],
)
