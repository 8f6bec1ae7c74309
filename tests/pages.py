"""The code blocks of a page of documentation, run in the order of the page, as its reader would run them.

What a block is, its first line says: Python is executed (with `>>>` as a doctest); what has a title is a file of that
name; of a console the lines after `$` are run by bash, and what stands below them has to be what they print; of redis
every line is a command; shell is what a reader types to set things up, which is only looked at; text is only shown,
unless it is said where its programs are, since not every machine has them.
"""

import doctest
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
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
# A prompt, with the environment that it names if it names one, and what is printed.
COMMAND = re.compile(
    r"^(?:\((?P<where>[\w-]+)\) )?\$ (?P<line>.*(?:\n> ?.*)*)\n?"
    r"(?P<printed>(?:(?!(?:\([\w-]+\) )?\$ ).*\n?)*)",
    re.MULTILINE,
)

Evaluator = Callable[[Example], Any]
Programs = Callable[[str | None], Path | None]

_fences = RawFencedCodeBlockLexer(
    # Whatever a fence says: one that is not understood is an error, and never passed over.
    re.compile(r"(?P<language>\S*)[ \t]*(?P<options>[^\n]*)\n")
)
_doctests = DocTestStringParser(DocTestEvaluator(FLAGS))
_python = PythonEvaluator()


def run_page(page: Path, namespace: dict[str, Any], programs: Programs | None = None) -> int:
    """Runs the blocks of a Markdown file, or of the docstrings of a module, in the working directory; says how many.

    Args:
        page: The file.
        namespace: What its Python sees.
        programs: Where the programs of an environment are, by the name in its prompt in a text block (None: a plain
            `$`). Commands of an environment that is nowhere are passed over; a plain `$` needs none.
    """
    evaluators = _EVALUATORS | ({"text": partial(_text, programs)} if programs else {})
    document = Sybil([partial(_blocks, evaluators)]).parse(page)
    document.namespace.update(namespace)
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    return len(examples)


def _blocks(evaluators: Mapping[str, Evaluator], document: Document) -> Iterable[Region]:
    for block in _fences(document):
        language, options = block.lexemes["language"], block.lexemes["options"]
        title = re.fullmatch(r'title="([^"]+)"', options)
        place = f"{document.path}, line {document.text.count(chr(10), 0, block.start) + 1}"
        if options and title is None:
            raise ValueError(f"{place}: {options!r} of a fence is not understood.")
        source = block.lexemes["source"]
        if title is not None:
            yield Region(block.start, block.end, (title.group(1), source), _write)
        elif language == "python" and re.search(r"^\s*>>> ", source, re.MULTILINE):
            for paragraph in re.split(r"\n\s*\n", source.strip()):
                if not paragraph.lstrip().startswith(">>> ") or "+SKIP" in paragraph:
                    raise ValueError(f"{place}: what is not run stands beside `>>>`:\n{paragraph}")
            for part in _doctests(source, document.path):
                part.adjust(block, source)
                yield part
        elif language in evaluators:
            yield Region(block.start, block.end, source, evaluators[language])
        else:
            raise ValueError(f"{place}: a fence has to say that it is one of {sorted(evaluators)}, or have a title.")


def _write(example: Example) -> None:
    name, text = example.parsed
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(text))


def _console(example: Example) -> None:
    if not str(example.parsed).startswith("$ "):
        raise ValueError(f"A console begins with `$ `:\n{example.parsed}")
    for command in COMMAND.finditer(str(example.parsed)):
        _command(command, os.environ)


def _text(programs: Programs, example: Example) -> None:
    for command in COMMAND.finditer(str(example.parsed)):
        first = programs(command["where"])
        if command["where"] is None or first is not None:
            path = os.pathsep.join(str(place) for place in (first, os.environ["PATH"]) if place)
            _command(command, os.environ | {"PATH": path, "PYTHONWARNINGS": "ignore"})


def _command(command: re.Match[str], environment: Mapping[str, str]) -> None:
    line = MORE.sub("", command["line"])
    bash = ["bash", "-euo", "pipefail", "-c", line]
    ended = subprocess.run(bash, capture_output=True, text=True, check=False, env=environment)
    said = f"$ {line}\n{ended.stdout}{ended.stderr}"
    assert ended.returncode == 0, f"It ended with {ended.returncode}:\n{said}"
    wanted, got = (f"{text.strip()}\n" for text in (command["printed"], ended.stdout))
    assert wanted == "\n" or doctest.OutputChecker().check_output(wanted, got, FLAGS), (
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


_EVALUATORS: dict[str, Evaluator] = {
    "python": _python,
    "console": _console,
    "redis": _redis,
    "shell": _shell,
    "text": _shown,
}
