"""Offline stores: the history of every feature, as Delta tables."""

from mlforge.store.base import Snapshot, Store
from mlforge.store.local import LocalStore

__all__ = ["LocalStore", "Snapshot", "Store"]
