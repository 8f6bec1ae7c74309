import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from mlforge import loader
from mlforge.errors import DefinitionError, RequestError

FEATURE = """
@mlf.feature(keys=["user_id"], source="events.parquet")
def {name}(df):
    return df
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    loader._forget()


def write(path: str, text: str) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"import mlforge as mlf\n{text}")
    return file


def test_definitions_py_in_the_working_directory_is_found() -> None:
    write("definitions.py", "defs = mlf.Definitions('here', features=[])")
    assert loader.find().name == "here"


def test_pyproject_names_the_file_relative_to_itself() -> None:
    write("definitions.py", "defs = mlf.Definitions('here', features=[])")
    write("inner/other.py", "defs = mlf.Definitions('other', features=[])\nmore = mlf.Definitions('more', features=[])")
    Path("pyproject.toml").write_text('[tool.mlforge]\ndefinitions = "inner/other.py:more"\n')
    assert loader.find().name == "more"


def test_a_path_that_is_given_comes_before_what_the_project_says() -> None:
    write("given.py", "defs = mlf.Definitions('given', features=[])")
    write("other.py", "defs = mlf.Definitions('other', features=[])")
    Path("pyproject.toml").write_text('[tool.mlforge]\ndefinitions = "other.py"\n')
    assert loader.find("given.py").name == "given"
    assert loader.find("given.py:defs").name == "given"


@pytest.mark.parametrize("text", ["", "[tool.other]\nx = 1", "[tool.mlforge]\n", "tool = 3"])
def test_a_pyproject_that_says_nothing_does_not_matter(text: str) -> None:
    write("definitions.py", "defs = mlf.Definitions('here', features=[])")
    Path("pyproject.toml").write_text(text)
    assert loader.find().name == "here"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool", "pyproject.toml' cannot be read"),
        ("[tool.mlforge]\ndefinitions = 3", "is 3: write a path in quotes"),
        (
            '[tool.mlforge]\ndefinitions = "gone.py"',
            r"'gone.py' that \[tool.mlforge\] in pyproject.toml names do not exist",
        ),
    ],
)
def test_a_pyproject_that_cannot_be_followed_is_an_error(text: str, message: str) -> None:
    Path("pyproject.toml").write_text(text)
    with pytest.raises(DefinitionError, match=message):
        loader.find()


def test_nothing_found_says_where_it_looked_and_what_to_write(project: Path) -> None:
    with pytest.raises(DefinitionError, match=r"no definitions\.py in .*mlf\.Definitions.*--definitions") as caught:
        loader.find()
    assert str(project) in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone.py", "'gone.py' do not exist"),
        ("folder", "are a folder: write 'folder/definitions.py'"),
        ("notes.txt", r"end in \.py"),
    ],
)
def test_a_path_to_no_python_file_is_an_error(path: str, message: str) -> None:
    write("notes.txt", "")
    Path("folder").mkdir()
    with pytest.raises(RequestError, match=message):
        loader.find(path)


def test_a_module_without_definitions_is_an_error() -> None:
    write("definitions.py", "from mlforge import Definitions\n")
    with pytest.raises(DefinitionError, match=r"'definitions\.py' has no Definitions at its top level: write"):
        loader.find()


def test_several_definitions_have_to_be_told_apart() -> None:
    write("definitions.py", "a = mlf.Definitions('x', features=[])\nb = mlf.Definitions('y', features=[])")
    with pytest.raises(DefinitionError, match=r"several Definitions \(a, b\): name one, as in 'definitions\.py:a'"):
        loader.find()
    assert loader.find("definitions.py:b").name == "y"


def test_one_definitions_under_two_names_is_one() -> None:
    write("definitions.py", "defs = same = mlf.Definitions('x', features=[])")
    assert loader.find().name == "x"


def test_a_name_that_is_not_there_is_an_error_with_a_hint() -> None:
    write("definitions.py", "defs = mlf.Definitions('x', features=[])")
    with pytest.raises(DefinitionError, match="no Definitions called 'deffs'; did you mean 'defs'"):
        loader.find("definitions.py:deffs")


def test_definitions_without_features_have_those_of_the_module_above_and_below() -> None:
    write("definitions.py", FEATURE.format(name="above") + "defs = mlf.Definitions('x')" + FEATURE.format(name="below"))
    assert list(loader.find().features) == ["above", "below"]


def test_an_exception_in_the_module_keeps_its_traceback_and_names_the_file() -> None:
    file = write("definitions.py", "def broken():\n    return 1 / 0\nbroken()")
    with pytest.raises(ZeroDivisionError) as caught:
        loader.find()
    assert caught.value.__notes__ == [f"This happened while loading {str(file.absolute())!r}, line 3."]
    assert caught.traceback[-1].name == "broken"
    assert "definitions" not in sys.modules


def test_a_syntax_error_names_the_file() -> None:
    write("definitions.py", "defs = (")
    with pytest.raises(SyntaxError, match="never closed") as caught:
        loader.find()
    assert "while loading" in caught.value.__notes__[0]


def test_a_mistake_in_a_definition_says_the_line() -> None:
    write("definitions.py", "\nmlf.Rolling(windows=['1 month'], aggregations={'x': ['sum']})")
    with pytest.raises(DefinitionError, match="not a duration") as caught:
        loader.find()
    assert caught.value.__notes__[0].endswith("definitions.py', line 3.")


def test_modules_beside_the_file_can_be_imported() -> None:
    write("project/shared.py", FEATURE.format(name="spend"))
    write("project/definitions.py", "import shared\ndefs = mlf.Definitions('x', features=[shared])")
    assert list(loader.find("project/definitions.py").features) == ["spend"]


def test_projects_with_modules_of_the_same_names_do_not_mix() -> None:
    for name in ("one", "two"):
        write(f"{name}/shared/__init__.py", "")
        write(f"{name}/shared/features.py", FEATURE.format(name=name))
        text = "from shared import features\ndefs = mlf.Definitions('x', features=[features])"
        write(f"{name}/definitions.py", text)
    first, second = loader.find("one/definitions.py"), loader.find("two/definitions.py")
    assert (list(first.features), list(second.features)) == (["one"], ["two"])
    assert [path for path in sys.path if path.endswith("/one")] == []


def test_nor_do_modules_that_functions_import() -> None:
    for number in (1, 2):
        write(f"{number}/shared.py", f"NUMBER = {number}")
        text = "    from shared import NUMBER\n    return df.head(NUMBER)\ndefs = mlf.Definitions('x')"
        write(f"{number}/definitions.py", FEATURE.format(name="first").replace("    return df\n", text))
    frame = pl.LazyFrame({"user_id": [1, 2, 3]})
    for number in (1, 2, 1):
        found = loader.find(f"{number}/definitions.py").feature("first")
        assert len(found(frame).lazy().collect()) == number


def test_a_file_is_run_anew_each_time() -> None:
    file = write("definitions.py", "import shared\ndefs = mlf.Definitions(shared.NAME, features=[])")
    shared = write("shared.py", "NAME = 'before'")
    assert loader.find().name == "before"
    shared.write_text("NAME = 'after it'")
    assert loader.find().name == "after it"
    file.write_text("import mlforge as mlf\ndefs = mlf.Definitions('new', features=[])")
    assert loader.find().name == "new"


def test_a_file_may_be_called_as_a_module_that_is_there_already() -> None:
    json = sys.modules["json"]
    write("json.py", "defs = mlf.Definitions('x', features=[])")
    assert loader.find("json.py").name == "x"
    assert sys.modules["json"] is json


def test_loading_forgets_no_module_of_the_environment(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    write("site/installed.py", "")
    monkeypatch.syspath_prepend(str(project / "site"))
    write("definitions.py", "import installed\ndefs = mlf.Definitions('x', features=[])")
    loader.find()
    kept = sys.modules["installed"]
    loader.find()
    assert sys.modules.pop("installed") is kept
