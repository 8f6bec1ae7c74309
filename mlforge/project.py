"""Which features a project has: those that were given, and those of modules as they are there now."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from mlforge.errors import DefinitionError, RequestError, did_you_mean
from mlforge.features import Feature
from mlforge.lineage import in_order
from mlforge.references import FeatureRef, FeatureSelection, FeatureSet, misnamed, references


class Project:
    """The features of a project by name.

    Args:
        given: Features, and modules whose features are meant; None: those of the namespace.
        namespace: The global names of the module that makes the project. Itself, not a copy: what it defines further
            down belongs to the project as well.

    Raises:
        DefinitionError: Something given is no feature.
    """

    def __init__(self, given: Sequence[Feature | ModuleType] | None, namespace: dict[str, Any]) -> None:
        if isinstance(given, Feature | ModuleType):
            raise DefinitionError("features is a list: write features=[...].")
        for part in given or ():
            if not isinstance(part, Feature | ModuleType):
                raise DefinitionError(
                    f"features holds {part!r}, which is neither a feature nor a module: use @mlf.feature."
                )
        self._namespace = namespace
        self._given = [namespace] if given is None else list(given)

    @property
    def features(self) -> Mapping[str, Feature]:
        """All of them, in the order of their definition.

        Raises:
            DefinitionError: Two have the same name.
        """
        found: dict[str, Feature] = {}
        for part in self._given:
            for feature in _features_in(part):
                if found.setdefault(feature.name, feature) is not feature:
                    raise DefinitionError(f"Two features are called {feature.name!r}: rename one of them.")
        return found

    def feature(self, name: str) -> Feature:
        """The one of a name.

        Raises:
            RequestError: There is none.
        """
        return self._of_name(name, self.features)

    def chosen(self, names: Sequence[str] | None) -> list[Feature]:
        """Those of some names, each once; None: all.

        Raises:
            RequestError: A name is unknown, or the names are no list.
        """
        # Looked up once: the features of a module are found by going through it.
        known = self.features
        if isinstance(names, str):
            raise RequestError(f"features is a list: write features=[{names!r}].")
        if isinstance(names, FeatureSet):
            raise RequestError(
                f"The FeatureSet {names.name!r} is for training sets and online reads: write "
                f"features={[ref.name for ref in references(names)]}."
            )
        return [self._of_name(name, known) for name in dict.fromkeys(known if names is None else names)]

    def in_order(self, names: Sequence[str] | None) -> list[Feature]:
        """As `chosen`, each after those that it reads.

        Raises:
            RequestError: As for `chosen`.
            DefinitionError: A feature reads one that the project does not have, or they read each other.
        """
        return in_order(self.chosen(names), self.features)

    def referenced(self, selection: FeatureSelection) -> list[tuple[Feature, FeatureRef]]:
        """The features that are asked for, and what of each.

        Raises:
            RequestError: A name is unknown, or what asks for it is no reference.
        """
        known = self.features
        return [(self._of_name(ref.name, known), ref) for ref in references(selection)]

    @property
    def sets(self) -> list[FeatureSet]:
        """The sets that are named where the project is defined, by name."""
        found = {id(value): value for _, value in self._top_level() if isinstance(value, FeatureSet)}
        return sorted(found.values(), key=lambda one: one.name)

    def pinned(self, name: str) -> set[str]:
        """The versions of a feature that a `FeatureSet` or a `FeatureRef` names where the project is defined."""
        named = [value for _, value in self._top_level() if isinstance(value, FeatureSet | FeatureRef)]
        refs = [ref for value in named for ref in references([value])]
        return {ref.version for ref in refs if ref.name == name and ref.version is not None}

    def misnamed(self) -> list[str]:
        """What a `FeatureSet` or a `FeatureRef` names where the project is defined that does not exist, a line each."""
        return misnamed((value for _, value in self._top_level()), self.features)

    def _of_name(self, name: str, known: Mapping[str, Feature]) -> Feature:
        if not isinstance(name, str):
            raise RequestError(f"{name!r} is no name of a feature: write it as text, as in 'user_spend'.")
        if name in known:
            return known[name]
        for variable, value in self._top_level():
            if isinstance(value, FeatureSet) and name in (variable, value.name):
                raise RequestError(
                    f"{name!r} is a FeatureSet, not a feature: where sets are taken, write {variable} without quotes."
                )
        raise RequestError(f"There is no feature {name!r}{did_you_mean(name, known)}")

    def _top_level(self) -> list[tuple[str, Any]]:
        """What the modules hold in which the project is defined, with its names."""
        modules = [vars(part) for part in self._given if isinstance(part, ModuleType)]
        return [item for namespace in (self._namespace, *modules) for item in list(namespace.items())]


def _features_in(part: Feature | ModuleType | dict[str, Any]) -> list[Feature]:
    if isinstance(part, Feature):
        return [part]
    namespace = vars(part) if isinstance(part, ModuleType) else part
    return [value for value in list(namespace.values()) if isinstance(value, Feature)]
