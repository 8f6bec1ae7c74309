"""Every error that mlforge raises on purpose, by who has to act.

```text
MlforgeError
├── DefinitionError     whoever wrote the feature or the project
├── RequestError        whoever called: an unknown feature, entity keys that do not fit, a bad argument
├── DataError           whoever owns the data: a missing file, a wrong dtype, duplicate keys
│   └── CheckFailedError    the data failed a check; nothing was published
└── StoreError          whoever runs the stores: unreachable, refused, damaged, written by somebody else
    └── UnavailableError    not at the moment: lost, failing over, or held by somebody else; trying again may help
```
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

LONGEST_LINE = 300


class MlforgeError(Exception):
    """The base of every error that mlforge raises on purpose; its text is one line for a person."""


class DefinitionError(MlforgeError):
    """A feature, a metric or a project is defined in a way that cannot work."""


class RequestError(MlforgeError):
    """A call asks for something that does not exist or does not fit."""


class DataError(MlforgeError):
    """The data is not what the definition says it is."""


class CheckFailedError(DataError):
    """A check with severity `error` failed, so nothing was published.

    Attributes:
        feature: The feature's name.
        results: The verdicts of all checks of the feature, as `mlforge.verdicts.CheckResult`s.
    """

    def __init__(self, message: str, feature: str = "", results: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.feature = feature
        self.results = results


class StoreError(MlforgeError):
    """A store cannot be reached, refuses, is damaged, or was changed by somebody else."""


class UnavailableError(StoreError):
    """A store cannot be reached at the moment, was lost on the way, or is held by somebody else."""


def one_line(error: BaseException | str) -> str:
    r"""What an error of another library says, without what follows: delta-rs appends its stack, Polars its plan.

    >>> one_line(OSError("it is gone\n   0: <unknown>"))
    'it is gone'
    """
    line = str(error).strip().partition("\n")[0].strip()
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error line about an unknown name: the nearest known ones, or all of them.

    >>> did_you_mean("user_spent", ["user_spend", "store_sales"])
    "; did you mean 'user_spend'?"
    >>> did_you_mean("x", ["user_spend"])
    "; known: 'user_spend'."
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=3)
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return f"; known: {', '.join(map(repr, names))}." if names else "; there are none."
