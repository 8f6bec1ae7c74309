"""A listener that takes every connection, reads a command, and closes."""

import socket
import threading
from typing import Self


class Slamming:
    """A context manager.

    Attributes:
        commands: How many GETs have come.
    """

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.commands = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                data = connection.recv(65536)
                while b"SETINFO" in data and b"GET" not in data:
                    connection.sendall(b"+OK\r\n" * data.count(b"SETINFO"))
                    data = connection.recv(65536)
                self.commands += b"GET" in data
