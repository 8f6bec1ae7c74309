"""`mlforge init` makes a project that works as it is generated, and never touches what is there."""

import contextlib
import csv
import json
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import pytest
import redis

import command_line
import oracle
from command_line import MLFORGE, Cli, elsewhere, printed, process
from mlforge import loader
from mlforge.online import EmbeddedStore
from servers import RedisServer

FILES = {
    ".gitignore",
    "README.md",
    "data/orders.csv",
    "definitions.py",
    "pyproject.toml",
    "tests/test_features.py",
}
DAGSTER = {"dagster_definitions.py", "workspace.yaml"}
NOW = datetime(2026, 2, 1, tzinfo=UTC)


def files(folder: Path) -> dict[str, str]:
    """What there is, by path."""
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else "" for path in sorted(folder.rglob("*"))
    }


def mlforge(folder: Path, *arguments: str, **environment: str) -> str:
    return printed(folder, MLFORGE, *arguments, **environment)


@pytest.fixture
def project(tmp_path: Path, cli: Cli) -> Path:
    assert cli(f"init {tmp_path / 'shop'} --dagster").code == 0
    return tmp_path / "shop"


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of which everything in its README was run once."""
    folder = tmp_path_factory.mktemp("tried") / "shop"
    mlforge(folder.parent, "init", "shop")
    lines = [line.partition("#")[0].split() for line in (folder / "README.md").read_text().splitlines()]
    commands = [line for line in lines if line and line[0] in ("mlforge", "pytest")]
    assert len(commands) == 5
    for command in commands:
        if command[1:] in (["list"], ["validate"]):
            with contextlib.chdir(folder):
                answer = command_line.run(" ".join(command[1:]))
            assert (answer.code, answer.err) == (0, "")
            continue
        said = printed(folder, MLFORGE.parent / command[0], *command[1:])
    assert "6 passed" in said
    return folder


def test_what_is_made_is_said_with_what_to_do_next(tmp_path: Path) -> None:
    assert mlforge(tmp_path, "init", "made/my shop").splitlines() == [
        "6 files in 'made/my shop'. Next:",
        "  cd 'made/my shop'",
        "  mlforge build --online && mlforge read user_spend user_id=ann",
    ]
    made = tmp_path / "made" / "my shop"
    assert {name for name in files(made) if (made / name).is_file()} == FILES
    assert mlforge(made, "init", "../dagster", "--dagster").splitlines()[-1] == "  dagster dev"
    assert {name for name in files(made.parent / "dagster") if "." in name} == FILES | DAGSTER


def test_it_serves_what_the_orders_say(tried: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    with (tried / "data" / "orders.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    orders = [
        row | {"ordered_at": datetime.fromisoformat(row["ordered_at"]), "amount": float(row["amount"])} for row in rows
    ]
    users = [{"user_id": user} for user in sorted({row["user_id"] for row in rows})]
    expected = [
        oracle.value_at(
            orders,
            user,
            NOW,
            timestamp="ordered_at",
            interval="1d",
            windows=["7d", "30d"],
            aggregations={"amount": ["sum", "count"]},
        )
        for user in users
    ]
    online_store = loader.find(str(tried / "definitions.py")).require_online_store()
    assert isinstance(online_store, EmbeddedStore)
    with online_store:
        assert online_store.read_batch("user_spend", users) == [pytest.approx(values) for values in expected]
        assert online_store.read("last_order", {"user_id": "ann"}) == {"amount": 20.0, "country": "BE"}
    loader._forget()


def test_its_tests_find_a_feature_that_sees_the_future(project: Path) -> None:
    definitions = project / "definitions.py"
    good = 'orders.select("user_id", "ordered_at", "amount", "country")'
    text = definitions.read_text()
    assert good in text
    definitions.write_text(text.replace(good, f'{good}.with_columns(pl.col("amount").max().over("user_id"))'))
    ended = elsewhere(project, MLFORGE.parent / "pytest", "-q", "-k", "future")
    assert ended.returncode == 1
    assert "Feature 'last_order' sees the future" in ended.stdout


def test_a_redis_of_ones_own_is_named_in_the_environment(project: Path) -> None:
    # Of its own, since other projects of the tests have features of the same names.
    with RedisServer() as server, redis.Redis.from_url(server.url) as client:
        mlforge(project, "build", "--online", REDIS_URL=server.url)
        assert [key for key in client.scan_iter("mlforge:*") if b"user_spend" in key]
    assert not (project / "online_store").exists()


def test_what_builds_and_tests_make_is_no_part_of_the_repository(tried: Path) -> None:
    printed(tried, "git", "init", "--quiet")
    said = printed(tried, "git", "status", "--short", "--untracked-files=all")
    assert {line.split()[1] for line in said.splitlines()} == FILES


@pytest.mark.parametrize(
    ("folder", "arguments", "name"),
    [("shop", "", "shop"), ("my shop, 2", "", "my_shop_2"), ("shop", "--name fraud-v3", "fraud-v3")],
)
def test_the_project_is_called_as_its_folder_or_as_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli, folder: str, arguments: str, name: str
) -> None:
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    assert cli(f"init --dagster {arguments}").code == 0
    made = files(Path())
    assert f'name="{name}"' in made["definitions.py"]
    assert f"location_name: {name}\n" in made["workspace.yaml"]
    assert made["README.md"].startswith(f"# {name}\n")
    assert not any("$name" in text for text in made.values())


@pytest.mark.parametrize("name", ["", "two words", 'a"', "-x", "ä"])
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    answer = cli(f"init shop --name={name!r}")
    assert answer.code == 1
    assert f"{name!r} is no name of a project" in answer.err
    assert files(tmp_path) == {}


@pytest.mark.parametrize("there", sorted(FILES | DAGSTER))
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_nothing_is_written_where_a_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli, there: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("shop", there)
    path.parent.mkdir(parents=True)
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    before = files(tmp_path)
    answer = cli("init shop --dagster")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == (
        f"mlforge: 'shop/{there}' is there already, and is not overwritten: nothing was made, so name another folder.\n"
    )
    assert files(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "shop").write_text("mine")
    for folder, why in (
        ("shop", "is there already"),
        ("shop/inner", "is there already"),
        ("/proc/x/y", "cannot be written"),
    ):
        ended = process("init", folder, cwd=tmp_path)
        assert ended.returncode == 1
        assert why in ended.stderr
        assert ended.stderr.count("\n") == 1
    assert files(tmp_path) == {"shop": "mine"}


def test_what_else_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.csv").write_text("mine")
    mlforge(tmp_path, "init")
    assert (tmp_path / "data" / "mine.csv").read_text() == "mine"
    assert json.loads(mlforge(tmp_path, "build", "--json"))[0]["outcome"] == "built"


def test_its_schedule_builds_and_goes_online_in_dagster(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dagster as dg

    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.syspath_prepend(str(project))
    for name in ("definitions", "dagster_definitions"):
        # What another test has loaded under that name comes back afterwards.
        monkeypatch.delitem(sys.modules, name, raising=False)
    definitions = import_module("dagster_definitions").definitions
    defs = import_module("definitions").defs
    for name in ("definitions", "dagster_definitions"):
        del sys.modules[name]
    keys = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    assert {"shop/user_spend", "shop/user_spend_online", "shop/last_order_online", "shop/sources/orders"} <= keys
    [schedule] = definitions.schedules
    with defs.online_store as online_store, dg.DagsterInstance.ephemeral() as instance:
        done = definitions.resolve_job_def(schedule.job_name).execute_in_process(instance=instance)
        assert done.success
        assert online_store.read("last_order", {"user_id": "ann"}) == {"amount": 20.0, "country": "BE"}


@pytest.mark.slow
def test_dagster_opens_its_workspace(project: Path, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    ended = elsewhere(project, MLFORGE.parent / "dagster", "definitions", "validate", DAGSTER_HOME=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert "Validation successful for code location shop" in ended.stdout + ended.stderr
