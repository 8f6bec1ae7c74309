"""The same work by other feature stores, each in an environment of its own."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from online_by_hand import FEATURES, HOST, entities, rows
from online_measure import Bench, Measurement, Row, measure, rate, ratios, shown
from online_writes import make_once

from mlforge.online import RedisStore

READ_ROWS = 1_000
READ_CALLS = 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another feature store.

    Attributes:
        name: What it is called on PyPI.
        packages: What is installed. hiredis for all of them, so that nobody is slower for want of a parser.
        python: The oldest Python that it runs on.
        script: What drives it.
        share: At which share of the rows it is measured, since it is slow; what is compared is the rate.
        write: The bar for writing.
        read: The bar for reading.
    """

    name: str
    packages: tuple[str, ...]
    python: tuple[int, int]
    script: str
    share: float
    write: float
    read: float


PEERS = [
    Peer(
        name="mlforge-sdk",
        packages=("mlforge-sdk[redis,duckdb]==0.7.0", "hiredis"),
        python=(3, 13),
        script="peer_mlforge_sdk.py",
        share=0.1,
        write=12,
        read=3,
    ),
    Peer(
        name="Feast",
        packages=("feast[redis]==0.67.0", "hiredis"),
        python=(3, 11),
        script="peer_feast.py",
        share=0.02,
        write=30,
        read=9,
    ),
]


def peers(bench: Bench) -> list[Row]:
    """Writes and reads of every peer that can be installed, in turns with mlforge's."""
    found = []
    for peer in PEERS:
        try:
            python = _environment(bench.folder, peer)
        except (LookupError, subprocess.CalledProcessError) as error:
            print(f"{peer.name} cannot be installed: {error}", file=sys.stderr)
            continue
        found += _compared(bench, peer, python)
    return found


def _compared(bench: Bench, peer: Peer, python: Path) -> list[Row]:
    where = make_once(bench)
    count = max(READ_ROWS, int(bench.rows * peer.share))
    path = bench.folder / f"rows-{count}.parquet"
    if not path.exists():
        rows(count).write_parquet(path)
    asked = {"port": bench.port, "count": bench.rows, "feature": FEATURES[0], "rows": READ_ROWS, "calls": READ_CALLS}
    ours: dict[str, list[float]] = {"write": [], "read": []}
    theirs: dict[str, list[float]] = {"write": [], "read": []}
    for _ in range(bench.rounds):
        ours["write"].append(measure("write", **where)["seconds"])
        ours["read"].append(measure("read", **asked)["seconds"])
        redis.Redis(HOST, bench.port, socket_timeout=60).flushall()
        for kind, seconds in _run(python, peer, bench.port, path).items():
            theirs[kind].append(seconds)
    speed = bench.rows / count
    name = f"{peer.name} {_version(python, peer)}"
    return [
        Row(
            work=f"written from a frame, beside {name}",
            beside=f"{rate(count, theirs['write'])} ({count:,} rows)",
            mlforge=f"{rate(bench.rows, ours['write'])} ({bench.rows:,} rows)",
            found=[speed * ratio for ratio in ratios(theirs["write"], ours["write"])],
            limit=peer.write,
            at_least=True,
        ),
        Row(
            work=f"{READ_ROWS:,} entities read, beside {name}",
            beside=shown(theirs["read"]),
            mlforge=shown(ours["read"]),
            found=ratios(theirs["read"], ours["read"]),
            limit=peer.read,
            at_least=True,
        ),
    ]


def _run(python: Path, peer: Peer, port: int, path: Path) -> dict[str, float]:
    script = Path(__file__).with_name(peer.script)
    command = [str(python), str(script), str(port), str(path), str(READ_ROWS), str(READ_CALLS)]
    # Feast would tell its makers that it is used.
    environment = os.environ | {"FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _environment(folder: Path, peer: Peer) -> Path:
    """The Python of an environment in which the peer is installed; made once.

    Raises:
        LookupError: There is no Python that it runs on.
        subprocess.CalledProcessError: It could not be installed; pip has said why.
    """
    place = folder / "peers" / peer.name
    python = place / "bin" / "python"
    if not (place / "made").exists():
        subprocess.run([str(_interpreter(peer.python)), "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.packages]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        (place / "made").touch()
    return python


def _interpreter(oldest: tuple[int, int]) -> Path:
    """A Python that is new enough: this one, one on the PATH, or one of pyenv's."""
    if sys.version_info[:2] >= oldest:
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for minor in range(oldest[1], oldest[1] + 3):
        on_path = shutil.which(f"python3.{minor}")
        for candidate in [
            *([Path(on_path)] if on_path else []),
            *sorted(pyenv.glob(f"versions/3.{minor}.*/bin/python")),
        ]:
            # pyenv's names on the PATH are there even where the version is not to be had.
            if subprocess.run([str(candidate), "-c", ""], capture_output=True).returncode == 0:
                return candidate
    raise LookupError(f"it needs Python {oldest[0]}.{oldest[1]} or newer, and none was found.")


def _version(python: Path, peer: Peer) -> str:
    code = f"import importlib.metadata as m; print(m.version({peer.name.lower()!r}))"
    return subprocess.run([str(python), "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def read(port: int, count: int, feature: str, rows: int, calls: int) -> dict[str, Any]:
    """Seconds for mlforge to read so many entities, the median of some calls; as the peers' scripts do it."""
    store, asked = RedisStore(HOST, port), entities(count)[:rows]
    taken = []
    for _ in range(calls):
        began = time.perf_counter()
        found = store.read_batch(feature, asked)
        taken.append(time.perf_counter() - began)
    if any(row is None for row in found):
        raise AssertionError("What was written is not there.")
    return {"seconds": statistics.median(taken)}


MEASURES: dict[str, Measurement] = {"read": read}
