"""What CONTRIBUTING.md says about the repository is so."""

import re
from pathlib import Path

from mlforge.engines import Engine

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
LAYOUT = TEXT.partition("## Where things are\n\n```text\n")[2].partition("```")[0].splitlines()
PATH = re.compile(r"[\w.-]+/[\w./-]*|[\w-]+\.(?:py|md|toml|txt|yaml)")


def laid_out() -> set[Path]:
    """The paths in the layout; the names of a line are in the folder that it begins with, or have their own."""
    found = set()
    for line in LAYOUT:
        first, *others = line.split("   ")[0].split(", ")
        folder = Path(first).parent if not first.endswith("/") else Path(first.partition("/")[0])
        for name in (first, *others):
            beside = ROOT / folder / name if name != first else ROOT / name
            found.add(beside if beside.exists() else ROOT / name)
    return found


def test_every_path_in_the_layout_is_there() -> None:
    assert len(LAYOUT) > 20
    assert [path for path in laid_out() if not path.exists()] == []


def test_every_module_and_package_of_mlforge_stands_in_the_layout() -> None:
    own = {path for path in (ROOT / "mlforge").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert own - laid_out() == {ROOT / "mlforge" / "__init__.py"}


def test_every_other_path_that_is_named_is_there() -> None:
    rest = TEXT.replace("\n".join(LAYOUT), "")
    named = {
        path for quoted in re.findall(r"`([^`\n]+)`|\]\(([^)]+)\)", rest) for path in PATH.findall(" ".join(quoted))
    }
    made_here = {"dist/", ".venv/", ".venv/bin/pytest", ".venv/bin/pre-commit", ".venv/bin/hatchling"}
    assert len(named) > 20
    assert [
        path for path in named - made_here if not ((ROOT / path).exists() or (ROOT / "mlforge" / path).exists())
    ] == []


def test_an_engine_implements_what_is_said() -> None:
    assert Engine.__abstractmethods__ == {"run"}
