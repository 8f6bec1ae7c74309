"""The code blocks of a page of documentation, run in the order of the page, as its reader would run them.

What a block is, its first line says: Python is executed (with `>>>` as a doctest); what has a title is a file of that
name; of a console the lines after `$` are run by bash, and what stands below them has to be what they print; of redis
every line is a command; shell is what a reader types to set things up, which is only looked at; text is only shown.
"""

import doctest
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import redis
from sybil import Document, Example, Region, Sybil
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

ROOT = Path(__file__).parent.parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# The prompts of a file that goes on, as bash has them.
MORE = re.compile(r"^> ?", re.MULTILINE)
COMMAND = re.compile(r"^\$ (?P<line>.*(?:\n> ?.*)*)\n?(?P<printed>(?:(?!\$ ).*\n?)*)", re.MULTILINE)

_fences = RawFencedCodeBlockLexer(
    # Whatever a fence says: one that is not understood is an error, and never passed over.
    re.compile(r"(?P<language>\S*)[ \t]*(?P<options>[^\n]*)\n")
)
_doctests = DocTestStringParser(DocTestEvaluator(FLAGS))
_python = PythonEvaluator()


def run_page(page: Path, namespace: dict[str, Any]) -> int:
    """Runs the blocks of a Markdown file, or of the docstrings of a module, in the working directory; says how many."""
    document = Sybil([_blocks]).parse(page)
    document.namespace.update(namespace)
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    return len(examples)


def _blocks(document: Document) -> Iterable[Region]:
    for block in _fences(document):
        language, options = block.lexemes["language"], block.lexemes["options"]
        title = re.fullmatch(r'title="([^"]+)"', options)
        place = f"{document.path}, line {document.text.count(chr(10), 0, block.start) + 1}"
        if options and title is None:
            raise ValueError(f"{place}: {options!r} of a fence is not understood.")
        source = block.lexemes["source"]
        if title is not None:
            yield Region(block.start, block.end, (title.group(1), source), _write)
        elif language == "python" and ">>>" in source:
            for part in _doctests(source, document.path):
                part.adjust(block, source)
                yield part
        elif language in _EVALUATORS:
            yield Region(block.start, block.end, source, _EVALUATORS[language])
        else:
            raise ValueError(f"{place}: a fence has to say that it is one of {sorted(_EVALUATORS)}, or have a title.")


def _write(example: Example) -> None:
    name, text = example.parsed
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(text))


def _console(example: Example) -> None:
    for command in COMMAND.finditer(str(example.parsed)):
        line = MORE.sub("", command["line"])
        ended = subprocess.run(["bash", "-euo", "pipefail", "-c", line], capture_output=True, text=True, check=False)
        said = f"$ {line}\n{ended.stdout}{ended.stderr}"
        assert ended.returncode == 0, f"It ended with {ended.returncode}:\n{said}"
        wanted = command["printed"]
        if wanted.strip():
            assert doctest.OutputChecker().check_output(f"{wanted.strip()}\n", f"{ended.stdout.strip()}\n", FLAGS), (
                f"The page says\n{wanted}\nand it is\n{said}"
            )


def _redis(example: Example) -> None:
    with redis.Redis.from_url(example.namespace["REDIS_URL"]) as client:
        for line in str(example.parsed).splitlines():
            client.execute_command(*shlex.split(line))


def _shell(example: Example) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in str(example.parsed).splitlines():
        command, *arguments = shlex.split(line, comments=True) or [""]
        if command == "make":
            targets = {argument for argument in arguments if "=" not in argument}
            assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)), line
        elif command == "pip":
            for extras in re.findall(r"(?:mlforge|\.)\[([\w,]+)\]", line):
                assert set(extras.split(",")) <= project["optional-dependencies"].keys(), line
        else:
            assert command in ("", "git", "cd", "python3", "source", "dagster"), f"Who tests this? {line}"


def _shown(example: Example) -> None:
    assert str(example.parsed).strip(), "An empty block."


_EVALUATORS = {"python": _python, "console": _console, "redis": _redis, "shell": _shell, "text": _shown}
