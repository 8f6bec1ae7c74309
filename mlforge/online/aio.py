"""Reads from a Redis in event loops, on connections of redis.asyncio."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from mlforge.errors import UnavailableError
from mlforge.online.base import Found
from mlforge.online.catalog import Asked, Catalog, Fetched, FrameRequests, Requests, Steps, Values
from mlforge.online.codec import decode
from mlforge.online.connection import store_error
from mlforge.online.flight import get
from mlforge.online.pool import WAIT_SECONDS, Connection, Read, settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

Result = TypeVar("Result")


class AsyncPool:
    """`Pool` in one event loop.

    Args:
        client: Whose connections these are like; its own pool is not touched. Its retry does not count: a read whose
            connection was lost is sent again once.
        max_connections: As for `Pool`.
    """

    def __init__(self, client: "Redis", *, max_connections: int | None = None) -> None:
        from redis import exceptions

        self._client: Any = client
        self._max = max_connections
        self._slots = None if max_connections is None else asyncio.Semaphore(max_connections)
        timeouts = self._client.connection_pool.connection_kwargs
        self._seconds: float = timeouts.get("socket_timeout") or WAIT_SECONDS
        self._connect_seconds: float = timeouts.get("socket_connect_timeout") or WAIT_SECONDS
        self._failures = (exceptions.RedisError, OSError, UnicodeError)
        self._lost = exceptions.ConnectionError
        self._late = exceptions.TimeoutError
        self._refused = exceptions.ResponseError
        self._idle: list[Connection] = []
        self._closed = False

    async def ask(self, commands: Iterable[bytes], replies: int, *, read: Read | None = None) -> list[Any]:
        """As `Pool.ask`; a read that is cancelled costs its connection."""
        if self._slots is None:
            return await self._ask(commands, replies, read)
        try:
            async with asyncio.timeout(self._seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise UnavailableError(
                f"All {self._max} connections for reads of this event loop were in use for {self._seconds:g} s: read "
                f"less at once, or allow more with max_connections."
            ) from None
        try:
            return await self._ask(commands, replies, read)
        finally:
            self._slots.release()

    async def aclose(self) -> None:
        """Close what is idle, and what is in use when it is done."""
        self._closed = True
        while self._idle:
            await self._idle.pop().disconnect()
        manager = getattr(self._client.connection_pool, "sentinel_manager", None)
        for client in [self._client] if manager is None else [self._client, *manager.sentinels]:
            await client.aclose()

    async def _ask(self, commands: Iterable[bytes], replies: int, read: Read | None) -> list[Any]:
        try:
            connection = self._idle.pop() if self._idle else await self._connected(self._made())
            try:
                return await self._exchange(connection, commands, replies, read)
            except self._lost:
                # Maybe long ago.
                return await self._exchange(await self._connected(connection), commands, replies, read)
        except self._failures as error:
            raise store_error(error, self._client) from None

    async def _exchange(
        self, connection: Connection, commands: Iterable[bytes], replies: int, read: Read | None
    ) -> list[Any]:
        found: list[Any] = []
        refused = None
        try:
            async with asyncio.timeout(self._seconds):
                for part in commands:
                    await connection.send_packed_command(part, check_health=False)
                for place in range(replies):
                    try:
                        reply = await connection.read_response()
                        found.append(reply if read is None else read(place, reply))
                    except self._refused as error:
                        # The others come all the same, and would be taken for those of the next read.
                        refused = refused or error
        except TimeoutError as error:
            await connection.disconnect(nowait=True)
            # What does not answer any more may be the way there, which the others take, too.
            while self._idle:
                await self._idle.pop().disconnect(nowait=True)
            raise self._late from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        if self._closed:
            await connection.disconnect()
        else:
            self._idle.append(connection)
        if refused is not None:
            raise refused
        return found

    async def _connected(self, connection: Connection) -> Connection:
        # Not left to the first command, which would ask no Sentinel where the server is.
        try:
            async with asyncio.timeout(self._connect_seconds + self._seconds):
                await connection.connect()
        except TimeoutError as error:
            await connection.disconnect(nowait=True)
            raise self._late from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    def _made(self) -> Connection:
        pool = self._client.connection_pool
        # The timeout is for all of an exchange, and set here: once is cheaper than for every part.
        return pool.connection_class(**settings(pool.connection_kwargs) | {"socket_timeout": None})


class AsyncReader:
    """`PoolReader` in one event loop."""

    def __init__(self, pool: AsyncPool, catalog: Catalog) -> None:
        self._pool = pool
        self._catalog = catalog

    async def read(self, feature_name: str, entity_keys: Mapping[str, Any]) -> Values:
        """As `Reader.read`."""
        key = self._catalog.key(feature_name, entity_keys)
        payload = (await self._pool.ask((get(key),), 1))[0]
        if payload is not None:
            return decode(payload, what=key)
        await self._run(self._catalog.explain({feature_name: {frozenset(entity_keys)}}))
        return None

    async def read_features(self, requests: Requests) -> dict[str, list[Values]]:
        """As `Reader.read_features`."""
        return await self._run(self._catalog.read_features(requests))

    async def lookup(self, requests: FrameRequests) -> dict[str, Found]:
        """As `Reader.lookup`."""
        return await self._run(self._catalog.lookup(requests))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    async def _fetch(self, asked: Asked) -> Fetched:
        commands = self._catalog.commands(asked)
        replies = await self._pool.ask(commands, commands.replies, read=commands.read) if commands.replies else []
        return commands.fetched(replies)

    async def _run(self, steps: Steps[Result]) -> Result:
        try:
            asked = next(steps)
            while True:
                asked = steps.send(await self._fetch(asked))
        except StopIteration as done:
            result: Result = done.value
            return result


class AsyncReaders:
    """A reader for every event loop that reads, since connections belong to one.

    Args:
        client: Makes a client.
        catalog: What is known of the features; a store's readers share it.
        max_connections: As for `Pool`, for every loop.
    """

    def __init__(self, client: "Callable[[], Redis]", catalog: Catalog, *, max_connections: int | None = None) -> None:
        self._client = client
        self._catalog = catalog
        self._max = max_connections
        self._readers: dict[asyncio.AbstractEventLoop, AsyncReader] = {}

    def here(self) -> AsyncReader:
        """The reader of the event loop that runs."""
        loop = asyncio.get_running_loop()
        reader = self._readers.get(loop)
        if reader is None:
            # Nobody can close the connections of a loop that is closed itself; they go when nothing holds them. Other
            # threads have other loops, and do the same.
            for closed in [other for other in list(self._readers) if other.is_closed()]:
                self._readers.pop(closed, None)
            pool = AsyncPool(self._client(), max_connections=self._max)
            reader = self._readers[loop] = AsyncReader(pool, self._catalog)
        return reader

    async def aclose(self) -> None:
        """Close the connections of the event loop that runs; a later read makes new ones."""
        reader = self._readers.pop(asyncio.get_running_loop(), None)
        if reader is not None:
            await reader.aclose()
