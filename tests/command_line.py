"""Command lines, run in this process or as processes of their own, and what they answer."""

import contextlib
import io
import shlex
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlforge import loader
from mlforge.cli.main import main

MLFORGE = Path(sysconfig.get_path("scripts")) / "mlforge"


@dataclass(frozen=True, kw_only=True)
class Answer:
    code: int | str | None
    out: str
    err: str


Cli = Callable[[str], Answer]


def run(line: str) -> Answer:
    """A command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(shlex.split(line))
    loader._forget()
    return Answer(code=ended.value.code, out=out.getvalue(), err=err.getvalue())


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command line as a process."""
    return subprocess.run([MLFORGE, *arguments], capture_output=True, text=True, check=False, **options)


def cells(line: str) -> list[str]:
    """What stands in a line of a table."""
    return [cell.strip() for cell in line.split("  ") if cell.strip()]
