"""A whole frame to a store in a turn of its own, as a sync does it."""

from dataclasses import replace

import polars as pl

from mlforge.online import OnlineStore, Status
from mlforge.online.base import Published


def publish(
    store: OnlineStore, feature_name: str, frame: pl.DataFrame, status: Status, vanished: pl.DataFrame | None = None
) -> Published:
    """Publishes a frame; without `vanished` the store has to look for what shall go."""
    with store.turn(feature_name) as turn:
        return turn.publish(frame, vanished, replace(status, rows=frame.height))
