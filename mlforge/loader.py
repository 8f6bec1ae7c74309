"""Finding a project's Definitions: in the file that is named, in the one the project names, or in `definitions.py`."""

import importlib.machinery
import importlib.util
import sys
import tomllib
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from mlforge.core import Definitions
from mlforge.errors import DefinitionError, MlforgeError, RequestError, did_you_mean

DEFAULT = "definitions.py"
_WRITE = "defs = mlf.Definitions(...)"

# What the last load made importable, and the modules that there were before.
_folders: list[str] = []
_before: set[str] = set()


def find(path: str | None = None) -> Definitions:
    """The Definitions of a project.

    Args:
        path: A Python file, or `file.py:name` where it holds several Definitions. None: what `definitions` in
            `[tool.mlforge]` of `./pyproject.toml` says, relative to that file, and without it `./definitions.py`.

    Raises:
        DefinitionError: There is no such file, or there is not exactly one Definitions in it.
        RequestError: The path that was given leads to no Python file.
    """
    if path is not None:
        return _load(path, f"The definitions {path!r}", RequestError)
    project = Path("pyproject.toml")
    configured = _configured(project)
    if configured is not None:
        what = f"The definitions {configured!r} that [tool.mlforge] in {project} names"
        return _load(configured, what, DefinitionError)
    if not Path(DEFAULT).is_file():
        raise DefinitionError(
            f"There is no {DEFAULT} in {str(Path.cwd())!r}: write one with `{_WRITE}`, or name the file with "
            f'--definitions or in pyproject.toml, under [tool.mlforge], as in definitions = "features/store.py".'
        )
    return load(Path(DEFAULT), None)


def load(file: Path, name: str | None) -> Definitions:
    """The one Definitions in a Python file, or the one of a name; the file's folder is importable from then on.

    A file is run anew each time, and what it imported from its own folder is forgotten by the next load, so that
    projects with modules of the same names do not mix in one process.

    Raises:
        DefinitionError: There is none, there are several, or the name is something else. What the file itself
            raises passes through, with the place in a note.
    """
    found = {key: value for key, value in vars(_run(file)).items() if isinstance(value, Definitions)}
    if name is not None:
        if name not in found:
            raise DefinitionError(f"{str(file)!r} has no Definitions called {name!r}{did_you_mean(name, found)}")
        return found[name]
    different = {id(definitions): key for key, definitions in reversed(found.items())}
    if not different:
        raise DefinitionError(f"{str(file)!r} has no Definitions at its top level: write `{_WRITE}` there.")
    if len(different) > 1:
        names = [key for key in found if key in different.values()]
        raise DefinitionError(
            f"{str(file)!r} has several Definitions ({', '.join(names)}): name one, as in '{file}:{names[0]}'."
        )
    return next(iter(found.values()))


def _load(path: str, what: str, error: type[MlforgeError]) -> Definitions:
    """The Definitions at `file.py` or `file.py:name`; a path that leads nowhere is an error about `what`."""
    before, colon, after = path.rpartition(":")
    text, name = (before, after) if colon and after.isidentifier() else (path, None)
    file = Path(text).expanduser()
    if problem := _unreadable(file):
        raise error(f"{what} {problem}.")
    return load(file, name)


def _unreadable(file: Path) -> str | None:
    """Why a path cannot be loaded, as the end of a sentence."""
    if file.is_dir():
        return f"are a folder: write '{file / DEFAULT}'"
    if not file.is_file():
        return f"do not exist (looked for {str(file.absolute())!r})"
    return None if file.suffix == ".py" else "are no Python file: its name has to end in .py"


def _configured(project: Path) -> str | None:
    if not project.is_file():
        return None
    try:
        settings = tomllib.loads(project.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{str(project.absolute())!r} cannot be read: {error}.") from None
    tool: Any = settings.get("tool")
    own = tool.get("mlforge") if isinstance(tool, dict) else None
    value = own.get("definitions") if isinstance(own, dict) else None
    if value is not None and not isinstance(value, str):
        raise DefinitionError(
            f"definitions in [tool.mlforge] of {str(project.absolute())!r} is {value!r}: write a path in quotes."
        )
    return value


def _run(file: Path) -> ModuleType:
    file = file.absolute()
    _forget()
    # Under its own name, as `import definitions` would have it, unless that is taken by something else.
    name = file.stem if file.stem not in sys.modules else f"mlforge_definitions_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise DefinitionError(f"{str(file)!r} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    _make_importable(file.parent)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        _forget()
        error.add_note(f"This happened while loading {str(file)!r}{_line(error, file)}.")
        raise
    return module


def _make_importable(folder: Path) -> None:
    """Puts a folder first on the path."""
    _before.update(sys.modules)
    _folders.append(str(folder))
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def _forget() -> None:
    """Takes the folder away, with the modules that came from it, also those that functions have imported since."""
    new = {name.partition(".")[0] for name in set(sys.modules) - _before} - _before if _folders else set()
    own = {top for top in new if importlib.machinery.PathFinder.find_spec(top, _folders) is not None}
    own |= {name for name in new if name.startswith("mlforge_definitions_")}
    for name in list(sys.modules):
        if name.partition(".")[0] in own:
            del sys.modules[name]
    for folder in _folders:
        if folder in sys.path:
            sys.path.remove(folder)
    _before.clear()
    _folders.clear()


def _line(error: BaseException, file: Path) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f", line {lines[-1]}" if lines else ""
