"""A feature store that serves online exactly what it trained on.

```python
import mlforge as mlf
from mlforge import Definitions
from mlforge.store import LocalStore
from mlforge.online import OnlineStore, RedisStore
```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlforge.checks import Check
    from mlforge.core import Definitions
    from mlforge.errors import (
        CheckFailedError,
        DataError,
        DefinitionError,
        MlforgeError,
        RequestError,
        StoreError,
        UnavailableError,
    )
    from mlforge.features import Feature, feature
    from mlforge.metrics import Rolling
    from mlforge.references import FeatureRef, FeatureSet
    from mlforge.source import Source

    __version__: str

# Imported at first use, so that `import mlforge` and the command line start at once.
_MODULES = {
    "Check": "mlforge.checks",
    "CheckFailedError": "mlforge.errors",
    "DataError": "mlforge.errors",
    "DefinitionError": "mlforge.errors",
    "Definitions": "mlforge.core",
    "Feature": "mlforge.features",
    "FeatureRef": "mlforge.references",
    "FeatureSet": "mlforge.references",
    "MlforgeError": "mlforge.errors",
    "RequestError": "mlforge.errors",
    "Rolling": "mlforge.metrics",
    "Source": "mlforge.source",
    "StoreError": "mlforge.errors",
    "UnavailableError": "mlforge.errors",
    "feature": "mlforge.features",
}

__all__ = [
    "Check",
    "CheckFailedError",
    "DataError",
    "DefinitionError",
    "Definitions",
    "Feature",
    "FeatureRef",
    "FeatureSet",
    "MlforgeError",
    "RequestError",
    "Rolling",
    "Source",
    "StoreError",
    "UnavailableError",
    "feature",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("mlforge")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
