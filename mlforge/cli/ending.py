"""What ends a command early: Ctrl-C, and SIGTERM in the same way, so that whatever was begun is taken back."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

# What a shell reports for a program that a signal has ended.
BY_SIGNAL = 128


class Ending:
    """Which signal has ended a command.

    Attributes:
        signal: The first one that came; SIGINT before any has.
    """

    def __init__(self) -> None:
        self.signal = signal.SIGINT

    @property
    def exit_code(self) -> int:
        """That of the process."""
        return BY_SIGNAL + self.signal


@contextmanager
def signals() -> Generator[Ending]:
    """While it lasts, SIGINT and SIGTERM raise KeyboardInterrupt, once: what is taken back on the way is not disturbed.

    Polars looks for SIGINT only, while it computes, and has whatever waits for a lock wait on; so SIGINTs of our own
    follow the first signal, which end a wait, until Python has come to one: a wait that begins just after one goes on.
    """
    ending, main = Ending(), threading.main_thread().ident
    if main != threading.get_ident():
        yield ending
        return
    arrived, arriving = socket.socketpair()
    arriving.setblocking(False)
    noticed = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        noticed.set()
        if number == signal.SIGTERM:
            ending.signal = signal.SIGTERM
        # Polars raises one of its own before Python comes to this.
        if not isinstance(sys.exception(), KeyboardInterrupt | SystemExit):
            raise KeyboardInterrupt

    def forward() -> None:
        with arrived:
            if arrived.recv(1):
                signal.siginterrupt(signal.SIGINT, True)
                signal.pthread_kill(main, signal.SIGINT)
                while not noticed.wait(0.1):
                    signal.pthread_kill(main, signal.SIGINT)
                while arrived.recv(64):
                    pass

    def forked() -> None:
        # What a feature's function forks ends by itself: its signals are none of this command's.
        if signal.getsignal(signal.SIGTERM) is interrupt:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    told = signal.set_wakeup_fd(arriving.fileno(), warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=forked)
    thread = threading.Thread(target=forward, name="mlforge-signals", daemon=True)
    thread.start()
    try:
        yield ending
    finally:
        noticed.set()
        signal.set_wakeup_fd(told)
        for number, handler in before.items():
            signal.signal(number, handler)
        # Closing alone does not end it where a child has the socket, too.
        arriving.shutdown(socket.SHUT_RDWR)
        arriving.close()
        thread.join()
