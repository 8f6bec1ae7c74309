"""What runs the functions of features, and makes their histories of what these return."""

from mlforge.engines.base import Engine
from mlforge.engines.choice import Engines

__all__ = ["Engine", "Engines"]
