"""Definitions: a project's features and stores, and what can be done with them."""

import datetime as dt
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, overload

import polars as pl

from mlforge import clock
from mlforge.engines import Engine, Engines
from mlforge.errors import DefinitionError, RequestError
from mlforge.features import EngineName, Feature
from mlforge.instant import Moment, instant
from mlforge.memory import as_bytes
from mlforge.online.base import OnlineStore
from mlforge.project import Project
from mlforge.references import FeatureRef, FeatureSelection, FeatureSet, Schema, selected
from mlforge.store.base import Store
from mlforge.store.history import Version, find
from mlforge.store.local import LocalStore
from mlforge.store.snapshot import Snapshot
from mlforge.vacuum import KEEP, VacuumReport, vacuum

if TYPE_CHECKING:
    from mlforge.build import BuildReport
    from mlforge.building import BuildRequest
    from mlforge.diff import Diff
    from mlforge.explain import Explanation
    from mlforge.freshness import Freshness
    from mlforge.inspection import Inspection
    from mlforge.retrieval import OnlineRequest
    from mlforge.rollback import RollbackReport
    from mlforge.validate import ValidationReport
    from mlforge.verify import VerifyReport

# What is done with Definitions is imported when it is done, since they are made wherever a model serves.


class Definitions:
    """A project: its features, where their history is kept, and where they are served from.

    Args:
        name: The name of the project; the working directory's by default.
        features: Features, and modules whose features are meant; left out: the features of the module that makes
            the Definitions, looked up at each use, so that they may be defined below, or again.
        store: Where history is kept; `LocalStore("feature_store")` by default.
        online_store: Where current values are served from; without one there are offline features only.
        as_of: What "now" means wherever no instant is given, to replay history; None: the clock.
        engine: What runs the functions of features that name no engine of their own: `"polars"`, `"duckdb"`,
            `"spark"`, or an engine with settings such as `mlforge.engines.SparkEngine(session)`.
        memory_limit: How much memory a build may take, as in `"2GB"`; None: what there is.

    Raises:
        DefinitionError: Something in `features` is no feature, a store or the engine is none, or the limit is less than
            a build needs.
        RequestError: `as_of` is no instant.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        features: Sequence[Feature | ModuleType] | None = None,
        store: Store | None = None,
        online_store: OnlineStore | None = None,
        as_of: Moment | None = None,
        engine: Engine | EngineName = "polars",
        memory_limit: str | None = None,
    ) -> None:
        self.name = name if name is not None else Path.cwd().name
        self.store = store if store is not None else LocalStore("feature_store")
        self.online_store = online_store
        self.as_of = None if as_of is None else instant(as_of)
        self.engines = Engines(engine)
        self.memory_limit = memory_limit
        if memory_limit is not None:
            as_bytes(memory_limit)
        self._project = Project(features, sys._getframe(1).f_globals)
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
        return self._project.features

    @property
    def sets(self) -> Sequence[FeatureSet]:
        """The `FeatureSet`s at the top level of the project's modules, by name."""
        return self._project.sets

    def build(
        self,
        features: Sequence[str] | None = None,
        *,
        online: bool = False,
        as_of: Moment | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        incremental: bool = False,
        look_back: str | None = None,
        force: bool = False,
        full: bool = False,
        allow_breaking: bool = False,
        dry_run: bool = False,
        memory_limit: str | None = None,
        engine: Engine | EngineName | None = None,
    ) -> "list[BuildReport]":
        """Builds features offline and, if asked to, makes the online store hold the values that hold now.

        Features are built one after the other, each after those that it reads; where one fails, those before it are
        built and those after it not. A feature whose data and definition have not changed is skipped, but still
        synced online: time moves its windows. Online, only what differs is written, unless what is there cannot be
        relied on.

        A build of some events replaces the rows that these can change, up to a window after the last of them, and
        reads no more than that needs. Any builds that together cover all events, in any order, overlapping or at
        once, leave the rows of one build of all, if functions make of each row what it is by itself, at its own time.
        A feature that reads another one is built where that one has other rows than when it was last read. Where there
        is no table yet, the definition or the source has changed, or a feature has no timestamp or an `available_at`,
        all of it is built.

        Args:
            features: Names; all features by default.
            online: Whether to sync the online store.
            start: Only events from this instant on are new or have changed.
            end: Only events before this instant are; without it all from `start` on.
            incremental: Only events that are at most `look_back` earlier than the last one that was built are new.
            look_back: How late events may come, as in `"3d"`; a day by default.
            as_of: The instant whose values go online; by default now, or, unless forced, that of what is online
                where it is later.
            force: Computes even where nothing has changed; goes online even where that takes what is there back to an
                earlier version or instant, or another project has written it.
            full: Writes every entity online, not only those whose values differ.
            allow_breaking: Goes online although columns that are there went away or have other types (another MAJOR
                version).
            dry_run: Builds and writes nothing: the reports say what a sync of the version that is built would do.
            memory_limit: How much memory the process may take, as in `"2GB"` (powers of ten; at least 1 GB); the
                project's by default. What does not fit goes to disk, beside the tables, and entities are computed some
                at a time: the result is the same. The events of any one entity have to fit, and what a function holds
                that does not stream (a `DataFrame`, a join, a sort) is not counted.
            engine: What runs the functions of features that name no engine; the project's by default.

        Returns:
            One report a feature.

        Raises:
            RequestError: A name is unknown, there is no online store, another MAJOR version or another project's
                values are online.
            CheckFailedError: A check failed; that feature was not published.
            DataError: The data is not what a definition says.
            StoreError: A store cannot be reached, read or written.
        """
        from mlforge.building import BuildRequest

        request = BuildRequest(
            online=online,
            as_of=as_of,
            start=start,
            end=end,
            incremental=incremental,
            look_back=look_back,
            force=force,
            full=full,
            allow_breaking=allow_breaking,
            dry_run=dry_run,
            memory_limit=memory_limit,
            engine=engine,
        )
        return list(self.building(features, request))

    def building(self, features: Sequence[str] | None, request: "BuildRequest") -> "Iterator[BuildReport]":
        """`build`, a feature at a time: each is built when its report is asked for.

        Raises:
            RequestError: As for `build`, at once where the request cannot be right.
        """
        from mlforge.building import builds

        chosen = self.in_order(features)
        online_store = self.require_online_store() if request.online else None
        if not chosen:
            raise RequestError(
                f"{self.name!r} has no features to build: write @mlf.feature at the top level of the module that makes "
                f"the Definitions, or give it features=[...]."
            )
        if request.memory_limit is None:
            request = replace(request, memory_limit=self.memory_limit)
        engines = self.engines.instead(request.engine)
        return builds(chosen, request, self.store, online_store, engines, self.as_of)

    @overload
    def get_training_data(
        self,
        features: FeatureSelection,
        entity_df: pl.DataFrame | pl.LazyFrame | str | Path,
        timestamp: str | None = None,
        *,
        prefix: bool = False,
        lazy: Literal[False] = False,
    ) -> pl.DataFrame: ...

    @overload
    def get_training_data(
        self,
        features: FeatureSelection,
        entity_df: pl.DataFrame | pl.LazyFrame | str | Path,
        timestamp: str | None = None,
        *,
        prefix: bool = False,
        lazy: Literal[True],
    ) -> pl.LazyFrame: ...

    def get_training_data(
        self,
        features: FeatureSelection,
        entity_df: pl.DataFrame | pl.LazyFrame | str | Path,
        timestamp: str | None = None,
        *,
        prefix: bool = False,
        lazy: bool = False,
    ) -> pl.DataFrame | pl.LazyFrame:
        """The labels with, for each, the values of the features that held at its time.

        Args:
            features: Names of features, and of single columns as `"user_spend:amount__sum__7d"`; features,
                `mlf.FeatureRef`s (which may name a version) and `mlf.FeatureSet`s; or a dict from names of features
                to the columns wanted (None: all).
            entity_df: One row a label, with the keys of every feature: a frame, or the path of one (Parquet, CSV,
                NDJSON, Delta).
            timestamp: The column with the labels' times (datetime or date; naive is UTC); without it every label
                gets the values that hold now, which for a label of the past come from its future.
            prefix: Whether feature columns begin with the feature's name, as `user_spend__amount__sum__7d`.
            lazy: Whether to give a LazyFrame, which reads nothing before it is collected.

        Returns:
            Every row and column of `entity_df` in its order, and the feature columns: null where the entity was not
            visible at that time, or a key or the time is null.

        Raises:
            RequestError: A feature is unknown or not built, or a version or a column is missing or clashes.
            DataError: The labels cannot be read.
            StoreError: A table is damaged, or the files of its version were vacuumed.
        """
        from mlforge.training import Table, as_labels, collected, training_frame

        tables = [
            Table(snapshot=self._snapshot(feature.name, ref), columns=ref.columns)
            for feature, ref in self._project.referenced(features)
        ]
        labels = as_labels(entity_df, tables, lazy=lazy)
        frame = training_frame(tables, labels, timestamp=timestamp, as_of=self.now(), prefix=prefix)
        return frame if lazy else collected(frame, tables)

    def get_online_features(
        self,
        features: FeatureSelection,
        entities: pl.DataFrame | Sequence[Mapping[str, Any]],
        *,
        prefix: bool = False,
    ) -> pl.DataFrame:
        """The entities with the values that are online for them, read in one round trip for all features.

        Args:
            features: As for `get_training_data`; where a version is named, one of its MAJOR.MINOR has to be online: the
                same columns and definition, with whichever data were built last.
            entities: Dicts or a frame with the keys of every feature.
            prefix: Whether feature columns begin with the feature's name, as `user_spend__amount__sum__7d`.

        Returns:
            The columns of `entities` and the feature columns in their offline dtypes; all null for an entity that
            is not there.

        Raises:
            RequestError: A feature is unknown, not online or there at another version, a key is missing, or there is no
                online store.
            StoreError: The online store cannot be reached, or holds something that is no value.
        """
        from mlforge.retrieval import online_frame

        return online_frame(self.require_online_store(), self._requests(features, prefix=prefix), entities)

    async def aget_online_features(
        self,
        features: FeatureSelection,
        entities: pl.DataFrame | Sequence[Mapping[str, Any]],
        *,
        prefix: bool = False,
    ) -> pl.DataFrame:
        """`get_online_features` without holding up the event loop while the online store is asked."""
        from mlforge.retrieval import async_online_frame

        requests = self._requests(features, prefix=prefix)
        return await async_online_frame(self.require_online_store(), requests, entities)

    def validate(self, features: Sequence[str] | None = None, *, shards: int | None = None) -> "list[ValidationReport]":
        """Runs the functions of features over their sources and the checks over what they return; asks no store.

        A feature that cannot be run, also where its function raises, is a report with a problem.

        Args:
            features: Names; all features by default.
            shards: Also splits the rows of each source by entity into so many parts, runs the function on each, and
                sees whether it returns the same: whether it is local to an entity, as `engine="spark"` needs it. What
                is not is a problem of the report.

        Returns:
            One report a feature.

        Raises:
            RequestError: A name is unknown, or there are less than two shards.
            DefinitionError: A feature reads one that the project does not have, or they read each other.
        """
        if shards is not None and shards < 2:
            raise RequestError(f"shards={shards!r} splits nothing: write 2 or more.")
        from mlforge.validate import validate

        return [validate(feature, self.engines, shards) for feature in self.in_order(features)]

    def verify(
        self,
        features: Sequence[str] | None = None,
        *,
        as_of: Moment | None = None,
        sample: int | None = None,
    ) -> "list[VerifyReport]":
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
        from mlforge.verify import verify

        online_store = self.require_online_store()
        moment = None if as_of is None else instant(as_of)
        now = self.now()
        return [
            verify(feature.name, self.store, online_store, as_of=moment, now=now, sample=sample)
            for feature in self._project.chosen(features)
        ]

    def status(self, features: Sequence[str] | None = None) -> "list[Freshness]":
        """What is online for features, how old it is, and how much there is of it.

        Args:
            features: Names; all features by default.

        Raises:
            RequestError: A name is unknown, or there is no online store.
            StoreError: A store cannot be reached or read.
        """
        from mlforge.freshness import freshness

        online_store = self.require_online_store()
        now = self.now()
        return [
            freshness(feature.name, self.store, online_store, now=now) for feature in self._project.chosen(features)
        ]

    def explain(self, feature: str, entity_keys: Mapping[str, Any], at: Moment | None = None) -> "Explanation":
        """Where the values of an entity come from: the events behind each, what is stored, and what is online.

        The feature's function is run again, and the values are computed once more from the entity's own rows, in
        plain Python.

        Args:
            feature: The name of the feature.
            entity_keys: The keys of the entity; they match by their text, so that 123 and "123" are the same.
            at: The instant whose values are explained; by default now.

        Raises:
            RequestError: The feature is unknown, the keys are not its own, or `at` is no instant.
            DataError: The source is missing or empty, or the data is not what the definition says.
            StoreError: The offline store cannot be read.
        """
        from mlforge.explain import explain

        moment = self.now() if at is None else instant(at)
        return explain(self.feature(feature), entity_keys, self.store, self.online_store, self.engines, at=moment)

    def inspect(self, feature: str, *, at: Moment | None = None, version: str | None = None) -> "Inspection":
        """What there is to know about a feature: its definition, its table, what is online, what its values are like.

        Args:
            feature: The name of the feature.
            at: The instant of which the values are profiled; by default now.
            version: MAJOR.MINOR.PATCH of the table; by default the newest.

        Raises:
            RequestError: There is no such feature or version, or `at` is no instant.
            StoreError: The offline store cannot be read.
        """
        from mlforge.inspection import inspect

        now = self.now()
        moment = now if at is None else instant(at)
        return inspect(self.feature(feature), self.store, self.online_store, at=moment, now=now, version=version)

    def to_dict(self) -> dict[str, Any]:
        """What the project defines, as JSON knows it: sources, entities, features, sets; the same in every process.

        Nothing is read for it, and no credentials are in it.
        """
        from mlforge.describe import describe

        return describe(self.name, self.features.values(), self.sets)

    def versions(self, feature: str) -> list[Version]:
        """The versions of a feature, the newest first: every commit to its table, also those of others.

        Raises:
            RequestError: There is no such feature, or it has not been built.
            StoreError: Its table is damaged or cannot be read.
        """
        return self.store.versions(self.feature(feature).name)

    def pin(self, features: FeatureSelection, name: str | None = None) -> FeatureSet:
        """The same features, each at the version that is the newest now: what a model trained on them remembers.

        It names features and holds none, so it can be pickled beside a model. A version that is named stays.

        Args:
            features: As for `get_training_data`.
            name: What the set is called; by default as the set that is given, or else as the project.

        Raises:
            RequestError: A feature is unknown or not built, or a version or a column does not exist.
            StoreError: A table is damaged or cannot be read.
        """
        refs = []
        for feature, ref in self._project.referenced(features):
            snapshot = self._snapshot(feature.name, ref)
            selected(feature.name, snapshot.value_schema, ref.columns)
            refs.append(replace(ref, version=snapshot.version))
        of_set = features.name if isinstance(features, FeatureSet) else self.name
        return FeatureSet(of_set if name is None else name, refs)

    def diff(self, feature: str, before: str, after: str) -> "Diff":
        """What changed from one version of a feature to another: columns, definition, rows and values.

        Args:
            feature: The name of the feature.
            before: The one version, MAJOR.MINOR.PATCH.
            after: The other.

        Raises:
            RequestError: There is no such feature or version.
            StoreError: The table is damaged, or a version's files were vacuumed.
        """
        from mlforge.diff import diff

        name = self.feature(feature).name
        return diff(self.store.open_version(name, before), self.store.open_version(name, after))

    def rollback(self, feature: str, version: str) -> "RollbackReport":
        """Makes a new version of the rows, columns and definition of an earlier one; online it goes at the next sync.

        The version that is left stays readable. Builds are skipped, and say `"rolled back"`, until the data or the
        definition are no longer those that were left, or they are forced.

        Args:
            feature: The name of the feature.
            version: The earlier version, MAJOR.MINOR.PATCH.

        Raises:
            RequestError: There is no such feature or version.
            StoreError: The version's files were vacuumed or are damaged, or others committed at the same time.
        """
        from mlforge.rollback import rollback

        return rollback(self.feature(feature).name, version, self.store)

    def vacuum(
        self,
        features: Sequence[str] | None = None,
        *,
        keep: dt.timedelta = KEEP,
        pinned: Mapping[str, Collection[str]] | None = None,
        dry_run: bool = False,
    ) -> list[VacuumReport]:
        """Deletes the files of old versions; what is newest, young, online, pinned or left by a rollback is kept.

        Pinned are the versions that a `FeatureSet` or a `FeatureRef` names, at the top level of the module that makes
        the Definitions or of one that was given.

        Args:
            features: Names; by default all features that are built.
            keep: How long a version is kept after it was replaced.
            pinned: Further versions that are needed, by feature.
            dry_run: Deletes nothing.

        Returns:
            One report a feature.

        Raises:
            RequestError: A name is unknown, a feature is not built or has no version that is pinned, or `keep` is
                negative; nothing was deleted.
            StoreError: A store cannot be read or written, or others committed at the same time; the message says
                whether files may be gone.
        """
        chosen = [feature.name for feature in self._project.chosen(features)]
        if features is None:
            chosen = [name for name in chosen if self.store.open(name) is not None]
        pinned = pinned or {}
        for name, versions in pinned.items():
            self.feature(name)
            if isinstance(versions, str):
                raise RequestError(
                    f"pinned names a list of versions of each feature: write {{{name!r}: [{versions!r}]}}."
                )
        needed = {name: {*self._project.pinned(name), *pinned.get(name, ())} for name in chosen}
        for name, versions in needed.items():
            # Of all features before anything of the first is deleted.
            known = self.store.versions(name)
            for version in versions:
                find(version, known, name)
        return [
            vacuum(name, self.store, self.online_store, keep=keep, pinned=needed[name], dry_run=dry_run)
            for name in chosen
        ]

    def feature(self, name: str) -> Feature:
        """The feature of a name.

        Raises:
            RequestError: There is none.
        """
        return self._project.feature(name)

    def in_order(self, features: Sequence[str] | None = None) -> list[Feature]:
        """Features in the order in which they are built: each after those that it reads.

        Args:
            features: Names; all features by default.

        Raises:
            RequestError: A name is unknown.
            DefinitionError: A feature reads one that the project does not have.
        """
        return self._project.in_order(features)

    def misnamed(self) -> list[str]:
        """What the `FeatureSet`s and `FeatureRef`s beside the Definitions name that does not exist, a line each."""
        return self._project.misnamed()

    def require_online_store(self) -> OnlineStore:
        """The online store.

        Raises:
            RequestError: There is none.
        """
        if self.online_store is None:
            raise RequestError("There is no online store: give Definitions one, as in online_store=RedisStore().")
        return self.online_store

    def now(self) -> dt.datetime:
        """The instant that "now" means: the project's `as_of`, or else that of the clock."""
        return self.as_of or clock.now()

    def _requests(self, features: FeatureSelection, *, prefix: bool) -> "list[OnlineRequest]":
        from mlforge.retrieval import OnlineRequest

        return [
            OnlineRequest(
                feature_name=feature.name,
                keys=feature.keys,
                columns=ref.columns,
                version=ref.version,
                prefix=prefix,
                offline_schema=partial(self._offline_schema, feature.name),
            )
            for feature, ref in self._project.referenced(features)
        ]

    def _snapshot(self, name: str, ref: FeatureRef) -> Snapshot:
        return self.store.require(name) if ref.version is None else self.store.open_version(name, ref.version)

    def _offline_schema(self, name: str) -> Schema | None:
        snapshot = self.store.open(name)
        return None if snapshot is None else snapshot.value_schema
