"""What commands look like: colours only where they are wanted, questions, errors, and what a shell completes."""

import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import shop
from command_line import MLFORGE, Cli, all_of, cells, process
from mlforge.online import RedisStore

COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
SET = {"NO_COLOR", "FORCE_COLOR"}
PLAIN = {name: value for name, value in os.environ.items() if name not in SET}
PLAIN |= {"TERM": "xterm-256color", "COLUMNS": "200"}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: str) -> None:
    monkeypatch.chdir(tmp_path)
    shop.write(online=online)


def on_a_terminal(line: str, answer: str = "", **environment: str) -> tuple[int, bytes]:
    """The exit code of a command and all that a terminal got."""
    controller, terminal = pty.openpty()
    os.write(controller, answer.encode())
    with subprocess.Popen(
        [MLFORGE, *shlex.split(line)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**PLAIN, **environment},
    ) as command:
        os.close(terminal)
        shown = all_of(controller)
    return command.returncode, shown


def test_a_terminal_has_colours_and_sees_how_far_a_build_is() -> None:
    code, shown = on_a_terminal("build")
    assert code == 0
    assert b"\x1b[32mbuilt" in shown
    assert b"\x1b[33m1 passed, 1 failed" in shown
    plain = COLOUR.sub(b"", shown)
    assert b"building user_spend (1 of 3)" in plain
    assert re.search(rb"building user_spend \(1 of 3\) +(reading|computing|publishing)", plain)


def test_where_no_colour_is_wanted_there_is_none() -> None:
    _, shown = on_a_terminal("build", NO_COLOR="1")
    assert b"built" in shown
    # What is left is bold or dim, or moves the cursor.
    assert not re.search(rb"\x1b\[(3[0-9]|9[0-7]|[0-9;]*;3[0-9])", shown)


def test_a_terminal_that_can_do_nothing_gets_plain_text() -> None:
    code, shown = on_a_terminal("build", TERM="dumb")
    assert code == 0
    assert b"\x1b" not in shown
    assert b"building" not in shown


def test_a_pipe_gets_plain_text_whatever_the_terminal_is() -> None:
    built = process("build", env=PLAIN)
    assert built.stderr == ""
    assert "\x1b" not in built.stdout
    failed = process("read", "nobody", "user_id=1", env=PLAIN)
    assert failed.stderr.startswith("mlforge: There is no feature 'nobody'")
    assert "\x1b" not in failed.stderr


def test_a_pipe_gets_colours_where_they_are_asked_for() -> None:
    built = process("build", env={**PLAIN, "FORCE_COLOR": "1"})
    assert "\x1b[32mbuilt" in built.stdout
    assert "building" not in built.stderr


def test_json_has_no_colours_even_where_they_are_asked_for() -> None:
    built = process("build", "--json", env={**PLAIN, "FORCE_COLOR": "1"})
    assert built.stdout.startswith("[")
    assert "\x1b" not in built.stdout


def test_an_error_is_one_line_however_narrow_the_terminal_is() -> None:
    code, shown = on_a_terminal("list --definitions nowhere/at/all.py", COLUMNS="20")
    assert code == 1
    last = COLOUR.sub(b"", shown).rstrip().splitlines()[-1].decode()
    assert last.endswith(f"do not exist (looked for '{Path.cwd()}/nowhere/at/all.py').")
    assert b"\x1b[1;31mmlforge:\x1b[0m" in shown


def test_a_number_and_an_outcome_stay_whole_however_narrow_the_terminal_is() -> None:
    on_a_terminal("build --online --as-of 2026-01-10")
    for width in ("80", "30"):
        _, shown = on_a_terminal("build --online --as-of 2026-01-10", COLUMNS=width)
        lines = COLOUR.sub(b"", shown).decode().splitlines()
        assert sum(line.count("unchanged") for line in lines) >= 3, shown
        assert sum(line.count("skipped") for line in lines) >= 3


def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([MLFORGE, "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "cannot be written: No space left on device." in ended.stderr


def test_a_number_or_a_bracket_in_an_error_is_no_markup() -> None:
    shop.write(online="None")
    assert process("read", "[red]user", "a=1").stderr.startswith("mlforge: There is no feature '[red]user'")


def test_of_several_features_the_last_line_says_what_was_done(cli: Cli) -> None:
    last = cli("build --online").out.splitlines()[-1]
    assert re.fullmatch(r"3 features in \d+\.\d s: 3 built, 6 written online\.", last)
    again = cli("build --online").out.splitlines()[-1]
    assert re.fullmatch(r"3 features in \d+\.\d s: 3 skipped, 0 written online\.", again)
    assert " in " not in cli("build --features prices").out


def test_verify_says_which_features_agree(cli: Cli, redis_store: RedisStore) -> None:
    cli("build --online")
    redis_store.write("prices", {"user_id": 1, "day": "2026-01-31"}, {"price": 0.0, "note": ""})
    lines = cli("verify --as-of 2026-01-10").out.splitlines()
    outcomes = {row[0]: row[1] for row in map(cells, lines[2:5])}
    assert outcomes == {"user_spend": "agrees", "last_amount": "agrees", "prices": "differs"}


@pytest.mark.parametrize(("answer", "code", "there"), [("y\n", 0, False), ("\n", 1, True), ("prices\n", 1, True)])
def test_clear_asks_as_rollback_and_vacuum_do(
    answer: str, code: int, there: bool, cli: Cli, redis_store: RedisStore
) -> None:
    cli("build --online --features prices")
    ended, shown = on_a_terminal("clear prices", answer)
    text = COLOUR.sub(b"", shown)
    assert b"Take all of prices out of RedisStore(" in text
    assert b"Type y:" in text
    assert (b"nothing was taken out." in text) == there
    assert ended == code
    assert (redis_store.status("prices") is not None) == there


def completed(*words: str) -> list[str]:
    """What bash offers for the last of some words, once it has run the script."""
    Path("mlforge.bash").write_text(process("completion", "bash").stdout)
    quoted = " ".join(map(shlex.quote, words))
    script = (
        f"set -u; source ./mlforge.bash; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _mlforge; "
        f"printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    bash = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)
    assert bash.stderr == ""
    return bash.stdout.split()


def test_bash_completes_commands_options_and_choices() -> None:
    assert completed("mlforge", "ver") == ["versions", "verify"]
    assert completed("mlforge", "build", "--in") == ["--incremental"]
    assert completed("mlforge", "list", "s") == ["sources", "sets"]
    assert completed("mlforge", "build", "--engine", "d") == ["duckdb"]


def test_there_is_a_script_for_other_shells_too() -> None:
    assert process("completion", "zsh").stdout.startswith("#compdef mlforge")
    assert "complete -c mlforge" in process("completion", "fish").stdout


def test_completion_is_installed_where_the_shell_looks(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    ended = process("completion", "bash", "--install", env={**os.environ, "HOME": str(home)})
    script = home / ".local/share/bash-completion/completions/mlforge"
    assert ended.stdout == f"{script} is written; new shells complete mlforge.\n"
    assert "_mlforge()" in script.read_text()
    assert str(script) in (home / ".bashrc").read_text()


def test_a_shell_that_cannot_be_told_is_to_be_named() -> None:
    program = "import os, sys; os.setsid(); from mlforge.cli.main import main; main(['completion'])"
    environment = {"PATH": "/nowhere", "HOME": str(Path.cwd())}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "mlforge: The shell cannot be told: name it, as in `mlforge completion bash`.\n"
