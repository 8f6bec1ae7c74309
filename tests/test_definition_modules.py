"""The definition hash covers what a feature uses of the whole project, whichever module it is in."""

import ast
import hashlib
import importlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from command_line import process
from mlforge.definition import definition_hash
from mlforge.windows import ALGORITHM
from shop import EVENTS

HELPER = """
RATE = 2

def scale(column):
    return inner(column) * RATE

def inner(column):
    return column + 1
"""
FEATURE = """
@mlf.feature(keys=["user_id"], source="events.parquet", timestamp="ts")
def spend(df):
    {local}
    return df.select("user_id", "ts", {call}(pl.col("amount")))
"""
DEFINITIONS = f"""
import mlforge as mlf
import polars as pl
{{imports}}
{FEATURE}
defs = mlf.Definitions("shop")
"""
# How the feature comes by the helper, and in which file that is.
SPELLINGS = {
    "from": ("helper.py", {"imports": "from helper import scale", "call": "scale", "local": ""}),
    "import": ("helper.py", {"imports": "import helper", "call": "helper.scale", "local": ""}),
    "as": ("helper.py", {"imports": "import helper as h", "call": "h.scale", "local": ""}),
    "nested": ("lib/helper.py", {"imports": "import lib.helper", "call": "lib.helper.scale", "local": ""}),
    "submodule": ("lib/helper.py", {"imports": "from lib import helper", "call": "helper.scale", "local": ""}),
    "inside": ("helper.py", {"imports": "", "call": "scale", "local": "from helper import scale"}),
    "inside nested": ("lib/helper.py", {"imports": "", "call": "lib.helper.scale", "local": "import lib.helper"}),
    "inside submodule": ("lib/helper.py", {"imports": "", "call": "h.scale", "local": "from lib import helper as h"}),
}


def outcome(folder: Path) -> str:
    # Python takes a file of the same size and second for the same.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    ended = process("build", "--json", cwd=folder, env=environment)
    assert ended.returncode == 0, ended.stderr
    return str(json.loads(ended.stdout)[0]["outcome"])


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert text.count(before) == 1
    file.write_text(text.replace(before, after))


def each_change_is_built(folder: Path, helper: Path, constants: Path) -> None:
    assert [outcome(folder), outcome(folder)] == ["built", "skipped"]
    edit(helper, "def scale(column):", "\n# What it costs.\ndef scale(column):\n    # In cents.")
    assert outcome(folder) == "skipped"
    edit(constants, "RATE = 2", "RATE = 3")
    assert [outcome(folder), outcome(folder)] == ["built", "skipped"]
    edit(helper, "* RATE", "/ RATE")
    assert outcome(folder) == "built"
    edit(helper, "column + 1", "column + 2")
    assert [outcome(folder), outcome(folder)] == ["built", "skipped"]


@pytest.mark.parametrize("spelling", ["from", "import", "inside"])
def test_a_change_in_another_module_is_built(spelling: str, tmp_path: Path) -> None:
    EVENTS.write_parquet(tmp_path / "events.parquet")
    file, names = SPELLINGS[spelling]
    (tmp_path / file).write_text(HELPER)
    (tmp_path / "definitions.py").write_text(DEFINITIONS.format(**names))
    each_change_is_built(tmp_path, tmp_path / file, tmp_path / file)


def test_a_change_in_a_package_with_relative_imports_is_built(tmp_path: Path) -> None:
    EVENTS.write_parquet(tmp_path / "events.parquet")
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("from .features import spend")
    (package / "rates.py").write_text("RATE = 2")
    (package / "helper.py").write_text(HELPER.replace("RATE = 2", "from .rates import RATE"))
    feature = FEATURE.format(local="", call="helper.scale")
    (package / "features.py").write_text(f"import mlforge as mlf\nimport polars as pl\nfrom . import helper\n{feature}")
    (tmp_path / "definitions.py").write_text(
        "import mlforge as mlf\nfrom shop import features\ndefs = mlf.Definitions('shop', features=[features])"
    )
    each_change_is_built(tmp_path, package / "helper.py", package / "rates.py")


@contextmanager
def importable(place: Path) -> Iterator[None]:
    before = set(sys.modules)
    sys.path.insert(0, str(place))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(place))
        for name in set(sys.modules) - before:
            del sys.modules[name]


def hash_of(folder: Path, files: dict[str, str], *, place: str = "") -> str:
    """The hash of `spend` in `definitions.py`; all other files are in a place of their own where one is named."""
    folder = folder / str(len(list(folder.iterdir())))
    for name, text in files.items():
        file = folder / ("" if name == "definitions.py" else place) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with importable(folder / place), importable(folder):
        return definition_hash(importlib.import_module("definitions").spend)


def project(spelling: str, helper: str = HELPER) -> dict[str, str]:
    file, names = SPELLINGS[spelling]
    return {"definitions.py": DEFINITIONS.format(**names), file: helper}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_each_spelling_of_an_import_leads_to_what_is_used(spelling: str, tmp_path: Path) -> None:
    first = hash_of(tmp_path, project(spelling))
    assert first == hash_of(tmp_path, project(spelling, f"# A comment.\nUNUSED = 1\n{HELPER}"))
    for before, after in (("RATE = 2", "RATE = 3"), ("* RATE", "/ RATE"), ("column + 1", "column + 2")):
        assert hash_of(tmp_path, project(spelling, HELPER.replace(before, after))) != first


@pytest.mark.parametrize("package", ["", "def scale(column): ..."])
def test_a_helper_may_be_in_a_folder_with_or_without_init(package: str, tmp_path: Path) -> None:
    extra = {"lib/__init__.py": package} if package else {}
    one = hash_of(tmp_path, {**project("nested"), **extra})
    assert one == hash_of(tmp_path, {**project("nested"), **extra})
    assert one != hash_of(tmp_path, {**project("nested", HELPER.replace("RATE = 2", "RATE = 3")), **extra})


@pytest.mark.parametrize("spelling", ["from", "import", "inside"])
@pytest.mark.parametrize(
    ("place", "counts"),
    [("src", True), (".venv/lib/python3/site-packages", False), ("usr/lib/python3/dist-packages", False)],
)
def test_what_is_installed_does_not_count(spelling: str, place: str, counts: bool, tmp_path: Path) -> None:
    changed = project(spelling, HELPER.replace("RATE = 2", "RATE = 3"))
    assert (hash_of(tmp_path, project(spelling), place=place) != hash_of(tmp_path, changed, place=place)) is counts


def test_a_project_that_is_installed_is_of_one_package(tmp_path: Path) -> None:
    def installed(rate: str) -> dict[str, str]:
        feature = FEATURE.format(local="", call="scale")
        features = f"import mlforge as mlf\nimport polars as pl\nfrom .helper import scale\n{feature}"
        helper = HELPER.replace("RATE = 2", rate)
        return {
            "definitions.py": "from pack.features import spend",
            "pack/__init__.py": "",
            "pack/features.py": features,
            "pack/helper.py": helper,
        }

    place = "lib/site-packages"
    hashes = [hash_of(tmp_path, installed(rate), place=place) for rate in ("RATE = 2", "RATE = 2", "RATE = 3")]
    assert hashes[0] == hashes[1] != hashes[2]
    assert hash_of(tmp_path, installed("RATE = 2")) == hashes[0]


def test_a_project_may_be_in_a_zip_file(tmp_path: Path) -> None:
    hashes = []
    for number, rate in enumerate(("RATE = 2", "RATE = 2", "RATE = 3")):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            for name, text in project("from", HELPER.replace("RATE = 2", rate)).items():
                archive.writestr(name, text)
        with importable(tmp_path / f"{number}.zip"):
            hashes.append(definition_hash(importlib.import_module("definitions").spend))
    assert hashes[0] == hashes[1] != hashes[2]


def test_modules_that_import_each_other_end(tmp_path: Path) -> None:
    def circle(rate: int) -> dict[str, str]:
        other = f"import helper\nRATE = {rate}\ndef inner(column):\n    return helper.other.inner or helper.scale"
        helper = "import other\ndef scale(column):\n    return other.inner(column) * other.RATE * other.helper.scale"
        return {**project("import", helper), "other.py": other}

    assert hash_of(tmp_path, circle(2)) == hash_of(tmp_path, circle(2)) != hash_of(tmp_path, circle(3))


WRITTEN = """
import fractions
import functools
import types
import zoneinfo
from dataclasses import dataclass

def inner(column):
    return column + 1

class Base:
    days = 30

class Rates(Base):
    def __init__(self):
        self.rate = 2

    @classmethod
    def of_class(cls, column):
        return column * 3

    @property
    def prop(self):
        return 4

    @functools.cached_property
    def cached(self):
        return 5

    def method(self, column):
        return column * 6

@dataclass(frozen=True, slots=True)
class Slots:
    rate: int

def twice(function):
    @functools.wraps(function)
    def wrapper(df):
        return function(function(df)).head(7)
    return wrapper

SLOTS = Slots(8)
RATES = Rates()
METHOD = Rates().method
PART = functools.partial(inner, column=9)
NAMES = {"a": [inner]}
FROZEN = types.MappingProxyType({"a1": 1})
ZONE = zoneinfo.ZoneInfo("Etc/GMT-1")
PART_OF = fractions.Fraction(1, 3)
"""


@pytest.mark.parametrize("imports", ["from helper import *", "import helper"])
@pytest.mark.parametrize(
    ("call", "changes"),
    [
        ("Rates", ["days = 30", "rate = 2", "column * 3", "return 4", "return 5", "column * 6"]),
        ("RATES", ["days = 30", "rate = 2", "column * 3", "return 4", "return 5", "column * 6"]),
        ("METHOD", ["column * 6", "rate = 2"]),
        ("PART", ["column=9", "column + 1"]),
        ("NAMES", ['"a"', "column + 1"]),
        ("SLOTS", ["Slots(8)"]),
        ("FROZEN", ['"a1"']),
        ("ZONE", ["GMT-1"]),
        ("PART_OF", ["(1, 3)"]),
        ("twice", ["head(7)"]),
    ],
)
def test_whatever_another_module_holds_is_followed(imports: str, call: str, changes: list[str], tmp_path: Path) -> None:
    def files(helper: str) -> dict[str, str]:
        name = f"helper.{call}" if imports == "import helper" else call
        return {"definitions.py": DEFINITIONS.format(imports=imports, local="", call=name), "helper.py": helper}

    first = hash_of(tmp_path, files(WRITTEN))
    assert first == hash_of(tmp_path, files(WRITTEN))
    for change in changes:
        assert WRITTEN.count(change) == 1
        other = change.translate(str.maketrans("0123456789a", "1234567890b", "")) if change != '"a"' else '"b"'
        assert hash_of(tmp_path, files(WRITTEN.replace(change, other))) != first, change


def test_a_decorator_of_another_module_counts(tmp_path: Path) -> None:
    def files(helper: str) -> dict[str, str]:
        text = DEFINITIONS.format(imports="from helper import twice", local="", call="abs")
        return {"definitions.py": text.replace("def spend", "@twice\ndef spend"), "helper.py": helper}

    first = hash_of(tmp_path, files(WRITTEN))
    assert first == hash_of(tmp_path, files(WRITTEN)) != hash_of(tmp_path, files(WRITTEN.replace("head(7)", "head(8)")))


def test_what_is_decorated_counts_whatever_the_decorator_takes_for_its_own(tmp_path: Path) -> None:
    # The features are installed, and their decorator is in the works.
    def files(rows: int) -> dict[str, str]:
        feature = f"@mlf.feature(keys=['k'], source='x')\n@twice\ndef spend(df):\n    return df.head({rows})"
        return {
            "definitions.py": WRITTEN + "def feature():\n    from pack import spend\n    return spend\n",
            "site-packages/pack.py": f"import mlforge as mlf\nfrom definitions import twice\n{feature}",
        }

    hashes = []
    for rows in (1, 1, 2):
        folder = tmp_path / str(len(hashes))
        for name, text in files(rows).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        with importable(folder), importable(folder / "site-packages"):
            hashes.append(definition_hash(importlib.import_module("definitions").feature()))
    assert hashes[0] == hashes[1] != hashes[2]


def test_what_cannot_be_imported_is_left_to_the_function(tmp_path: Path) -> None:
    names = {"imports": "", "call": "scale", "local": "from missing import scale"}
    assert hash_of(tmp_path, {"definitions.py": DEFINITIONS.format(**names)})
    broken = {"definitions.py": DEFINITIONS.format(**names), "missing.py": "import nowhere_to_be_found"}
    assert hash_of(tmp_path, broken)


def test_nothing_installed_is_imported_for_the_hash(tmp_path: Path) -> None:
    names = {"imports": "", "call": "scale", "local": "from heavy import scale"}
    files = {"definitions.py": DEFINITIONS.format(**names), "heavy.py": "raise SystemExit"}
    assert hash_of(tmp_path, files, place="lib/site-packages")


def test_without_a_file_only_the_main_module_counts(tmp_path: Path) -> None:
    program = HELPER + FEATURE.format(local="", call="scale") + "print(definition_hash(spend))"
    program = f"import mlforge as mlf\nimport polars as pl\nfrom mlforge.definition import definition_hash\n{program}"
    said = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
        for text in (program, program, program.replace("RATE = 2", "RATE = 3"))
    ]
    assert said[0] == said[1] != said[2]


def test_features_that_use_their_own_module_alone_keep_their_hash(tmp_path: Path) -> None:
    text = HELPER + DEFINITIONS.format(imports="import json", local="", call="scale")
    trees = {part.name: part for part in ast.parse(text).body if isinstance(part, ast.FunctionDef)}
    trees["spend"].decorator_list = []
    none = ["None", "None"]
    inner = [ast.dump(trees["inner"]), none, []]
    scale = [ast.dump(trees["scale"]), none, [["RATE", "2"], ["inner", inner]]]
    content = {
        "algorithm": ALGORITHM,
        "function": [ast.dump(trees["spend"]), none, [["scale", scale]]],
        "keys": ["user_id"],
        "timestamp": "ts",
        "interval": None,
        "outputs": [],
        "checks": {},
    }
    # What versions before wrote into the tables; another hash would build everything once more.
    expected = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
    assert hash_of(tmp_path, {"definitions.py": text}) == expected
