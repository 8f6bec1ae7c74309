"""What runs the functions of features, and makes their histories of what these return."""

from mlforge.engines.base import Engine
from mlforge.engines.choice import Engines
from mlforge.engines.duckdb import DuckDBEngine
from mlforge.engines.polars import PolarsEngine
from mlforge.engines.spark import SparkEngine

__all__ = ["DuckDBEngine", "Engine", "Engines", "PolarsEngine", "SparkEngine"]
