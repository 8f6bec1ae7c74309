"""`dagster dev` as people run it: the webserver, the daemon, runs in processes of their own, asked as the UI asks."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.online import RedisStore
from servers import RedisServer

pytestmark = pytest.mark.slow

PROJECT = """
import mlforge as mlf
from mlforge.store import LocalStore
from mlforge_dagster import RedisStoreResource, build_definitions, feature_schedule, online_reconcile_sensor

@mlf.feature(
    keys=["user"],
    source="events.parquet",
    timestamp="ts",
    interval="1d",
    metrics=[mlf.Rolling(windows=["7d"], aggregations={"amount": ["sum"]})],
)
def spend(df):
    return df

defs = mlf.Definitions("shop", store=LocalStore("store"), as_of="2026-01-04T00:00:00Z")
online = RedisStoreResource(host=HOST, port=PORT)
definitions = build_definitions(
    defs,
    online_store=online,
    schedules=[feature_schedule(defs, "0 2 * * *")],
    sensors=[online_reconcile_sensor(defs, online_store=online)],
)
"""
LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
SECONDS = 180


class Dagster:
    """A running `dagster dev`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found
        data: dict[str, Any] = found["data"]
        return data

    def run(self, *keys: str) -> str:
        """Materialises assets as the button does; how that ended."""
        selector = {
            "repositoryLocationName": "shop",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": ["shop", key]} for key in keys],
        }
        launched = self.ask(LAUNCH, params={"selector": selector, "runConfigData": {}, "mode": "default"})["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            query = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
            status: str = self.ask(query, id=launched["run"]["runId"])["runOrError"]["status"]
            if status in ("SUCCESS", "FAILURE", "CANCELED"):
                return status
            time.sleep(0.5)
        raise AssertionError("The run does not end.")


@pytest.fixture
def dagster(tmp_path: Path, redis_server: RedisServer) -> Iterator[Dagster]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    times = pl.datetime_range(pl.datetime(2026, 1, 1), pl.datetime(2026, 1, 3), "1d", eager=True)
    pl.DataFrame({"user": [1, 1, 2], "ts": times, "amount": [1.0, 2.0, 4.0]}).write_parquet(tmp_path / "events.parquet")
    where = PROJECT.replace("HOST", repr(redis_server.host)).replace("PORT", str(redis_server.port))
    (tmp_path / "shop.py").write_text(where)
    (tmp_path / "workspace.yaml").write_text(
        "load_from:\n  - python_file: {relative_path: shop.py, location_name: shop}"
    )
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}")
    program = Path(sys.executable).with_name("dagster")
    arguments = ["dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [program, *arguments],
            cwd=tmp_path,
            env=os.environ | {"DAGSTER_HOME": str(tmp_path / "home")},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    dagster = Dagster(port)
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                dagster.ask("{ version }")
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.5)
        yield dagster
    finally:
        # It ignores signals while it starts; what it has started is in its session.
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_what_the_ui_shows_and_runs(dagster: Dagster, redis_server: RedisServer) -> None:
    nodes = dagster.ask("{ assetNodes { assetKey { path } isMaterializable dependencyKeys { path } } }")["assetNodes"]
    assert {node["assetKey"]["path"][-1]: node["isMaterializable"] for node in nodes} == {
        "events": False,
        "spend": True,
        "spend_online": True,
    }
    repositories = dagster.ask(
        "{ repositoriesOrError { ... on RepositoryConnection { nodes { schedules { name } sensors { name } } } } }"
    )["repositoriesOrError"]["nodes"]
    assert repositories == [
        {"schedules": [{"name": "shop_features_schedule"}], "sensors": [{"name": "shop_online_reconcile"}]}
    ]
    # The default executor: each step is a process of its own.
    assert dagster.run("spend", "spend_online") == "SUCCESS"
    with RedisStore(redis_server.host, redis_server.port) as store:
        assert store.read_batch("spend", [{"user": "1"}, {"user": "2"}]) == [
            {"amount__sum__7d": 3.0},
            {"amount__sum__7d": 4.0},
        ]
        store.clear("spend")
    query = """{
        assetOrError(assetKey: {path: ["shop", "spend_online"]}) {
            ... on Asset { assetMaterializations(limit: 1) {
                metadataEntries { label ... on IntMetadataEntry { intValue } }
            } }
        }
    }"""
    (shown,) = dagster.ask(query)["assetOrError"]["assetMaterializations"]
    assert {"label": "written", "intValue": 2} in shown["metadataEntries"]
