"""Online stores: the values that hold for every entity, ready to read while a model serves."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlforge.online.base import OnlineStore
    from mlforge.online.cluster import ClusterStore
    from mlforge.online.embedded import EmbeddedStore
    from mlforge.online.redis import RedisStore
    from mlforge.online.status import Status

__all__ = ["ClusterStore", "EmbeddedStore", "OnlineStore", "RedisStore", "Status"]

_MODULES = {
    "ClusterStore": "mlforge.online.cluster",
    "EmbeddedStore": "mlforge.online.embedded",
    "OnlineStore": "mlforge.online.base",
    "RedisStore": "mlforge.online.redis",
    "Status": "mlforge.online.status",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
