"""After every fault the next sync and `verify` find no difference, and no status ever says complete too early."""

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis

import mlforge as mlf
from mlforge import Definitions, StoreError, UnavailableError
from mlforge.online import RedisStore
from mlforge.online.keys import entity_key_hash, redis_key, status_key
from mlforge.store import LocalStore
from mlforge.sync import SyncReport
from proxy import Proxy
from servers import RedisServer

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
# Enough for a sync to take some megabytes.
ENTITIES = 20_000


class Crowd:
    """Many entities, each with a row every hour for two hours, and what is online of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        entity = pl.int_range(ENTITIES, eager=True)
        frame = pl.DataFrame({"entity": entity}).join(pl.DataFrame({"hour": [0, 1]}), how="cross")
        times = pl.lit(START) + pl.duration(hours="hour")
        frame.select(
            "entity",
            times.cast(pl.Datetime("us", "UTC")).alias("ts"),
            *((pl.col("entity") * (number + 2) / 8 + pl.col("hour")).alias(f"value_{number}") for number in range(6)),
        ).write_parquet(folder / "rows.parquet")

    def definitions(self, store: RedisStore) -> Definitions:
        @mlf.feature(keys=["entity"], source=self.folder / "rows.parquet", timestamp="ts")
        def crowd(df: pl.LazyFrame) -> pl.LazyFrame:
            return df

        return Definitions("crowd", features=[crowd], store=LocalStore(self.folder / "store"), online_store=store)

    def sync(self, store: RedisStore, hour: float = 1.0, **options: Any) -> SyncReport:
        (report,) = self.definitions(store).build(online=True, as_of=START + hour * HOUR, **options)
        assert report.online is not None
        return report.online

    def differences(self, store: RedisStore) -> tuple[int, int, int]:
        """How many are missing, extra and different."""
        (report,) = self.definitions(store).verify()
        return report.missing, report.extra, report.different

    def heals(self, store: RedisStore, hour: float = 1.0) -> None:
        """The next sync leaves no difference, and the one after it finds nothing to do."""
        assert self.sync(store, hour).mode in ("full", "difference", "unchanged")
        assert self.differences(store) == (0, 0, 0)
        assert self.sync(store, hour).mode == "unchanged"


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Crowd:
    crowd = Crowd(tmp_path_factory.mktemp("crowd"))
    crowd.definitions(RedisStore()).build()
    return crowd


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, to do with what it likes."""
    with RedisServer() as server:
        yield server


def state(store: RedisStore) -> str | None:
    status = store.status("crowd")
    return None if status is None else status.state


@pytest.mark.parametrize("after", [1_000, 1_500_000, 4_000_000])
def test_a_server_that_dies_and_comes_back_empty_is_written_again(
    crowd: Crowd, server: RedisServer, after: int
) -> None:
    def restart() -> None:
        server.kill()
        server.start()

    with (
        Proxy(server=server, after=after, act=restart, connections=9) as proxy,
        RedisStore(proxy.host, proxy.port) as store,
    ):
        report = crowd.sync(store)
    with RedisStore(server.host, server.port) as direct:
        assert (report.mode, report.written) == ("full", ENTITIES)
        assert state(direct) == "complete"
        assert crowd.differences(direct) == (0, 0, 0)


def test_a_server_that_stays_away_is_an_error_after_the_stated_time(crowd: Crowd, server: RedisServer) -> None:
    with (
        Proxy(server=server, after=1_500_000, act=server.kill, connections=99) as proxy,
        RedisStore(proxy.host, proxy.port, retry_seconds=1) as store,
    ):
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=f"{proxy.port} cannot be reached") as caught:
            crowd.sync(store)
        assert time.monotonic() - began < 6
        assert "begun again for" in " ".join(caught.value.__notes__)
    server.start()
    with RedisStore(server.host, server.port) as direct:
        assert state(direct) is None
        crowd.heals(direct)


def test_a_server_that_hangs_for_longer_than_the_timeout_is_written_when_it_goes_on(
    crowd: Crowd, server: RedisServer
) -> None:
    def hang() -> None:
        server.pause()
        threading.Timer(1.5, server.resume).start()

    with (
        RedisStore(server.host, server.port) as direct,
        Proxy(server=server, after=1_500_000, act=hang, connections=99) as proxy,
        RedisStore(proxy.host, proxy.port, timeout=0.3, lock_seconds=5) as store,
    ):
        crowd.sync(direct, 0)
        assert crowd.sync(store).mode == "full"
        assert crowd.differences(direct) == (0, 0, 0)


def test_a_lagging_replica_that_is_promoted_is_written_again(crowd: Crowd, server: RedisServer) -> None:
    with (
        Proxy(server=server, connections=2) as lag,
        RedisServer(replica_of=lag) as replica,
        Proxy(server=server, after=1_500_000, connections=99) as proxy,
    ):
        with RedisStore(server.host, server.port) as direct:
            crowd.sync(direct, 0)
        replica.wait_for(server)

        def fail_over() -> None:
            lag.hold()
            time.sleep(0.05)
            replica.promote()
            server.kill()
            proxy.server = replica

        proxy.act = fail_over
        with RedisStore(proxy.host, proxy.port) as store:
            assert crowd.sync(store).mode == "full"
        with RedisStore(replica.host, replica.port) as direct:
            assert state(direct) == "complete"
            assert crowd.differences(direct) == (0, 0, 0)


def test_a_master_that_was_demoted_is_not_called_complete(crowd: Crowd, server: RedisServer) -> None:
    with RedisServer() as other:
        with (
            Proxy(server=server, after=1_500_000, act=lambda: server.follow(other), connections=99) as proxy,
            RedisStore(proxy.host, proxy.port, retry_seconds=0.5) as store,
            pytest.raises(UnavailableError, match=r"does not take this|READONLY|loading"),
        ):
            crowd.sync(store)
        server.promote()
        with RedisStore(server.host, server.port) as direct:
            assert state(direct) != "complete"
            crowd.heals(direct)


def test_a_full_server_is_an_error_and_nothing_is_complete(crowd: Crowd) -> None:
    with (
        RedisServer(arguments=["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]) as server,
        RedisStore(server.host, server.port) as store,
    ):
        with pytest.raises(StoreError, match=r"refused: .*(OOM|memory)"):
            crowd.sync(store)
        assert state(store) == "writing"
        store.client.config_set("maxmemory", "100mb")
        crowd.heals(store)


def test_evicted_entities_are_found_and_written_again(crowd: Crowd) -> None:
    with (
        RedisServer(arguments=["--maxmemory-policy", "allkeys-random"]) as server,
        RedisStore(server.host, server.port) as store,
    ):
        crowd.sync(store)
        store.client.config_set("maxmemory", "4mb")
        while not store.client.info("stats")["evicted_keys"]:
            store.client.set("x", "y")
        store.client.config_set("maxmemory", "0")
        if state(store) is not None:
            missing, *others = crowd.differences(store)
            assert missing > 0
            assert others == [0, 0]
        crowd.heals(store)


def test_a_value_overwritten_by_hand_is_found_and_written_again(crowd: Crowd, server: RedisServer) -> None:
    with RedisStore(server.host, server.port) as store:
        crowd.sync(store)
        keys = [redis_key("mlforge", "crowd", entity_key_hash({"entity": number})) for number in range(5)]
        store.client.set(keys[0], '{"value_0":1.0}')
        store.client.set(keys[1], "no JSON")
        store.client.delete(keys[2])
        store.client.delete(keys[3])
        store.client.rpush(keys[3], "another type")
        store.client.set(redis_key("mlforge", "crowd", "0" * 32), "{}")
        assert crowd.sync(store).mode == "unchanged", "a sync by difference does not read what is there"
        (report,) = crowd.definitions(store).verify()
        assert (report.missing, report.extra, report.different) == (2, 1, 2)
        assert not report.agrees
        assert {example["problem"] for example in report.examples} == {"missing", "extra", "different"}
        assert {example["entity"].get("entity") for example in report.examples} == {0, 1, 2, 3, None}
        assert state(store) == "dirty"
        crowd.heals(store)


def test_a_sample_finds_what_is_missing_but_looks_for_no_others(crowd: Crowd, server: RedisServer) -> None:
    with RedisStore(server.host, server.port) as store:
        crowd.sync(store)
        store.client.set(redis_key("mlforge", "crowd", "0" * 32), "{}")
        (report,) = crowd.definitions(store).verify(sample=500)
        assert (report.checked, report.agrees) == (500, True)
        status = store.client.hgetall(status_key("mlforge", "crowd"))
        store.client.flushall()
        store.client.hset(status_key("mlforge", "crowd"), mapping=status)
        (report,) = crowd.definitions(store).verify(sample=500)
        assert (report.checked, report.missing, report.extra) == (500, 500, 0)


def test_a_password_that_changes_is_an_error_that_does_not_show_it(crowd: Crowd) -> None:
    secret = "hunter2-top-secret"
    with RedisServer(requirepass=secret) as server, RedisStore(server.host, server.port, password=secret) as store:
        crowd.sync(store, 0)
        server.client().config_set("requirepass", "another")
        with pytest.raises(StoreError, match="refused the user name or the password") as caught:
            crowd.sync(store)
        assert secret not in str(caught.value)
        assert not isinstance(caught.value, UnavailableError)


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_faults import Crowd
from mlforge.online import RedisStore
crowd = Crowd.__new__(Crowd)
crowd.folder = Path(sys.argv[2])
store = RedisStore("127.0.0.1", int(sys.argv[3]), lock_seconds=0.5)
print("ready", flush=True)
for hour in (float(text) for text in sys.argv[4:]):
    print(crowd.sync(store, hour, full=True).mode, flush=True)
"""


def writer(crowd: Crowd, server: RedisServer, *hours: float) -> subprocess.Popen[str]:
    """A process that has imported all and begins to sync."""
    arguments = [str(Path(__file__).parent), str(crowd.folder), str(server.port), *map(str, hours)]
    process = subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def killed(crowd: Crowd, server: RedisServer, moments: list[float]) -> None:
    """Writers that are killed so many seconds after they began to write leave what the next sync mends."""
    states = set()
    with RedisStore(server.host, server.port) as store:
        crowd.sync(store, 0)
        for moment in moments:
            process = writer(crowd, server, *([1.0] * 50))
            while state(store) != "writing":
                time.sleep(0.001)
            time.sleep(moment)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            states.add(state(store))
            if state(store) == "complete":
                assert crowd.differences(store) == (0, 0, 0)
            crowd.heals(store)
    assert "writing" in states


def test_a_writer_that_is_killed_leaves_what_the_next_sync_mends(crowd: Crowd, server: RedisServer) -> None:
    killed(crowd, server, [0.0, 0.15, 0.3])


@pytest.mark.slow
def test_twenty_writers_that_are_killed_leave_what_the_next_sync_mends(crowd: Crowd, server: RedisServer) -> None:
    killed(crowd, server, [0.047 * number for number in range(20)])


def test_a_writer_that_is_paused_beyond_its_lock_writes_nothing_over_the_next_one(
    crowd: Crowd, server: RedisServer
) -> None:
    with RedisStore(server.host, server.port) as store:
        crowd.sync(store, 0)
        process = writer(crowd, server, 0, 0, 0, 0)
        while state(store) != "writing":
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGSTOP)
        began = time.monotonic()
        assert crowd.sync(store).mode == "full"
        assert time.monotonic() - began > 0.2, "until the other one's lock had expired"
        os.kill(process.pid, signal.SIGCONT)
        output, _ = process.communicate(timeout=60)
        # It began again, and was then too late.
        assert output.split()[0] == "stale"
        assert crowd.differences(store) == (0, 0, 0)
        assert crowd.sync(store).mode == "unchanged"


def test_writers_at_once_leave_what_one_of_them_would(crowd: Crowd, server: RedisServer) -> None:
    with RedisStore(server.host, server.port) as store:
        crowd.sync(store, 0)
        processes = [writer(crowd, server, *([hour] * 3)) for hour in (0.5, 1.0, 1.5)]
        modes = [process.communicate(timeout=60)[0].split() for process in processes]
        assert all(set(mode) <= {"full", "stale"} for mode in modes), modes
        assert modes[2] == ["full"] * 3
        status = store.status("crowd")
        assert status is not None
        assert (status.as_of, status.state) == (START + 1.5 * HOUR, "complete")
        assert crowd.differences(store) == (0, 0, 0)


def soak(crowd: Crowd, server: RedisServer, seconds: float) -> None:
    """Readers and syncs at once: every value is one of the two hours', whole, and memory stays."""
    with RedisStore(server.host, server.port) as store:
        crowd.sync(store, 0)
        whole = [
            tuple(number * (column + 2) / 8 + hour for column in range(6)) for number in (3, 77) for hour in (0, 1)
        ]
        over, reads, sizes = threading.Event(), [0], []

        def read() -> None:
            while not over.is_set():
                found = store.read_batch("crowd", [{"entity": "3"}, {"entity": "77"}])
                for values in found:
                    assert values is not None
                    assert tuple(values.values()) in whole
                reads[0] += 1

        failures: list[BaseException] = []

        def guarded() -> None:
            try:
                read()
            except BaseException as error:
                failures.append(error)
                raise

        threads = [threading.Thread(target=guarded) for _ in range(2)]
        for thread in threads:
            thread.start()
        until, hour = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            hour = 1 - hour
            crowd.sync(store, hour, force=True, full=True)
            sizes.append(resident())
        over.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert reads[0] > 100
        # What the allocators keep settles within the first syncs.
        settled = sizes[len(sizes) // 3 :]
        assert settled[-1] < settled[0] + 60e6, sizes
        assert crowd.differences(store) == (0, 0, 0)


def resident() -> int:
    """How many bytes of memory this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_readers_see_whole_values_while_syncs_run(crowd: Crowd, server: RedisServer) -> None:
    soak(crowd, server, 3)


@pytest.mark.slow
def test_readers_see_whole_values_while_syncs_run_for_ten_minutes(crowd: Crowd, server: RedisServer) -> None:
    soak(crowd, server, 600)


def test_keys_under_other_prefixes_are_neither_touched_nor_counted(crowd: Crowd, server: RedisServer) -> None:
    client = redis.Redis(server.host, server.port)
    theirs = {f"{prefix}:crowd:{'0' * 32}": b"theirs" for prefix in ("other", "mlforg", "mlforge2", "mlforge:x")}
    client.mset(theirs)
    with RedisStore(server.host, server.port) as store:
        crowd.heals(store)
        assert store.clear("crowd") == ENTITIES
    assert {key.decode() for key in client.scan_iter()} == set(theirs)
    assert client.mget(list(theirs)) == list(theirs.values())
