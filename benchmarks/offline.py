"""How fast builds and training sets are, against the same work by hand and against other feature stores.

    python benchmarks/offline.py                       everything; about half an hour, 3 GB of disk
    python benchmarks/offline.py training builds       some sections: training builds training-peers build-peers
    python benchmarks/offline.py --rows 1000000        with fewer rows and events than ten million
    python benchmarks/offline.py --cache FOLDER        keeps data, tables and the peers' environments there; after a
                                                       change of the offline store delete its training-* and builds-*

Every measurement is a process of its own, the kinds take turns, and a figure is the median of the rounds' ratios, with
their range. The table goes to the standard output as Markdown. Linux only.
"""

from collections.abc import Callable

import offline_builds
import offline_peers
import offline_training
from measure import Bench, Row, asked, chosen, kept, packages, print_table

SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "training": offline_training.training,
    "builds": offline_builds.builds,
    "training-peers": offline_peers.training_peers,
    "build-peers": offline_peers.build_peers,
}
MEASURES = offline_training.MEASURES | offline_builds.MEASURES | offline_peers.MEASURES


def main() -> None:
    """Runs the sections that are asked for."""
    asked_for = chosen(__doc__, SECTIONS, rows=10_000_000, what="rows and events; a tenth beside peers", rounds=3)
    with kept(asked_for.cache) as folder:
        bench = Bench(folder=folder, rows=asked_for.rows, rounds=asked_for.rounds)
        print_table(bench, SECTIONS, asked_for.sections, packages("polars", "deltalake"))


if __name__ == "__main__":
    if not asked(MEASURES):
        main()
