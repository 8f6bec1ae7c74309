"""The asset graph of a project: the specs of its sources, features and online assets, and what depends on what."""

from collections.abc import Mapping, Sequence

import dagster as dg

from mlforge.core import Definitions
from mlforge.describe import readers
from mlforge.engines import Engine
from mlforge.errors import DefinitionError, did_you_mean
from mlforge.features import EngineName, Feature
from mlforge.online import OnlineStore
from mlforge.source import Source
from mlforge_dagster.engine import EngineResource, StepSettings
from mlforge_dagster.pace import freshness_policy
from mlforge_dagster.resources import RedisStoreResource
from mlforge_dagster.sources import DATA_VERSION, version
from mlforge_dagster.translator import AssetData, Kind, MlforgeTranslator, identifier, source_name

# Tags by which a job finds its assets.
ONLINE, PARTITIONED = "mlforge/online", "mlforge/partitioned"
# Metadata of jobs, schedules and sensors: the keys of the assets that they ask for.
ASSETS = "mlforge/assets"
# A key as Dagster takes it.
Key = dg.AssetKey | str | Sequence[str]


def asset_key(defs: Definitions, translator: MlforgeTranslator | None, feature: Feature, kind: Kind) -> dg.AssetKey:
    """What a translator calls a feature, or what is online of it."""
    data = AssetData(project=defs.name, kind=kind, feature=feature)
    return (translator or MlforgeTranslator()).get_asset_spec(data).key


class Graph:
    """What a translator makes of a project; nothing is read for it.

    Args:
        defs: The project.
        translator: Makes the specs; None: `MlforgeTranslator`.
        online_store: Where values are served from; None: `defs.online_store`.
        partitions: The partitions of features by name.
        sources: The keys of sources that are assets already, by the last part of the key that they would have.
        freshness: Whether features and what is online of them have the policies that follow from their intervals;
            where the project has an `as_of` none has.
        engine: What runs features that name no engine; None: the project's.

    Attributes:
        online_store: Where values are served from; None: nowhere.
        sources: What features read, each with its spec, but not what is an asset of somebody else.
        read: By feature the key of what it reads, where that is a source.
        engine: As it was given.
        upstream: By feature the key of what it reads, whatever that is.
        offline: The specs of the features by name.
        online: The specs of what is online by feature name; empty without an online store.

    Raises:
        DefinitionError: Two assets or two checks have the same name, or a feature cannot have partitions.
        RequestError: There is no feature of a name in `partitions`.
    """

    def __init__(
        self,
        defs: Definitions,
        translator: MlforgeTranslator | None,
        online_store: OnlineStore | RedisStoreResource | None = None,
        *,
        partitions: Mapping[str, dg.TimeWindowPartitionsDefinition] | None = None,
        sources: Mapping[str, Key] | None = None,
        freshness: bool = False,
        engine: EngineResource | Engine | EngineName | None = None,
    ) -> None:
        _require(defs, translator, online_store)
        self.online_store = defs.online_store if online_store is None else online_store
        self.engine = engine
        self._seen: dict[dg.AssetKey, str] = {}
        self._defs, self._translator = defs, translator or MlforgeTranslator()
        self._freshness = freshness and defs.as_of is None
        features = defs.features
        for name in partitions or {}:
            defs.feature(name)
        for name, feature in features.items():
            if len({identifier(check) for check in feature.checks}) < len(feature.checks):
                raise DefinitionError(f"Feature {name!r}: two of its checks would have the same name in Dagster.")
        found = readers(features.values())
        stems = {source_name(source) for source, _ in found}
        if lost := [name for name in sources or {} if name not in stems]:
            raise DefinitionError(f"sources: nothing that is read is called {lost[0]!r}{did_you_mean(lost[0], stems)}")
        of_source: dict[str, dg.AssetKey] = {}
        self.sources: list[tuple[dg.AssetSpec, Source]] = []
        self.read: dict[str, dg.AssetKey] = {}
        for source, names in found:
            spec = self._spec("source", source=source)
            if (existing := (sources or {}).get(source_name(source))) is not None:
                of_source |= dict.fromkeys(names, dg.AssetKey.from_coercible(existing))
                continue
            self.sources.append((self._only(spec, f"the source {source!r}"), source))
            self.read |= dict.fromkeys(names, spec.key)
        for name, feature in features.items():
            if isinstance(feature.source, Feature) and features.get(feature.source.name) is not feature.source:
                raise DefinitionError(
                    f"Feature {name!r} reads feature {feature.source.name!r}, which is not in Definitions: add it."
                )
        made = {name: self._spec("offline", feature=feature) for name, feature in features.items()}
        self.upstream = {
            name: made[each.source.name].key if isinstance(each.source, Feature) else (self.read | of_source)[name]
            for name, each in features.items()
        }
        self.offline: dict[str, dg.AssetSpec] = {}
        self.online: dict[str, dg.AssetSpec] = {}
        for name, spec in made.items():
            spec = spec.replace_attributes(deps=[*spec.deps, self.upstream[name]])
            if partitions and name in partitions:
                spec = spec.replace_attributes(partitions_def=partitions[name])
            if spec.partitions_def is not None:
                spec = _with_partitions(spec, features[name])
            self.offline[name] = self._only(spec, f"feature {name!r}")
        for name, feature in features.items():
            if isinstance(feature.source, Feature):
                _require_same_zone(self.offline[name], self.offline[feature.source.name])
        for name, feature in features.items() if self.online_store is not None else ():
            spec = self._spec("online", feature=feature)
            # Of all partitions together.
            spec = spec.replace_attributes(
                deps=[*spec.deps, made[name].key], tags={**spec.tags, ONLINE: ""}, partitions_def=None
            )
            self.online[name] = self._only(spec, f"what is online of feature {name!r}")

    def step(self, kind: Kind, feature: Feature) -> StepSettings:
        """How the step of a feature's asset is run."""
        return self._translator.get_step(AssetData(project=self._defs.name, kind=kind, feature=feature))

    def _spec(self, kind: Kind, *, feature: Feature | None = None, source: Source | None = None) -> dg.AssetSpec:
        data = AssetData(project=self._defs.name, kind=kind, feature=feature, source=source)
        spec = self._translator.get_asset_spec(data)
        if not isinstance(spec, dg.AssetSpec):
            name = type(self._translator).__name__
            raise DefinitionError(f"{name}.get_asset_spec returns {spec!r}: it has to return a dagster.AssetSpec.")
        if feature is None or not self._freshness or spec.freshness_policy is not None:
            return spec
        return spec.replace_attributes(freshness_policy=freshness_policy(feature))

    @property
    def partitioned(self) -> set[str]:
        """The features with partitions."""
        return {name for name, spec in self.offline.items() if spec.partitions_def is not None}

    def seen(self, feature: Feature) -> dg.AssetObservation | None:
        """What a feature reads, at its version now; None where that is not ours to say, or it cannot tell.

        Raises:
            DataError: It cannot be read.
        """
        key, source = self.read.get(feature.name), feature.source
        if key is None or isinstance(source, Feature) or (found := version(source)) is None:
            return None
        return dg.AssetObservation(key, tags={DATA_VERSION: found})

    def _only(self, spec: dg.AssetSpec, what: str) -> dg.AssetSpec:
        if (other := self._seen.setdefault(spec.key, what)) is not what:
            raise DefinitionError(
                f"The assets of {other} and of {what} have the same key, {spec.key.to_user_string()!r}: give one of "
                f"them another in MlforgeTranslator.get_asset_spec."
            )
        return spec


def _require(defs: object, translator: object, online_store: object) -> None:
    """Refuses what is not what it should be, before Dagster stumbles over it."""
    for name, given, kinds, write in (
        ("defs", defs, (Definitions,), "mlforge.Definitions(...)"),
        ("translator", translator, (MlforgeTranslator, type(None)), "MlforgeTranslator() or one of a subclass"),
        ("online_store", online_store, (OnlineStore, RedisStoreResource, type(None)), "RedisStoreResource(...)"),
    ):
        if not isinstance(given, kinds):
            raise DefinitionError(f"{name} is {given!r}: write {write}.")


def _with_partitions(spec: dg.AssetSpec, feature: Feature) -> dg.AssetSpec:
    if feature.timestamp is None:
        raise DefinitionError(f"Feature {feature.name!r} has no timestamp, so it cannot be partitioned.")
    if not isinstance(spec.partitions_def, dg.TimeWindowPartitionsDefinition):
        raise DefinitionError(f"Feature {feature.name!r} can have partitions of time only.")
    return spec.replace_attributes(tags={**spec.tags, PARTITIONED: ""})


def _require_same_zone(reader: dg.AssetSpec, read: dg.AssetSpec) -> None:
    """Refuses what Dagster refuses only when it runs: partitions of which one reads the other in another time zone."""
    zones = [getattr(spec.partitions_def, "timezone", None) for spec in (reader, read)]
    if None not in zones and zones[0] != zones[1]:
        raise DefinitionError(
            f"The partitions of {reader.key.to_user_string()!r} are in the time zone {zones[0]}, and those of "
            f"{read.key.to_user_string()!r}, which it reads, in {zones[1]}: give both the same."
        )
