"""The commands in the text blocks of a page, which need programs that not every machine has."""

import doctest
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sybil import Example

import pages

# A prompt, with the environment that it names if it names one, and what is printed.
COMMAND = re.compile(
    r"^(?:\((?P<where>[\w-]+)\) )?\$ (?P<line>.*)\n?(?P<printed>(?:(?!(?:\([\w-]+\) )?\$ ).*\n?)*)", re.MULTILINE
)


def run_text(monkeypatch: pytest.MonkeyPatch, programs: Callable[[str | None], Path | None]) -> list[str]:
    """Has text blocks with commands run from now on, and what they print compared; gives the commands as they run.

    Args:
        monkeypatch: Ends it with the test.
        programs: Where the programs of an environment are, by the name in its prompt (None: a plain `$`). Commands of
            an environment that is nowhere are passed over; a plain `$` needs none.
    """
    ran: list[str] = []

    def run(example: Example) -> None:
        for command in COMMAND.finditer(str(example.parsed)):
            first = programs(command["where"])
            if command["where"] and first is None:
                continue
            ran.append(command["line"])
            path = os.environ["PATH"] if first is None else f"{first}{os.pathsep}{os.environ['PATH']}"
            bash = ["bash", "-euo", "pipefail", "-c", command["line"]]
            environment = os.environ | {"PATH": path, "PYTHONWARNINGS": "ignore"}
            ended = subprocess.run(bash, capture_output=True, text=True, check=False, env=environment)
            said = f"{command['line']}\n{ended.stdout}{ended.stderr}"
            assert ended.returncode == 0, said
            wanted, got = f"{command['printed'].strip()}\n", f"{ended.stdout.strip()}\n"
            assert wanted == "\n" or doctest.OutputChecker().check_output(wanted, got, pages.FLAGS), said

    monkeypatch.setitem(pages._EVALUATORS, "text", run)
    return ran
