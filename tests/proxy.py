"""What stands between a client and a server, or between two servers, and interferes."""

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from servers import RedisServer


@dataclass(kw_only=True)
class Proxy:
    """A way to a server that does something when so many bytes have gone through to it; a context manager.

    Args:
        server: Where the bytes go.
        after: How many bytes go through before `act`, those of all connections together; 0 is never.
        act: What happens then, before any more goes through.
        cut: Whether the connection ends there.
        connections: How many it takes; later ones wait and get no answer.
    """

    server: "RedisServer"
    after: int = 0
    act: Callable[[], object] = lambda: None
    cut: bool = False
    connections: int = 1
    host: str = "127.0.0.1"

    def __enter__(self) -> Self:
        self._listener = socket.create_server((self.host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._left = self.after
        self._turn = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._links: list[tuple[threading.Thread, socket.socket, socket.socket]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        # Wakes an accept() that nobody came for.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for thread, near, far in self._links:
            # What has been sent still goes through, unless the server takes nothing.
            with contextlib.suppress(OSError):
                near.shutdown(socket.SHUT_RD)
            thread.join(timeout=5)
            self._end(near, far)
            thread.join()

    def hold(self) -> None:
        """Let nothing through, in either direction, until `release`."""
        self._flowing.clear()

    def release(self) -> None:
        """Let through what was held, and what follows."""
        self._flowing.set()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            for _ in range(self.connections):
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection((self.server.host, self.server.port))
                except OSError:
                    near.close()
                    continue
                thread = threading.Thread(target=self._link, args=(near, far))
                self._links.append((thread, near, far))
                thread.start()

    def _link(self, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            back = threading.Thread(target=self._copy, args=(far, near))
            back.start()
            try:
                self._forward(near, far)
            finally:
                self._end(near, far)
                back.join()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(65536):
                self._flowing.wait()
                with self._turn:
                    if 0 < self._left <= len(data):
                        far.sendall(data[: self._left])
                        data = data[self._left :]
                        self._left = 0
                        self.act()
                        if self.cut:
                            return
                    elif self._left:
                        self._left -= len(data)
                    far.sendall(data)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                target.sendall(data)
        self._end(source, target)

    def _end(self, *ends: socket.socket) -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
