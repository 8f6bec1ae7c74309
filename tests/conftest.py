"""What tests share: a real Redis, and a store in it with a prefix of its own."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from command_line import Cli, run
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
def shop(tmp_path: Path, redis_store: RedisStore) -> "Shop":
    # Here, so that other tests do not import Dagster.
    from dagster_shop import Shop

    return Shop(tmp_path, redis_store)
