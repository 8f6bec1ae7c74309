import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from redis import Redis

from command_line import MLFORGE, Cli, all_of, cells, process
from mlforge import loader
from mlforge.cli.main import app
from mlforge.online import RedisStore
from mlforge.online.keys import entity_key_hash, redis_key
from servers import RedisServer, free_port
from shop import EVENTS

PROJECT = """
import polars as pl
import mlforge as mlf
from mlforge.online import ClusterStore, EmbeddedStore, RedisStore
from mlforge.store import LocalStore

@mlf.feature(
    keys=["user_id"],
    source="events.parquet",
    timestamp="ts",
    interval="1d",
    metrics=[mlf.Rolling(windows=["7d", "30d"], aggregations={{"amount": ["sum", "count"]}})],
    checks={{
        "amount is not negative": pl.col("amount") >= 0,
        "amount is small": mlf.Check(pl.col("amount") < 40, severity="warn"),
    }},
    description="What a user\\n  has spent.",
    tags=["users"],
    owners=["team:risk"],
)
def user_spend(df):
    {body}
    return df.select("user_id", "ts", "amount")

@mlf.feature(keys=["user_id", "day"], source=["prices.csv"])
def prices(df):
    return df.select("user_id", "day", "price", note=pl.lit("äb"))

defs = mlf.Definitions(
    "shop", store=LocalStore("store"), online_store={online}, as_of="2026-01-10T00:00:00Z"
)
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: str) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    EVENTS.write_parquet("events.parquet")
    Path("prices.csv").write_text("user_id,day,price\n1,2026-01-31,2.5\n2,2026-01-31,\n")
    write_project(online=online)
    yield tmp_path
    loader._forget()


def write_project(*, online: str = "None", body: str = "pass", path: str = "definitions.py") -> None:
    Path(path).write_text(PROJECT.format(online=online, body=body))


def test_build_shows_what_happened_to_each_feature(cli: Cli) -> None:
    built = cli("build --online")
    assert (built.code, built.err) == (0, "")
    lines = built.out.splitlines()
    assert cells(lines[0]) == [
        *("feature", "outcome", "version", "rows", "checks", "online", "written", "seconds"),
    ]
    assert cells(lines[2])[:7] == ["user_spend", "built", "1.0.0", "9", "1 passed, 1 failed", "full", "2"]
    assert cells(lines[3])[:7] == ["prices", "built", "1.0.0", "2", "-", "full", "2"]
    assert lines[4] == "What is online holds as of 2026-01-10T00:00:00Z."
    assert lines[5] == "user_spend: everything is written, since nothing says what is there."
    assert lines[6:8] == [
        "user_spend: the check 'amount is small' failed for 1 of 3 rows (severity warn), such as",
        "  amount=50.0 user_id=123 ts=2026-01-06T12:00:00",
    ]


def test_an_offline_build_needs_no_online_store_and_the_second_one_is_skipped(cli: Cli) -> None:
    write_project(online="None")
    assert cells(cli("build").out.splitlines()[2])[1] == "built"
    again = cli("build")
    assert cells(again.out.splitlines()[0]) == ["feature", "outcome", "version", "rows", "checks", "seconds"]
    assert cells(again.out.splitlines()[2])[1:3] == ["skipped", "1.0.0"]
    assert cells(cli("build --force").out.splitlines()[2])[1:3] == ["unchanged", "1.0.0"]


def test_build_as_json_is_one_array_of_reports(cli: Cli) -> None:
    reports = json.loads(cli("build --online --json --as-of 2026-01-07").out)
    assert [(r["feature"], r["outcome"], r["rows"]) for r in reports] == [
        ("user_spend", "built", 9),
        ("prices", "built", 2),
    ]
    assert reports[0]["online"]["as_of"] == "2026-01-07T00:00:00Z"
    assert (reports[0]["online"]["written"], reports[0]["online"]["deleted"]) == (1, 0)
    check = reports[0]["checks"][1]
    assert (check["name"], check["passed"], check["failed"], check["severity"]) == ("amount is small", False, 1, "warn")
    assert check["examples"] == [{"user_id": 123, "ts": "2026-01-06T12:00:00Z", "amount": 50.0}]


def test_entities_that_were_removed_online_are_shown(cli: Cli) -> None:
    assert "removed" not in cli("build --online").out
    pl.scan_csv("prices.csv").head(1).collect().write_csv("prices.csv")
    lines = cli("build --online").out.splitlines()
    assert [cells(line)[5:9] for line in (lines[0], *lines[2:4])] == [
        ["online", "written", "removed", "kept"],
        ["unchanged", "0", "0", "2"],
        ["difference", "0", "1", "1"],
    ]
    assert "removed" not in cli("build --online").out


def test_an_older_instant_is_refused_with_exit_code_1_unless_forced(cli: Cli) -> None:
    cli("build --online")
    refused = cli("build --features user_spend --online --as-of 2026-01-01")
    assert refused.code == 1
    assert (
        "user_spend: refused, since what is online holds at 2026-01-10T00:00:00.000000Z, which is later; "
        "--force goes back." in refused.out
    )
    forced = cli("build --features user_spend --online --json --force --as-of 2026-01-01")
    (report,) = json.loads(forced.out)
    assert forced.code == 0
    assert (report["online"]["mode"], report["online"]["deleted"]) == ("difference", 2)


def test_a_dry_run_shows_what_would_be_done(cli: Cli) -> None:
    cli("build")
    planned = cli("build --online --dry-run")
    assert planned.code == 0
    assert "What would be online holds as of 2026-01-10T00:00:00Z." in planned.out
    assert "Nothing was built or written" in planned.out
    assert cli("status --json").out.count('"absent"') == 2


def test_a_full_write_says_why(cli: Cli) -> None:
    cli("build --online")
    (report, _) = json.loads(cli("build --online --full --json").out)
    assert (report["online"]["mode"], report["online"]["reason"]) == ("full", "asked for")
    assert "user_spend: everything is written, since asked for." in cli("build --online --full").out


def test_status_shows_what_is_online(cli: Cli) -> None:
    before = cli("status").out.splitlines()
    assert [cells(line)[:4] for line in before[2:]] == [
        ["user_spend", "-", "-", "absent"],
        ["prices", "-", "-", "absent"],
    ]
    cli("build --online")
    first, second = (cells(line) for line in cli("status").out.splitlines()[2:])
    assert first[:6] == ["user_spend", "1.0.0", "1.0.0", "complete", "2026-01-10T00:00:00Z", "0:00:00"]
    assert second[7] == "2"
    assert int(second[8]) > 50
    (described, _) = json.loads(cli("status --json").out)
    assert (described["rows"], described["age"], described["version"]) == (2, 0.0, "1.0.0")


def test_status_can_watch_over_what_is_online(cli: Cli, redis_store: RedisStore) -> None:
    assert (cli("status").code, cli("status --max-age 1h").code) == (0, 1)
    cli("build --online --as-of 2026-01-09T22:00:00Z")
    assert (cli("status --max-age 3h").code, cli("status --max-age 1h").code) == (0, 1)
    redis_store.write("prices", {"user_id": 7, "day": "2026-01-01"}, {})
    assert (cli("status --max-age 3h").code, cli("status").code) == (1, 0)
    assert cli("status --max-age soon").code == 1


def test_an_instant_that_is_still_to_come_is_pointed_out(cli: Cli) -> None:
    ahead = cli("build --features user_spend --online --as-of 2199-01-01")
    assert ahead.code == 0
    assert "2199-01-01T00:00:00Z, which is still to come; --force goes back to now." in ahead.out


def test_a_dry_run_says_whether_a_build_would_compute(cli: Cli) -> None:
    cli("build")
    assert cells(cli("build --online --dry-run").out.splitlines()[3])[:2] == ["prices", "skipped"]
    pl.scan_csv("prices.csv").head(1).collect().write_csv("prices.csv")
    assert cells(cli("build --online --dry-run").out.splitlines()[3])[:2] == ["prices", "outdated"]


def test_verify_finds_what_differs_and_the_next_build_mends_it(cli: Cli, redis_store: RedisStore) -> None:
    cli("build --online")
    right = cli("verify")
    assert (right.code, right.err) == (0, "")
    key = redis_key(redis_store.prefix, "user_spend", entity_key_hash({"user_id": 7}))
    redis_store.client.set(key, '{"amount__sum__7d":1.0}')
    wrong = cli("verify --features user_spend")
    assert wrong.code == 1
    assert "user_spend: different: user_id=7: expected {" in wrong.out
    (report,) = json.loads(cli("verify --features user_spend --json").out)
    assert (report["missing"], report["extra"], report["different"]) == (0, 0, 1)
    assert "found to differ" in cli("build --online").out
    assert cli("verify --sample 1").code == 0
    assert cli("verify --sample 0").code == 1


def test_clear_takes_a_feature_out_when_that_is_meant(cli: Cli, redis_store: RedisStore) -> None:
    cli("build --online")
    asked = cli("clear user_spend")
    assert asked.code == 1
    assert "write --yes" in asked.err
    assert redis_store.status("user_spend") is not None
    cleared = cli("clear user_spend --yes")
    assert cleared.out == "user_spend: 2 entities were taken out.\n"
    assert redis_store.status("user_spend") is None
    assert redis_store.status("prices") is not None
    assert json.loads(cli("clear no_longer_defined --yes --json").out) == {"feature": "no_longer_defined", "deleted": 0}


def test_rows_that_were_left_out_are_shown(cli: Cli) -> None:
    pl.concat([EVENTS, EVENTS.head(2).with_columns(user_id=None)]).write_parquet("events.parquet")
    lines = cli("build --features user_spend").out.splitlines()
    assert cells(lines[0])[4] == "left out"
    assert cells(lines[2])[4] == "2"


@pytest.mark.parametrize("line", ["--features prices,user_spend", "--features prices --features user_spend"])
def test_features_are_separated_by_commas_or_repeated(cli: Cli, line: str) -> None:
    reports = json.loads(cli(f"build --json {line}").out)
    assert [report["feature"] for report in reports] == ["prices", "user_spend"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("build --features prices,user_spent", "There is no feature 'user_spent'; did you mean 'user_spend'?"),
        ("build --features prices,", "There is no feature ''"),
        ("build --as-of 2026-01-01", "ask for online=True (--online) as well"),
        ("build --online --as-of yesterday", "'yesterday' is no instant"),
        ("build --definitions gone.py", "'gone.py' do not exist"),
    ],
)
def test_what_is_asked_for_is_checked_before_the_first_build(cli: Cli, line: str, message: str) -> None:
    answer = cli(line)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("mlforge: ")
    assert message in answer.err
    assert answer.err.count("\n") == 1
    assert not Path("store").exists()


def test_an_online_build_without_an_online_store_builds_nothing(cli: Cli) -> None:
    write_project(online="None")
    answer = cli("build --online")
    assert answer.code == 1
    assert "There is no online store" in answer.err
    assert not Path("store").exists()


def test_a_project_without_features_has_nothing_to_build(cli: Cli) -> None:
    Path("definitions.py").write_text("import mlforge as mlf\ndefs = mlf.Definitions('empty')")
    assert "'empty' has no features to build" in cli("build").err
    assert cli("list").out == "empty has no features.\n"


def test_what_was_done_before_a_failure_is_shown_and_the_error_names_the_feature(cli: Cli) -> None:
    Path("prices.csv").unlink()
    answer = cli("build")
    assert answer.code == 1
    assert [cells(line)[:2] for line in answer.out.splitlines()[2:3]] == [["user_spend", "built"]]
    assert "'prices.csv' does not exist" in answer.err
    assert answer.err.endswith("(Feature 'prices'.)\n")
    failed = cli("build --json")
    assert [report["feature"] for report in json.loads(failed.out)] == ["user_spend"]


def test_a_failed_check_shows_counts_and_an_example_and_publishes_nothing(cli: Cli) -> None:
    EVENTS.with_columns(-pl.col("amount")).write_parquet("events.parquet")
    answer = cli("build --features user_spend")
    assert (answer.code, answer.out) == (1, "")
    assert "'amount is not negative': 3 of 3 rows, such as amount=-10.5 user_id=123 ts=2026" in answer.err
    assert "user_spend  not built" in cli("list").out


def test_redis_that_is_down_is_one_line_without_the_password(cli: Cli) -> None:
    port = free_port()
    write_project(online=f"RedisStore('127.0.0.1', {port}, password='s3cret')")
    answer = cli("build --online --features prices")
    assert answer.code == 1
    assert f"Redis at 127.0.0.1:{port} cannot be reached" in answer.err
    assert "(Feature 'prices' is built offline as 1.0.0, and not copied online.)" in answer.err
    assert "s3cret" not in answer.err + answer.out


def test_list_shows_what_there_is_and_which_version_is_built(cli: Cli) -> None:
    cli("build --features prices")
    assert cli("list").out == (
        "user_spend  not built\n"
        "  What a user has spent.\n"
        "  keys      user_id\n"
        "  time      ts\n"
        "  interval  1d\n"
        "  windows   7d, 30d\n"
        "  columns   amount: sum, count\n"
        "  source    events.parquet\n"
        "  tags      users\n"
        "  owners    team:risk\n"
        "\n"
        "prices  1.0.0\n"
        "  keys      user_id, day\n"
        "  time      none: a snapshot\n"
        "  columns   price, note\n"
        "  source    prices.csv\n"
    )


def test_list_as_json_has_all_columns(cli: Cli) -> None:
    listed = json.loads(cli("list --json").out)
    assert [feature["feature"] for feature in listed] == ["user_spend", "prices"]
    assert listed[0]["columns"] == ["amount__sum__7d", "amount__sum__30d", "amount__count__7d", "amount__count__30d"]
    assert (listed[0]["version"], listed[0]["windows"], listed[1]["timestamp"]) == (None, ["7d", "30d"], None)


def test_read_shows_what_is_online(cli: Cli) -> None:
    cli("build --online")
    answer = cli("read user_spend user_id=123")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert cells(lines[0]) == ["user_spend", "user_id=123"]
    assert cells(lines[2]) == ["amount__sum__7d", "60.5"]
    assert lines[-1] == "It holds version 1.0.0 as of 2026-01-10T00:00:00Z."
    read = json.loads(cli("read user_spend user_id=123 --json").out)
    assert read == {
        "feature": "user_spend",
        "entity": {"user_id": "123"},
        "values": {"amount__sum__7d": 60.5, "amount__sum__30d": 60.5, "amount__count__7d": 2, "amount__count__30d": 2},
        "version": "1.0.0",
        "as_of": "2026-01-10T00:00:00Z",
        "state": "complete",
    }


def test_read_takes_composite_keys_in_any_order_and_shows_nulls(cli: Cli) -> None:
    cli("build --online --features prices")
    answer = cli("read prices day=2026-01-31 user_id=2")
    assert [cells(line) for line in answer.out.splitlines()[2:4]] == [["price", "null"], ["note", "äb"]]


def test_an_entity_that_is_not_online_is_an_answer_with_exit_code_1(cli: Cli) -> None:
    cli("build --online")
    answer = cli("read user_spend user_id=124")
    assert (answer.code, answer.err) == (1, "")
    assert answer.out.startswith("user_spend has nothing online for user_id=124. It holds version 1.0.0 as of ")
    answer = cli("read user_spend user_id=124 --json")
    assert (answer.code, json.loads(answer.out)["values"]) == (1, None)


def test_a_feature_that_was_never_online_says_how_to_put_it_there(cli: Cli) -> None:
    answer = cli("read user_spend user_id=123")
    assert answer.code == 1
    assert "`mlforge build --features user_spend --online`" in answer.out


def test_what_was_written_by_hand_is_said(cli: Cli, redis_store: RedisStore) -> None:
    redis_store.write("user_spend", {"user_id": "a=b"}, {"amount": 1})
    answer = cli("read user_spend user_id=a=b")
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == "It is written by hand, not by a build."
    cli("build --online")
    redis_store.write("user_spend", {"user_id": "123"}, {"amount": 1})
    assert cli("read user_spend user_id=123").out.splitlines()[-1].endswith("Z, written to by hand since.")


def test_an_unfinished_build_is_said(cli: Cli, redis_server: RedisServer, redis_prefix: str) -> None:
    cli("build --online")
    with Redis(host=redis_server.host, port=redis_server.port) as client:
        client.hset(f"{redis_prefix}:user_spend:status", "state", "writing")
    assert "A build is writing version 1.0.0" in cli("read user_spend user_id=123").out


@pytest.mark.parametrize("command", ["read", "key"])
@pytest.mark.parametrize(
    ("entity", "message"),
    [
        ("user=1 day=2", "There is no key 'user'"),
        ("user_id=1", "The key 'day' is missing"),
        ("", "The key 'user_id' is missing"),
        ("1 2", "'1' is no entity key"),
        ("user_id=1 user_id=2 day=3", "The key 'user_id' is there twice"),
    ],
)
def test_wrong_entity_keys_name_the_right_ones(cli: Cli, command: str, entity: str, message: str) -> None:
    answer = cli(f"{command} prices {entity}")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == f"mlforge: {message}: feature 'prices' is keyed by user_id, day, as in user_id=... day=...\n"


@pytest.mark.parametrize("command", ["read", "key"])
def test_online_commands_need_an_online_store(cli: Cli, command: str) -> None:
    write_project(online="None")
    answer = cli(f"{command} user_spend user_id=1")
    assert (answer.code, "There is no online store" in answer.err) == (1, True)


def test_key_is_where_redis_has_the_value(
    cli: Cli, redis_server: RedisServer, redis_prefix: str, tmp_path: Path
) -> None:
    cli("build --online")
    answer = cli("key user_spend user_id=123")
    name, line = answer.out.splitlines()
    assert line == f"redis-cli -h {redis_server.host} -p {redis_server.port} -n 0 GET {name}"
    assert name.startswith(f"{redis_prefix}:user_spend:")
    with Redis(host=redis_server.host, port=redis_server.port) as client:
        assert b'"amount__sum__7d":60.5' in client.get(name)
    assert json.loads(cli("key user_spend user_id=123 --json").out)["key"] == name


@pytest.mark.parametrize(
    ("store", "words"),
    [
        (
            "RedisStore('db.example', 6380, 2, password='s3cret', username='ann', ssl=True)",
            ["-h", "db.example", "-p", "6380", "--tls", "-n", "2", "--user", "ann", "--askpass"],
        ),
        ("RedisStore.from_url('unix:///run/my%20redis.sock')", ["-s", "/run/my redis.sock", "-n", "0"]),
        ("RedisStore()", ["-h", "localhost", "-p", "6379", "-n", "0"]),
        (
            "ClusterStore('node', 7000, password='s3cret', ssl=True)",
            ["-h", "node", "-p", "7000", "--tls", "-n", "0", "--askpass", "-c"],
        ),
    ],
)
def test_the_redis_cli_line_reaches_the_same_server_and_never_holds_a_password(
    cli: Cli, store: str, words: list[str]
) -> None:
    write_project(online=store)
    name, line = cli("key user_spend user_id=123").out.splitlines()
    assert shlex.split(line) == ["redis-cli", *words, "GET", name]


def test_the_key_of_an_embedded_store_needs_its_server_to_run(cli: Cli, project: Path) -> None:
    write_project(online="EmbeddedStore('online')")
    answer = cli("key user_spend user_id=123")
    assert f"-s {project / 'online' / 'valkey.sock'} -n 0 GET mlforge:user_spend:" in answer.out
    assert "runs only while a program uses it" in answer.err


def test_a_store_without_redis_has_no_redis_key(cli: Cli) -> None:
    own = (
        "type('Own', (mlforge.online.OnlineStore,), dict.fromkeys("
        "['write', 'write_batch', 'read', 'read_batch'], lambda *a, **k: None))()"
    )
    Path("definitions.py").write_text("import mlforge.online\n" + PROJECT.format(online=own, body="pass"))
    assert "The online store is a Own, which has no Redis keys." in cli("key user_spend user_id=1").err
    answer = cli("read user_spend user_id=1")
    assert (answer.code, answer.out[:43]) == (1, "user_spend has nothing online for user_id=1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bild", 'Did you mean "build"?'),
        ("build --onlin", "Did you mean --online? See `mlforge build --help`."),
        ("build user_spend", "user_spend"),
        ("read", "FEATURE"),
        ("build --as-of", "--as-of"),
    ],
)
def test_what_is_not_understood_is_one_line_and_exit_code_2(cli: Cli, line: str, message: str) -> None:
    answer = cli(line)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("mlforge: ")
    assert message in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize("command", [name for name in app if not name.startswith("-")])
def test_every_command_shows_an_example_in_its_help(cli: Cli, command: str) -> None:
    answer = cli(f"{command} --help")
    assert answer.code == 0
    assert f"mlforge {command}" in answer.out.partition("Example")[2]


def test_an_error_in_the_definitions_is_one_line_with_its_place(cli: Cli) -> None:
    Path("definitions.py").write_text("import mlforge as mlf\n\nmlf.feature(keys='user_id', source='x.csv')\n")
    answer = cli("list")
    assert answer.code == 1
    assert "keys is a list: write keys=['user_id']. This happened while loading" in answer.err
    assert answer.err.endswith("definitions.py', line 3.\n")


def test_what_the_users_code_prints_does_not_end_up_in_the_json(cli: Cli) -> None:
    write_project(body="print('from the function')")
    with Path("definitions.py").open("a") as file:
        file.write("print('from the module')\n")
    answer = cli("build --json --features user_spend")
    assert json.loads(answer.out)[0]["outcome"] == "built"
    assert answer.err == "from the module\nfrom the function\n"


def test_help_and_version_come_at_once_and_import_nothing_heavy() -> None:
    seen = (
        "import sys; from mlforge.cli.main import main\ntry: main(['--help'])\nfinally: print(*sys.modules, sep='\\n')"
    )
    ended = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=False)
    assert "mlforge build --online" in ended.stdout
    heavy = {
        "polars",
        "deltalake",
        "redis",
        "orjson",
        "mlforge.core",
        "mlforge.loader",
        "dagster",
        "cyclopts.completion",
    }
    heavy |= {"asyncio", "mlforge.cli.progress", "importlib.metadata"}
    assert heavy.isdisjoint(ended.stdout.splitlines())
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert process("--version").stdout == f"{project['version']}\n"


def test_an_exception_in_the_users_function_keeps_its_traceback_and_names_the_feature() -> None:
    write_project(body="{}['gone']")
    ended = process("build")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert 'definitions.py", line' in ended.stderr
    assert "KeyError: 'gone'\nThis happened while running feature 'user_spend'" in ended.stderr


def test_nobody_reading_the_output_is_no_error() -> None:
    reader = subprocess.Popen([MLFORGE, "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reader.stdout is not None
    reader.stdout.close()
    assert reader.stderr is not None
    with reader.stderr:
        assert reader.stderr.read() == b""
    assert reader.wait() == 141


def test_ctrl_c_is_one_line_and_what_was_built_is_shown() -> None:
    write_project(body="import pathlib, time; pathlib.Path('started').touch(); time.sleep(60)")
    started = subprocess.Popen(
        [MLFORGE, "build", "--features", "prices,user_spend"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not Path("started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=30)
    assert started.returncode == 130
    assert cells(out.splitlines()[2])[:2] == ["prices", "built"]
    assert err == (
        "mlforge: interrupted while reading user_spend (2 of 2): nothing of it was published. The next build goes on "
        "from there.\n"
    )


def test_a_terminal_sees_progress_on_stderr_and_colour_only_where_wanted() -> None:
    controller, terminal = pty.openpty()
    ended = subprocess.run(
        [MLFORGE, "build", "--features", "prices"],
        stdout=subprocess.PIPE,
        stderr=terminal,
        check=False,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
    )
    os.close(terminal)
    shown = all_of(controller)
    assert ended.returncode == 0
    assert b"building prices (1 of 1)" in shown
    assert b"\x1b[3" not in shown
    assert b"\x1b" not in ended.stdout
