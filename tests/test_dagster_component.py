"""A project in `defs.yaml`, and the example as the workspace and `dg` find it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from dagster_shop import Shop
from mlforge import DefinitionError
from mlforge_dagster import (
    FeatureStoreComponent,
)

ROOT = Path(__file__).parent.parent


def test_the_workspace_of_the_example_loads() -> None:
    program = Path(sys.executable).with_name("dagster")
    found = subprocess.run([program, "job", "list", "-w", "workspace.yaml"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "Job: transactions_features" in found.stdout


# Dagster's own, where it reads defs.yaml.
@pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated", "ignore::dagster.BetaWarning")
def test_a_component_makes_the_definitions_of_a_file(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(
        f"""
import mlforge as mlf
from mlforge.store import LocalStore

@mlf.feature(keys=["user"], source={str(shop.folder / "events.parquet")!r}, timestamp="ts")
def last(df):
    return df

defs = mlf.Definitions("component", store=LocalStore({str(tmp_path / "own")!r}))
"""
    )
    with create_defs_folder_sandbox() as sandbox:
        attributes = {
            "definitions": str(tmp_path / "project.py"),
            "schedule": "0 2 * * *",
            "partitions": {"last": "2026-01-01"},
        }
        path = sandbox.scaffold_component(
            component_cls=FeatureStoreComponent,
            defs_yaml_contents={"type": "mlforge_dagster.FeatureStoreComponent", "attributes": attributes},
        )
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, definitions):
            assert isinstance(component, FeatureStoreComponent)
            keys = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
            assert {"component/last", "component/sources/events"} <= keys
            assert definitions.schedules is not None
            names = [schedule.name for schedule in definitions.schedules]
            assert names == ["component_features_schedule", "component_last_partitions"]
    context = dg.ComponentTree.for_test().load_context
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "project.py").write_text("")
    with pytest.raises(DefinitionError, match="One code location has components of several projects"):
        FeatureStoreComponent(definitions=str(tmp_path / "other" / "project.py")).build_defs(context)
    with pytest.raises(DefinitionError, match=r"there is no '/nowhere\.py'"):
        FeatureStoreComponent(definitions="/nowhere.py").build_defs(context)


def dg_says(*arguments: str, home: Path) -> str:
    program = Path(sys.executable).with_name("dg")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}")
    environment = os.environ | {"DAGSTER_HOME": str(home), "DG_CLI_CONFIG": str(home / "dg.toml"), "COLUMNS": "200"}
    found = subprocess.run([program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_dg_checks_and_lists_the_example(tmp_path: Path) -> None:
    dg_says("check", "defs", home=tmp_path)
    assert "All TOML configuration files are valid." in dg_says("check", "toml", home=tmp_path)
    assert "mlforge_dagster.FeatureStoreComponent" in dg_says("list", "components", home=tmp_path)
    found = json.loads(dg_says("list", "defs", "--json", home=tmp_path))
    keys = {asset["asset_key"] for asset in found["assets"]}
    assert {"transactions/user_spend", "transactions/user_spend_online", "transactions/sources/transactions"} <= keys
    assert [each["name"] for each in found["schedules"]] == ["transactions_features_schedule"]
    assert [each["name"] for each in found["sensors"]] == ["transactions_online_reconcile"]


@pytest.mark.slow
def test_dg_launches_a_feature_of_the_example(tmp_path: Path) -> None:
    dg_says("launch", "--assets", "key:transactions/user_spend", home=tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_latest_materialization_event(dg.AssetKey(["transactions", "user_spend"])) is not None
