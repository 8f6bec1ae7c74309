"""One raw connection to a Redis, which belongs to one writer and is never made again when it is lost."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from redis import ConnectionPool

Word = str | int | bytes


class Line:
    """A connection as a client's pool makes them, but with every retry off.

    redis-py's pool would reconnect by itself: a server that died and came back empty in between would go unnoticed.
    Everything else (TLS, users, Sentinel, sockets, timeouts) is as the client has it.

    Args:
        pool: Whose connections it is like.

    Attributes:
        sound: Whether every reply that is due has been read and the connection stands.
    """

    def __init__(self, pool: "ConnectionPool") -> None:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        settings = {k: v for k, v in pool.connection_kwargs.items() if not k.startswith(("maint_", "orig_"))}
        settings |= {
            "retry": Retry(NoBackoff(), 0),
            "retry_on_timeout": False,
            "retry_on_error": [],
            "health_check_interval": 0,
            "decode_responses": False,
            "protocol": 2,
        }
        self._connection = pool.connection_class(**settings)
        self.sound = False
        # How long the server may take for an answer.
        self.timeout: float = settings.get("socket_timeout") or 5.0

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> None:
        """Connect, once.

        Raises:
            redis.RedisError: The server cannot be reached or refuses.
        """
        self._connection.connect()
        self.sound = True

    def close(self) -> None:
        """Disconnect; a second call does nothing."""
        self._connection.disconnect()

    def send(self, data: bytes) -> None:
        """Send commands that are bytes already; `replies` has to fetch what they bring.

        Raises:
            redis.ConnectionError: It is lost, or was before: then it would be made again here.
        """
        from redis.exceptions import ConnectionError as Lost

        if not self.sound:
            raise Lost("the connection was lost")
        self.sound = False
        self._connection.send_packed_command([data])

    def replies(self, count: int) -> list[Any]:
        """The next replies, which are all that are due.

        Raises:
            redis.ResponseError: One of them is an error; all of them have been read all the same.
        """
        from redis.exceptions import ResponseError

        found: list[Any] = []
        refused: ResponseError | None = None
        read = self._connection.read_response
        for _ in range(count):
            try:
                found.append(read())
            except ResponseError as error:
                refused = refused or error
        self.sound = True
        if refused is not None:
            raise refused
        return found

    def call(self, *command: Word) -> Any:
        """Send one command and wait for its reply."""
        return self.calls(command)[0]

    def calls(self, *commands: Sequence[Word]) -> list[Any]:
        """Send commands together and wait for their replies."""
        self.send(b"".join(map(packed, commands)))
        return self.replies(len(commands))

    def transaction(self, *commands: Sequence[Word]) -> list[Any] | None:
        """Run commands as one; None if a watched key has changed."""
        results: list[Any] | None = self.calls(("MULTI",), *commands, ("EXEC",))[-1]
        raise_first(results or [])
        return results


def raise_first(results: Sequence[Any]) -> None:
    """Raises what a command of a transaction has answered instead of a result."""
    for result in results:
        if isinstance(result, Exception):
            raise result


def packed(command: Sequence[Word]) -> bytes:
    r"""A command as bytes.

    >>> packed(("GET", "key"))
    b'*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n'
    """
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
