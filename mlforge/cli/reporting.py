"""Who else is told what builds did: what other packages, or a project itself, offer for `mlforge build --report`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlforge.build import BuildReport
    from mlforge.core import Definitions
    from mlforge.errors import CheckFailedError

# The group of entry points in which packages offer theirs.
GROUP = "mlforge.reporters"
Reporter = Callable[["Definitions"], Callable[["Sequence[BuildReport | CheckFailedError]"], None]]


def reporter(name: str) -> Reporter:
    """What a name stands for: called with the Definitions before the builds, it gives what is told their reports.

    Where a check has failed, the error stands in place of the feature's report.

    Args:
        name: That of an entry point, as `dagster`, or `module:function`.

    Raises:
        RequestError: There is none, or it cannot be imported.
    """
    from importlib.metadata import EntryPoint, entry_points

    from mlforge.errors import RequestError, one_line

    known = entry_points(group=GROUP)
    if ":" not in name and name not in known.names:
        offered = ", ".join(sorted(known.names)) or "nobody"
        raise RequestError(f"Nobody is called {name!r} to report to: there is {offered}; or write module:function.")
    chosen = EntryPoint(name, name, GROUP) if ":" in name else known[name]
    try:
        found: Reporter = chosen.load()
    except (ImportError, AttributeError, ValueError) as error:
        hint = " (pip install 'mlforge[dagster]')" if name == "dagster" else ""
        raise RequestError(f"--report {name} cannot be imported: {one_line(error)}{hint}") from error
    return found
