"""How fast the online store is, against the same work by hand and against other feature stores.

    python benchmarks/online.py                        everything; about half an hour, 10 GB of disk
    python benchmarks/online.py one three thousand     some sections: one three thousand write p99 difference
                                                       unchanged peers
    python benchmarks/online.py --rows 100000          with fewer entities than a million
    python benchmarks/online.py --cache FOLDER         keeps data, tables and the peers' environments there; after a
                                                       change of the offline store delete its history-*

It starts a redis-server of its own on a free port of the loopback interface, without persistence. Every measurement is
a process of its own or takes turns with what it is compared with, so that a drift of the machine's speed meets both;
a figure is the median of the rounds' ratios, with their range. By hand is redis-py's default pooled client with hiredis
and orjson, or a raw socket; keys and values are byte for byte the same on both sides (see online_by_hand.py). The table
goes to the standard output as Markdown. Linux only.
"""

import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import online_peers
import online_reads
import online_syncs
import online_writes
from measure import Bench, Row, asked, chosen, kept, packages, print_table
from online_by_hand import HOST

SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "one": online_reads.one,
    "three": online_reads.three,
    "thousand": online_reads.thousand,
    "write": online_writes.whole_frame,
    "p99": online_writes.reader,
    "difference": online_syncs.difference,
    "unchanged": online_syncs.unchanged,
    "peers": online_peers.peers,
}
MEASURES = online_reads.MEASURES | online_writes.MEASURES | online_syncs.MEASURES | online_peers.MEASURES


@contextmanager
def redis_server() -> Generator[int]:
    """A server of our own, without persistence; its port."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen(["redis-server", *settings], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"redis-server did not start on port {port}.")
                time.sleep(0.01)
            yield port
        finally:
            process.terminate()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(1) == b"+"
    except OSError:
        return False


def server_version() -> str:
    """The version of the server."""
    server = subprocess.run(["redis-server", "--version"], check=True, capture_output=True, text=True).stdout.split()
    return f"redis-server {next(word[2:] for word in server if word.startswith('v='))}"


def main() -> None:
    """Runs the sections that are asked for."""
    asked_for = chosen(__doc__, SECTIONS, rows=1_000_000, what="entities of a feature", rounds=5)
    with kept(asked_for.cache) as folder, redis_server() as port:
        bench = Bench(port=port, folder=folder, rows=asked_for.rows, rounds=asked_for.rounds)
        versions = packages("redis", "hiredis", "polars", "orjson", "deltalake")
        print_table(bench, SECTIONS, asked_for.sections, f"{server_version()}, {versions}")


if __name__ == "__main__":
    if not asked(MEASURES):
        main()
