"""Every code block of the documentation runs, in the order of its page, in an empty folder and against real servers."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest

import mlforge as mlf
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from pages import ROOT, run_page

# Spark takes long to start.
SLOW = {ROOT / "docs" / "guide" / "scaling.md"}
PAGES = [
    pytest.param(page, id=str(page.relative_to(ROOT)), marks=[pytest.mark.slow] if page in SLOW else [])
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
]
MODULES = [path for package in ("mlforge", "mlforge_dagster") for path in (ROOT / package).rglob("*.py")]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_what_happens(page: Path, reader: str) -> None:
    run_page(page, {"__name__": "__main__", "REDIS_URL": reader})


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=name)
def test_a_link_leads_somewhere(page: Path) -> None:
    """Links of the site are checked as it is built."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("mkdocs")
    built = subprocess.run([program, "build", "--site-dir", tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr


@pytest.mark.parametrize("module", [path for path in MODULES if "```" in path.read_text()], ids=name)
def test_the_blocks_of_docstrings_run(module: Path, reader: str) -> None:
    """As doctests they see their module; `defs` is a project."""
    pl.DataFrame({"user_id": ["ann"], "amount": [1.0]}).write_parquet("users.parquet")

    @mlf.feature(keys=["user_id"], source="users.parquet")
    def user_spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    with RedisStore.from_url(reader) as online:
        defs = mlf.Definitions(name="shop", features=[user_spend], store=LocalStore("store"), online_store=online)
        place = ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        assert run_page(module, vars(import_module(place)) | {"defs": defs})
