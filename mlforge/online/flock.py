"""Locks on files that hold between processes, between threads, and across a fork."""

import contextlib
import fcntl
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Self

_LOOK_AGAIN_SECONDS = 0.003


class FileLock:
    """A file that is opened for this object alone, and can be locked shared or exclusively.

    `flock` belongs to the open file description: a forked child inherits its parent's, and two opens in one
    process exclude each other. So a child takes the shared locks again on files that it opens itself, and lets
    go of the exclusive ones, which stay its parent's. Closing is the only way to unlock, and a process that
    ends, however it ends, has closed.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        self._shared = False
        with _FORKING:
            self._open()
            _LOCKS.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether the file is still open; in a forked child it is not where the lock could not be had again."""
        return self.descriptor >= 0

    def take(self, *, shared: bool = False, seconds: float = 0.0) -> bool:
        """Whether the lock was got, tried again for so long."""
        deadline = time.monotonic() + seconds
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        while True:
            try:
                fcntl.flock(self.descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_LOOK_AGAIN_SECONDS)
            else:
                self._shared = shared
                return True

    def close(self) -> None:
        """Unlocks and closes the file; a second call does nothing."""
        with _FORKING:
            descriptor, self.descriptor = self.descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)

    def after_fork(self) -> None:
        """Makes the lock that a child inherited the child's own, or lets go of it."""
        inherited, self.descriptor = self.descriptor, -1
        if inherited < 0:
            return
        if self._shared:
            with contextlib.suppress(OSError):
                self._open()
                if not self.take(shared=True):
                    self.close()
        # Only now, so that there is no moment at which the child holds none.
        os.close(inherited)

    def _open(self) -> None:
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


# Held while files are opened and closed, and across a fork: a child knows every descriptor that it inherited.
_FORKING = threading.RLock()
_LOCKS: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    _FORKING.release()
    for lock in list(_LOCKS):
        lock.after_fork()


os.register_at_fork(before=_FORKING.acquire, after_in_parent=_FORKING.release, after_in_child=_after_fork_in_child)
