"""The definition hash: a text that changes whenever a feature could compute something else from the same data."""

import ast
import datetime as dt
import hashlib
import inspect
import json
import re
import textwrap
from decimal import Decimal
from functools import partial
from pathlib import PurePath
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import polars as pl
from polars.datatypes import DataTypeClass

from mlforge.features import Feature
from mlforge.windows import ALGORITHM

# Values whose repr says all there is, and says the same in every process.
_PLAIN = (
    *(str, int, float, complex, bool, bytes, type(None), Decimal, PurePath, re.Pattern, range),
    *(dt.date, dt.time, dt.timedelta, dt.timezone, pl.DataType, DataTypeClass),
)


def definition_hash(feature: Feature) -> str:
    """32 hex digits over everything that decides what a feature computes.

    That is the function's syntax tree without comments, docstring and decorators (its bytecode where there is no
    source), the functions, classes, constants and decorators of its module that it names, the values it closes over,
    keys, timestamp, interval, metrics, max_age, available_at, checks, and the number of the window algorithm. The
    description, tags and owners may change freely. Not covered: other modules, and Python functions inside Polars
    expressions.
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


def _code(function: Any, seen: set[int]) -> list[Any]:
    """The function's own code and that of what it names, each once."""
    if id(function) in seen:
        return []
    inner = inspect.unwrap(function)
    home = getattr(inner, "__globals__", {})
    if inner is not function and getattr(function, "__globals__", None) is not home:
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
    found = {**{name: home[name] for name in _names(function.__code__) if name in home}, **closed}
    named = [[name, _value(found[name], home, seen)] for name in sorted(found)]
    defaults = [_value(value, home, seen) for value in (function.__defaults__, function.__kwdefaults__)]
    return [code, defaults, [pair for pair in named if pair[1] is not None]]


def _value(value: Any, home: dict[str, Any], seen: set[int]) -> Any:
    """What a function names, as JSON; None where it belongs to another module or cannot be told."""
    if isinstance(value, Feature):
        return _code(value.function, seen)
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, dict):
        return [[_value(key, home, seen), _value(item, home, seen)] for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *(_value(item, home, seen) for item in value)]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_value(item, home, seen)) for item in value)
    if isinstance(value, pl.Expr):
        return _expression(value)
    if isinstance(value, pl.DataFrame | pl.Series):
        return hashlib.sha256(pl.DataFrame(value).serialize()).hexdigest()
    inner = inspect.unwrap(value) if callable(value) else value
    if isinstance(inner, FunctionType):
        return _code(value, seen) if inner.__globals__ is home else None
    owner = value if isinstance(value, type) else type(value)
    return _attributes(value, home, seen) if owner.__module__ == home.get("__name__") else None


def _attributes(value: Any, home: dict[str, Any], seen: set[int]) -> list[Any]:
    """What an object or a class of the function's module holds, each once."""
    if id(value) in seen:
        return []
    seen.add(id(value))
    held = getattr(value, "__dict__", {}).items()
    kept = [(name, item) for name, item in held if not name.startswith("__") or isinstance(item, FunctionType)]
    own = [[name, _value(item, home, seen)] for name, item in kept]
    return own if isinstance(value, type) else [*_attributes(type(value), home, seen), *own]


def _expression(expression: pl.Expr) -> str:
    # The text leaves out what is in long lists and in Series; a Python function is in neither form the same twice.
    text = str(expression)
    return text if "python_udf" in text else expression.meta.serialize().hex()


def _names(code: CodeType) -> set[str]:
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)


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
