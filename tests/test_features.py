"""Definitions: what `mlf.feature`, `Rolling` and `Definitions` take, and how they refuse the rest."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

import mlforge as mlf
from command_line import Cli
from mlforge import Definitions
from mlforge.errors import DefinitionError, MlforgeError, RequestError
from mlforge.store import LocalStore


def spend(df: pl.LazyFrame) -> pl.LazyFrame:
    """What a user spends.

    And more.
    """
    return df.select("user_id", "ts", "amount")


SUM = mlf.Rolling(windows=["7d"], aggregations={"amount": ["sum"]})
WINDOWED: dict[str, Any] = {"keys": ["user_id"], "source": "x.parquet", "timestamp": "ts", "metrics": [SUM]}


def define(**changes: Any) -> mlf.Feature:
    return mlf.feature(**{**WINDOWED, **changes})(spend)


def test_a_feature_is_named_and_described_by_its_function() -> None:
    feature = define(interval="1d", tags=["users"], owners=["team:risk"])
    assert (feature.name, feature.description) == ("spend", "What a user spends.\n\n    And more.")
    assert (feature.keys, feature.timestamp, feature.interval) == (("user_id",), "ts", "1d")
    assert (feature.tags, feature.owners) == (("users",), ("team:risk",))
    assert define(name="other", description="").name == "other"
    assert define(description="").description == ""


def test_a_feature_can_be_called_like_its_function() -> None:
    frame = pl.LazyFrame({"user_id": ["a"], "ts": [1], "amount": [2.0], "more": [3]})
    assert define()(frame).lazy().collect().columns == ["user_id", "ts", "amount"]


def test_a_feature_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        define().name = "other"  # type: ignore[misc]


def test_the_columns_of_metrics_are_by_column_then_aggregation_then_window() -> None:
    metric = mlf.Rolling(windows=["7d", "30d"], aggregations={"b": ["sum", "count"], "a": ["mean"]})
    assert metric.columns == [
        "b__sum__7d",
        "b__sum__30d",
        "b__count__7d",
        "b__count__30d",
        "a__mean__7d",
        "a__mean__30d",
    ]
    two = define(metrics=[metric, SUM])
    assert [output.name for output in two.outputs] == [*metric.columns, "amount__sum__7d"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"keys": []}, "Feature 'spend': keys names one or more different columns, not []"),
        ({"keys": ["a", "a"]}, "Feature 'spend': keys names one or more different columns, not ['a', 'a']"),
        ({"keys": "user_id"}, "keys is a list: write keys=['user_id']"),
        ({"keys": [7]}, "Feature 'spend': 7 is no column name"),
        ({"keys": [""]}, "Feature 'spend': '' is no column name"),
        ({"keys": ["mlforge_month"]}, "Feature 'spend': 'mlforge_month' is no column name"),
        ({"timestamp": "user_id"}, "Feature 'spend': 'user_id' is both a key and the timestamp"),
        ({"timestamp": ""}, "Feature 'spend': '' is no column name"),
        ({"timestamp": None}, "Feature 'spend': metrics need event times: say timestamp=..."),
        ({"metrics": SUM}, "metrics is a list"),
        ({"metrics": ["sum"]}, "Feature 'spend': a metric is an mlf.Rolling, not 'sum'"),
        ({"metrics": [SUM, SUM]}, "Feature 'spend': the column 'amount__sum__7d' would be there twice"),
        ({"keys": ["amount__sum__7d"]}, "Feature 'spend': the column 'amount__sum__7d' would be there twice"),
        ({"interval": "1mo"}, "Feature 'spend': interval: '1mo' is not a duration"),
        ({"interval": "0d"}, "Feature 'spend': interval: '0d' is not a duration"),
        ({"interval": "1d", "metrics": []}, "Feature 'spend': an interval is about windows"),
        ({"tags": "users"}, "tags is a list: write tags=['users']"),
        ({"owners": "me"}, "owners is a list: write owners=['me']"),
        ({"checks": [pl.col("amount") > 0]}, "checks is a dict"),
        ({"checks": {"positive": True}}, "A check is a Polars expression such as pl.col('amount') >= 0, not True"),
        ({"name": "user-spend"}, "Feature 'user-spend': a name is letters, digits and underscores"),
        ({"name": "_spend"}, "Feature '_spend': a name is letters"),
        ({"name": "7d"}, "Feature '7d': a name is letters"),
        ({"name": "späße"}, "Feature 'späße': a name is letters"),
        ({"name": "a\n"}, "Feature 'a\\n': a name is letters"),
        ({"name": ""}, "Feature '': a name is letters"),
        ({"name": 7}, "Feature 7: a name is letters"),
        ({"source": []}, "A source is a path, a glob, a URL, or a list of them, not []"),
        ({"source": 7}, "A source is a path, a glob, a URL, a list of them, or an mlf.Source, not 7"),
        ({"source": None}, "A source is a path"),
        ({"source": ""}, "A source is a path"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_defined(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        define(**changes)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"windows": [], "aggregations": {"a": ["sum"]}}, "at least one window"),
        ({"windows": ["7d"], "aggregations": {}}, "at least one window and one aggregated column"),
        ({"windows": ["7d"], "aggregations": {"a": []}}, "Column 'a' has no aggregations"),
        ({"windows": "7d", "aggregations": {"a": ["sum"]}}, "windows is a list: write windows=['7d']"),
        ({"windows": ["7d"], "aggregations": {"a": "sum"}}, "The aggregations of 'a' are a list: write ['sum']"),
        ({"windows": ["7d"], "aggregations": ["sum"]}, "aggregations is a dict"),
        ({"windows": ["7days"], "aggregations": {"a": ["sum"]}}, "'7days' is not a duration"),
        ({"windows": ["1mo"], "aggregations": {"a": ["sum"]}}, "Calendar months"),
        (
            {"windows": ["7d"], "aggregations": {"a": ["avg"]}},
            "'avg' is not an aggregation (column 'a'); known: 'count',",
        ),
        ({"windows": ["7d"], "aggregations": {"a": ["summ"]}}, "did you mean 'sum'?"),
        ({"windows": ["7d"], "aggregations": {"a": [None]}}, "None is not an aggregation"),
        ({"windows": ["7d", "7d"], "aggregations": {"a": ["sum"]}}, "makes a__sum__7d twice"),
        ({"windows": ["7d"], "aggregations": {"a": ["sum", "sum"]}}, "makes a__sum__7d twice"),
    ],
)
def test_what_no_rolling_can_be_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        mlf.Rolling(**arguments)
    assert says in str(caught.value)


@pytest.mark.parametrize("thing", [7, "spend", None])
def test_only_a_function_can_be_a_feature(thing: Any) -> None:
    with pytest.raises(DefinitionError, match=r"@mlf\.feature goes on a function, not on"):
        mlf.feature(**WINDOWED)(thing)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: mlf.feature(spend), "Write @mlf.feature(keys=[...], source=...): a feature has at least these two."),
        (lambda: mlf.feature("user_id", source="x"), "Write @mlf.feature(keys=[...], source=...): a feature has at"),
        (lambda: mlf.feature(), "@mlf.feature needs keys: write @mlf.feature(keys=[...], source=...)."),
        (lambda: mlf.feature(keys=["a"]), "@mlf.feature needs source: write @mlf.feature(keys=[...], source=...)."),
        (lambda: mlf.feature(keys=["a"], sorce="x"), "@mlf.feature has no 'sorce'; did you mean 'source'?"),
        (lambda: define(metric=[SUM]), "@mlf.feature has no 'metric'; did you mean 'metrics'?"),
    ],
)
def test_a_decorator_that_is_called_with_something_else_says_what_it_takes(make: Any, says: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        make()
    assert str(caught.value).startswith(says)


def test_a_decorator_without_parentheses_is_one_line_of_the_command_line(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "definitions.py"
    file.write_text("import mlforge as mlf\n@mlf.feature\ndef f(df):\n    return df\n")
    answer = cli(f"list --definitions {file}")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == (
        "mlforge: Write @mlf.feature(keys=[...], source=...): a feature has at least these two. "
        f"This happened while loading {str(file)!r}, line 2.\n"
    )


def test_a_feature_cannot_be_decorated_again() -> None:
    with pytest.raises(DefinitionError, match=r"@mlf\.feature goes on a function, not on"):
        mlf.feature(**WINDOWED)(define())


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(DefinitionError, match="Feature '<lambda>': a name is letters"):
        mlf.feature(**WINDOWED)(lambda df: df)
    assert mlf.feature(**WINDOWED, name="fine")(lambda df: df).name == "fine"


def test_two_features_of_one_name_are_refused(tmp_path: Path) -> None:
    definitions = Definitions(features=[define(), define()], store=LocalStore(tmp_path))
    with pytest.raises(DefinitionError, match="Two features are called 'spend': rename one of them"):
        definitions.build()
    assert list(tmp_path.iterdir()) == []


def test_one_feature_named_twice_is_there_once() -> None:
    feature = define()
    module = ModuleType("features")
    module.one = module.two = feature  # type: ignore[attr-defined]
    assert list(Definitions(features=[feature, module, feature]).features.values()) == [feature]


def test_modules_stand_for_their_features_in_the_order_of_definition() -> None:
    module = ModuleType("features")
    first, second = define(name="z"), define(name="a")
    vars(module).update({"z": first, "number": 7, "a": second, "mlf": mlf})
    assert list(Definitions(features=[define(name="m"), module]).features) == ["m", "z", "a"]


@pytest.mark.parametrize("part", [spend, "spend", 7, {}])
def test_what_is_neither_feature_nor_module_is_refused(part: Any) -> None:
    with pytest.raises(DefinitionError, match="which is neither a feature nor a module: use @mlf"):
        Definitions(features=[part])


@pytest.mark.parametrize("part", [define(), sys])
def test_a_single_feature_outside_a_list_is_refused(part: Any) -> None:
    with pytest.raises(DefinitionError, match="features is a list"):
        Definitions(features=part)


CALLING_MODULE = """
import mlforge as mlf
from mlforge import Definitions

@mlf.feature(keys=["k"], source="x.parquet")
def above(df):
    return df

defs = Definitions()

@mlf.feature(keys=["k"], source="x.parquet")
def below(df):
    return df
"""


def test_left_out_features_are_those_of_the_calling_module_also_below() -> None:
    module = ModuleType("project")
    exec(CALLING_MODULE, vars(module))
    assert list(module.defs.features) == ["above", "below"]


def test_an_unknown_feature_is_an_error_with_the_nearest_name() -> None:
    definitions = Definitions(features=[define(name="user_spend"), define(name="store_sales")])
    with pytest.raises(RequestError) as caught:
        definitions.build(["user_spent"])
    assert str(caught.value) == "There is no feature 'user_spent'; did you mean 'user_spend'?"
    with pytest.raises(RequestError) as caught:
        definitions.feature("zzz")
    assert str(caught.value) == "There is no feature 'zzz'; known: 'store_sales', 'user_spend'."
    with pytest.raises(RequestError, match="There is no feature 'x'; there are none"):
        Definitions(features=[]).build(["x"])


def test_names_are_a_list_of_texts() -> None:
    definitions = Definitions(features=[define()])
    with pytest.raises(RequestError, match=r"features is a list: write features=\['spend'\]"):
        definitions.build("spend")
    with pytest.raises(RequestError, match="is no name of a feature: write it as text"):
        definitions.build([define()])  # type: ignore[list-item]


def test_an_online_build_without_an_online_store_builds_nothing(tmp_path: Path) -> None:
    definitions = Definitions(features=[define()], store=LocalStore(tmp_path))
    with pytest.raises(RequestError, match="There is no online store"):
        definitions.build(online=True)
    with pytest.raises(RequestError, match="There is no online store"):
        definitions.get_online_features(["spend"], [{"user_id": "a"}])
    assert list(tmp_path.iterdir()) == []


def test_a_project_is_named_after_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Definitions(features=[]).name == tmp_path.name
    assert Definitions("shop", features=[]).name == "shop"


@pytest.mark.parametrize("as_of", ["yesterday", 7, ""])
def test_what_is_no_instant_is_refused(as_of: Any) -> None:
    with pytest.raises(RequestError, match="is no instant"):
        Definitions(features=[], as_of=as_of)


def test_every_error_has_one_base() -> None:
    kinds = [mlf.DefinitionError, mlf.RequestError, mlf.DataError, mlf.CheckFailedError, mlf.StoreError]
    assert all(issubclass(kind, MlforgeError) for kind in kinds)
    assert issubclass(mlf.CheckFailedError, mlf.DataError)
