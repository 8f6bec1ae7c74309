"""What runs the functions of features, and makes their histories of what these return."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlforge.engines.base import Engine
    from mlforge.engines.choice import Engines
    from mlforge.engines.duckdb import DuckDBEngine
    from mlforge.engines.polars import PolarsEngine
    from mlforge.engines.spark import SparkEngine

__all__ = ["DuckDBEngine", "Engine", "Engines", "PolarsEngine", "SparkEngine"]

_MODULES = {
    "DuckDBEngine": "mlforge.engines.duckdb",
    "Engine": "mlforge.engines.base",
    "Engines": "mlforge.engines.choice",
    "PolarsEngine": "mlforge.engines.polars",
    "SparkEngine": "mlforge.engines.spark",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
