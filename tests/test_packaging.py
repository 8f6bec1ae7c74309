"""The wheel and the source distribution: what is in them, and that what is installed from them works."""

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

import pytest

import mlforge

ROOT = Path(__file__).parent.parent
PACKAGES = ("mlforge", "mlforge_dagster")
DEFINITIONS = """
import polars as pl
import mlforge as mlf
from mlforge.online import EmbeddedStore
from mlforge.store import LocalStore

@mlf.feature(
    keys=["user"],
    source="events.csv",
    timestamp="ts",
    metrics=[mlf.Rolling(windows=["7d"], aggregations={"amount": ["sum"]})],
)
def spend(events: pl.LazyFrame) -> pl.LazyFrame:
    return events

defs = mlf.Definitions("shop", store=LocalStore("feature_store"), online_store=EmbeddedStore("online_store"))
"""
EVENTS = "user,ts,amount\nann,2026-01-05T09:00:00,10.0\nann,2026-01-06T09:00:00,32.5\n"

pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """Every file of the repository."""
    return set(run("git", "ls-files", cwd=ROOT).splitlines())


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory, tracked: set[str]) -> Path:
    """A wheel and a source distribution, built in a copy of the repository that holds nothing else."""
    clean = tmp_path_factory.mktemp("clean")
    for name in tracked:
        (clean / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clean / name)
    run(sys.executable, "-m", "hatchling", "build", cwd=clean)
    return clean / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return dist / f"mlforge-{mlforge.__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def sdist(dist: Path) -> Path:
    return dist / f"mlforge-{mlforge.__version__}.tar.gz"


def installed(folder: Path, *wanted: str) -> Path:
    """Where the programs are of a new environment that has this and nothing else."""
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", *wanted, cwd=folder)
    return folder / "bin"


def test_the_wheel_has_the_packages_with_all_their_files_the_licence_and_no_tests(
    wheel: Path, tracked: set[str]
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"mlforge-{mlforge.__version__}.dist-info"
    own = {name for name in names if not name.startswith(info)}
    assert own == {name for name in tracked if PurePosixPath(name).parts[0] in PACKAGES}
    assert {"mlforge/py.typed", f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} <= names


def test_the_source_distribution_has_what_it_takes_to_test_and_document_it(sdist: Path, tracked: set[str]) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names - tracked == {"PKG-INFO"}
    assert {PurePosixPath(name).parts[0] for name in tracked - names} <= {".ci", ".pre-commit-config.yaml"}


def test_a_project_is_built_and_read_where_only_the_wheel_is(wheel: Path, tmp_path: Path) -> None:
    programs = installed(tmp_path / "venv", f"{wheel}[embedded]")
    project = tmp_path / "project"
    project.mkdir()
    (project / "definitions.py").write_text(DEFINITIONS)
    (project / "events.csv").write_text(EVENTS)
    assert run(programs / "mlforge", "--version", cwd=project) == f"{mlforge.__version__}\n"
    run(programs / "mlforge", "build", "--online", "--as-of", "2026-01-07", cwd=project)
    assert "42.5" in run(programs / "mlforge", "read", "spend", "user=ann", cwd=project)


def test_the_source_distribution_passes_tests_of_its_own(sdist: Path, tmp_path: Path) -> None:
    programs = installed(tmp_path / "venv", f"{sdist}[embedded,testing]")
    shutil.unpack_archive(sdist, tmp_path, filter="data")
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    # The program, not `python -m pytest`: that would find the unpacked package, not the installed one.
    assert " passed" in run(programs / "pytest", "-q", "tests/test_keys.py", "tests/test_store.py", cwd=unpacked)
