"""The pages about other feature stores, with those installed from PyPI: what the pages say they do is what they do."""

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil import Example

import pages
from command_line import MLFORGE
from pages import FLAGS, ROOT, run_page
from servers import RedisServer

sys.path.append(str(ROOT / "benchmarks"))
from peers import FEAST, MLFORGE_SDK, installed

# A prompt that names an environment, the lines that go on, and what is printed.
COMMAND = re.compile(r"^\((?P<where>[\w-]+)\) \$ (?P<line>.*)\n?(?P<printed>(?:(?!\([\w-]+\) \$ ).*\n?)*)", re.MULTILINE)


@pytest.fixture(scope="module")
def environments() -> dict[str, Path]:
    """The folders of programs, by what a prompt calls them; made once in build/, which takes minutes."""
    found = {peer: there.python.parent for peer, there in installed(ROOT / "build", [FEAST, MLFORGE_SDK])}
    return {"mlforge": MLFORGE.parent, "feast": found[FEAST], "mlforge-sdk": found[MLFORGE_SDK]}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """A reader's folder and a Redis, at the addresses that the pages name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with RedisServer() as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        monkeypatch.setenv("FEAST_REDIS", f"{server.host}:{server.port}")
        monkeypatch.setenv("REDIS_PORT", str(server.port))
        monkeypatch.setenv("FEAST_USAGE", "False")
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("page", ["migrating-from-feast", "migrating-from-mlforge-sdk", "comparison"])
def test_a_page_about_a_peer_says_what_both_do(
    page: str, server: RedisServer, environments: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = 0

    def run(example: Example) -> None:
        nonlocal ran
        for command in COMMAND.finditer(str(example.parsed)):
            ran += 1
            programs = environments[command["where"]]
            ended = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command["line"]],
                capture_output=True,
                text=True,
                check=False,
                env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONWARNINGS": "ignore"},
            )
            said = f"{command['line']}\n{ended.stdout}{ended.stderr}"
            assert ended.returncode == 0, said
            if command["printed"].strip():
                assert doctest.OutputChecker().check_output(
                    f"{command['printed'].strip()}\n", f"{ended.stdout.strip()}\n", FLAGS
                ), said

    monkeypatch.setitem(pages._EVALUATORS, "text", run)
    monkeypatch.setenv("PATH", f"{MLFORGE.parent}{os.pathsep}{os.environ['PATH']}")
    run_page(ROOT / "docs" / f"{page}.md", {"__name__": "__main__", "REDIS_URL": server.url})
    assert ran, "Nothing on the page is run by the peer."
