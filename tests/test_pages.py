"""The harness of the documentation lets no block pass that did not run as it stands there."""

from pathlib import Path

import pytest

from pages import run_page

FENCE = "```"


@pytest.mark.parametrize(
    "block",
    [
        "python\nassert False",
        "python\n>>> 1\n2",
        "python\n>>> 1\n1\n\nassert False",
        "python\nassert False\n\n>>> 1\n1",
        "python\ns = '>>> '\nassert False",
        "python\n>>> 1 / 0  # doctest: +SKIP",
        "console\n$ false",
        "console\n$ echo one\ntwo",
        "console\nfalse",
        "console\nhello\n$ true",
        "shell\nrm -rf x",
        "shell\nmake nothing",
        "shell\npip install '.[nothing]'",
        "ruby\nputs 1",
        "\nno language",
        'python hl_lines="1"\n1',
        "text\n",
    ],
)
def test_what_does_not_run_as_it_stands_there_fails(block: str, reader: str) -> None:
    Path("page.md").write_text(f"# Page\n\n{FENCE}{block}\n{FENCE}\n")
    with pytest.raises(Exception):  # noqa: B017, PT011 -- whatever a block raises
        run_page(Path("page.md"), {"REDIS_URL": reader})


def test_what_does_runs_in_its_order(reader: str) -> None:
    blocks = ["python\nx = 1", "python\n>>> x\n1", 'python title="a.py"\nprint(2)', "console\n$ python3 a.py\n2"]
    blocks += ["redis\nSET a 1", "text\nshown", "shell\nmake demo  # all of it"]
    Path("page.md").write_text("\n\n".join(f"{FENCE}{block}\n{FENCE}" for block in blocks))
    assert run_page(Path("page.md"), {"REDIS_URL": reader}) == len(blocks)
