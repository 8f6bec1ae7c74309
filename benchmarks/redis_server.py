"""A redis-server of our own, on a free port of the loopback interface."""

import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager

HOST = "127.0.0.1"


@contextmanager
def redis_server() -> Generator[int]:
    """A server without persistence; its port."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen(["redis-server", *settings], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"redis-server did not start on port {port}.")
                time.sleep(0.01)
            yield port
        finally:
            process.terminate()
            process.wait()


def server_version() -> str:
    """The version of the server."""
    server = subprocess.run(["redis-server", "--version"], check=True, capture_output=True, text=True).stdout.split()
    return f"redis-server {next(word[2:] for word in server if word.startswith('v='))}"


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(1) == b"+"
    except OSError:
        return False
