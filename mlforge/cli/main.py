"""The entry point of `mlforge`: what was typed becomes a call, and an error one line and an exit code."""

import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter

import mlforge
from mlforge.cli import audit, build, completion, explain, features, init, inspect, online, output, validate, versions
from mlforge.cli.ending import signals
from mlforge.errors import MlforgeError

FAILED, USAGE = 1, 2


app = App(
    name="mlforge",
    help="A feature store that serves online exactly what it trained on.",
    help_format="plaintext",
    help_epilogue="Example: mlforge build --online",
    default_parameter=Parameter(negative="", show_default=False),
    # Looked up when it is asked for: its import takes a quarter of the time that `mlforge --help` has.
    version=lambda: mlforge.__version__,
)
for group in (init, validate, build, features, inspect, explain, online, versions, audit, completion):
    group.register(app)


def main(tokens: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and exits: 0 done, 1 failed or nothing there, 2 not understood, 130 interrupted, 143 terminated.

    A mistake that mlforge knows is one line on stderr. What the user's own code raises keeps its traceback.

    Args:
        tokens: What was typed after `mlforge`; None: the process's arguments.
    """
    tokens = sys.argv[1:] if tokens is None else list(tokens)
    try:
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        where = " ".join(["mlforge", *(error.command_chain or ())])
        error.verbose = False
        output.complain(f"{error} See `{where} --help`.")
        sys.exit(USAGE)
    with signals() as ending:
        try:
            sys.exit(command(*bound.args, **bound.kwargs) or 0)
        except MlforgeError as error:
            output.complain(" ".join([str(error), *getattr(error, "__notes__", [])]))
            sys.exit(FAILED)
        except KeyboardInterrupt as interrupt:
            output.complain(str(interrupt) or "interrupted.")
            sys.exit(ending.exit_code)


if __name__ == "__main__":
    main()
