"""Which engine runs a feature."""

from typing import get_args

from mlforge.engines.base import Engine
from mlforge.engines.polars import PolarsEngine
from mlforge.errors import DefinitionError
from mlforge.features import EngineName, Feature


class Engines:
    """The engine of every feature: the one that it names, or else the project's.

    Args:
        engine: The project's: an engine, or its name.

    Raises:
        DefinitionError: It is none, or what it needs is not installed.
    """

    def __init__(self, engine: Engine | EngineName = "polars") -> None:
        self.default = engine if isinstance(engine, Engine) else made(engine)

    def of(self, feature: Feature) -> Engine:
        """The engine of a feature."""
        if feature.engine is None or feature.engine == self.default.name:
            return self.default
        return made(feature.engine)

    def instead(self, engine: Engine | EngineName | None) -> "Engines":
        """With another one than the project's; None: these."""
        return self if engine is None else Engines(engine)


def made(name: str) -> Engine:
    """An engine by its name, with what it does by default."""
    match name:
        case "polars":
            return PolarsEngine()
        case "duckdb":
            from mlforge.engines.duckdb import DuckDBEngine

            return DuckDBEngine()
        case "spark":
            from mlforge.engines.spark import SparkEngine

            return SparkEngine()
        case _:
            names = ", ".join(map(repr, get_args(EngineName)))
            raise DefinitionError(f"{name!r} is no engine: write one of {names}.")
