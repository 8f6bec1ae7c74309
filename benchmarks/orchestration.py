"""What Dagster costs: loading a project of many features, running few, and the executor of its steps.

    python benchmarks/orchestration.py                 everything; about three minutes
    python benchmarks/orchestration.py load            some sections: load overhead executors
    python benchmarks/orchestration.py --rows 100      a project of fewer features than a thousand

Every measurement is a process of its own, the kinds take turns, and a figure is the median of the rounds, with their
range. What was found goes to build/bench/orchestration.json. Linux only.
"""

import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from measure import Measurement, kinds_in_turns, shown
from results import Line
from script import Bench, Script, Section

import mlforge as mlf
from mlforge.online import EmbeddedStore
from mlforge.store import LocalStore
from mlforge_dagster import build_definitions, feature_assets, feature_job, feature_schedule, online_reconcile_sensor

MODULE = """from pathlib import Path
import mlforge as mlf
import polars as pl
"""
FEATURE = """

@mlf.feature(
    keys=["user"],
    source=Path(__file__).with_name("events.parquet"),
    timestamp="ts",
    interval="1d",
    metrics=[mlf.Rolling(windows=["7d"], aggregations={{"amount": ["sum", "mean"]}})],
    checks={{"not negative": pl.col("amount") >= 0}},
)
def feature_{number}(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.with_columns(pl.col("amount") * {number})
"""
FEW, STEPS = 20, 4


def write(folder: Path, count: int) -> None:
    """A module with so many features, and the events that they read."""
    times = pl.datetime_range(pl.datetime(2026, 1, 1), pl.datetime(2026, 1, 10), "1d", eager=True)
    pl.DataFrame({"user": range(10), "ts": times, "amount": [1.0] * 10}).write_parquet(folder / "events.parquet")
    (folder / "thousand.py").write_text(MODULE + "".join(FEATURE.format(number=number) for number in range(count)))


def project(folder: Path) -> mlf.Definitions:
    """The features of the module in a folder."""
    sys.path.insert(0, str(folder))
    features = [importlib.import_module("thousand")]
    return mlf.Definitions(
        "thousand", features=features, store=LocalStore(folder / "store"), online_store=EmbeddedStore(folder / "online")
    )


def load(bench: Bench) -> list[Line]:
    """Until Dagster has the repository, with the features imported."""
    found = kinds_in_turns("load", ["mlforge", "hand"], rounds=bench.rounds, count=bench.rows)
    assets = f"{2 * bench.rows:,} assets with {3 * bench.rows:,} checks by hand"
    return [
        Line.of(
            "Dagster",
            f"{bench.rows:,} features loaded",
            found["mlforge"],
            beside=f"{assets}, {shown(found['hand'])}",
            mlforge=shown(found["mlforge"]),
            limit=2,
            unit="s",
            reason="Most of it is Dagster's, as the same by hand shows. A second goes into what each function and all "
            "that it names says, for its code version.",
        )
    ]


def _load(kind: str, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), count)
        defs = project(Path(folder))
        assert len(defs.features) == count
        began = time.perf_counter()
        if kind == "mlforge":
            schedules, sensors = [feature_schedule(defs, "0 2 * * *")], [online_reconcile_sensor(defs)]
            definitions = build_definitions(defs, schedules=schedules, sensors=sensors)
        else:
            definitions = dg.Definitions(assets=by_hand(count))
        definitions.get_repository_def()
        return {"seconds": time.perf_counter() - began}


def by_hand(count: int) -> list[dg.AssetsDefinition]:
    """As many assets and checks as so many features have, as somebody would write them; they do nothing."""
    return [_by_hand(f"feature_{number}", checks) for number in range(count) for checks in (1, 2)]


def _by_hand(name: str, checks: int) -> dg.AssetsDefinition:
    key = dg.AssetKey(["thousand", name] if checks == 1 else ["thousand", name, "online"])
    above = dg.AssetKey(["thousand", "events"] if checks == 1 else ["thousand", name])
    names = [f"check_{number}" for number in range(checks)]

    @dg.multi_asset(
        name="__".join(key.path),
        specs=[dg.AssetSpec(key, deps=[above])],
        check_specs=[dg.AssetCheckSpec(each, asset=key) for each in names],
        can_subset=True,
    )
    def build(context: dg.AssetExecutionContext) -> Any:
        yield dg.MaterializeResult(asset_key=key, metadata={"rows": 1}, data_version=dg.DataVersion("1.0.0"))
        for each in names:
            yield dg.AssetCheckResult(passed=True, asset_key=key, check_name=each, metadata={"rows": 1})

    return build


def overhead(bench: Bench) -> list[Line]:
    """Few features built and put online in one process, by a run and by a call."""
    found = kinds_in_turns("overhead", ["run", "call", "hand"], rounds=bench.rounds)
    beyond = [run - call for run, call in zip(found["run"], found["call"], strict=True)]
    return [
        Line.of(
            "Dagster",
            f"{FEW} features built and put online by a run in process",
            beyond,
            beside=f"Definitions.build, {shown(found['call'])}; assets by hand that do nothing, {shown(found['hand'])}",
            mlforge=shown(found["run"]),
            limit=3,
            unit="s beyond",
            reason="Most of it is Dagster's: as many assets and checks that do nothing take more than half of it.",
        )
    ]


def _overhead(kind: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral(tempdir=folder) as instance:
        write(Path(folder), FEW)
        defs = project(Path(folder))
        assets = feature_assets(defs)
        hand = by_hand(FEW)
        # The server is up.
        defs.build(online=True)
        shutil.rmtree(Path(folder, "store"))
        began = time.perf_counter()
        if kind == "run":
            assert dg.materialize(assets, instance=instance).success
        elif kind == "hand":
            assert dg.materialize(hand, instance=instance).success
        else:
            defs.build(online=True, force=True)
        seconds = time.perf_counter() - began
        close(defs)
        return {"seconds": seconds}


def executors(bench: Bench) -> list[Line]:
    """What a step costs that has next to nothing to do."""
    found = kinds_in_turns("executor", ["in_process", "multiprocess"], rounds=bench.rounds)
    return [
        Line.of(
            "Dagster",
            f"a run of {STEPS} small features with what is online of them, a step",
            found["in_process"],
            beside=f"in a process each, {shown(found['multiprocess'])}",
            mlforge=f"in one process, {shown(found['in_process'])}",
            limit=0.5,
            unit="s",
        )
    ]


def small() -> dg.JobDefinition:
    """A job of few features, as a process of a step makes it."""
    defs = project(Path.cwd())
    definitions = build_definitions(defs, jobs=[feature_job(defs, name="small")])
    return definitions.resolve_job_def("small")


def _executor(kind: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        # Steps in processes of their own begin where this one is.
        os.chdir(folder)
        write(Path(folder), STEPS)
        Path("home").mkdir()
        Path("home", "dagster.yaml").write_text("telemetry: {enabled: false}")
        with dg.DagsterInstance.from_config("home") as instance:
            config = {"execution": {"config": {kind: {}}}}
            began = time.perf_counter()
            with dg.execute_job(dg.reconstructable(small), instance=instance, run_config=config) as result:
                assert result.success
            return {"seconds": (time.perf_counter() - began) / (2 * STEPS)}


def close(defs: mlf.Definitions) -> None:
    """Ends the server that came along."""
    store = defs.online_store
    if isinstance(store, EmbeddedStore):
        store.close()


SECTIONS: Mapping[str, Section] = {"load": load, "overhead": overhead, "executors": executors}
MEASURES: dict[str, Measurement] = {"load": _load, "overhead": _overhead, "executor": _executor}


SCRIPT = Script(
    doc=__doc__,
    sections=SECTIONS,
    measures=MEASURES,
    rows=1_000,
    quick=20,
    what="features of the project that is loaded",
    rounds=3,
    packages=("dagster", "polars"),
)

if __name__ == "__main__":
    SCRIPT.main()
