"""Modules: which ones are a project's own, which of these a function imports itself, where an error is from."""

import dis
import importlib.util
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

# Where what is installed lies, but for what is installed as editable: that is in the works, as a project is.
_INSTALLED = {"site-packages", "dist-packages"}
_STANDARD = Path(os.__file__).parent
_MLFORGE = Path(__file__).parent
_IMPORT = dis.opmap["IMPORT_NAME"]


def is_own(module: Mapping[str, Any], home: Mapping[str, Any]) -> bool:
    """Whether a module belongs to the project of another one, which is known to do so.

    It does if both are of one package, or if it is neither installed nor one of Python's.

    Args:
        module: The names in the module, `__name__` and `__file__` among them.
        home: The names in the other one.
    """
    if module is home:
        return True
    name, file = module.get("__name__") or "", module.get("__file__")
    package = name.partition(".")[0]
    if package in ("mlforge", "polars"):
        return False
    # A folder without __init__.py has no file.
    place = file or next(iter(module.get("__path__") or ()), None)
    if place is None or package == "__main__":
        return package == "__main__"
    if package == (home.get("__name__") or "").partition(".")[0]:
        return True
    return not _is_library(place)


def imported(code: CodeType, home: dict[str, Any]) -> dict[str, ModuleType]:
    """The project's modules that a function's code imports when it runs, by the names in its import statements.

    Args:
        code: The code.
        home: The names in the function's module.
    """
    found: dict[str, ModuleType] = {}
    # Most have none, and taking apart is slow.
    taken_apart = dis.get_instructions(code) if _IMPORT in code.co_code[::2] else ()
    steps = [step for step in taken_apart if step.opname != "EXTENDED_ARG"]
    for at, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level, names = steps[at - 2].argval, steps[at - 1].argval
            if level or _is_own_by_name(step.argval, home):
                try:
                    found["." * level + step.argval] = __import__(step.argval, home, None, names or (), level)
                except ImportError:
                    # The function says so itself, or gets along without.
                    continue
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= imported(constant, home)
    return found


def origin(error: BaseException) -> str:
    """The last place in the project's own code that an error came through, as the end of a line; else empty."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not _is_library(frame.filename) and not Path(frame.filename).is_relative_to(_MLFORGE):
            return f" ({frame.filename!r}, line {frame.lineno})"
    return ""


def _is_library(file: str) -> bool:
    path = Path(file)
    return not _INSTALLED.isdisjoint(path.parts) or path.is_relative_to(_STANDARD)


def _is_own_by_name(name: str, home: dict[str, Any]) -> bool:
    """Whether a module is the project's, without importing what is not."""
    package = name.partition(".")[0]
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        # A module that was made by hand has no specification.
        return False
    if spec is None:
        return False
    file = spec.origin if spec.has_location else None
    return is_own({"__name__": package, "__file__": file, "__path__": spec.submodule_search_locations}, home)
