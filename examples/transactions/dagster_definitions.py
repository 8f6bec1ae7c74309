"""This example in Dagster, as its folder `defs` says: `make dagster` opens it, and `dg` finds it by itself."""

from pathlib import Path

import dagster as dg

definitions = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
