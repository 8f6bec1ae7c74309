"""What a run computes features with: the engine, how much memory, and what the step itself asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast, get_args

import dagster as dg
from pydantic import Field

from mlforge.engines import Engine, Engines, SparkEngine
from mlforge.errors import DefinitionError, did_you_mean
from mlforge.features import EngineName
from mlforge.memory import as_bytes
from mlforge_dagster.resources import looked_up, require_fields

# What the resource with the engine is called.
ENGINE = "engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """How the step of one asset is run; what a translator's `get_step` gives.

    Attributes:
        engine: What runs the feature's function if it names no engine; None: the resource's, or else the project's. Of
            what is online nothing is run.
        memory_limit: How much memory its build or its sync may take, as in `"2GB"`; None: as for `engine`.
        op_tags: Tags of the step, by which executors find what it needs, as `dagster-k8s/config` or `ray/...`.
        pool: The pool whose limit it counts against.
    """

    engine: Engine | EngineName | None = None
    memory_limit: str | None = None
    op_tags: Mapping[str, Any] = field(default_factory=dict)
    pool: str | None = None

    def __post_init__(self) -> None:
        _require(self.engine, self.memory_limit)


class EngineResource(dg.ConfigurableResource[Engine]):
    """The engine of the features that name none, and the memory that a build may take, configured in Dagster.

    `dg.EnvVar` is looked up when a step begins. Nothing is started before a feature is computed: a session of Spark's
    belongs to the process of the step.

    >>> EngineResource(engine="spark", master="local[2]", shards=8).get_engine()
    SparkEngine(master='local[2]', shards=8)
    """

    engine: str | None = Field(default=None, description="polars, duckdb or spark; left out, what the project says.")
    memory_limit: str | None = Field(default=None, description='How much memory a build may take, as in "2GB".')
    master: str | None = Field(default=None, description="Of Spark: its master, or sc://... for Spark Connect.")
    conf: dict[str, str] = Field(default={}, repr=False, description="Of Spark: further settings of its session.")
    shards: int | None = Field(default=None, description="Of Spark: into how many parts the entities are split.")

    def __init__(self, **fields: Any) -> None:
        require_fields("An EngineResource", type(self), fields)
        super().__init__(**fields)
        # What the environment says is known when a step begins.
        _require(*(None if hasattr(value, "env_var_name") else value for value in (self.engine, self.memory_limit)))

    def get_engine(self) -> Engine | None:
        """The engine; None: the project's.

        Raises:
            DefinitionError: There is none of that name, or a variable of the environment is not set.
        """
        name = looked_up(self.engine)
        settings = {"master": self.master, "conf": self.conf, "shards": self.shards}
        if name == "spark":
            return SparkEngine(**{name: looked_up(value) for name, value in settings.items()})
        if given := [setting for setting, value in settings.items() if value]:
            raise DefinitionError(f"{given[0]} of an EngineResource is about Spark: write engine='spark' as well.")
        return None if name is None else Engines(name).default

    def get_memory_limit(self) -> str | None:
        """How much memory a build may take; None: what the project says."""
        limit: str | None = looked_up(self.memory_limit)
        return limit


def _require(engine: Engine | str | None, memory_limit: str | None) -> None:
    """Refuses an engine and a limit that are none.

    Raises:
        DefinitionError: One of them is.
    """
    if isinstance(engine, str) and engine not in get_args(EngineName):
        raise DefinitionError(f"{engine!r} is no engine{did_you_mean(engine, get_args(EngineName))}")
    if memory_limit is not None:
        as_bytes(memory_limit)


def is_resource(engine: Any) -> bool:
    """Whether what was given as an engine is a resource; also one that is configured when a run is launched."""
    return not isinstance(engine, Engine | str | None)


def engine_of(
    step: StepSettings, given: EngineResource | Engine | EngineName | None, context: Any
) -> Engine | EngineName | None:
    """The engine of a step; None: the project's.

    Args:
        step: What the translator says.
        given: What `build_definitions` was given; a resource is taken from the context, which has configured it.
        context: The step's.
    """
    resource = _resource(given, context)
    if resource is None:
        return step.engine or cast("Engine | EngineName | None", given)
    return step.engine or resource.get_engine()


def limit_of(step: StepSettings, given: EngineResource | Engine | EngineName | None, context: Any) -> str | None:
    """The memory limit of a step, as `engine_of`."""
    resource = _resource(given, context)
    return step.memory_limit or (None if resource is None else resource.get_memory_limit())


def _resource(given: EngineResource | Engine | EngineName | None, context: Any) -> EngineResource | None:
    return getattr(context.resources, ENGINE) if is_resource(given) else None
