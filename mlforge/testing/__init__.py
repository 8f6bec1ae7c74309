"""What features and online stores are tested with.

Of features: what they make of events (`values_at`), whether they see the future (`assert_no_leakage`), and a clock that
stands still (`freeze`). Of an online store of your own: a suite for pytest and a state machine for Hypothesis. And a
store in memory.

```python
from mlforge.testing import MemoryStore, assert_no_leakage, freeze, values_at
from mlforge.testing import OnlineStoreSuite, state_machine
```

The suite and the machine need `pip install 'mlforge[testing]'`; all else needs nothing.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlforge.testing.computed import values_at
    from mlforge.testing.frozen import freeze
    from mlforge.testing.leakage import assert_no_leakage
    from mlforge.testing.machine import state_machine
    from mlforge.testing.memory import MemoryStore
    from mlforge.testing.suite import OnlineStoreSuite

__all__ = ["MemoryStore", "OnlineStoreSuite", "assert_no_leakage", "freeze", "state_machine", "values_at"]

_MODULES = {
    "MemoryStore": "mlforge.testing.memory",
    "OnlineStoreSuite": "mlforge.testing.suite",
    "assert_no_leakage": "mlforge.testing.leakage",
    "freeze": "mlforge.testing.frozen",
    "state_machine": "mlforge.testing.machine",
    "values_at": "mlforge.testing.computed",
}
_WITH_ASSERTS = ("entities", "batches", "values", "syncs", "readers", "machine", "samples")

if (pytest := sys.modules.get("pytest")) is not None:
    # Before they are imported, so that a failure shows what was compared, as it does in a test of one's own.
    pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in _WITH_ASSERTS))


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("pytest", "hypothesis"):
            raise
        raise ImportError(
            f"mlforge.testing.{name} needs {missing}: pip install 'mlforge[testing]'", name=missing
        ) from None


def __dir__() -> list[str]:
    return __all__
