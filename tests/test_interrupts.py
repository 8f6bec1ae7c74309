"""Ctrl-C and SIGTERM in the middle of real builds and syncs: what is left, what is said, and what the next one does."""

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from command_line import MLFORGE, Cli, cells
from mlforge.cli.build import _interrupted
from mlforge.online import RedisStore
from mlforge.store import LocalStore

PROJECT = """
import time
from pathlib import Path
import polars as pl
import mlforge as mlf
from mlforge.online import RedisStore
from mlforge.store import LocalStore

@mlf.feature(keys=["user"], source="users.parquet")
def account(df):
    return df

@mlf.feature(
    keys=["user"],
    source="events.parquet",
    timestamp="ts",
    interval="1d",
    metrics=[mlf.Rolling(windows=["7d"], aggregations={{"amount": ["std"]}})],
)
def spend(df):
    {body}
    return df

defs = mlf.Definitions("shop", store=LocalStore("store"), online_store={online}, as_of="2027-01-01")
"""
# A query that takes minutes.
DUCKDB = """
from pathlib import Path
import mlforge as mlf
from mlforge.store import LocalStore

@mlf.feature(keys=["user"], source="events.parquet", timestamp="ts", engine="duckdb")
def pairs(e):
    Path("going").touch()
    return "SELECT a.user, a.ts, sum(b.amount) AS s FROM e a JOIN e b ON a.user % 50 = b.user % 50 GROUP BY ALL"

defs = mlf.Definitions("shop", store=LocalStore("store"))
"""
EVENTS, USERS = 900_000, 100_000
BOTH = [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
GOES_ON = "The next build goes on from there."


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: str) -> None:
    monkeypatch.chdir(tmp_path)
    number = pl.int_range(EVENTS)
    pl.select(
        user=number % USERS,
        ts=pl.datetime(2026, 1, 1) + pl.duration(seconds=number * 10),
        amount=(number % 7).cast(pl.Float64),
    ).write_parquet("events.parquet")
    pl.DataFrame({"user": range(USERS), "country": "NL"}).write_parquet("users.parquet")
    write_project(online)


def write_project(online: str, body: str = "pass") -> None:
    Path("definitions.py").write_text(PROJECT.format(online=online, body=body))


def interrupted(line: str, when: Callable[[], object], number: signal.Signals) -> tuple[int, str, str]:
    """What a command says that gets a signal once something is so."""
    with subprocess.Popen(
        [MLFORGE, *line.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        deadline = time.monotonic() + 120
        while not when():
            assert command.poll() is None, command.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        command.send_signal(number)
        out, err = command.communicate(timeout=120)
    return command.returncode, out, err


def files(pattern: str) -> list[Path]:
    return list(Path("store").glob(pattern))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_build_with_a_memory_limit_leaves_nothing_behind_and_goes_on(
    number: signal.Signals, code: int, cli: Cli
) -> None:
    ended = interrupted("build --memory-limit 1GB", lambda: files("spend/**/*.parquet"), number)
    assert ended[0] == code
    assert cells(ended[1].splitlines()[2])[:2] == ["account", "built"]
    assert ended[2] == (
        f"mlforge: interrupted while computing spend (2 of 2): nothing of it was published. {GOES_ON}\n"
    )
    assert [*files("spend/**/*.parquet"), *files(".*scratch*")] == []
    assert LocalStore("store").open("spend") is None
    assert cells(cli("build").out.splitlines()[3])[:2] == ["spend", "built"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_while_polars_reads_and_writes_nothing_is_left_either(number: signal.Signals, code: int, online: str) -> None:
    write_project(online, body="df = pl.concat([df] * 20)")
    ended = interrupted("build --features spend --memory-limit 1GB", lambda: files(".*/shards/*/*"), number)
    assert ended == (
        code,
        "",
        f"mlforge: interrupted while reading spend (1 of 1): nothing of it was published. {GOES_ON}\n",
    )
    assert files(".*scratch*") == []


@pytest.mark.parametrize(("number", "code"), BOTH)
def test_a_sync_is_marked_as_unfinished_and_the_next_one_repairs_it(
    number: signal.Signals, code: int, redis_store: RedisStore, cli: Cli
) -> None:
    cli("build --features account")

    def halfway() -> bool:
        return redis_store.client.dbsize() > 20_000

    redis_store.client.flushdb()
    ended = interrupted("build --features account --online", halfway, number)
    assert ended[0] == code
    assert ended[2] == (
        "mlforge: interrupted while syncing account (1 of 1): it is built offline, and what is online is as it was or "
        f"marked as unfinished. {GOES_ON}\n"
    )
    status = redis_store.status("account")
    assert status is not None
    assert status.state == "writing"
    again = cli("build --features account --online")
    assert again.code == 0
    assert "account: everything is written, since the last sync did not finish." in again.out
    assert cli("verify --features account").code == 0


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ("", "while beginning spend (1 of 2): nothing of it was published"),
        ("publishing", "while publishing spend (1 of 2): its new version is there as a whole, or not at all"),
    ],
)
def test_what_is_left_depends_on_the_phase(phase: str, words: str) -> None:
    assert _interrupted("spend (1 of 2)", phase, dry_run=False) == f"interrupted {words}. {GOES_ON}"


def test_a_dry_run_leaves_everything_as_it_was() -> None:
    said = _interrupted("spend (1 of 2)", "syncing", dry_run=True)
    assert said == "interrupted while looking at spend (1 of 2); nothing was built or written."


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_waits_for_another_build_of_the_feature_need_not(number: signal.Signals, code: int, cli: Cli) -> None:
    cli("build --features account")
    with Path("store/.account.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = interrupted("build --features account --force", lambda: holds_open("store/.account.lock"), number)
    assert ended == (
        code,
        "",
        f"mlforge: interrupted while beginning account (1 of 1): nothing of it was published. {GOES_ON}\n",
    )


def holds_open(path: str) -> bool:
    """Whether another process has a file open."""
    inode = Path(path).stat().st_ino
    others = (link for link in Path("/proc").glob("[0-9]*/fd/*") if f"/{os.getpid()}/" not in str(link))
    for link in others:
        with contextlib.suppress(OSError):
            if link.stat().st_ino == inode and str(link.readlink()).endswith(path):
                return True
    return False


# A pool ends its processes by SIGTERM, and whoever is left must not keep the command.
FORKS = """
    import multiprocessing, os, time
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(abs, range(4))
    if not os.fork():
        os.close(1), os.close(2), time.sleep(20), os._exit(0)
"""


def test_what_a_function_forks_has_signals_of_its_own(online: str) -> None:
    write_project(online, FORKS.strip())
    began = time.monotonic()
    done = subprocess.run([MLFORGE, "build"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("limit", ["", "--memory-limit 1GB"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_query_of_duckdb_ends_too(number: signal.Signals, code: int, limit: str) -> None:
    Path("definitions.py").write_text(DUCKDB)
    Path("going").unlink(missing_ok=True)
    began = time.monotonic()
    ended = interrupted(f"build {limit}", lambda: Path("going").exists() and time.sleep(1) is None, number)
    assert (ended[0], ended[1]) == (code, "")
    assert ended[2].startswith("mlforge: interrupted while reading pairs (1 of 1): nothing of it was published.")
    assert time.monotonic() - began < 60
    assert files(".*scratch*") == []
