"""The page about keys and values in Redis, with what its readers use: Python's standard library, Node, redis-cli."""

import importlib
import json
import shutil
from pathlib import Path

import pytest

from pages import ROOT, run_page
from test_keys import READ, VECTORS

PAGE = ROOT / "docs" / "reference" / "key-format.md"


@pytest.fixture
def vectors(reader: str) -> str:
    """What a reader has, with the file that is to be downloaded."""
    shutil.copy(PAGE.parent / "key-vectors.json", Path.cwd())
    return reader


def test_the_page_computes_every_vector_in_python(vectors: str) -> None:
    run_page(PAGE, {"REDIS_URL": vectors})
    page = importlib.import_module("key")
    for vector in VECTORS:
        keys = {name: READ[kind](value) for name, (kind, value) in vector["keys"].items()}
        assert page.entity_key_hash(keys) == vector["hash"]


@pytest.mark.slow  # It needs Node and redis-cli.
def test_the_page_computes_every_vector_in_node_and_reads_a_value(vectors: str) -> None:
    asked: list[str | None] = []
    run_page(PAGE, {"REDIS_URL": vectors}, asked.append)
    assert asked == [None] * 4


def test_vectors_cover_every_type_and_the_order_of_bytes() -> None:
    kinds = {kind for vector in VECTORS for kind, _ in vector["keys"].values()}
    assert kinds == READ.keys()
    by_code_unit = [sorted(vector["keys"], key=lambda name: name.encode("utf-16-be")) for vector in VECTORS]
    by_byte = [sorted(vector["keys"], key=str.encode) for vector in VECTORS]
    assert by_code_unit != by_byte


def test_the_stored_values_of_the_vectors_are_json() -> None:
    for vector in json.loads((PAGE.parent / "value-vectors.json").read_text()):
        assert json.loads(vector["json"]).keys() == vector["schema"].keys()
