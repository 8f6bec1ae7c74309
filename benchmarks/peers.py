"""Other feature stores, each in an environment of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import LONGEST
from results import BUILD


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another feature store.

    Attributes:
        name: What it is called on PyPI.
        packages: What is installed. hiredis for all of them, so that nobody is slower for want of a parser.
        python: The oldest Python that it runs on.
    """

    name: str
    packages: tuple[str, ...]
    python: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A peer that can be run.

    Attributes:
        name: Its name and version.
        python: The Python of its environment.
    """

    name: str
    python: Path

    def run(self, script: str, *arguments: object) -> dict[str, float]:
        """What one of the scripts beside this one prints as its last line, as JSON, when the peer runs it."""
        command = [str(self.python), str(Path(__file__).with_name(script)), *map(str, arguments)]
        # Feast would tell its makers that it is used.
        environment = os.environ | {"FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}
        environment.pop("PYTHONPATH", None)
        # What it says besides is not ours to show; what goes wrong is.
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LONGEST)
        if done.returncode:
            print(done.stderr[-2_000:], file=sys.stderr)
            done.check_returncode()
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


MLFORGE_SDK = Peer(name="mlforge-sdk", packages=("mlforge-sdk[redis,duckdb]==0.7.0", "hiredis"), python=(3, 13))
FEAST = Peer(name="Feast", packages=("feast[redis,duckdb]==0.67.0", "hiredis"), python=(3, 11))


def installed(folder: Path, peers: Sequence[Peer]) -> Iterator[tuple[Peer, Installed]]:
    """Those of the peers that can be installed; of the others it is said why they cannot."""
    for peer in peers:
        try:
            there = install(peer, folder)
        except (LookupError, subprocess.CalledProcessError) as error:
            print(f"{peer.name} cannot be installed: {error}", file=sys.stderr)
            continue
        yield peer, there


def install(peer: Peer, folder: Path = BUILD) -> Installed:
    """The peer in its environment in a folder, which is made once: `make clean` removes it.

    Raises:
        LookupError: There is no Python for it.
    """
    place = folder / "peers" / peer.name
    python = place / "bin" / "python"
    if not (place / "made").exists():
        print(f"Installing {peer.name} into {place}.", file=sys.stderr)
        subprocess.run([str(_interpreter(peer)), "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.packages]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        (place / "made").touch()
    return Installed(name=f"{peer.name} {_version(python, peer)}", python=python)


def _interpreter(peer: Peer) -> Path:
    """A Python that is new enough: this one, one on the PATH, or one of pyenv's."""
    oldest = peer.python
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
    raise LookupError(f"{peer.name} needs Python {oldest[0]}.{oldest[1]} or newer, and none was found.")


def _version(python: Path, peer: Peer) -> str:
    code = f"import importlib.metadata as m; print(m.version({peer.name.lower()!r}))"
    return subprocess.run([str(python), "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
