"""How fast the online store is, against the same work by hand and against other feature stores.

    python benchmarks/online.py                        everything; about ten minutes, 10 GB of disk
    python benchmarks/online.py one three thousand     some sections: one three thousand write p99 difference
                                                       unchanged mlforge-sdk feast
    python benchmarks/online.py --rows 100000          with fewer entities than a million
    python benchmarks/online.py --cache FOLDER         keeps data and tables there; after a change of the offline store
                                                       delete its history-*

It starts a redis-server of its own on a free port of the loopback interface, without persistence. Every measurement is
a process of its own or takes turns with what it is compared with, so that a drift of the machine's speed meets both;
a figure is the median of the rounds' ratios, with their range. By hand is redis-py's default pooled client with hiredis
and orjson, or a raw socket; keys and values are byte for byte the same on both sides (see online_by_hand.py). What was
found goes to build/bench/online.json. Linux only.
"""

from collections.abc import Mapping
from functools import partial

import online_peers
import online_reads
import online_syncs
import online_writes
from peers import FEAST, MLFORGE_SDK
from script import Script, Section

SECTIONS: Mapping[str, Section] = {
    "one": online_reads.one,
    "three": online_reads.three,
    "thousand": online_reads.thousand,
    "write": online_writes.whole_frame,
    "p99": online_writes.reader,
    "difference": online_syncs.difference,
    "unchanged": online_syncs.unchanged,
    "mlforge-sdk": partial(online_peers.beside, MLFORGE_SDK),
    "feast": partial(online_peers.beside, FEAST),
}
SCRIPT = Script(
    doc=__doc__,
    sections=SECTIONS,
    measures=online_reads.MEASURES | online_writes.MEASURES | online_syncs.MEASURES | online_peers.MEASURES,
    rows=1_000_000,
    quick=20_000,
    what="entities of a feature",
    rounds=3,
    packages=("redis", "hiredis", "polars", "orjson", "deltalake"),
    server=True,
)

if __name__ == "__main__":
    SCRIPT.main()
