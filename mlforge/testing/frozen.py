"""A clock that stands still, for tests whose outcome depends on when they run."""

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import ParamSpec, TypeVar

from mlforge import clock
from mlforge.errors import RequestError
from mlforge.instant import Moment, instant

P = ParamSpec("P")
R = TypeVar("R")


class Frozen:
    """What `freeze` gives: a context, or a decorator of functions, each of whose calls is one.

    Attributes:
        at: The instant, UTC.
    """

    def __init__(self, at: Moment) -> None:
        self.at = instant(at)
        self._entered: list[ExitStack] = []

    def __enter__(self) -> "Frozen":
        stack = ExitStack()
        stack.enter_context(clock.standing_still(self.at))
        self._entered.append(stack)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered.pop().close()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, which sees the clock stand still.

        Raises:
            RequestError: It is a class, or its call only begins what it does.
        """
        name = getattr(function, "__name__", repr(function))
        if inspect.isclass(function):
            raise RequestError(f"{name} is a class: put @freeze(...) on its methods, or on a fixture.")
        goes_on = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        if any(is_kind(function) for is_kind in goes_on):
            raise RequestError(f"{name} goes on after its call has ended: write `with freeze(...):` inside of it.")

        @functools.wraps(function)
        def frozen(*args: P.args, **named: P.kwargs) -> R:
            with self:
                return function(*args, **named)

        return frozen


def freeze(at: Moment) -> Frozen:
    """Makes "now" an instant for all of mlforge, in all threads of this process.

    Builds, syncs, reads, training sets without times and ages of what is online then work as they would at that
    instant. A project's own `as_of` still comes first. Times to live, locks and how long something took stay real, as
    does when something was committed.

    >>> from mlforge import Definitions
    >>> with freeze("2026-01-22"):
    ...     print(Definitions("shop", features=[]).now())
    2026-01-22 00:00:00+00:00

    As a decorator it is for a test, or a fixture that returns its value.

    Args:
        at: A datetime (naive is UTC), a date (its first moment), or ISO 8601.

    Raises:
        RequestError: It is no instant.
    """
    return Frozen(at)
