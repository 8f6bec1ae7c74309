"""A project as a Dagster component, for `defs.yaml`."""

from pathlib import Path
from typing import Literal

import dagster as dg

from mlforge import loader
from mlforge.core import Definitions
from mlforge.errors import DefinitionError
from mlforge_dagster.automation import feature_schedule
from mlforge_dagster.definitions import build_definitions
from mlforge_dagster.engine import EngineResource
from mlforge_dagster.partitions import partition_schedule
from mlforge_dagster.sensor import online_reconcile_sensor

# The folders whose modules are loaded: of several, each would run with those of the last one.
_projects: set[Path] = set()


class FeatureStoreComponent(dg.Component, dg.Model, dg.Resolvable):
    """The features of an mlforge project as assets, with what is online of them downstream.

    ```yaml title="defs.yaml"
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
        schedule: When all features are built, as cron, of one with partitions the running one and that before it; left
            out, there is no schedule.
        reconcile: Whether there is a sensor that keeps online what offline says.
        engine: What runs features that name no engine: polars, duckdb or spark; left out, what the Definitions say.
        memory_limit: How much memory a build may take, as in `"2GB"`; left out, what the Definitions say.
        freshness: Whether features with an interval have freshness policies, as of `build_definitions`.
    """

    definitions: str
    partitions: dict[str, str] | None = None
    schedule: str | None = None
    reconcile: bool = False
    freshness: bool = True
    engine: Literal["polars", "duckdb", "spark"] | None = None
    memory_limit: str | None = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The project as Dagster definitions.

        Raises:
            DefinitionError: There is no such file, or not exactly one Definitions in it, or a component of this code
                location has loaded another project.
        """
        file, _, name = self.definitions.partition(":")
        path = Path(context.path, file).resolve()
        if not path.is_file():
            raise DefinitionError(f"The definitions {self.definitions!r} of a component: there is no {str(path)!r}.")
        if others := _projects - {path.parent}:
            raise DefinitionError(
                f"One code location has components of several projects, {str(others.pop())!r} and "
                f"{str(path.parent)!r}: give each one of its own, since their modules may have the same names."
            )
        _projects.add(path.parent)
        defs = loader.load(path, name or None)
        # Two resources of one name would clash, where a code location has several components.
        named = self.engine is not None or self.memory_limit is not None
        engine = EngineResource(engine=self.engine, memory_limit=self.memory_limit) if named else None
        return build_definitions(
            defs,
            partitions=self.partitions,
            freshness=self.freshness,
            engine=engine,
            schedules=self._schedules(defs, self.schedule) if self.schedule else [],
            sensors=[online_reconcile_sensor(defs)] if self.reconcile else [],
        )

    def _schedules(self, defs: Definitions, cron: str) -> list[dg.ScheduleDefinition]:
        parts = [partition_schedule(defs, feature, cron) for feature in self.partitions or {}]
        return [feature_schedule(defs, cron), *parts]
