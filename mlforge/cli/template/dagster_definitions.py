"""The features in Dagster, computed and put online every night once the schedule is switched on."""

from definitions import defs

from mlforge_dagster import build_definitions, feature_schedule

definitions = build_definitions(defs, schedules=[feature_schedule(defs, "0 2 * * *")])
