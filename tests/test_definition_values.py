"""The definition hash and the values that a feature names: what they hold counts, in every process alike."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from mlforge import DefinitionError
from mlforge.definition import definition_hash

PROJECT = """
import enum
import functools
import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import mlforge as mlf
import polars as pl


class State(enum.Enum):
    PAID = 1
    OPEN = 2


@dataclass(frozen=True)
class Currency:
    rate: float

    @functools.cached_property
    def inverse(self):
        return 1 / self.rate


def mean(df):
    return df.mean()


def median(df):
    return df.median()


EUR, USD = Currency(1.0), Currency(2.0)
RATE = EUR
use = mean
STATES = {State.PAID, State.OPEN}
RATES = frozenset({EUR, USD})
LOOKUP = pl.LazyFrame({"a": [1, 2]})
SETTINGS = SimpleNamespace(days=7)
STEPS = deque([1, 2])
MASK = bytearray(b"1")
PATTERN = re.compile("x" * 300 + "a")
HERE = Path(__file__).parent / "data"
mean.power = 1
LOOP = {}


@mlf.feature(keys=["user"], source="events.parquet")
def spend(df):
    names = (mean, median, use, EUR, USD, RATE, STATES, RATES, LOOKUP, SETTINGS, STEPS, MASK, PATTERN, HERE, LOOP)
    return df.select("user", pl.lit(EUR.rate))
"""

Load = Callable[..., ModuleType]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads the project after replacements, from a folder of a name."""

    def loaded(*replacements: tuple[str, str], folder: str = "project") -> ModuleType:
        text = PROJECT
        for old, new in replacements:
            assert text.count(old) == 1
            text = text.replace(old, new)
        file = tmp_path / folder / "values.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        specification = importlib.util.spec_from_file_location("values_of_a_project", file)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[module.__name__] = module
        try:
            exec(compile(text, str(file), "exec"), module.__dict__)
        finally:
            del sys.modules[module.__name__]
        return module

    return loaded


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RATE = EUR", "RATE = USD"),
        ("use = mean", "use = median"),
        ("STATES = {State.PAID, State.OPEN}", "STATES = {State.PAID}"),
        ("RATES = frozenset({EUR, USD})", "RATES = frozenset({EUR})"),
        ('LOOKUP = pl.LazyFrame({"a": [1, 2]})', 'LOOKUP = pl.LazyFrame({"a": [1, 3]})'),
        ("days=7", "days=8"),
        ("deque([1, 2])", "deque([2, 1])"),
        ('bytearray(b"1")', 'bytearray(b"2")'),
        ('"x" * 300 + "a"', '"x" * 300 + "b"'),
        ('/ "data"', '/ "other"'),
        ("mean.power = 1", "mean.power = 2"),
    ],
)
def test_every_value_counts(load: Load, old: str, new: str) -> None:
    assert definition_hash(load((old, new)).spend) != definition_hash(load().spend)


def test_the_folder_of_the_project_does_not_count(load: Load) -> None:
    assert definition_hash(load(folder="one").spend) == definition_hash(load(folder="two").spend)


def test_what_was_computed_once_and_kept_does_not_count(load: Load) -> None:
    project = load()
    before = definition_hash(project.spend)
    assert project.USD.inverse == 0.5
    assert definition_hash(project.spend) == before


def test_sets_of_objects_are_the_same_in_every_process(load: Load, tmp_path: Path) -> None:
    load()
    program = "import values; from mlforge.definition import definition_hash; print(definition_hash(values.spend))"
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path / "project",
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        for seed in range(4)
    }
    assert len(found) == 1


def test_a_file_that_was_edited_since_it_was_loaded_is_not_taken_for_what_runs(load: Load) -> None:
    running = load()
    before = definition_hash(running.spend)
    edited = load(("pl.lit(EUR.rate)", "pl.lit(EUR.rate * 1000)"))
    assert definition_hash(running.spend) != definition_hash(edited.spend)
    # Lines that have only moved are what runs.
    load(("\nEUR, USD", "\n\n\nEUR, USD"))
    assert definition_hash(running.spend) == before


def test_a_value_that_contains_itself_is_one_line(load: Load) -> None:
    with pytest.raises(DefinitionError, match="Feature 'spend' names something that contains itself"):
        definition_hash(load(("LOOP = {}", "LOOP = {}\nLOOP['self'] = LOOP")).spend)
