"""The definition hash: what changes it, and what does not."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

import mlforge as mlf
from mlforge.definition import definition_hash

PROJECT = '''
import functools

import mlforge as mlf
import polars as pl

LIMIT = 100
MOST = 3
NAMES = {"b", "a", "c"}
AMOUNT = pl.col("amount") * 2
STEPS = {"double": lambda df: df.with_columns(pl.col("amount") * 2)}
TABLE = pl.DataFrame({"a": [1]})
UNUSED = 1


class Settings:
    days = 30


def helper(df):
    return inner(df)


def inner(df):
    return df.filter(pl.col("amount") > 0)


def doubled(function):
    @functools.wraps(function)
    def wrapper(df):
        return function(df.with_columns(pl.col("amount") * 2))
    return wrapper


@functools.cache
def rate():
    return 0.5


@mlf.feature(
    keys=["user_id"], source="x.parquet", timestamp="ts", interval="1d",
    metrics=[mlf.Rolling(windows=["7d"], aggregations={"amount": ["sum"]})],
    checks={"positive": pl.col("amount") > 0}, description="d", tags=["t"], owners=["o"],
)
@doubled
def spend(df, days=LIMIT):
    """Docs."""
    df = STEPS["double"](helper(df)).filter(pl.col("name").is_in([n for n in NAMES]))
    df = df.filter(pl.col("days") < Settings.days).join(TABLE.lazy(), on="a")
    return df.select("user_id", "ts", AMOUNT * rate() + len([x for x in range(3) if x < MOST]))
'''


def hash_of(source: str, folder: Path, *, with_source: bool = True) -> str:
    module = ModuleType("project")
    file = folder / f"project{len(list(folder.iterdir()))}.py"
    file.write_text(source)
    exec(compile(source, str(file) if with_source else "<string>", "exec"), vars(module))
    return definition_hash(module.spend)


@pytest.mark.parametrize("with_source", [True, False])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"user_id", "ts", AMOUNT', '"user_id", "ts", "other", AMOUNT'),
        ("return inner(df)", "return inner(df).head(3)"),
        ('pl.col("amount") > 0)\n\n\ndef', 'pl.col("amount") > 1)\n\n\ndef'),
        ("LIMIT = 100", "LIMIT = 101"),
        ('"c"}', '"d"}'),
        ('AMOUNT = pl.col("amount") * 2', 'AMOUNT = pl.col("amount") * 3'),
        ('lambda df: df.with_columns(pl.col("amount") * 2)', 'lambda df: df.with_columns(pl.col("amount") * 3)'),
        ('"a": [1]', '"a": [2]'),
        ("days = 30", "days = 31"),
        ('function(df.with_columns(pl.col("amount") * 2))', 'function(df.with_columns(pl.col("amount") * 3))'),
        ("return 0.5", "return 0.6"),
        ("days=LIMIT", "days=5"),
        ("x < MOST", "x > MOST"),
        ("MOST = 3", "MOST = 4"),
        ('keys=["user_id"]', 'keys=["user"]'),
        ('timestamp="ts"', 'timestamp="at"'),
        ('interval="1d"', 'interval="1h"'),
        ('interval="1d",', ""),
        ('windows=["7d"]', 'windows=["7d", "30d"]'),
        ('["sum"]', '["mean"]'),
        ('"positive": pl.col("amount") > 0', '"positive": pl.col("amount") >= 0'),
        ('"positive":', '"not negative":'),
        ('pl.col("amount") > 0}', 'mlf.Check(pl.col("amount") > 0, severity="warn")}'),
    ],
)
def test_the_hash_changes_with_what_the_feature_computes(
    before: str, after: str, with_source: bool, tmp_path: Path
) -> None:
    assert PROJECT.count(before) == 1, before
    old = hash_of(PROJECT, tmp_path, with_source=with_source)
    assert hash_of(PROJECT.replace(before, after), tmp_path, with_source=with_source) != old


@pytest.mark.parametrize("with_source", [True, False])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""Docs."""', '"""Other docs."""'),
        ("UNUSED = 1", "UNUSED = 2"),
        ('description="d", tags=["t"], owners=["o"]', 'description="e", tags=["u"], owners=["p"]'),
        ('source="x.parquet"', 'source="y.parquet"'),
        ("    return df.select(", "    # A comment.\n\n    return df.select("),
        ('df.select("user_id", "ts", ', "df.select(\n        \"user_id\",\n        'ts',\n        "),
        ('{"b", "a", "c"}', '{"c", "b", "a"}'),
        ("LIMIT = 100", "\n\n\nLIMIT = 100"),
    ],
)
def test_the_hash_does_not_change_with_what_makes_no_difference(
    before: str, after: str, with_source: bool, tmp_path: Path
) -> None:
    assert PROJECT.count(before) == 1, before
    old = hash_of(PROJECT, tmp_path, with_source=with_source)
    assert hash_of(PROJECT.replace(before, after), tmp_path, with_source=with_source) == old


def test_a_docstring_can_come_and_go(tmp_path: Path) -> None:
    assert hash_of(PROJECT.replace('    """Docs."""\n', ""), tmp_path) == hash_of(PROJECT, tmp_path)


def test_the_hash_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(PROJECT)
    without_source = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import project
from mlforge.definition import definition_hash
text = {PROJECT!r}
names = {{"__name__": "made"}}
exec(text, names)
print(definition_hash(project.spend), definition_hash(names["spend"]))
"""
    seen = set()
    for seed in ("0", "1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", without_source], env=environment, capture_output=True, text=True, check=True
        )
        seen.add(done.stdout)
    assert len(seen) == 1


def feature(function: Any, **changes: Any) -> mlf.Feature:
    return mlf.feature(**{"keys": ["k"], "source": "x.parquet", "name": "f", **changes})(function)


def test_lambdas_differ_by_what_they_do() -> None:
    one, same = feature(lambda df: df.head(1)), feature(lambda df: df.head(1))
    two = feature(lambda df: df.head(2))
    assert definition_hash(one) == definition_hash(same) != definition_hash(two)


def test_a_set_in_a_lambda_is_the_same_in_every_order() -> None:
    program = """
import mlforge as mlf
from mlforge.definition import definition_hash
made = mlf.feature(keys=["k"], source="x.parquet", name="f")(lambda df: df if df in {"a", "b", "c"} else None)
print(definition_hash(made))
"""
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    ]
    assert runs[0] == runs[1] != ""


def test_closures_differ_by_what_they_close_over() -> None:
    def make(days: Any) -> mlf.Feature:
        def nested(df: pl.LazyFrame) -> pl.LazyFrame:
            return df.filter(pl.col("days") < days)

        return feature(nested)

    assert definition_hash(make(7)) == definition_hash(make(7)) != definition_hash(make(8))
    assert (
        definition_hash(make(pl.col("a"))) == definition_hash(make(pl.col("a"))) != definition_hash(make(pl.col("b")))
    )
    assert (
        definition_hash(make([{"a": {1}}]))
        == definition_hash(make([{"a": {1}}]))
        != definition_hash(make([{"a": {2}}]))
    )


def test_functions_made_in_a_loop_differ_by_their_defaults() -> None:
    made = []
    for number in (1, 2):

        def limited(df: pl.LazyFrame, number: int = number) -> pl.LazyFrame:
            return df.head(number)

        made.append(definition_hash(feature(limited)))
    assert made[0] != made[1]


def test_a_function_may_name_what_is_not_there_yet() -> None:
    def early(df: pl.LazyFrame) -> pl.LazyFrame:
        return later(df)

    assert definition_hash(feature(early))

    def later(df: pl.LazyFrame) -> pl.LazyFrame:
        return early(df)

    assert definition_hash(feature(early))


def test_what_a_callable_object_holds_counts() -> None:
    class Limited:
        def __init__(self, number: int) -> None:
            self.number = number

        def __call__(self, df: pl.LazyFrame) -> pl.LazyFrame:
            return df.head(self.number)

    def head(df: pl.LazyFrame, number: int) -> pl.LazyFrame:
        return df.head(number)

    for make in (Limited, lambda n: Limited(n).__call__, lambda n: functools.partial(head, number=n)):
        assert definition_hash(feature(make(1))) == definition_hash(feature(make(1)))
        assert definition_hash(feature(make(1))) != definition_hash(feature(make(2)))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (pl.col("a").is_in(["x", "y"]), pl.col("a").is_in(["x", "z"])),
        (pl.col("a").is_in(list(range(100))), pl.col("a").is_in([*range(50), 77, *range(51, 100)])),
        (pl.lit(pl.Series([1, 2])), pl.lit(pl.Series([1, 3]))),
        (pl.col("a") > 0.1, pl.col("a") > 0.1 + 1e-16),
        (pl.col("a").str.contains("x"), pl.col("a").str.contains("y")),
    ],
)
def test_checks_differ_by_every_value_in_their_expressions(one: pl.Expr, two: pl.Expr) -> None:
    def same(df: pl.LazyFrame) -> pl.LazyFrame:
        return df

    hashes = [definition_hash(feature(same, checks={"c": expression})) for expression in (one, one, two)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_check_with_a_python_function_has_a_stable_hash() -> None:
    def made() -> mlf.Feature:
        condition = pl.col("a").map_batches(lambda values: values.is_not_null(), return_dtype=pl.Boolean)
        return feature(lambda df: df, checks={"c": condition})

    assert definition_hash(made()) == definition_hash(made())


def test_the_hash_is_32_hex_digits() -> None:
    made = definition_hash(feature(lambda df: df))
    assert len(made) == 32
    int(made, 16)
