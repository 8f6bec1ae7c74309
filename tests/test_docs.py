"""Every code block of the documentation runs, in the order of its page, in an empty folder and against real servers."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest

import mlforge as mlf
from command_line import MLFORGE
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from pages import ROOT, run_page
from servers import RedisServer

# Spark takes long to start.
SLOW = {ROOT / "docs" / "guide" / "scaling.md"}
PAGES = [
    pytest.param(page, id=str(page.relative_to(ROOT)), marks=[pytest.mark.slow] if page in SLOW else [])
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
]
MODULES = [path for package in ("mlforge", "mlforge_dagster") for path in (ROOT / package).rglob("*.py")]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture
def redis_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a reader is: in an empty folder, with mlforge on the PATH and a Redis at the address that is given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PATH", f"{MLFORGE.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    (tmp_path / ".dagster").mkdir()
    (tmp_path / ".dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / ".dagster"))
    before = set(sys.modules)
    with RedisServer() as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        yield server.url
    # The files of a page are modules, of which the next page has its own.
    for module in set(sys.modules) - before:
        if str(getattr(sys.modules[module], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[module]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_what_happens(page: Path, redis_url: str) -> None:
    run_page(page, {"__name__": "__main__", "REDIS_URL": redis_url})


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
def test_the_blocks_of_docstrings_run(module: Path, redis_url: str) -> None:
    """As doctests they see their module; `defs` is a project."""
    pl.DataFrame({"user_id": ["ann"], "amount": [1.0]}).write_parquet("users.parquet")

    @mlf.feature(keys=["user_id"], source="users.parquet")
    def user_spend(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    with RedisStore.from_url(redis_url) as online:
        defs = mlf.Definitions(name="shop", features=[user_spend], store=LocalStore("store"), online_store=online)
        place = ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        assert run_page(module, vars(import_module(place)) | {"defs": defs})
