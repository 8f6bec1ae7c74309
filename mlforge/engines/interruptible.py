"""Work of a library that does not look for Ctrl-C, ended by it all the same."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")


def interruptible(work: Callable[[], T], stop: Callable[[], None]) -> T:
    """What work gives, done in a thread while this one waits, and so hears of signals.

    Args:
        work: What is done.
        stop: Makes it end early; it is called where a signal raises, and may be where the work itself does.
    """
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(work)
        try:
            # Polars has a waiting thread wait on when a signal comes.
            while not done.done():
                wait([done], timeout=0.1)
            return done.result()
        except BaseException:
            stop()
            raise
