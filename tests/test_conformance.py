"""What every online store has to do, asked of each of ours; and that the suite finds stores that do not do it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import mlforge.testing
import wrong_stores
from accounting_store import AccountingStore
from mlforge.errors import MlforgeError
from mlforge.online import ClusterStore, EmbeddedStore, OnlineStore, RedisStore
from mlforge.testing import MemoryStore, OnlineStoreSuite, state_machine
from mlforge.testing.samples import new_name
from servers import RedisServer, valkey_binary
from topologies import ClusterServers
from wrong_stores import FOUND_BY

PAGE = Path(__file__).parent.parent / "docs" / "guide" / "online-store-conformance.md"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One in which nobody else keeps anything, since stores look through it."""
    with RedisServer() as started:
        yield started


@pytest.fixture(scope="module")
def valkey() -> Iterator[RedisServer]:
    with RedisServer(binary=valkey_binary()) as started:
        yield started


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterServers]:
    """Of one, which has all slots at once; test_topologies.py has one of three."""
    with ClusterServers(size=1) as started:
        yield started


@pytest.fixture(scope="module")
def embedded_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineStore]:
    with EmbeddedStore(tmp_path_factory.mktemp("embedded")) as store:
        yield store


class TestMemoryStore(OnlineStoreSuite):
    @pytest.fixture
    def store(self) -> OnlineStore:
        return MemoryStore()


class Shorter(OnlineStoreSuite):
    """For one of many kinds of the same store."""

    examples = 5


class TestAccountingStore(Shorter):
    @pytest.fixture
    def store(self) -> OnlineStore:
        return AccountingStore()


class TestRedisStoreOnRedis(Shorter):
    @pytest.fixture
    def store(self, server: RedisServer) -> Iterator[OnlineStore]:
        with RedisStore(server.host, server.port) as store:
            yield store


class TestRedisStoreOnValkey(Shorter):
    @pytest.fixture
    def store(self, valkey: RedisServer) -> Iterator[OnlineStore]:
        with RedisStore(valkey.host, valkey.port) as store:
            yield store


class TestRedisStoreWithTtl(Shorter):
    @pytest.fixture
    def store(self, server: RedisServer) -> Iterator[OnlineStore]:
        with RedisStore(server.host, server.port, ttl=3600, prefix="expiring") as store:
            yield store


class TestRedisStoreOnFakeredis(Shorter):
    @pytest.fixture
    def store(self) -> OnlineStore:
        # Of a server that is there: one that is made at the first use may be made twice by threads.
        return RedisStore(client=fakeredis.FakeRedis(server=fakeredis.FakeServer()))


class TestClusterStoreOfOneMaster(Shorter):
    examples = 2

    @pytest.fixture
    def store(self, cluster: ClusterServers) -> Iterator[OnlineStore]:
        with ClusterStore(cluster.nodes[0].host, cluster.nodes[0].port) as store:
            yield store


class TestEmbeddedStore(Shorter):
    @pytest.fixture
    def store(self, embedded_store: OnlineStore) -> OnlineStore:
        return embedded_store


def cases(test: str) -> list[dict[str, Any]]:
    """The arguments with which pytest would call a test of the suite, fixtures aside."""
    [marked] = [mark.args for mark in getattr(getattr(OnlineStoreSuite, test), "pytestmark", [])] or [("", [None])]
    name, values = marked
    return [{name: value} if name else {} for value in values]


@pytest.mark.parametrize(("store", "test"), FOUND_BY.items(), ids=lambda item: getattr(item, "__name__", ""))
def test_the_suite_finds_what_is_wrong(store: type[OnlineStore], test: str) -> None:
    def ask() -> None:
        for case in cases(test):
            getattr(OnlineStoreSuite(), test)(store(), new_name(), **case)

    # An assertion, a missing exception, or one that nobody expects.
    with pytest.raises((AssertionError, pytest.fail.Exception, MlforgeError)):
        ask()


@pytest.mark.parametrize(
    "store",
    [
        wrong_stores.Merges,
        wrong_stores.ForgetsTheFeature,
        wrong_stores.UsesOneKeyOnly,
        wrong_stores.MixesUpFeatures,
        wrong_stores.IsPleasedWithItself,
        wrong_stores.KeepsWhatVanished,
    ],
)
def test_the_machine_finds_what_is_wrong(store: type[OnlineStore]) -> None:
    machine = state_machine(store)
    quick = settings(machine.TestCase.settings, max_examples=100, phases=[Phase.generate], database=None)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=quick)


def test_the_example_of_the_page_passes(tmp_path: Path) -> None:
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)):
        (tmp_path / f"test_page_{number}.py").write_text(code)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        tmp_path,
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"^(\d+) passed in", done.stdout, re.MULTILINE)
    assert passed is not None
    assert int(passed[1]) > 60


WITHOUT = """
import sys
from mlforge.testing import MemoryStore
MemoryStore().write("f", {"k": "1"}, {})
for package in ("pytest", "hypothesis"):
    sys.modules[package] = None  # What an import of a missing package comes to.
    try:
        from mlforge.testing import OnlineStoreSuite
    except ImportError as error:
        print(error)
    del sys.modules[package]
"""


def test_without_the_extra_there_is_a_store_in_memory_and_the_error_names_the_extra() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(
        f"mlforge.testing.OnlineStoreSuite needs {package}: pip install 'mlforge[testing]'\n"
        for package in ("pytest", "hypothesis")
    )


def test_the_names_to_test_with_are_these() -> None:
    names = ["MemoryStore", "OnlineStoreSuite", "assert_no_leakage", "freeze", "state_machine", "values_at"]
    assert mlforge.testing.__all__ == dir(mlforge.testing) == names
    assert all(getattr(mlforge.testing, name).__doc__ for name in mlforge.testing.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        mlforge.testing.nothing  # noqa: B018 -- for its error
