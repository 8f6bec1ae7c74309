"""Definitions: a project's features and stores, and what can be done with them."""

import dataclasses
import datetime as dt
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

from mlforge.build import BuildReport, build, standing
from mlforge.errors import DefinitionError, MlforgeError, RequestError, did_you_mean
from mlforge.features import Feature
from mlforge.freshness import Freshness, freshness
from mlforge.instant import instant
from mlforge.online.base import OnlineStore
from mlforge.retrieval import (
    FeatureSelection,
    OnlineRequest,
    Schema,
    async_online_frame,
    columns_by_feature,
    online_frame,
    training_frame,
)
from mlforge.store.base import Store
from mlforge.store.local import LocalStore
from mlforge.store.snapshot import Snapshot
from mlforge.sync import SyncReport, SyncRequest, sync
from mlforge.verify import VerifyReport, verify


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
        full: bool = False,
        allow_breaking: bool = False,
        dry_run: bool = False,
    ) -> list[BuildReport]:
        """Builds features offline and, if asked to, makes the online store hold the values that hold now.

        Features are built one after the other; where one fails, those before it are built and those after it not.
        A feature whose data and definition have not changed is skipped, but still synced online: time moves
        its windows. Online, only what differs is written, unless what is there cannot be relied on.

        Args:
            features: Names; all features by default.
            online: Whether to sync the online store.
            as_of: The instant whose values go online; by default now, or, unless forced, that of what is online
                where it is later.
            force: Computes even where nothing has changed; goes online even where that takes what is there back to an
                earlier version or instant, or another project has written it.
            full: Writes every entity online, not only those whose values differ.
            allow_breaking: Goes online although columns that are there went away or have other types (another MAJOR
                version).
            dry_run: Builds and writes nothing: the reports say what a sync of the version that is built would do.

        Returns:
            One report a feature.

        Raises:
            RequestError: A name is unknown, there is no online store, another MAJOR version or another project's
                values are online.
            CheckFailedError: A check failed; that feature was not published.
            DataError: The data is not what a definition says.
            StoreError: A store cannot be reached, read or written.
        """
        return list(
            self.building(
                features,
                online=online,
                as_of=as_of,
                force=force,
                full=full,
                allow_breaking=allow_breaking,
                dry_run=dry_run,
            )
        )

    def building(
        self,
        features: Sequence[str] | None = None,
        *,
        online: bool = False,
        as_of: dt.datetime | dt.date | str | None = None,
        force: bool = False,
        full: bool = False,
        allow_breaking: bool = False,
        dry_run: bool = False,
    ) -> Iterator[BuildReport]:
        """`build`, a feature at a time: each is built when its report is asked for.

        Raises:
            RequestError: As for `build`, at once where the request cannot be right.
        """
        chosen = self._chosen(features)
        for option, given in (("full", full), ("allow_breaking", allow_breaking), ("dry_run", dry_run)):
            if given and not online:
                raise RequestError(f"{option} is about what goes online: write online=True as well.")
        online_store = self.require_online_store() if online else None
        moment = self.as_of if as_of is None else instant(as_of)
        # One for all features, so that they hold at the same instant.
        now = dt.datetime.now(dt.UTC)
        if not chosen:
            raise RequestError(
                f"{self.name!r} has no features to build: write @mlf.feature at the top level of the module that makes "
                f"the Definitions, or give it features=[...]."
            )
        requests = [
            SyncRequest(
                feature_name=feature.name,
                as_of=moment,
                now=now,
                full=full,
                force=force,
                allow_breaking=allow_breaking,
                dry_run=dry_run,
            )
            for feature in chosen
        ]
        return (
            self._build(feature, request, online_store, force=force)
            for feature, request in zip(chosen, requests, strict=True)
        )

    def get_training_data(
        self, features: FeatureSelection, entity_df: pl.DataFrame, timestamp: str | None = None
    ) -> pl.DataFrame:
        """The labels with, for each, the values of the features that held at its time.

        Args:
            features: Names of features, and of single columns as `"user_spend:amount__sum__7d"`; or a dict from names
                of features to the columns wanted (None: all).
            entity_df: One row a label, with the keys of every feature.
            timestamp: The column with the labels' times (datetime or date; naive is UTC); without it every label
                gets the values that hold now.

        Returns:
            Every row and column of `entity_df` in its order, and the feature columns: null where the entity was not
            visible at that time, or a key or the time is null.

        Raises:
            RequestError: A feature is unknown or not built, or a column is missing or clashes.
        """
        tables = [(self._built(feature.name), columns) for feature, columns in self._columns(features)]
        return training_frame(tables, entity_df, timestamp=timestamp, as_of=self.now())

    def get_online_features(
        self, features: FeatureSelection, entities: pl.DataFrame | Sequence[Mapping[str, Any]]
    ) -> pl.DataFrame:
        """The entities with the values that are online for them, read in one round trip for all features.

        Args:
            features: Names of features, and of single columns as `"user_spend:amount__sum__7d"`; or a dict from names
                of features to the columns wanted (None: all).
            entities: Dicts or a frame with the keys of every feature.

        Returns:
            The columns of `entities` and the feature columns in their offline dtypes; all null for an entity that
            is not there.

        Raises:
            RequestError: A feature is unknown or not online, a key is missing, or there is no online store.
            StoreError: The online store cannot be reached, or holds something that is no value.
        """
        return online_frame(self.require_online_store(), self._requests(features), entities)

    async def aget_online_features(
        self, features: FeatureSelection, entities: pl.DataFrame | Sequence[Mapping[str, Any]]
    ) -> pl.DataFrame:
        """`get_online_features` without holding up the event loop while the online store is asked."""
        return await async_online_frame(self.require_online_store(), self._requests(features), entities)

    def verify(
        self,
        features: Sequence[str] | None = None,
        *,
        as_of: dt.datetime | dt.date | str | None = None,
        sample: int | None = None,
    ) -> list[VerifyReport]:
        """Computes again what should be online, and compares it with what the online store holds.

        Where a feature differs from what the store's status says, the next sync writes all of it.

        Args:
            features: Names; all features by default.
            as_of: Compare with the newest version at this instant; by default with the version and the instant that
                the store says it holds.
            sample: Compare so many entities of each, chosen at random, instead of all.

        Returns:
            One report a feature.

        Raises:
            RequestError: A name is unknown, a feature is not built, or there is no online store.
            StoreError: A store cannot be reached or read.
        """
        online_store = self.require_online_store()
        moment = None if as_of is None else instant(as_of)
        now = self.now()
        return [
            verify(feature.name, self.store, online_store, as_of=moment, now=now, sample=sample)
            for feature in self._chosen(features)
        ]

    def status(self, features: Sequence[str] | None = None) -> list[Freshness]:
        """What is online for features, how old it is, and how much there is of it.

        Args:
            features: Names; all features by default.

        Raises:
            RequestError: A name is unknown, or there is no online store.
            StoreError: A store cannot be reached or read.
        """
        online_store = self.require_online_store()
        now = self.now()
        return [freshness(feature.name, self.store, online_store, now=now) for feature in self._chosen(features)]

    def feature(self, name: str) -> Feature:
        """The feature of a name.

        Raises:
            RequestError: There is none.
        """
        return _of_name(name, self.features)

    def require_online_store(self) -> OnlineStore:
        """The online store.

        Raises:
            RequestError: There is none.
        """
        if self.online_store is None:
            raise RequestError("There is no online store: give Definitions one, as in online_store=RedisStore().")
        return self.online_store

    def _build(
        self, feature: Feature, request: SyncRequest, online_store: OnlineStore | None, *, force: bool
    ) -> BuildReport:
        began = time.perf_counter()
        report = standing(feature, self.store) if request.dry_run else build(feature, self.store, force=force)
        if online_store is None:
            return report
        synced = self._sync(request, report.version, online_store)
        return dataclasses.replace(report, online=synced, seconds=time.perf_counter() - began)

    def _sync(self, request: SyncRequest, version: str, online_store: OnlineStore) -> SyncReport:
        try:
            return sync(request, self.store, online_store)
        except MlforgeError as error:
            error.add_note(f"(Feature {request.feature_name!r} is built offline as {version}, and not copied online.)")
            raise

    def now(self) -> dt.datetime:
        """The instant that "now" means: the project's `as_of`, or else that of the clock."""
        return self.as_of or dt.datetime.now(dt.UTC)

    def _chosen(self, features: Sequence[str] | None) -> list[Feature]:
        # Looked up once: the features of a module are found by going through it.
        known = self.features
        if isinstance(features, str):
            raise RequestError(f"features is a list: write features=[{features!r}].")
        return [_of_name(name, known) for name in dict.fromkeys(known if features is None else features)]

    def _columns(self, features: FeatureSelection) -> list[tuple[Feature, Sequence[str] | None]]:
        if isinstance(features, str):
            raise RequestError(f"features is a list: write features=[{features!r}].")
        known = self.features
        return [(_of_name(name, known), columns) for name, columns in columns_by_feature(features).items()]

    def _requests(self, features: FeatureSelection) -> list[OnlineRequest]:
        return [
            OnlineRequest(
                feature_name=feature.name,
                keys=feature.keys,
                columns=columns,
                offline_schema=partial(self._offline_schema, feature.name),
            )
            for feature, columns in self._columns(features)
        ]

    def _built(self, name: str) -> Snapshot:
        snapshot = self.store.open(name)
        if snapshot is None:
            raise RequestError(f"Feature {name!r} has not been built: run `mlforge build --features {name}`.")
        return snapshot

    def _offline_schema(self, name: str) -> Schema | None:
        snapshot = self.store.open(name)
        return None if snapshot is None else snapshot.value_schema


def _of_name(name: str, known: Mapping[str, Feature]) -> Feature:
    if not isinstance(name, str):
        raise RequestError(f"{name!r} is no name of a feature: write it as text, as in 'user_spend'.")
    if name not in known:
        raise RequestError(f"There is no feature {name!r}{did_you_mean(name, known)}")
    return known[name]


def _features_in(part: Feature | ModuleType | dict[str, Any]) -> list[Feature]:
    if isinstance(part, Feature):
        return [part]
    namespace = vars(part) if isinstance(part, ModuleType) else part
    return [value for value in list(namespace.values()) if isinstance(value, Feature)]
