"""What tests share: a real Redis, and a store in it with a prefix of its own."""

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from command_line import MLFORGE, Cli, run
from mlforge.online import RedisStore
from servers import RedisServer

if TYPE_CHECKING:
    from dagster_shop import Shop

# The machine may be busy: an example that takes long is no failure.
settings.register_profile("mlforge", deadline=None)
settings.load_profile("mlforge")

_prefixes = itertools.count()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A server for the whole run; it has `host`, `port` and `url`."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_prefix() -> str:
    """A prefix that no other test has."""
    return f"test{next(_prefixes)}"


@pytest.fixture
def online(redis_server: RedisServer, redis_prefix: str) -> str:
    """What makes a store that holds nothing yet, as it is written in a project."""
    return f"RedisStore.from_url({redis_server.url!r}, prefix={redis_prefix!r})"


@pytest.fixture
def cli() -> Cli:
    """Runs a command line in this process."""
    return run


@pytest.fixture
def redis_store(redis_server: RedisServer, redis_prefix: str) -> Iterator[RedisStore]:
    """A store that holds nothing yet."""
    with RedisStore(host=redis_server.host, port=redis_server.port, prefix=redis_prefix) as store:
        yield store


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a reader of the documentation is: an empty folder, with mlforge on the PATH and a Redis at this address."""
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


@pytest.fixture
def shop(tmp_path: Path, redis_store: RedisStore) -> "Shop":
    # Here, so that other tests do not import Dagster.
    from dagster_shop import Shop

    return Shop(tmp_path, redis_store)
