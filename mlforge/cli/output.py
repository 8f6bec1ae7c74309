"""What commands print: results on stdout, as tables or JSON; progress and what is no result on stderr."""

import contextlib
import os
import sys
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

# What a shell reports for a program that a closed pipe has ended.
BROKEN_PIPE = 141
# What is piped into a program or a file may be as wide as it is.
WIDE = 10_000
# On a terminal these columns have colours by their words: what is new or right, what is to be looked at, what is wrong.
OUTCOMES = ("outcome", "state", "checks", "online", "readable", "")
COLOURS = {
    **dict.fromkeys(("built", "passed", "agrees", "complete"), "green"),
    **dict.fromkeys(("outdated", "rolled back", "stale", "writing", "dirty", "expired"), "yellow"),
    **dict.fromkeys(("failed", "cannot be run", "differs"), "red"),
}


def write(text: str) -> None:
    """Prints a result; where nobody reads any more (`mlforge list | head -1`) the program ends without a word."""
    try:
        sys.stdout.write(f"{text.rstrip()}\n")
        sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(BROKEN_PIPE)
        from mlforge.errors import RequestError

        raise RequestError(f"The result cannot be written: {error.strerror}.") from None


def write_json(value: Any) -> None:
    """Prints a result for programs; instants as ISO 8601 in UTC, what JSON does not know as text."""
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
    write(orjson.dumps(value, default=str, option=options).decode())


def write_table(rows: Sequence[Mapping[str, str]], *, numbers: Collection[str] = ()) -> None:
    """Prints a table, in full width where it does not go to a terminal.

    Args:
        rows: The cells by heading; at least one row, and all with the same headings.
        numbers: The headings of columns that are flush right.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for heading in rows[0]:
        # A number in two pieces is another number.
        whole = heading in numbers or heading in OUTCOMES
        least = max(len(row[heading]) for row in rows) if whole else None
        table.add_column(heading, overflow="fold", no_wrap=whole, min_width=least)
        table.columns[-1].justify = "right" if heading in numbers else "left"
    for row in rows:
        table.add_row(*(Text(cell, style=_colour(heading, cell)) for heading, cell in row.items()))
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    with console.capture() as capture:
        console.print(table, crop=False)
    write("\n".join(line.rstrip() for line in capture.get().splitlines()))


def names(features: Sequence[str] | None) -> list[str]:
    """Names as they are typed: separated by commas or given several times.

    >>> names(["user_spend,store_sales", "user_spend"])
    ['user_spend', 'store_sales']
    """
    return list(dict.fromkeys(name.strip() for part in features or [] for name in part.split(",")))


def agreed(question: str, would: str, otherwise: str) -> bool:
    """Whether a person says yes, when asked before something that cannot be taken back.

    Args:
        question: What is asked.
        would: What is said instead where nobody can be asked.
        otherwise: What is said where the answer is another one.

    Raises:
        RequestError: The standard input is no terminal.
    """
    if not sys.stdin.isatty():
        from mlforge.errors import RequestError

        raise RequestError(f"{would}: write --yes if that is meant.")
    print(question, "Type y:", end=" ", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    complain(otherwise)
    return False


def complain(text: str) -> None:
    """Says on stderr, in one line, what is no result."""
    from rich.console import Console
    from rich.text import Text

    line = Text.assemble(("mlforge:", "bold red"), " ", " ".join(text.split()))
    Console(stderr=True).print(line, soft_wrap=True)


def moment(value: datetime) -> str:
    """An instant for people and programs.

    >>> moment(datetime(2018, 1, 2, tzinfo=UTC))
    '2018-01-02T00:00:00Z'
    """
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


@contextlib.contextmanager
def working(what: str, interrupted: Callable[[str], str] | None = None) -> Generator[None]:
    """While it lasts: how far it is, where stderr is a terminal, and what the user's own code prints goes to stderr.

    Args:
        what: What is done.
        interrupted: What is to be said where it is interrupted, by the phase in which it is; by default only that.
    """
    from mlforge.progress import Watcher, watched

    watcher = Watcher()
    with contextlib.ExitStack() as stack:
        if sys.stderr.isatty():
            from mlforge.cli.progress import Line

            watcher = line = Line(what)
            stack.enter_context(line.live())
        stack.enter_context(watched(watcher))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        try:
            yield
        except KeyboardInterrupt:
            if interrupted is None:
                raise
            raise KeyboardInterrupt(interrupted(watcher.phase)) from None


def _colour(heading: str, cell: str) -> str:
    if heading not in OUTCOMES:
        return ""
    return "yellow" if cell.endswith(" failed") else COLOURS.get(cell, "")
