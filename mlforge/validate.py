"""Whether the data passes the checks of features, before anything is computed from it or written."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from polars.testing import assert_frame_equal

from mlforge import verdicts
from mlforge.engines import Engine, Engines
from mlforge.engines.history import history
from mlforge.engines.task import local, one_schema, require_keys, require_local_checks
from mlforge.errors import DefinitionError, MlforgeError, one_line
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


def validate(feature: Feature, engines: Engines, shards: int | None = None) -> ValidationReport:
    """Runs a feature's function over its source and its checks over the result; asks no store, computes no windows.

    What else a build would refuse (a missing file, columns and dtypes that do not fit, two rows for one entity of a
    snapshot) and what the function itself raises is the report's problem.
    """
    began = time.perf_counter()
    try:
        engine, source = engines.of(feature), _source(feature, engines)
        loaded = engine.load(feature, source)
        # Windows tell from no rows at all whether the dtypes fit.
        history(feature, loaded.events.clear() if feature.timestamp else loaded.events)
        # What DuckDB runs it runs everywhere.
        if shards is not None and engine.name != "duckdb":
            require_local_checks(feature, loaded.schema)
            _require_local(feature, source, engine, loaded.events, shards)
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


def _require_local(feature: Feature, source: Source, engine: Engine, whole: pl.DataFrame, shards: int) -> None:
    """Refuses a function that returns something else where it sees some entities only.

    Raises:
        DefinitionError: It does, with an example.
    """
    rows = source.scan().collect(engine="streaming")
    require_keys(feature, rows.columns)
    shard = pl.struct(feature.keys).hash() % shards
    parts = [rows.filter(shard == number) for number in range(shards)]
    made = [local(engine, feature, part, repr(source), checked=False).events for part in parts if len(part)]
    one_schema(feature, [whole.schema, *(events.schema for events in made)])
    found = pl.concat(made)
    order = [*feature.index, *(name for name in whole.columns if name not in feature.index)]
    one, other = (events.select(order).sort(order, nulls_last=False) for events in (whole, found))
    try:
        # Sums may be added in another order.
        assert_frame_equal(one, other, rel_tol=1e-9, abs_tol=1e-9)
    except AssertionError:
        only = [a.join(b, on=order, how="anti", nulls_equal=True) for a, b in ((one, other), (other, one))]
        shown = "; ".join(
            f"{what}: {verdicts.shown(rows.row(0, named=True))}"
            for what, rows in zip(("of all rows", f"in {shards} shards"), only, strict=True)
            if len(rows)
        )
        raise DefinitionError(
            f"its function is not local to an entity, as it has to be on Spark: what it returns for one depends on the "
            f"rows of others ({shown})."
        ) from None


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
