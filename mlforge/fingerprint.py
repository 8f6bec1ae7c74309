"""The definition hash: a text that changes whenever a feature could compute something else from the same data."""

import ast
import hashlib
import inspect
import json
import textwrap
from types import CodeType, FunctionType, ModuleType
from typing import Any

from mlforge.features import Feature
from mlforge.windows import ALGORITHM


def definition_hash(feature: Feature) -> str:
    """32 hex digits over everything that decides what a feature computes.

    That is the function's syntax tree without comments, docstring and decorators (its bytecode where there is no
    source), the functions and constants of its module that it names, keys, timestamp, interval, metrics, checks,
    and the number of the window algorithm. The description, tags and owners may change freely.
    """
    content = {
        "algorithm": ALGORITHM,
        "function": _code(feature.function, set()),
        "keys": feature.keys,
        "timestamp": feature.timestamp,
        "interval": feature.interval,
        "outputs": [output.name for output in feature.outputs],
        "checks": {name: [str(check.expression), check.severity] for name, check in feature.checks.items()},
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _code(function: Any, seen: set[int]) -> list[Any]:
    """The function's own code and that of what it names, each once."""
    function = inspect.unwrap(function)
    if id(function) in seen:
        return []
    seen.add(id(function))
    if not isinstance(function, FunctionType):
        return [type(function).__qualname__, *_code(type(function).__call__, seen)]
    tree = _tree(function)
    own = _bytecode(function.__code__) if tree is None else ast.dump(tree)
    named = _names(function.__code__)
    closure = inspect.getclosurevars(function)
    found = {**closure.globals, **closure.nonlocals}
    helpers = [[name, _value(found[name], function.__module__, seen)] for name in sorted(named & found.keys())]
    return [own, [helper for helper in helpers if helper[1] is not None]]


def _value(value: Any, module: str, seen: set[int]) -> Any:
    if isinstance(value, Feature | ModuleType | type):
        return None
    if isinstance(value, FunctionType):
        return _code(value, seen) if value.__module__ == module else None
    if isinstance(value, str | int | float | bool | bytes | tuple | list | dict | set | frozenset | None):
        return repr(sorted(value, key=repr) if isinstance(value, set | frozenset) else value)
    return None


def _names(code: CodeType) -> set[str]:
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(code.co_freevars, *inner)


def _tree(function: FunctionType) -> ast.AST | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):
        # No source (`python -c`, a REPL), or a lambda in the middle of an expression.
        return None
    found = tree.body[0]
    if not isinstance(found, ast.FunctionDef):
        return None
    found.decorator_list = []
    if ast.get_docstring(found) is not None:
        found.body = found.body[1:]
    return found


def _bytecode(code: CodeType) -> list[Any]:
    constants = [_bytecode(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), constants, code.co_names]
