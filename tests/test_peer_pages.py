"""The pages about other feature stores, with those installed from PyPI: what the pages say they do is what they do."""

import sys
from pathlib import Path

import pytest

from command_line import MLFORGE
from pages import ROOT, run_page

sys.path.append(str(ROOT / "benchmarks"))
from peers import FEAST, MLFORGE_SDK, installed

PROMPTS = {FEAST: "feast", MLFORGE_SDK: "mlforge-sdk"}
# Pages, and the peers without which nothing of them can be run.
PAGES = [("migrating-from-feast", "feast"), ("migrating-from-mlforge-sdk", "mlforge-sdk"), ("comparison", "feast")]


@pytest.fixture(scope="module")
def environments() -> dict[str, Path]:
    """The folders of programs, by what a prompt calls them; made once in build/, which takes minutes."""
    peers = {PROMPTS[peer]: there.python.parent for peer, there in installed(ROOT / "build", list(PROMPTS))}
    assert "feast" in peers, "Feast cannot be installed: see what is said above."
    return {"mlforge": MLFORGE.parent, **peers}


@pytest.mark.slow
@pytest.mark.parametrize(("page", "peer"), PAGES, ids=[page for page, _ in PAGES])
def test_a_page_about_a_peer_says_what_both_do(
    page: str, peer: str, reader: str, environments: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    missing = {name for name in PROMPTS.values() if f"({name}) $" in text} - environments.keys()
    if peer in missing:
        pytest.skip(f"{peer} cannot be installed, maybe for want of its Python: see what is said above.")
    server = reader.removeprefix("redis://").partition("/")[0]
    monkeypatch.setenv("FEAST_REDIS", server)
    monkeypatch.setenv("REDIS_PORT", server.rpartition(":")[2])
    monkeypatch.setenv("FEAST_USAGE", "False")
    namespace = {"__name__": "__main__", "REDIS_URL": reader}
    asked = set()

    def programs(where: str | None) -> Path | None:
        asked.add(where)
        return environments.get(where or "mlforge")

    run_page(ROOT / "docs" / f"{page}.md", namespace, programs)
    assert peer in asked, "Nothing on the page is run by the peer."
    if missing:
        pytest.skip(f"All was run but what needs {missing}: see what is said above.")
