"""Command lines, run in this process or as processes of their own, and what they answer."""

import contextlib
import io
import os
import shlex
import subprocess
import sysconfig
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlforge import Definitions, loader
from mlforge.cli.main import main
from mlforge.online import RedisStore

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


def elsewhere(folder: Path, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a folder that is no part of this repository: no Redis is named to it but here."""
    return subprocess.run(
        command, cwd=folder, env=without_redis() | environment, capture_output=True, text=True, check=False
    )


def without_redis() -> dict[str, str]:
    """The environment, without the Redis that whoever runs the tests may have named in it."""
    return {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "MLFORGE_REDIS_URL")}


def printed(folder: Path, *command: str | Path, **environment: str) -> str:
    """What such a program prints, which ends well."""
    ended = elsewhere(folder, *command, **environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@contextlib.contextmanager
def opened(folder: Path) -> Generator[Definitions]:
    """The definitions of an example, in this process."""
    found = loader.find(str(folder / "definitions.py"))
    yield found
    assert isinstance(found.online_store, RedisStore)
    found.online_store.close()
    loader._forget()


def all_of(controller: int) -> bytes:
    """What a terminal got, once nobody has its other end open; closes it."""
    shown = b""
    # Linux says EIO once the other end is closed.
    with os.fdopen(controller, "rb", buffering=0) as screen, contextlib.suppress(OSError):
        while chunk := screen.read(4096):
            shown += chunk
    return shown


def cells(line: str) -> list[str]:
    """What stands in a line of a table."""
    return [cell.strip() for cell in line.split("  ") if cell.strip()]
