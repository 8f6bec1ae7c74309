"""examples/realtime as its reader runs it: programs of their own, and the service over HTTP."""

import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

import oracle
from command_line import MLFORGE, elsewhere, opened, printed, without_redis
from mlforge import Definitions
from mlforge.online import RedisStore
from servers import RedisServer, free_port

EXAMPLE = Path(__file__).parent.parent / "examples" / "realtime"
NOW = datetime(2018, 1, 2, tzinfo=UTC)
HOUSEHOLDS = [1, 5, 10, 900, 2500]
# In Dagster without its processes: what there is, and what a run of all of it does.
DAGSTER = """
import json
import dagster as dg
from dagster_definitions import definitions

dg.Definitions.validate_loadable(definitions)
with dg.DagsterInstance.ephemeral() as instance:
    ran = definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)
print(json.dumps({
    "success": ran.success,
    "order": [event.asset_key.path[-1] for event in ran.get_asset_materialization_events()],
    "checks": {each.check_name: each.passed for each in ran.get_asset_check_evaluations()},
    "schedules": {each.name: each.cron_schedule for each in definitions.schedules},
    "sensors": [each.name for each in definitions.sensors],
}))
"""


def copied(folder: Path) -> Path:
    """Outside of the repository, since the example keeps what it makes beside itself."""
    for file in EXAMPLE.glob("*.py"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which all is built and online."""
    made = copied(tmp_path_factory.mktemp("realtime"))
    printed(made, MLFORGE, "build", "--online")
    return made


@pytest.fixture(scope="module")
def trained(folder: Path) -> str:
    """What training says."""
    return printed(folder, sys.executable, "train.py")


@pytest.fixture(scope="module")
def defs(folder: Path) -> Iterator[Definitions]:
    with opened(folder) as found:
        yield found


@pytest.fixture(scope="module")
def service(folder: Path, trained: str) -> Iterator[httpx.Client]:
    assert trained
    with serving(folder) as client:
        yield client


@contextmanager
def serving(folder: Path, **environment: str) -> Iterator[httpx.Client]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port)]
    env = without_redis() | environment
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            deadline = time.monotonic() + 60
            while True:
                try:
                    client.get("/health")
                    break
                except httpx.TransportError:
                    assert process.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < deadline, (folder / "log").read_text()
                    time.sleep(0.05)
            yield client
    finally:
        process.terminate()
        process.wait(60)


def by_hand(defs: Definitions, pipeline: Any, household: int) -> float:
    """The score of a household from its purchases, in plain Python."""
    feature = defs.feature("household_visits")
    events = feature.function(feature.source.scan()).lazy().filter(pl.col("household_id") == household)
    rows = events.collect().to_dicts()
    (metric,) = feature.metrics
    values = oracle.value_at(
        rows,
        {"household_id": household},
        NOW,
        timestamp="ts",
        interval="1d",
        windows=metric.windows,
        aggregations=metric.aggregations,
    )
    assert values is not None
    last = max(row["ts"] for row in rows).replace(tzinfo=UTC)
    given = [*values.values(), (NOW - last).total_seconds() // 1 / 86_400]
    scaler, regression = pipeline
    parts = zip(given, scaler.mean_, scaler.scale_, regression.coef_[0], strict=True)
    total = regression.intercept_[0] + sum(
        weight * (math.log1p(value) - mean) / scale for value, mean, scale, weight in parts
    )
    return float(1 / (1 + math.exp(-total)))


def test_it_is_better_than_counting_visits(trained: str) -> None:
    auc, counting = map(float, re.findall(r"0\.\d{3}", trained))
    assert 0.84 < counting < auc - 0.02
    assert "Trained on household_visits 1.0.0, household_last_visit 1.0.0" in trained


def test_scores_are_those_of_the_purchases_and_of_the_training_set(
    service: httpx.Client, defs: Definitions, folder: Path
) -> None:
    model = import_module("model").load(folder / "model.pickle")
    labels = pl.DataFrame({"household_id": HOUSEHOLDS, "label_time": [NOW] * len(HOUSEHOLDS)})
    rows = defs.get_training_data(model.features, labels, timestamp="label_time")
    trained_on = model.score(rows, pl.col("label_time"))
    many = service.post("/scores", json={"household_ids": HOUSEHOLDS}).json()
    for household, row, wanted in zip(HOUSEHOLDS, many, trained_on, strict=True):
        same = {"household_id": household, "stays_away": pytest.approx(wanted, rel=1e-12), "at": "2018-01-02T00:00:00Z"}
        assert row == same
        assert service.get(f"/households/{household}").json() == same
        assert row["stays_away"] == pytest.approx(by_hand(defs, model.pipeline, household), rel=1e-9)


def test_a_household_that_does_not_exist_is_not_found_or_null(service: httpx.Client) -> None:
    answer = service.get("/households/9999")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Nothing is online for household 9999."})
    found = service.post("/scores", json={"household_ids": [9999, 1, 0]}).json()
    assert [score["stays_away"] is None for score in found] == [True, False, True]


def test_who_came_for_the_first_time_today_is_scored_before_any_window_has_them(
    trained: str, defs: Definitions, folder: Path
) -> None:
    assert trained
    model = import_module("model").load(folder / "model.pickle")
    entities = pl.DataFrame({"household_id": [9998, 9999]})
    rows = defs.get_online_features(model.features, entities)
    rows = rows.with_columns(last_visit=pl.Series([NOW, None], dtype=rows.schema["last_visit"]))
    today, unknown = model.score(rows, pl.lit(NOW))
    assert 0 < today < 1
    assert unknown is None


@pytest.mark.parametrize("households", [[], [-1], [2**63], ["one"], [1] * 1001])
def test_what_cannot_be_scored_is_the_callers_mistake(service: httpx.Client, households: list[Any]) -> None:
    assert service.post("/scores", json={"household_ids": households}).status_code == 422


def test_a_nan_is_the_callers_mistake_too(service: httpx.Client) -> None:
    found = service.post("/scores", content='{"household_ids": [NaN]}', headers={"content-type": "application/json"})
    assert found.status_code == 422
    assert "finite" in found.text or "integer" in found.text


def test_its_health_is_what_is_online_as_of_when(service: httpx.Client) -> None:
    answer = service.get("/health")
    assert answer.status_code == 200
    assert answer.json()["household_last_visit"] == {
        "as_of": "2018-01-02T00:00:00Z",
        "version": "1.0.0",
        "trained_on": "1.0.0",
        "entities": 2469,
        "complete": True,
    }


def test_labels_are_those_of_plain_python(defs: Definitions) -> None:
    assert defs.name == "realtime"
    made = import_module("labels")
    few = made.labels().filter(pl.col("household_id").is_in(HOUSEHOLDS)).to_dicts()
    times: dict[int, list[datetime]] = {household: [] for household in HOUSEHOLDS}
    for row in made.visits().filter(pl.col("household_id").is_in(HOUSEHOLDS)).collect().to_dicts():
        times[row["household_id"]].append(row["visit"])
    assert len(few) > 100
    assert {row["stays_away"] for row in few} == {True, False}
    for row in few:
        own, at = times[row["household_id"]], row["label_time"]
        assert min(own) < at
        assert row["stays_away"] == (not any(at < time < at + made.HORIZON for time in own)), row


@pytest.mark.slow
def test_a_leak_promises_more_and_keeps_less_than_no_model(folder: Path) -> None:
    said = printed(folder, sys.executable, "leak.py")
    counting, promised, kept, leak_promised, leak_kept = map(float, re.findall(r"0\.\d{3}", said))
    assert leak_kept < counting < kept == promised < leak_promised


@pytest.mark.slow
def test_parity_is_of_every_household_and_finds_one_value_that_is_wrong(
    service: httpx.Client, folder: Path, defs: Definitions
) -> None:
    command = (sys.executable, "parity.py", str(service.base_url))
    said = printed(folder, *command)
    assert "17,290 values of 2,469 households and an unknown one: 0 differ online from history." in said
    assert "2,470 scores over HTTP: 0 differ from history;" in said
    store = defs.require_online_store()
    values = store.read("household_visits", {"household_id": "900"})
    assert values is not None
    store.write("household_visits", {"household_id": "900"}, values | {"spent__sum__7d": 1.5})
    assert service.get("/health").status_code == 503
    found = elsewhere(folder, *command)
    assert found.returncode == 1
    assert ": 1 differ online" in found.stdout
    assert "2,470 scores over HTTP: 1 differ" in found.stdout
    assert found.stderr == "What is served is not what was trained on.\n"
    printed(folder, MLFORGE, "build", "--online")
    assert ": 0 differ online" in printed(folder, *command)


@pytest.mark.slow
def test_all_of_it_runs_by_one_command_and_leaves_nothing_running(tmp_path: Path) -> None:
    said = printed(copied(tmp_path), sys.executable, "run.py")
    assert "0 differ online from history" in said
    assert '404\n    {"detail": "Nothing is online for household 9999."}' in said
    left = [path for path in Path("/proc").glob("[0-9]*/cwd") if _leads_to(path, tmp_path)]
    assert left == []


def _leads_to(link: Path, folder: Path) -> bool:
    try:
        return link.readlink().is_relative_to(folder)
    except OSError:
        return False


@pytest.mark.slow
def test_what_comes_too_early_says_what_comes_first(tmp_path: Path) -> None:
    copied(tmp_path)
    for command, said in {
        ("-m", "uvicorn", "service:app"): f"There is no model at {tmp_path}/model.pickle: run `python train.py` first.",
        (
            "parity.py",
            "http://127.0.0.1:1",
        ): f"There is no model at {tmp_path}/model.pickle: run `python train.py` first.",
        (
            "train.py",
        ): "Feature 'household_visits' has not been built: run `mlforge build --features household_visits`.",
        ("leak.py",): "Feature 'household_visits' has not been built: run `mlforge build --features household_visits`.",
    }.items():
        ended = elsewhere(tmp_path, sys.executable, *command)
        assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"{said}\n")
    (tmp_path / "model.pickle").write_bytes(b"")
    ended = elsewhere(tmp_path, sys.executable, "-m", "uvicorn", "service:app")
    assert ended.stderr == f"{tmp_path}/model.pickle holds no model: run `python train.py`.\n"


@pytest.mark.slow
def test_a_redis_that_the_environment_names_is_used_instead(
    folder: Path, trained: str, redis_server: RedisServer
) -> None:
    assert trained
    with serving(folder, MLFORGE_REDIS_URL=redis_server.url) as client:
        missing = client.get("/households/1")
        assert missing.status_code == 503
        assert "is not online: run `mlforge build" in missing.json()["detail"]
        assert client.get("/health").status_code == 503
        printed(folder, MLFORGE, "build", "--online", MLFORGE_REDIS_URL=redis_server.url)
        assert client.get("/households/1").json()["stays_away"] < 0.1
        assert client.get("/health").status_code == 200
    with RedisStore.from_url(redis_server.url) as store:
        for name in ("household_visits", "household_last_visit"):
            assert store.clear(name) == 2469


@pytest.mark.slow
def test_another_definition_online_is_refused_until_the_model_is_trained_on_it(tmp_path: Path) -> None:
    copied(tmp_path)
    printed(tmp_path, MLFORGE, "build", "--online")
    printed(tmp_path, sys.executable, "train.py")
    file = tmp_path / "definitions.py"
    with serving(tmp_path) as client:
        file.write_text(file.read_text().replace('"spent": ["sum"]', '"spent": ["sum", "max"]'))
        printed(tmp_path, MLFORGE, "build", "--online")
        refused = client.get("/households/1")
        assert refused.status_code == 503
        assert "asked for at version 1.0.0, and 1.1.0 is online" in refused.json()["detail"]
    assert "household_visits 1.1.0" in printed(tmp_path, sys.executable, "train.py")
    with serving(tmp_path) as client:
        assert client.get("/households/1").status_code == 200


@pytest.mark.slow
def test_in_dagster_the_model_comes_after_the_features(tmp_path: Path) -> None:
    found = json.loads(printed(copied(tmp_path), sys.executable, "-c", DAGSTER))
    assert found["success"]
    assert set(found["order"][:-1]) >= {"household_visits", "household_last_visit"}
    assert "model" in found["order"]
    assert found["order"].index("model") > found["order"].index("household_visits")
    assert found["checks"] == {
        "what_was_spent_is_not_negative": True,
        "in_sync": True,
        "parity": True,
        "better_than_counting_visits": True,
    }
    assert found["schedules"] == {"realtime_features_schedule": "0 2 * * *", "weekly_training": "0 4 * * 1"}
    assert found["sensors"] == ["realtime_online_reconcile"]
    assert (tmp_path / "model.pickle").exists()
