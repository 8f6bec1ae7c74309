"""References to features: which, which of their columns, at which version and by which names; and lists of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from mlforge.errors import DefinitionError, RequestError, did_you_mean
from mlforge.features import Feature

Schema = Mapping[str, pl.DataType]


@dataclass(frozen=True, slots=True)
class FeatureRef:
    """A feature, or some of its columns, maybe at a version.

    Attributes:
        name: The feature's name.
        columns: Which of its columns; None: all.
        version: MAJOR.MINOR.PATCH; None: the newest offline, whichever is there online. Offline it is read as it was;
            online it stands for every PATCH of its MAJOR.MINOR, which have the same columns and definition and other
            data, and another MAJOR.MINOR is an error.
    """

    name: str
    columns: Sequence[str] | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise RequestError(f"{self.name!r} is no name of a feature: write it as text, as in 'user_spend'.")
        if isinstance(self.columns, str):
            raise RequestError(f"columns is a list: write columns=[{self.columns!r}].")
        if self.columns is not None:
            object.__setattr__(self, "columns", tuple(dict.fromkeys(self.columns)))

    @classmethod
    def parse(cls, text: str) -> "FeatureRef":
        """A reference as text: a name, or a name and one column.

        >>> FeatureRef.parse("user_spend:amount__sum__7d")
        FeatureRef(name='user_spend', columns=('amount__sum__7d',), version=None)
        """
        name, colon, column = text.partition(":")
        return cls(name, (column,) if colon else None)


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """A named list of features, such as those that a model was trained on, to be used wherever features are.

    Attributes:
        name: What it is called.
        features: Names, `"feature:column"`, references, features and other sets.
        description: For people.
    """

    name: str
    features: "Sequence[str | FeatureRef | Feature | FeatureSet]"
    description: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.features, str):
            raise DefinitionError(f"features is a list: write features=[{self.features!r}].")
        object.__setattr__(self, "features", tuple(self.features))
        references(self)

    @property
    def refs(self) -> list[FeatureRef]:
        """What it names as references, each feature once."""
        return references(self)

    def __reduce__(self) -> tuple[type["FeatureSet"], tuple[str, list[FeatureRef], str]]:
        # Features stay where they are defined: a set that is kept with a model names them.
        return FeatureSet, (self.name, self.refs, self.description)


FeatureSelection = Sequence[str | FeatureRef | Feature | FeatureSet] | Mapping[str, Sequence[str] | None] | FeatureSet


def references(selection: FeatureSelection) -> list[FeatureRef]:
    """What is asked for, each feature once, in the order in which it is first named.

    >>> for one in references(["spend:amount__sum__7d", "shop", "spend:amount__mean__7d"]):
    ...     print(one.name, one.columns)
    spend ('amount__sum__7d', 'amount__mean__7d')
    shop None

    Args:
        selection: A list of names, `"feature:column"`, references, features and sets; a set; or a dict from names to
            columns (None: all).

    Raises:
        RequestError: Something in it is none of these, or a feature is asked for at two versions.
    """
    found: dict[str, FeatureRef] = {}
    for one in _flat(selection):
        there = found.setdefault(one.name, one)
        if there.version != one.version:
            raise RequestError(f"{one.name!r} is asked for at two versions, {there.version} and {one.version}.")
        columns = None if None in (there.columns, one.columns) else (*(there.columns or ()), *(one.columns or ()))
        found[one.name] = FeatureRef(one.name, columns, one.version)
    return list(found.values())


def misnamed(values: Iterable[object], known: Mapping[str, Feature]) -> list[str]:
    """What sets and references name that does not exist, a line each.

    Columns are looked for in features with windows: of others only a build tells.

    Args:
        values: Sets and references, maybe among other things.
        known: The project's features by name.
    """
    problems: list[str] = []
    for value in values:
        if isinstance(value, FeatureSet | FeatureRef):
            what = f"{type(value).__name__} {value.name!r}"
            for one in references([value]):
                if one.name not in known:
                    problems.append(f"{what}: there is no feature {one.name!r}{did_you_mean(one.name, known)}")
                elif columns := [output.name for output in known[one.name].outputs]:
                    wrong = [column for column in one.columns or () if column not in columns]
                    problems += [
                        f"{what}: feature {one.name!r} has no column {column!r}{did_you_mean(column, columns)}"
                        for column in wrong
                    ]
    return list(dict.fromkeys(problems))


def selected(feature_name: str, schema: Schema, columns: Sequence[str] | None) -> Schema:
    """The columns that are asked for; None: all.

    Raises:
        RequestError: One of them is not there.
    """
    if columns is None:
        return schema
    for column in columns:
        if column not in schema:
            raise RequestError(f"Feature {feature_name!r} has no column {column!r}{did_you_mean(column, schema)}")
    return {column: schema[column] for column in columns}


def named(feature_name: str, columns: Iterable[str], *, prefix: bool) -> dict[str, str]:
    """What the columns of a feature are called beside others.

    >>> named("user_spend", ["amount__sum__7d"], prefix=True)
    {'amount__sum__7d': 'user_spend__amount__sum__7d'}
    """
    return {column: f"{feature_name}__{column}" if prefix else column for column in columns}


def _flat(selection: FeatureSelection) -> list[FeatureRef]:
    if isinstance(selection, str):
        raise RequestError(f"features is a list: write features=[{selection!r}].")
    if isinstance(selection, Mapping):
        return [FeatureRef(name, columns) for name, columns in selection.items()]
    parts = selection.features if isinstance(selection, FeatureSet) else selection
    found: list[FeatureRef] = []
    for part in parts:
        if isinstance(part, FeatureSet):
            found += _flat(part)
        elif isinstance(part, FeatureRef):
            found.append(part)
        elif isinstance(part, Feature):
            found.append(FeatureRef(part.name))
        else:
            # Also refuses what is no text.
            found.append(FeatureRef.parse(part) if isinstance(part, str) else FeatureRef(part))
    return found
