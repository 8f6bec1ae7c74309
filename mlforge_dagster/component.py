"""A project as a Dagster component, for `defs.yaml`."""

from pathlib import Path

import dagster as dg

from mlforge import loader
from mlforge_dagster.automation import feature_schedule
from mlforge_dagster.definitions import build_definitions
from mlforge_dagster.sensor import online_reconcile_sensor


class FeatureStoreComponent(dg.Component, dg.Model, dg.Resolvable):
    """The features of an mlforge project as assets, with what is online of them downstream.

    ```yaml
    type: mlforge_dagster.FeatureStoreComponent
    attributes:
      definitions: ../../definitions.py
      schedule: "0 2 * * *"
      reconcile: true
      partitions:
        user_spend: "2026-01-01"
    ```

    Attributes:
        definitions: The Python file with the `mlforge.Definitions`, seen from the folder of `defs.yaml`; `file.py:name`
            where it has several.
        partitions: By feature a day in the first month of its partitions.
        schedule: When all features are built, as cron; left out, there is no schedule.
        reconcile: Whether there is a sensor that keeps online what offline says.
    """

    definitions: str
    partitions: dict[str, str] | None = None
    schedule: str | None = None
    reconcile: bool = False

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The project as Dagster definitions."""
        file, _, name = self.definitions.partition(":")
        defs = loader.load(Path(context.path, file).resolve(), name or None)
        return build_definitions(
            defs,
            partitions=self.partitions,
            schedules=[feature_schedule(defs, self.schedule)] if self.schedule else [],
            sensors=[online_reconcile_sensor(defs)] if self.reconcile else [],
        )
