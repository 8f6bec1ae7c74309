"""The page about keys and values in Redis, with what its readers use: Python's standard library, Node, redis-cli."""

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import prompts
from command_line import MLFORGE
from pages import ROOT, run_page
from servers import RedisServer
from test_keys import READ, VECTORS

PAGE = ROOT / "docs" / "reference" / "key-format.md"


@pytest.fixture
def redis_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A reader's folder, with the vectors, and a Redis."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    shutil.copy(PAGE.parent / "key-vectors.json", tmp_path)
    with RedisServer() as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        monkeypatch.setenv("PATH", str(MLFORGE.parent), prepend=":")
        yield server.url
    sys.modules.pop("key", None)


def test_the_page_computes_every_vector_in_python(redis_url: str) -> None:
    run_page(PAGE, {"REDIS_URL": redis_url})
    page = importlib.import_module("key")
    for vector in VECTORS:
        assert (
            page.entity_key_hash({name: READ[kind](value) for name, (kind, value) in vector["keys"].items()})
            == (vector["hash"])
        )


@pytest.mark.skipif(not (shutil.which("node") and shutil.which("redis-cli")), reason="needs nodejs and redis-tools")
def test_the_page_computes_every_vector_in_node_and_reads_a_value(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = prompts.run_text(monkeypatch, lambda _: None)
    run_page(PAGE, {"REDIS_URL": redis_url})
    assert len(ran) == 4


def test_vectors_cover_every_type_and_the_order_of_bytes() -> None:
    kinds = {kind for vector in VECTORS for kind, _ in vector["keys"].values()}
    assert kinds == READ.keys()
    by_code_unit = [sorted(vector["keys"], key=lambda name: name.encode("utf-16-be")) for vector in VECTORS]
    by_byte = [sorted(vector["keys"], key=str.encode) for vector in VECTORS]
    assert by_code_unit != by_byte


def test_the_stored_values_of_the_vectors_are_json() -> None:
    for vector in json.loads((PAGE.parent / "value-vectors.json").read_text()):
        assert json.loads(vector["json"]).keys() == vector["schema"].keys()
