"""The definition hash: a text that changes whenever a feature could compute something else from the same data."""

import ast
import datetime as dt
import hashlib
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from functools import cached_property, partial
from pathlib import PurePath
from types import CellType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
from polars.datatypes import DataTypeClass

from mlforge.features import Feature
from mlforge.modules import imported, is_own
from mlforge.windows import ALGORITHM

# Values whose repr says all there is, and says the same in every process.
_PLAIN = (
    *(str, int, float, complex, bool, bytes, type(None), Decimal, Fraction, PurePath, re.Pattern, range),
    *(dt.date, dt.time, dt.timedelta, dt.timezone, ZoneInfo, pl.DataType, DataTypeClass),
)


def definition_hash(feature: Feature) -> str:
    """32 hex digits over everything that decides what a feature computes.

    That is the function's syntax tree without comments, docstring and decorators (its bytecode where there is no
    source), the functions, classes, constants and decorators of the project that it names, whichever module they are
    in, and what these name, the values it closes over, keys, timestamp, interval, metrics, max_age, available_at,
    checks, and the number of the window algorithm. The description, tags and owners may change freely. Not covered:
    Python's own and installed modules, what is only named at run time, as in `getattr(module, name)`, and Python
    functions inside Polars expressions.
    """
    content = {
        "algorithm": ALGORITHM,
        "function": _code(feature.function, set()),
        "keys": feature.keys,
        "timestamp": feature.timestamp,
        "interval": feature.interval,
        "outputs": [output.name for output in feature.outputs],
        "checks": {name: [_expression(check.expression), check.severity] for name, check in feature.checks.items()},
    }
    # Only where they are there, so that the hashes of other features stay.
    later = {"max_age": feature.max_age, "available_at": feature.available_at}
    content |= {name: value for name, value in later.items() if value is not None}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _code(function: Any, seen: set[Any]) -> list[Any]:
    """The function's own code and that of what it names, each once."""
    if id(function) in seen:
        return []
    inner = inspect.unwrap(function)
    home = getattr(function, "__globals__", {})
    if inner is not function and not is_own(home, getattr(inner, "__globals__", {})):
        # The decorator comes from a library.
        return _code(function.__wrapped__, seen)
    if isinstance(function, partial):
        bound = [_value(value, home, seen) for value in (function.args, function.keywords)]
        return [_code(function.func, seen), *bound]
    if isinstance(function, MethodType):
        return [_code(function.__func__, seen), _attributes(function.__self__, function.__func__.__globals__, seen)]
    if not isinstance(function, FunctionType):
        call = type(function).__call__
        own = _code(call, seen) if isinstance(call, FunctionType) else []
        return [type(function).__qualname__, own, _attributes(function, getattr(call, "__globals__", {}), seen)]
    seen.add(id(function))
    tree = _tree(function)
    code = _bytecode(function.__code__, function.__doc__) if tree is None else ast.dump(tree)
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    # A cell that has no value yet equals an empty one.
    closed = {name: cell.cell_contents for name, cell in cells if cell != CellType()}
    names = _names(function.__code__)
    found = {**{name: home[name] for name in names if name in home}, **imported(function.__code__, home), **closed}
    named = [[name, _named(found[name], names, home, seen)] for name in sorted(found)]
    defaults = [_value(value, home, seen) for value in (function.__defaults__, function.__kwdefaults__)]
    # What a decorator of another module wraps counts, whatever that module takes for its own.
    wrapped = [] if getattr(inner, "__globals__", home) is home else [_code(vars(function)["__wrapped__"], seen)]
    return [code, defaults, [pair for pair in named if pair[1] is not None], *wrapped]


def _named(value: Any, names: frozenset[str], home: Mapping[str, Any], seen: set[Any]) -> Any:
    """What a name in a function's code stands for; of a module of the project, what else the code names in it."""
    if not isinstance(value, ModuleType):
        return _value(value, home, seen)
    if not is_own(vars(value), home) or (value, names) in seen:
        return None
    seen.add((value, names))
    held = {name: getattr(value, name) for name in sorted(names) if hasattr(value, name)}
    own = [[name, _named(item, names, vars(value), seen)] for name, item in held.items()]
    return [pair for pair in own if pair[1] is not None] or None


def _value(value: Any, home: Mapping[str, Any], seen: set[Any]) -> Any:
    """What a function names, as JSON; None where it belongs to no module of the project or cannot be told."""
    if isinstance(value, Feature):
        return _code(value.function, seen)
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, dict | MappingProxyType):
        return [[_value(key, home, seen), _value(item, home, seen)] for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *(_value(item, home, seen) for item in value)]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_value(item, home, seen)) for item in value)
    if isinstance(value, pl.Expr):
        return _expression(value)
    if isinstance(value, pl.DataFrame | pl.Series):
        return hashlib.sha256(pl.DataFrame(value).serialize()).hexdigest()
    if isinstance(value, partial):
        return [_value(part, home, seen) for part in (value.func, value.args, value.keywords)]
    if isinstance(value, property):
        return _value(value.fget, home, seen)
    if isinstance(value, cached_property):
        return _value(value.func, home, seen)
    if isinstance(value, classmethod):
        return _value(value.__func__, home, seen)
    inner = inspect.unwrap(value) if callable(value) else value
    if isinstance(inner, FunctionType | MethodType):
        return _code(value, seen) if is_own(getattr(inner, "__globals__", {}), home) else None
    owner = value if isinstance(value, type) else type(value)
    return _attributes(value, home, seen) if _is_of_the_project(owner, home) else None


def _is_of_the_project(owner: type, home: Mapping[str, Any]) -> bool:
    if owner.__module__ == home.get("__name__"):
        return True
    module = sys.modules.get(owner.__module__)
    return module is not None and is_own(vars(module), home)


def _attributes(value: Any, home: Mapping[str, Any], seen: set[Any]) -> list[Any]:
    """What an object or a class of the project holds, and the classes it is of, each once."""
    if id(value) in seen:
        return []
    seen.add(id(value))
    kept = [(n, item) for n, item in _held(value).items() if not n.startswith("__") or isinstance(item, FunctionType)]
    own = [[name, _value(item, home, seen)] for name, item in kept]
    if not isinstance(value, type):
        return [*_attributes(type(value), home, seen), *own]
    return own + [_attributes(base, home, seen) for base in value.__bases__ if _is_of_the_project(base, home)]


def _held(value: Any) -> dict[str, Any]:
    if isinstance(value, type):
        return dict(vars(value))
    state = object.__getstate__(value)
    # Slots come second.
    parts = state if isinstance(state, tuple) else (state,)
    return {name: item for part in parts if isinstance(part, dict) for name, item in part.items()}


def _expression(expression: pl.Expr) -> str:
    # The text leaves out what is in long lists and in Series; a Python function is in neither form the same twice.
    text = str(expression)
    return text if "python_udf" in text else expression.meta.serialize().hex()


def _names(code: CodeType) -> frozenset[str]:
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return frozenset(code.co_names).union(*inner)


def _tree(function: FunctionType) -> ast.AST | None:
    try:
        # Of the code, since the source of a function is that of the one it wraps.
        tree = ast.parse(textwrap.dedent(inspect.getsource(function.__code__)))
    except (OSError, SyntaxError):
        # No source (`python -c`, a REPL), or a lambda in the middle of an expression.
        return None
    found = tree.body[0]
    if not isinstance(found, ast.FunctionDef) or found.name != function.__code__.co_name:
        return None
    found.decorator_list = []
    if ast.get_docstring(found) is not None:
        found.body = found.body[1:]
    return found


def _bytecode(code: CodeType, docstring: str | None = None) -> list[Any]:
    constants = [
        _bytecode(c) if isinstance(c, CodeType) else repr(sorted(map(repr, c)) if isinstance(c, frozenset) else c)
        for c in code.co_consts[docstring is not None :]
    ]
    return [code.co_code.hex(), constants, code.co_names]
