"""The right to write a feature: a value in Redis that is ours until it expires.

What is written under the lock is fenced: it goes out as one transaction, under a `WATCH` on the lock, whose value was
read back as ours since. So a writer that was paused for longer than its lock holds cannot write a thing.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Collection, Generator
from contextlib import contextmanager
from typing import Any

from mlforge.errors import UnavailableError
from mlforge.online.line import Line, packed, raise_first

POLL_SECONDS = 0.05


class Lock:
    """A lock with a token of its own, on one connection.

    Args:
        line: The connection that everything under the lock takes.
        key: Its Redis key.
        seconds: For how long it is ours after the last sign of life.
    """

    def __init__(self, line: Line, key: str, *, seconds: float) -> None:
        self.token = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(16)}"
        self._line = line
        self._key = key
        self._seconds = seconds
        self._milliseconds = max(1, int(seconds * 1000))
        self._renewed = time.monotonic()
        self._talking = threading.Lock()
        # Built once: these go out with every chunk.
        self._before = packed(("MULTI",))
        self._after = b"".join(
            map(packed, [("PEXPIRE", key, self._milliseconds), ("EXEC",), ("WATCH", key), ("GET", key)])
        )

    def take(self, *, wait: float, abandoned: Collection[str] = ()) -> None:
        """Wait for the lock and take it.

        Args:
            wait: For how many seconds.
            abandoned: Tokens whose holders are known to have ended: their lock is taken over, which also stops what of
                them may still be under way to the server.

        Raises:
            UnavailableError: Somebody else holds it all the time.
        """
        until = time.monotonic() + wait
        while True:
            if self._line.call("SET", self._key, self.token, "NX", "PX", self._milliseconds) is not None:
                break
            _, holder = self._line.calls(("WATCH", self._key), ("GET", self._key))
            if holder is not None and holder.decode(errors="replace") in abandoned:
                if self._line.transaction(("SET", self._key, self.token, "PX", self._milliseconds)) is not None:
                    break
                continue
            self._line.call("UNWATCH")
            if time.monotonic() > until:
                who = "somebody" if holder is None else ":".join(holder.decode(errors="replace").split(":")[:2])
                raise UnavailableError(
                    f"{self._key} is held by {who}, whose sync has not ended within {wait:g} s: try again later."
                )
            time.sleep(POLL_SECONDS)
        self._renewed = time.monotonic()

    @contextmanager
    def kept(self) -> Generator[None]:
        """Keeps the lock from expiring while something else is done than talk on its connection."""
        over = threading.Event()
        thread = threading.Thread(target=self._keep, args=(over,), name="mlforge-lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextmanager
    def talking(self) -> Generator[None]:
        """Has the connection for itself: the lock lives on by what is said there."""
        with self._talking:
            yield

    def watch(self, *others: str) -> None:
        """Begin to watch the lock, and other keys with it: a transaction after this fails if one of them changes.

        Raises:
            UnavailableError: The lock is no longer ours.
        """
        self._check(self._line.calls(("WATCH", self._key, *others), ("GET", self._key))[1])

    def fenced(self, commands: bytes, replies: int) -> list[Any]:
        """Run commands as one if the lock, watched since it was last seen to be ours, is still ours; keep it on.

        Raises:
            UnavailableError: The lock was lost, or something else that was watched has changed; nothing was run.
        """
        self._line.send(self._before + commands + self._after)
        results: list[Any] | None
        *_, results, _, holder = self._line.replies(replies + 5)
        if results is None:
            self._check(holder)
            raise UnavailableError(f"{self._key.rpartition(':')[0]} was written by somebody else at the same time.")
        raise_first(results)
        self._renewed = time.monotonic()
        self._check(holder)
        return results[:-1]

    def renew(self) -> None:
        """Keep the lock on where it is time to.

        Raises:
            UnavailableError: The lock is no longer ours.
        """
        if time.monotonic() - self._renewed > self._seconds / 3:
            self.watch()
            self.fenced(b"", 0)

    def release(self) -> None:
        """Give it back, if it is still ours."""
        # Without what else was watched, which may be what made the turn end.
        if self._line.calls(("UNWATCH",), ("WATCH", self._key), ("GET", self._key))[2] == self.token.encode():
            self._line.transaction(("DEL", self._key))

    def _keep(self, over: threading.Event) -> None:
        from redis.exceptions import RedisError

        while not over.wait(self._seconds / 6):
            if not self._talking.acquire(blocking=False):
                continue
            try:
                self.renew()
            except (UnavailableError, RedisError, OSError):
                # Whoever writes next on the connection finds out.
                return
            finally:
                self._talking.release()

    def _check(self, holder: bytes | None) -> None:
        if holder != self.token.encode():
            raise UnavailableError(
                f"{self._key} is no longer ours: this sync was held up for longer than {self._seconds:g} s."
            )
