"""How fast builds and training sets are, against the same work by hand and against other feature stores.

    python benchmarks/offline.py                       everything; about half an hour, 3 GB of disk
    python benchmarks/offline.py training builds       some sections: training builds training-peers build-peers
    python benchmarks/offline.py --rows 1000000        with fewer rows and events than ten million
    python benchmarks/offline.py --cache FOLDER        keeps data, tables and the peers' environments there; after a
                                                       change of the offline store delete its training-* and builds-*

Every measurement is a process of its own, the kinds take turns, and a figure is the median of the rounds' ratios, with
their range. The table goes to the standard output as Markdown. Linux only.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import offline_builds
import offline_peers
import offline_training
from measure import HEAD, Bench, Row, asked, packages

SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "training": offline_training.training,
    "builds": offline_builds.builds,
    "training-peers": offline_peers.training_peers,
    "build-peers": offline_peers.build_peers,
}
MEASURES = offline_training.MEASURES | offline_builds.MEASURES | offline_peers.MEASURES


def main() -> None:
    """Runs the sections that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="section", help=", ".join(SECTIONS))
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows and events; a tenth of that beside peers")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--cache", type=Path, help="a folder to keep; a temporary one by default")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.sections if name not in SECTIONS]:
        parser.error(f"there is no section {unknown[0]!r}: {', '.join(SECTIONS)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.cache or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(folder=folder, rows=chosen.rows, rounds=chosen.rounds)
        print(f"{packages('polars', 'deltalake')}; {chosen.rounds} rounds\n\n{HEAD}", flush=True)
        for name in chosen.sections or SECTIONS:
            for row in SECTIONS[name](bench):
                print(row, flush=True)


if __name__ == "__main__":
    if not asked(MEASURES):
        main()
