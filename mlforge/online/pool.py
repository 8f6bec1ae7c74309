"""Idle connections for reads: redis-py's own, without most of what its client does around every command."""

import contextlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mlforge.errors import UnavailableError
from mlforge.online.connection import store_error

if TYPE_CHECKING:
    from redis import Redis

# redis-py's own, which has no types.
Connection = Any
Read = Callable[[int, Any], Any]
# For how long to wait for a connection that is in use, where the client has no timeout.
WAIT_SECONDS = 5.0


class Pool:
    """Connections for reads, as a client's own pool makes them: with its TLS, users, Sentinels and timeouts.

    A read that finds that its connection was lost is sent again on a new one, at least once and as often as the
    client's retry says: a read can be. Safe in threads and across forks. After `close` it may be used again.

    Args:
        client: Whose connections these are like; its own pool is not touched.
        max_connections: How many there are at most; who comes when all are in use waits for as long as an answer
            may take. None: as many as there are readers at once.
    """

    def __init__(self, client: "Redis", *, max_connections: int | None = None) -> None:
        from redis import exceptions

        self._client = client
        self._max = max_connections
        self._failures = (exceptions.RedisError, OSError, UnicodeError)
        self._lost = (exceptions.ConnectionError, OSError)
        self._refused = exceptions.ResponseError
        self._state = _State()
        _POOLS.add(self)

    def ask(self, commands: Iterable[bytes], replies: int, *, read: Read | None = None) -> list[Any]:
        """Send commands that are bytes already, and wait for their replies.

        Args:
            commands: Commands that only read, one or more at a time; sent while later ones may still have to be made.
                It is gone through again where they have to be sent again.
            replies: How many there are.
            read: What to make of each reply, while the server still works on the next; gets its place as well.

        Raises:
            UnavailableError: The server cannot be reached or does not answer, or all connections stay in use.
            StoreError: It refuses one of the commands.
        """
        # One for all of this: what was begun before a close or a fork does not come back after it.
        state = self._state
        try:
            connection = state.idle.pop()
        except IndexError:
            connection = self._another(state)
        try:
            connection.send_packed_command(commands, check_health=False)
            found = [connection.read_response()] if replies == 1 else self._replies(connection, replies, read)
        except self._failures as error:
            found = self._recovered(state, connection, error, commands, replies, read)
        except BaseException:
            self._drop(state, connection)
            raise
        state.idle.append(connection)
        if state.waiting:
            state.wake()
        return found

    def close(self) -> None:
        """Close what is idle; what is in use closes when it is done."""
        state, self._state = self._state, _State()
        for connection in state.drained():
            connection.disconnect()

    def after_fork(self) -> None:
        """Leave everything to the parent: the sockets are its own, and a thread of it may have held the lock."""
        self._state = _State()

    def _another(self, state: "_State") -> Connection:
        """A connection that was just made, or that has just become idle."""
        connection = self._free(state)
        try:
            if connection is None:
                pool = self._client.connection_pool
                connection = pool.connection_class(**settings(pool.connection_kwargs))
            # Not left to the first command, which would ask no Sentinel where the server is.
            connection.connect()
        except self._failures as error:
            self._drop(state, connection)
            raise store_error(error, self._client) from None
        except BaseException:
            self._drop(state, connection)
            raise
        return connection

    def _free(self, state: "_State") -> Connection | None:
        """A connection that has become idle; None where another one may be made."""
        pool = self._client.connection_pool
        seconds = pool.connection_kwargs.get("socket_timeout") or WAIT_SECONDS
        until = time.monotonic() + seconds
        with state.changed:
            state.waiting += 1
            try:
                while True:
                    with contextlib.suppress(IndexError):
                        return state.idle.pop()
                    if self._max is None or state.connections < self._max:
                        state.connections += 1
                        return None
                    if not state.changed.wait(until - time.monotonic()):
                        raise UnavailableError(
                            f"All {self._max} connections for reads were in use for {seconds:g} s: read less at once, "
                            f"or allow more with max_connections."
                        )
            finally:
                state.waiting -= 1

    def _replies(self, connection: Connection, count: int, read: Read | None) -> list[Any]:
        found: list[Any] = []
        refused = None
        for place in range(count):
            try:
                reply = connection.read_response()
                found.append(reply if read is None else read(place, reply))
            except self._refused as error:
                # The others come all the same, and would be taken for those of the next read.
                refused = refused or error
        if refused is not None:
            raise refused
        return found

    def _recovered(
        self,
        state: "_State",
        connection: Connection,
        error: Exception,
        commands: Iterable[bytes],
        replies: int,
        read: Read | None,
    ) -> list[Any]:
        """The replies after all, or the error in our words."""
        if isinstance(error, self._refused):
            state.idle.append(connection)
            state.wake()
            raise store_error(error, self._client) from None
        # Only a lost connection is no failed try: it may have been lost long ago.
        tries = [] if isinstance(error, self._lost) else [error]
        if tries:
            # What does not answer any more may be the way there, which the others take, too.
            for other in state.drained():
                self._drop(state, other)

        def again() -> list[Any]:
            if tries:
                raise tries.pop()
            connection.connect()
            connection.send_packed_command(commands, check_health=False)
            return self._replies(connection, replies, read)

        try:
            connection.disconnect()
            found: list[Any] = connection.retry.call_with_retry(again, lambda _: connection.disconnect())
        except self._failures as final:
            self._drop(state, connection)
            raise store_error(final, self._client) from None
        except BaseException:
            self._drop(state, connection)
            raise
        return found

    def _drop(self, state: "_State", connection: Connection | None) -> None:
        if connection is not None:
            connection.disconnect()
        with state.changed:
            state.connections -= 1
            state.changed.notify()


class _State:
    """What a pool has: connections that are idle, the last used one first, and who waits for one."""

    __slots__ = ("changed", "connections", "idle", "waiting")

    def __init__(self) -> None:
        self.idle: deque[Connection] = deque()
        self.connections = 0
        self.waiting = 0
        self.changed = threading.Condition()

    def wake(self) -> None:
        with self.changed:
            self.changed.notify()

    def drained(self) -> list[Connection]:
        gone = []
        with contextlib.suppress(IndexError):
            while True:
                gone.append(self.idle.pop())
        return gone


def settings(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a client's connections for one that reads plain bytes."""
    kept = {name: value for name, value in kwargs.items() if not name.startswith(("maint_", "orig_"))}
    # Older servers have no RESP3, and nothing is to come in between that was not asked for.
    return kept | {"protocol": 2, "decode_responses": False}


_POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for pool in list(_POOLS):
        pool.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
