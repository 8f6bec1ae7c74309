"""What a project says about itself: `Definitions.to_dict` and `mlforge list`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import mlforge as mlf
import shop
from command_line import cells, run
from mlforge import Definitions, loader
from mlforge.definition import definition_hash
from mlforge.store import LocalStore

GOLDEN = Path(__file__).parent / "golden" / "project.json"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shop.write()
    return tmp_path


def feature(name: str, source: Any, keys: tuple[str, ...] = ("k",), **more: Any) -> mlf.Feature:
    return mlf.feature(keys=keys, source=source, name=name, **more)(lambda df: df)


def described(*features: mlf.Feature) -> dict[str, Any]:
    return Definitions("p", features=features, store=LocalStore("store")).to_dict()


class Warehouse(mlf.Source):
    def __init__(self, password: str) -> None:
        self.password = password

    def scan(self) -> pl.LazyFrame:
        return pl.LazyFrame({"k": ["a"], "n": [1]})


def test_the_golden_description_holds() -> None:
    defs = loader.find()
    found = defs.to_dict()
    for each in found["features"]:
        # It follows from the versions of Python and Polars as well.
        assert each["definition_hash"] == definition_hash(defs.feature(each["name"]))
        each["definition_hash"] = "32 hex digits"
    assert json.dumps(found, indent=2, ensure_ascii=False) + "\n" == GOLDEN.read_text()


def test_the_same_project_gives_the_same_bytes_in_every_process() -> None:
    program = "import json; from mlforge import loader; print(json.dumps(loader.find().to_dict()))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1
    assert json.loads(texts.pop()) == loader.find().to_dict()


def test_it_is_what_json_gives_back() -> None:
    found = loader.find().to_dict()
    assert json.loads(json.dumps(found)) == found


def test_where_a_feature_stands_in_the_code_makes_no_difference() -> None:
    one, two = feature("one", "b.csv"), feature("two", "a.csv", ("b", "a"))
    assert described(one, two) == described(two, one)
    assert [each["name"] for each in described(two, one)["features"]] == ["one", "two"]
    assert [each["paths"] for each in described(one, two)["sources"]] == [["a.csv"], ["b.csv"]]


def test_nothing_is_read_or_written_for_it(folder: Path) -> None:
    before = sorted(folder.iterdir())
    found = described(feature("gone", "gone.parquet"), feature("away", "s3://nowhere/x.parquet"))
    assert [source["paths"] for source in found["sources"]] == [["gone.parquet"], ["s3://nowhere/x.parquet"]]
    assert sorted(folder.iterdir()) == before


def test_credentials_are_never_in_it() -> None:
    url = "https://ann:s3cret@host/x.parquet"
    signed = "https://host/y.parquet?X-Amz-Signature=s3cret/s3cret&a=b"
    text = json.dumps(described(feature("f", [url, signed]), feature("g", Warehouse("s3cret"))))
    assert "s3cret" not in text
    assert '"https://***@host/x.parquet", "https://host/y.parquet?***"' in text
    assert "s3cret" not in repr(feature("f", [url, signed]))


def test_what_only_looks_like_credentials_is_kept() -> None:
    paths = ["a@b/c?=.csv", "s3://bucket/a@b.parquet", "s3://bucket/year=202?/x=1/*.parquet"]
    assert described(feature("f", paths))["sources"][0]["paths"] == paths


def test_a_source_of_ones_own_is_its_class_and_each_object_one_source() -> None:
    shared = Warehouse("x")
    found = described(feature("a", shared), feature("b", Warehouse("x")), feature("c", shared))
    assert found["sources"] == [
        {"type": "Warehouse", "features": ["a", "c"]},
        {"type": "Warehouse", "features": ["b"]},
    ]


def test_the_same_paths_are_one_source_and_the_same_keys_in_any_order_one_entity() -> None:
    found = described(
        feature("a", "x.csv", ("k", "l")), feature("b", ["x.csv"], ("l", "k")), feature("c", ["x.csv", "y.csv"])
    )
    assert [(source["paths"], source["features"]) for source in found["sources"]] == [
        (["x.csv"], ["a", "b"]),
        (["x.csv", "y.csv"], ["c"]),
    ]
    assert found["entities"] == [{"keys": ["k"], "features": ["c"]}, {"keys": ["k", "l"], "features": ["a", "b"]}]


def test_a_feature_that_reads_another_names_it() -> None:
    base = feature("base", "x.csv", timestamp="t")
    found = described(base, feature("derived", base))
    assert found["features"][1]["source"] == {"feature": "base"}
    assert [source["features"] for source in found["sources"]] == [["base"]]


def test_when_rows_are_known_and_how_long_they_hold_is_described_and_listed() -> None:
    old, late = (
        feature("old", "x.csv", timestamp="t", max_age="3d"),
        feature("late", "x.csv", timestamp="t", available_at="u"),
    )
    found = {each["name"]: (each["max_age"], each["available_at"]) for each in described(old, late)["features"]}
    assert found == {"old": ("3d", None), "late": (None, "u")}
    shop.write(project=shop.PROJECT.replace('timestamp="ts")', 'timestamp="ts", max_age="3d")'))
    assert "  time      ts\n  holds for 3d\n" in run("list").out
    shop.write(project=shop.PROJECT.replace('timestamp="ts")', 'timestamp="ts", available_at="ts2")'))
    assert "  time      ts\n  known at  ts2\n" in run("list").out


def test_a_project_without_features_is_described_too() -> None:
    assert described() == {"format": 1, "name": "p", "sources": [], "entities": [], "features": [], "sets": []}


def test_list_shows_sources_with_what_reads_them_and_whether_they_are_there() -> None:
    Path("prices.csv").unlink()
    lines = run("list sources").out.splitlines()
    assert cells(lines[0]) == ["source", "features", "there"]
    assert cells(lines[2]) == ["events.parquet", "user_spend, last_amount", "yes"]
    assert cells(lines[3])[:2] == ["prices.csv", "prices"]
    assert "The source 'prices.csv' does not exist" in lines[3]
    listed = json.loads(run("list sources --json").out)
    assert [(each["source"], each["there"]) for each in listed] == [(["events.parquet"], True), (["prices.csv"], False)]
    assert listed[0]["problem"] is None


def test_list_does_not_look_at_what_it_would_have_to_read() -> None:
    shop.write(project=shop.PROJECT.replace("events.parquet", "https://ann:s3cret@localhost:1/x.parquet"))
    answer = run("list sources")
    assert cells(answer.out.splitlines()[2]) == [
        *("https://***@localhost:1/x.parquet", "user_spend, last_amount", "not looked at"),
    ]
    assert "s3cret" not in run("list").out + run("list --json").out + run("inspect user_spend").out


def test_list_shows_entities() -> None:
    lines = run("list entities").out.splitlines()
    assert [cells(line) for line in lines[2:]] == [
        ["day, user_id", "prices"],
        ["user_id", "user_spend, last_amount"],
    ]
    assert json.loads(run("list entities --json").out)[0] == {"keys": ["day", "user_id"], "features": ["prices"]}


def test_list_shows_sets() -> None:
    lines = run("list sets").out.splitlines()
    assert [cells(line) for line in lines[2:]] == [["fraud_v3", "user_spend:amount__sum__7d, prices 1.2.0"]]
    (found,) = json.loads(run("list sets --json").out)
    assert found["features"][1] == {"name": "prices", "columns": None, "version": "1.2.0"}


def test_list_alone_is_list_features() -> None:
    assert run("list").out == run("list features").out
    assert run("list --json").out == run("list features --json").out


def test_list_names_every_aggregation_of_a_column_whichever_metric_asks_for_it() -> None:
    more = 'mlf.Rolling(windows=["1d"], aggregations={"amount": ["max"]}), mlf.Rolling('
    shop.write(project=shop.PROJECT.replace("mlf.Rolling(", more, 1))
    assert "  windows   1d, 7d, 30d\n  columns   amount: max, sum, count\n" in run("list").out


@pytest.mark.parametrize("what", ["features", "sources", "entities", "sets"])
def test_of_nothing_there_is_nothing_to_list(what: str) -> None:
    Path("definitions.py").write_text("import mlforge as mlf\ndefs = mlf.Definitions('empty', features=[])")
    assert run(f"list {what}").out == f"empty has no {what}.\n"
    assert json.loads(run(f"list {what} --json").out) == []


def test_what_cannot_be_listed_is_one_line_and_exit_code_2() -> None:
    answer = run("list tables")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert "sources" in answer.err
