"""How fast builds and training sets are, against the same work by hand and against other feature stores.

    python benchmarks/offline.py                       everything; about ten minutes, 3 GB of disk
    python benchmarks/offline.py training builds       some sections: training builds training-mlforge-sdk
                                                       training-feast builds-duckdb builds-polars
    python benchmarks/offline.py --rows 1000000        with fewer rows and events than ten million
    python benchmarks/offline.py --cache FOLDER        keeps data and tables there; after a change of the offline store
                                                       delete its training-* and builds-*

Every measurement is a process of its own, the kinds take turns, and a figure is the median of the rounds' ratios, with
their range. What was found goes to build/bench/offline.json. The last two are the engines of mlforge-sdk. Linux only.
"""

from collections.abc import Mapping
from functools import partial

import offline_builds
import offline_peers
import offline_training
from peers import FEAST, MLFORGE_SDK
from script import Script, Section

SECTIONS: Mapping[str, Section] = {
    "training": offline_training.training,
    "builds": offline_builds.builds,
    "training-mlforge-sdk": partial(offline_peers.training, MLFORGE_SDK),
    "training-feast": partial(offline_peers.training, FEAST),
    "builds-duckdb": partial(offline_peers.builds, "duckdb"),
    "builds-polars": partial(offline_peers.builds, "polars"),
}
SCRIPT = Script(
    doc=__doc__,
    sections=SECTIONS,
    measures=offline_training.MEASURES | offline_builds.MEASURES | offline_peers.MEASURES,
    rows=10_000_000,
    quick=100_000,
    what="rows and events, and a tenth beside peers",
    rounds=3,
    packages=("polars", "deltalake"),
)

if __name__ == "__main__":
    SCRIPT.main()
