"""The definition hash: a text that changes whenever a feature could compute something else from the same data."""

import ast
import copy
import datetime as dt
import hashlib
import inspect
import json
import re
import sys
from collections import deque
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from functools import cached_property, lru_cache, partial
from pathlib import PurePath
from types import CellType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType, SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
from polars.datatypes import DataTypeClass

from mlforge.errors import DefinitionError
from mlforge.features import Feature
from mlforge.modules import imported, is_own
from mlforge.windows import ALGORITHM

# Values whose repr says all there is, and says the same in every process.
_PLAIN = (
    *(str, int, float, complex, bool, bytes, bytearray, type(None), Decimal, Fraction, range),
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
        "function": _whole(feature),
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


class _Seen:
    """What has been looked at, so that each thing is once, and told apart by its number wherever it stands again."""

    def __init__(self, before: "_Seen | None" = None) -> None:
        # With the things themselves, so that no other one gets the id of one of them.
        self._numbers: dict[Any, tuple[int, Any]] = {} if before is None else dict(before._numbers)

    def again(self, key: Any, value: Any) -> list[Any] | None:
        """How to write something that was there before; None the first time."""
        if key in self._numbers:
            return ["again", self._numbers[key][0]]
        self._numbers[key] = len(self._numbers), value
        return None

    def copy(self) -> "_Seen":
        """What has been looked at so far."""
        return _Seen(self)


def _whole(feature: Feature) -> list[Any]:
    try:
        return _code(feature.function, _Seen())
    except RecursionError:
        raise DefinitionError(
            f"Feature {feature.name!r} names something that contains itself, so that it cannot be told whether its "
            f"definition has changed."
        ) from None


def _code(function: Any, seen: _Seen) -> list[Any]:
    """The function's own code and that of what it names, each once."""
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
    if (before := seen.again(id(function), function)) is not None:
        return before
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
    attributes = [[name, _value(item, home, seen)] for name, item in vars(function).items() if name != "__wrapped__"]
    return [code, defaults, [pair for pair in named if pair[1] is not None], *wrapped, *attributes]


def _named(value: Any, names: frozenset[str], home: Mapping[str, Any], seen: _Seen) -> Any:
    """What a name in a function's code stands for; of a module of the project, what else the code names in it."""
    if not isinstance(value, ModuleType):
        return _value(value, home, seen)
    if not is_own(vars(value), home):
        return None
    if (before := seen.again((value, names), value)) is not None:
        return before
    held = {name: getattr(value, name) for name in sorted(names) if hasattr(value, name)}
    own = [[name, _named(item, names, vars(value), seen)] for name, item in held.items()]
    return [pair for pair in own if pair[1] is not None] or None


def _value(value: Any, home: Mapping[str, Any], seen: _Seen) -> Any:
    """What a function names, as JSON; None where it belongs to no module of the project or cannot be told."""
    if isinstance(value, Feature):
        return _code(value.function, seen)
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, PurePath):
        return repr(_relative(value, home))
    if isinstance(value, re.Pattern):
        # Its repr is cut off.
        return [repr(value.pattern), value.flags]
    if isinstance(value, SimpleNamespace):
        return _value(vars(value), home, seen)
    if isinstance(value, dict | MappingProxyType):
        return [[_value(key, home, seen), _value(item, home, seen)] for key, item in value.items()]
    if isinstance(value, list | tuple | deque):
        return [type(value).__name__, *(_value(item, home, seen) for item in value)]
    if isinstance(value, set | frozenset):
        # Each by itself, since they come in another order in every process.
        return sorted(json.dumps(_value(item, home, seen.copy())) for item in value)
    if isinstance(value, pl.Expr):
        return _expression(value)
    if isinstance(value, pl.DataFrame | pl.Series):
        return hashlib.sha256(pl.DataFrame(value).serialize()).hexdigest()
    if isinstance(value, pl.LazyFrame):
        return hashlib.sha256(value.serialize()).hexdigest()
    if hasattr(value, "__array_interface__"):
        # An array of NumPy, which nobody here needs otherwise.
        return [str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
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


def _attributes(value: Any, home: Mapping[str, Any], seen: _Seen) -> list[Any]:
    """What an object or a class of the project holds, and the classes it is of, each once."""
    if (before := seen.again(id(value), value)) is not None:
        return before
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
    items = [item for part in parts if isinstance(part, dict) for item in part.items()]
    # What was computed once and kept follows from the rest.
    return {name: item for name, item in items if not isinstance(getattr(type(value), name, None), cached_property)}


def _expression(expression: pl.Expr) -> str:
    # The text leaves out what is in long lists and in Series; a Python function is in neither form the same twice.
    text = str(expression)
    return text if "python_udf" in text else expression.meta.serialize().hex()


def _names(code: CodeType) -> frozenset[str]:
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return frozenset(code.co_names).union(*inner)


def _relative(path: PurePath, home: Mapping[str, Any]) -> PurePath:
    """A path below the folder of the module that names it, from there: that folder is another one on every machine."""
    folder = PurePath(home.get("__file__") or "/").parent
    return path.relative_to(folder) if path.is_absolute() and path.is_relative_to(folder) else path


def _tree(function: FunctionType) -> ast.AST | None:
    """The syntax tree of a function; None where there is none, or it is not that of the code that runs."""
    running = function.__code__
    try:
        # Of the code, since the source of a function is that of the one it wraps.
        source = "".join(inspect.findsource(running)[0])
    except OSError:
        # `python -c`, a REPL.
        return None
    same = [code for code in _codes(source).get(running.co_qualname, ()) if _equal(code, running)]
    if not same:
        # The file was edited since it was loaded.
        return None
    # Lines may have moved, and of functions of one name the nearest is meant.
    first = min((code.co_firstlineno for code in same), key=lambda line: abs(line - running.co_firstlineno))
    if (found := _trees(source).get((running.co_name, first))) is None:
        # A lambda in the middle of an expression.
        return None
    # The tree is kept for others; this one is changed below.
    tree = copy.copy(found)
    tree.decorator_list = []
    if ast.get_docstring(found) is not None:
        tree.body = found.body[1:]
    return tree


def _equal(one: CodeType, other: CodeType) -> bool:
    return _bytecode(one) == _bytecode(other)


@lru_cache(maxsize=64)
def _codes(source: str) -> dict[str, list[CodeType]]:
    """What is compiled from a file, by qualified name."""
    found: dict[str, list[CodeType]] = {}
    try:
        waiting = [compile(source, "", "exec", dont_inherit=True)]
    except SyntaxError:
        return found
    while waiting:
        code = waiting.pop()
        found.setdefault(code.co_qualname, []).append(code)
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return found


@lru_cache(maxsize=64)
def _trees(source: str) -> dict[tuple[str, int], ast.FunctionDef]:
    """The functions of a file that compiles, by name and by the line in which their code begins."""
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    return {(each.name, min([each.lineno, *(line.lineno for line in each.decorator_list)])): each for each in functions}


def _bytecode(code: CodeType, docstring: str | None = None) -> list[Any]:
    constants = [
        _bytecode(c) if isinstance(c, CodeType) else repr(sorted(map(repr, c)) if isinstance(c, frozenset) else c)
        for c in code.co_consts[docstring is not None :]
    ]
    return [code.co_code.hex(), constants, code.co_names]
