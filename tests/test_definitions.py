"""A project's Definitions: what they take, and what they say where something is missing."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import mlforge as mlf
from mlforge import Definitions
from mlforge.online import EmbeddedStore, RedisStore
from mlforge.store import LocalStore


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.parquet"
    pl.DataFrame({"k": ["a", "b"], "n": [1, 2]}).write_parquet(path)
    return path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"store": "feature_store"}, r"store is 'feature_store': write a store, as in LocalStore"),
        (
            {"online_store": "redis://localhost"},
            r"online_store is 'redis://localhost': write a store, as in RedisStore",
        ),
    ],
)
def test_what_is_no_store_is_refused_at_once(arguments: dict[str, str], says: str) -> None:
    with pytest.raises(mlf.DefinitionError, match=says):
        Definitions(features=[], **arguments)  # type: ignore[arg-type]


def test_a_feature_that_is_defined_again_is_the_one_that_is_built(events: Path, tmp_path: Path) -> None:
    # As in a notebook: the module that makes the Definitions defines the feature twice.
    program = (
        "import polars as pl, mlforge as mlf\n"
        "from mlforge.store import LocalStore\n"
        "def define(times):\n"
        "    @mlf.feature(keys=['k'], source=EVENTS)\n"
        "    def f(df):\n"
        "        return df.select('k', pl.col('n') * times)\n"
        "    return f\n"
        "defs = mlf.Definitions(store=LocalStore(STORE))\n"
        "f = define(1)\n"
        "first = defs.build()\n"
        "f = define(2)\n"
        "second = defs.build()\n"
    )
    module: dict[str, object] = {"__name__": "notebook", "EVENTS": str(events), "STORE": str(tmp_path / "store")}
    exec(program, module)
    (first,), (second,) = module["first"], module["second"]  # type: ignore[misc,has-type]
    assert (first.outcome, second.outcome, second.version) == ("built", "built", "1.1.0")  # type: ignore[attr-defined]


def test_building_a_project_without_features_is_an_error_that_says_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(mlf.RequestError, match="'empty' has no features to build: write"):
        Definitions(name="empty", features=[], store=LocalStore(tmp_path)).build()


def test_no_entities_are_an_empty_frame_and_one_entity_is_no_list(
    events: Path, tmp_path: Path, redis_store: RedisStore
) -> None:
    @mlf.feature(keys=["k"], source=events)
    def f(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    defs = Definitions(features=[f], store=LocalStore(tmp_path / "store"), online_store=redis_store)
    defs.build(online=True)
    assert defs.get_online_features(["f"], []).schema == {"k": pl.String, "n": pl.Int64}
    with pytest.raises(mlf.RequestError, match=r"entities is a list: write \[\{'k': 'a'\}\]"):
        defs.get_online_features(["f"], {"k": "a"})  # type: ignore[arg-type]


def test_an_embedded_store_has_no_url() -> None:
    with pytest.raises(mlf.DefinitionError, match="has a folder, not a URL"):
        EmbeddedStore.from_url("redis://localhost")


def test_the_name_of_a_set_is_no_feature_and_a_set_is_no_list_of_names(events: Path, tmp_path: Path) -> None:
    program = (
        "import mlforge as mlf\n"
        "from mlforge.store import LocalStore\n"
        "f = mlf.feature(keys=['k'], source=EVENTS, name='f')(lambda df: df)\n"
        "defs = mlf.Definitions(store=LocalStore(STORE))\n"
        "fraud_v1 = mlf.FeatureSet('fraud', ['f:n'])\n"
    )
    module: dict[str, Any] = {"__name__": "project", "EVENTS": str(events), "STORE": str(tmp_path / "store")}
    exec(program, module)
    defs = module["defs"]
    defs.build()
    labels = pl.DataFrame({"k": ["a"]})
    for name in ("fraud_v1", "fraud"):
        with pytest.raises(mlf.RequestError, match=rf"'{name}' is a FeatureSet, .*, write fraud_v1 without quotes"):
            defs.get_training_data([name], labels)
        with pytest.raises(mlf.RequestError, match=rf"'{name}' is a FeatureSet"):
            defs.build([name])
    assert defs.get_training_data([module["fraud_v1"]], labels)["n"].to_list() == [1]
    for ask in (defs.build, defs.validate):
        with pytest.raises(mlf.RequestError, match=r"The FeatureSet 'fraud' is for .*: write features=\['f'\]"):
            ask(module["fraud_v1"])
