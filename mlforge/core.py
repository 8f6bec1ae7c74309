"""Definitions: a project's features and stores, and what can be done with them."""

import dataclasses
import datetime as dt
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

from mlforge.build import BuildReport, build
from mlforge.errors import DefinitionError, RequestError, StoreError, did_you_mean
from mlforge.features import Feature
from mlforge.instant import instant
from mlforge.online.base import OnlineStore
from mlforge.retrieval import OnlineRequest, Schema, online_frame, training_frame
from mlforge.store.base import Snapshot, Store
from mlforge.store.local import LocalStore
from mlforge.sync import SyncReport, sync

FeatureSelection = Sequence[str] | Mapping[str, Sequence[str] | None]


class Definitions:
    """A project: its features, where their history is kept, and where they are served from.

    Args:
        name: The name of the project; the working directory's by default.
        features: Features, and modules whose features are meant; left out: the features of the module that makes
            the Definitions, looked up at each use, so that they may be defined below, or again.
        store: Where history is kept; `LocalStore("feature_store")` by default.
        online_store: Where current values are served from; without one there are offline features only.
        as_of: What "now" means wherever no instant is given, to replay history; None: the clock.

    Raises:
        DefinitionError: Something in `features` is no feature, or a store is none.
        RequestError: `as_of` is no instant.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        features: Sequence[Feature | ModuleType] | None = None,
        store: Store | None = None,
        online_store: OnlineStore | None = None,
        as_of: dt.datetime | dt.date | str | None = None,
    ) -> None:
        self.name = name if name is not None else Path.cwd().name
        self.store = store if store is not None else LocalStore("feature_store")
        self.online_store = online_store
        self.as_of = None if as_of is None else instant(as_of)
        if isinstance(features, Feature | ModuleType):
            raise DefinitionError("features is a list: write features=[...].")
        for part in features or ():
            if not isinstance(part, Feature | ModuleType):
                raise DefinitionError(
                    f"features holds {part!r}, which is neither a feature nor a module: use @mlf.feature."
                )
        # The caller's namespace itself, not a copy: what it defines further down belongs to it as well.
        self._given = list(features) if features is not None else [sys._getframe(1).f_globals]
        if not isinstance(self.store, Store):
            raise DefinitionError(f"store is {store!r}: write a store, as in LocalStore('feature_store').")
        if not isinstance(online_store, OnlineStore | None):
            raise DefinitionError(f"online_store is {online_store!r}: write a store, as in RedisStore().")

    def __repr__(self) -> str:
        return f"Definitions(name={self.name!r}, store={self.store!r}, online_store={self.online_store!r})"

    @property
    def features(self) -> Mapping[str, Feature]:
        """The features by name, in the order of their definition; those of a module as they are there now.

        Raises:
            DefinitionError: Two features have the same name.
        """
        found: dict[str, Feature] = {}
        for part in self._given:
            for feature in _features_in(part):
                if found.setdefault(feature.name, feature) is not feature:
                    raise DefinitionError(f"Two features are called {feature.name!r}: rename one of them.")
        return found

    def build(
        self,
        features: Sequence[str] | None = None,
        *,
        online: bool = False,
        as_of: dt.datetime | dt.date | str | None = None,
        force: bool = False,
    ) -> list[BuildReport]:
        """Builds features offline and, if asked to, copies the values that hold now to the online store.

        Features are built one after the other; where one fails, those before it are built and those after it not.
        A feature whose data and definition have not changed is skipped, but still copied online: time moves
        its windows.

        Args:
            features: Names; all features by default.
            online: Whether to copy to the online store.
            as_of: The instant whose values go online; now by default.
            force: Computes even where nothing has changed.

        Returns:
            One report a feature.

        Raises:
            RequestError: A name is unknown, or there is no online store.
            CheckFailedError: A check failed; that feature was not published.
            DataError: The data is not what a definition says.
            StoreError: A store cannot be reached, read or written.
        """
        chosen = [self.feature(name) for name in self._names(features)]
        online_store = self.require_online_store() if online else None
        moment = self.now(as_of)
        if not chosen:
            raise RequestError(
                f"{self.name!r} has no features to build: write @mlf.feature at the top level of the module that makes "
                f"the Definitions, or give it features=[...]."
            )
        reports = []
        for feature in chosen:
            began = time.perf_counter()
            report = build(feature, self.store, force=force)
            if online_store is not None:
                synced = self._sync(feature.name, report.version, online_store, moment)
                report = dataclasses.replace(report, online=synced, seconds=time.perf_counter() - began)
            reports.append(report)
        return reports

    def get_training_data(
        self, features: FeatureSelection, entity_df: pl.DataFrame, timestamp: str | None = None
    ) -> pl.DataFrame:
        """The labels with, for each, the values of the features that held at its time.

        Args:
            features: Names, or a dict from names to the columns wanted (None: all).
            entity_df: One row a label, with the keys of every feature.
            timestamp: The column with the labels' times (datetime or date; naive is UTC); without it every label
                gets the values that hold now.

        Returns:
            Every row and column of `entity_df` in its order, and the feature columns: null where the entity was not
            visible at that time, or a key or the time is null.

        Raises:
            RequestError: A feature is unknown or not built, or a column is missing or clashes.
        """
        tables = [(self._built(name), columns) for name, columns in self._columns(features).items()]
        return training_frame(tables, entity_df, timestamp=timestamp, as_of=self.now())

    def get_online_features(
        self, features: FeatureSelection, entities: pl.DataFrame | Sequence[Mapping[str, Any]]
    ) -> pl.DataFrame:
        """The entities with the values that are online for them, read in one round trip for all features.

        Args:
            features: Names, or a dict from names to the columns wanted (None: all).
            entities: Dicts or a frame with the keys of every feature.

        Returns:
            The columns of `entities` and the feature columns in their offline dtypes; all null for an entity that
            is not there.

        Raises:
            RequestError: A feature is unknown or not online, a key is missing, or there is no online store.
            StoreError: The online store cannot be reached, or holds something that is no value.
        """
        requests = [
            OnlineRequest(
                feature_name=name,
                keys=self.feature(name).keys,
                columns=columns,
                offline_schema=partial(self._offline_schema, name),
            )
            for name, columns in self._columns(features).items()
        ]
        return online_frame(self.require_online_store(), requests, entities)

    def feature(self, name: str) -> Feature:
        """The feature of a name.

        Raises:
            RequestError: There is none.
        """
        if not isinstance(name, str):
            raise RequestError(f"{name!r} is no name of a feature: write it as text, as in 'user_spend'.")
        if name not in self.features:
            raise RequestError(f"There is no feature {name!r}{did_you_mean(name, self.features)}")
        return self.features[name]

    def require_online_store(self) -> OnlineStore:
        """The online store.

        Raises:
            RequestError: There is none.
        """
        if self.online_store is None:
            raise RequestError("There is no online store: give Definitions one, as in online_store=RedisStore().")
        return self.online_store

    def _sync(self, name: str, version: str, online_store: OnlineStore, as_of: dt.datetime) -> SyncReport:
        try:
            # One after the other, and each with what is newest when it is its turn.
            with self.store.building(name):
                return sync(self._built(name), online_store, store=self.store, as_of=as_of)
        except StoreError as error:
            error.add_note(f"(Feature {name!r} is built offline as {version}, and not copied online.)")
            raise

    def now(self, as_of: dt.datetime | dt.date | str | None = None) -> dt.datetime:
        """The instant that is meant: the one given, or else the project's `as_of`, or else that of the clock.

        Raises:
            RequestError: What is given is no instant.
        """
        return instant(as_of) if as_of is not None else self.as_of or dt.datetime.now(dt.UTC)

    def _names(self, features: Sequence[str] | None) -> list[str]:
        if isinstance(features, str):
            raise RequestError(f"features is a list: write features=[{features!r}].")
        return list(dict.fromkeys(self.features if features is None else features))

    def _columns(self, features: FeatureSelection) -> dict[str, Sequence[str] | None]:
        chosen = features if isinstance(features, Mapping) else dict.fromkeys(self._names(features))
        return {self.feature(name).name: columns for name, columns in chosen.items()}

    def _built(self, name: str) -> Snapshot:
        snapshot = self.store.open(name)
        if snapshot is None:
            raise RequestError(f"Feature {name!r} has not been built: run `mlforge build --features {name}`.")
        return snapshot

    def _offline_schema(self, name: str) -> Schema | None:
        snapshot = self.store.open(name)
        return None if snapshot is None else snapshot.value_schema


def _features_in(part: Feature | ModuleType | dict[str, Any]) -> list[Feature]:
    if isinstance(part, Feature):
        return [part]
    namespace = vars(part) if isinstance(part, ModuleType) else part
    return [value for value in list(namespace.values()) if isinstance(value, Feature)]
