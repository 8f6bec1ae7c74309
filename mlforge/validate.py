"""Whether the data passes the checks of features, before anything is computed from it or written."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from mlforge.engines import Engines
from mlforge.engines.history import history
from mlforge.errors import MlforgeError, one_line
from mlforge.features import Feature
from mlforge.modules import origin
from mlforge.source import Source
from mlforge.verdicts import CheckResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """What the checks of a feature found.

    Attributes:
        feature: The feature's name.
        rows: How many rows its function returned.
        left_out: How many of them have no key or no timestamp.
        checks: The verdicts.
        problem: Why the feature could not be run; else empty.
        seconds: How long it took.
    """

    feature: str
    rows: int = 0
    left_out: int = 0
    checks: Sequence[CheckResult] = ()
    problem: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the feature could be run, and no check of severity error failed."""
        return not self.problem and all(check.passed or check.severity == "warn" for check in self.checks)


def validate(feature: Feature, engines: Engines) -> ValidationReport:
    """Runs a feature's function over its source and its checks over the result; asks no store, computes no windows.

    What else a build would refuse (a missing file, columns and dtypes that do not fit, two rows for one entity of a
    snapshot) and what the function itself raises is the report's problem.
    """
    began = time.perf_counter()
    try:
        loaded = engines.of(feature).load(feature, _source(feature, engines))
        # Windows tell from no rows at all whether the dtypes fit.
        history(feature, loaded.events.clear() if feature.timestamp else loaded.events)
    except MlforgeError as error:
        return _cannot_be_run(feature, str(error), began)
    except Exception as error:  # noqa: BLE001
        # The function is the user's, and may raise anything.
        what = f"{type(error).__name__}: {one_line(error)}".removesuffix(": ")
        return _cannot_be_run(feature, f"{what}{origin(error)}", began)
    return ValidationReport(
        feature=feature.name,
        rows=len(loaded.events) + loaded.left_out,
        left_out=loaded.left_out,
        checks=loaded.checks,
        seconds=time.perf_counter() - began,
    )


def _cannot_be_run(feature: Feature, problem: str, began: float) -> ValidationReport:
    return ValidationReport(feature=feature.name, problem=problem, seconds=time.perf_counter() - began)


class _Fresh(Source):
    """The rows of a feature that another one reads, computed anew: whether it is built makes no difference."""

    def __init__(self, feature: Feature, engines: Engines) -> None:
        self._feature = feature
        self._engines = engines

    def __repr__(self) -> str:
        return f"feature {self._feature.name!r}"

    def scan(self) -> pl.LazyFrame:
        engine, source = self._engines.of(self._feature), _source(self._feature, self._engines)
        return history(self._feature, engine.load(self._feature, source, checked=False).events).lazy()


def _source(feature: Feature, engines: Engines) -> Source:
    return _Fresh(feature.source, engines) if isinstance(feature.source, Feature) else feature.source
