"""`dagster dev` as people run it: the webserver, the daemon, runs in processes of their own, asked as the UI asks."""

import contextlib
import json
import os
import re
import shutil
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

import pytest
from playwright.sync_api import Page, sync_playwright

from mlforge.online import RedisStore
from servers import RedisServer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
# Where the pictures of the documentation are made.
PICTURES = ROOT / "build" / "screenshots"
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
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found
        data: dict[str, Any] = found["data"]
        return data

    def run(self, *keys: str) -> str:
        """Materialises assets as the button does; how that ended."""
        selector = {
            "repositoryLocationName": "transactions",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": ["transactions", key]} for key in keys],
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
    example = Path("examples", "transactions")
    (tmp_path / example).parent.mkdir()
    made = shutil.ignore_patterns("feature_store", "online_store", "dagster_home", "__pycache__")
    shutil.copytree(ROOT / example, tmp_path / example, ignore=made)
    for name in ("workspace.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}")
    program = Path(sys.executable).with_name("dagster")
    arguments = ["dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    # Without PYTHONPATH, `examples` is that of the clone from which mlforge was installed.
    variables = {
        "DAGSTER_HOME": str(tmp_path / "home"),
        "MLFORGE_REDIS_URL": redis_server.url,
        "PYTHONPATH": str(tmp_path),
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [program, *arguments],
            cwd=tmp_path,
            env=os.environ | variables,
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


def test_what_the_ui_shows_and_runs(dagster: Dagster, redis_server: RedisServer, tmp_path: Path) -> None:
    nodes = dagster.ask("{ assetNodes { assetKey { path } isMaterializable dependencyKeys { path } } }")["assetNodes"]
    names = {"user_spend", "user_spend_30d_interval", "store_sales"}
    assert {node["assetKey"]["path"][-1]: node["isMaterializable"] for node in nodes} == {
        "transactions": False,
        **dict.fromkeys(names, True),
        **dict.fromkeys([f"{name}_online" for name in names], True),
    }
    repositories = dagster.ask(
        "{ repositoriesOrError { ... on RepositoryConnection { nodes { schedules { name } sensors { name } } } } }"
    )["repositoriesOrError"]["nodes"]
    assert repositories == [
        {
            "schedules": [{"name": "transactions_features_schedule"}],
            "sensors": [{"name": "transactions_online_reconcile"}],
        }
    ]
    # The default executor: each step is a process of its own.
    assert dagster.run("user_spend", "user_spend_online") == "SUCCESS"
    with RedisStore(redis_server.host, redis_server.port) as store:
        assert store.read("user_spend", {"user_id": "1228"}) is not None
        query = """{
            assetOrError(assetKey: {path: ["transactions", "user_spend_online"]}) {
                ... on Asset { assetMaterializations(limit: 1) {
                    metadataEntries { label ... on IntMetadataEntry { intValue } }
                } }
            }
        }"""
        assert (tmp_path / "examples" / "transactions" / "feature_store").exists()
        (shown,) = dagster.ask(query)["assetOrError"]["assetMaterializations"]
        assert {"label": "written", "intValue": 2469} in shown["metadataEntries"]
        with browser() as page:
            page.goto(f"{dagster.url}/asset-groups/")
            page.get_by_role("button", name="Skip").click()
            for name in ("transactions", "user_spend", "user_spend_online", "store_sales", "3 / 3 Passed"):
                page.get_by_text(name, exact=True).first.wait_for()
            # What was not built is not told apart from what was before the state of all has come.
            page.get_by_text("Never materialized").first.wait_for()
            page.screenshot(path=PICTURES / "graph.png")
            page.set_viewport_size({"width": 1440, "height": 1500})
            page.goto(f"{dagster.url}/assets/transactions/user_spend_online")
            for text in ("written", re.compile("^2,?469$"), "deleted", "amount__sum__7d", "Redis"):
                page.get_by_text(text, exact=True).first.wait_for()
            page.screenshot(path=PICTURES / "online.png")
        store.clear("user_spend")


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """A page in Debian's Chromium."""
    program = shutil.which("chromium")
    assert program is not None, "apt-get install chromium"
    with sync_playwright() as playwright:
        # Nobody but root is on a build machine.
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(20_000)
        try:
            yield page
        except BaseException:
            page.screenshot(path=PICTURES / "failed.png")
            raise
        finally:
            chromium.close()
