"""Offline stores: the history of every feature, as Delta tables."""

from mlforge.store.base import Store
from mlforge.store.local import LocalStore
from mlforge.store.object import ObjectStore
from mlforge.store.snapshot import Snapshot

__all__ = ["LocalStore", "ObjectStore", "Snapshot", "Store"]
