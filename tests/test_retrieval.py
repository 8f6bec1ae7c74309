"""Training sets: for every label the values that held at its time."""

import itertools
import pickle
import random
import re
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlforge as mlf
from mlforge import Definitions
from mlforge.errors import DataError, DefinitionError, RequestError
from mlforge.store import LocalStore
from oracle import agrees, value_at, value_of_snapshot, value_of_timestamped

DAY = timedelta(1)
TICK = timedelta(microseconds=1)
START = datetime(2026, 3, 1, tzinfo=UTC)
EVENTS = pl.DataFrame(
    {
        "user_id": ["a", "a", "b"],
        "ts": [START + timedelta(hours=12), START + timedelta(days=2, hours=6), START + timedelta(hours=13)],
        "amount": [1.0, 2.0, 4.0],
    }
)
SPEND: dict[str, Any] = {
    "timestamp": "ts",
    "interval": "1d",
    "metrics": [mlf.Rolling(windows=["7d"], aggregations={"amount": ["sum"]})],
}


class Frame(mlf.Source):
    """A frame in memory."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def scan(self) -> pl.LazyFrame:
        return self.frame.lazy()


def same(df: pl.LazyFrame) -> pl.LazyFrame:
    return df


def feature(name: str, frame: pl.DataFrame, keys: Sequence[str] = ("user_id",), **arguments: Any) -> mlf.Feature:
    return mlf.feature(keys=list(keys), source=Frame(frame), name=name, **arguments)(same)


Make = Callable[..., Definitions]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Definitions with features that are built."""

    def made(*features: mlf.Feature, **arguments: Any) -> Definitions:
        definitions = Definitions(features=features, store=LocalStore(tmp_path / "store"), **arguments)
        definitions.build()
        return definitions

    return made


def labels(users: Any, times: Any, **more: Any) -> pl.DataFrame:
    return pl.DataFrame({"user_id": users, "label_time": times, **more})


def spend_at(definitions: Definitions, user: str, *times: Any) -> list[float | None]:
    frame = definitions.get_training_data(["spend"], labels([user] * len(times), list(times)), timestamp="label_time")
    return frame["amount__sum__7d"].to_list()


def test_a_value_holds_from_its_change_point_on_and_not_a_microsecond_before(make: Make) -> None:
    definitions = make(feature("spend", EVENTS, **SPEND))
    points = [(START + DAY, 1.0), (START + 3 * DAY, 3.0), (START + 8 * DAY, 2.0), (START + 10 * DAY, 0.0)]
    before: float | None = None
    for at, value in points:
        assert spend_at(definitions, "a", at - TICK, at, at + TICK) == [before, value, value]
        before = value
    assert spend_at(definitions, "a", datetime(2199, 1, 1, tzinfo=UTC)) == [0.0]


def test_a_timestamped_value_holds_from_its_own_instant_on(make: Make) -> None:
    definitions = make(feature("latest", EVENTS, timestamp="ts"))
    first, second = EVENTS["ts"][0], EVENTS["ts"][1]
    times = [first - TICK, first, second - TICK, second, second + 1000 * DAY]
    frame = definitions.get_training_data(["latest"], labels(["a"] * 5, times), timestamp="label_time")
    assert frame["amount"].to_list() == [None, 1.0, 1.0, 2.0, 2.0]


def test_of_rows_at_one_instant_the_newest_by_value_is_taken(make: Make) -> None:
    frame = pl.DataFrame({"user_id": ["a"] * 3, "ts": [START] * 3, "x": [1, 3, None], "y": [9, 1, 99]})
    definitions = make(feature("latest", frame, timestamp="ts"))
    found = definitions.get_training_data(["latest"], labels(["a"], [START]), timestamp="label_time")
    assert found.select("x", "y").rows() == [(3, 1)]


def test_a_snapshot_is_the_same_at_every_time(make: Make) -> None:
    definitions = make(feature("user", pl.DataFrame({"user_id": ["a", "b"], "city": ["x", None]})))
    asked = labels(["b", "a", "c", "a"], [datetime(1900, 1, 1), START, START, datetime(2200, 1, 1)])
    frame = definitions.get_training_data(["user"], asked, timestamp="label_time")
    assert frame["city"].to_list() == [None, "x", None, "x"]


def test_labels_keep_their_order_their_duplicates_and_their_columns(make: Make) -> None:
    definitions = make(feature("spend", EVENTS, **SPEND))
    late, early = START + 9 * DAY, START + DAY
    asked = labels(
        ["b", "a", "b", "a", "a"], [late, late, early, early, late], extra=[[1], None, [3], [4], [5]], n=range(5)
    )
    frame = definitions.get_training_data(["spend"], asked, timestamp="label_time")
    assert frame.drop("amount__sum__7d").equals(asked)
    assert frame["amount__sum__7d"].to_list() == [0.0, 2.0, 4.0, 1.0, 2.0]
    assert asked.columns == ["user_id", "label_time", "extra", "n"]


def test_unknown_entities_and_null_keys_and_times_are_all_null(make: Make) -> None:
    definitions = make(feature("spend", EVENTS, **SPEND), feature("user", EVENTS.group_by("user_id").len("n")))
    asked = labels(["zzz", None, "a", "a"], [START + DAY, START + DAY, None, START + DAY])
    frame = definitions.get_training_data(["spend", "user"], asked, timestamp="label_time")
    assert frame["amount__sum__7d"].to_list() == [None, None, None, 1.0]
    assert frame["n"].to_list()[:2] == [None, None]
    assert frame["n"].to_list()[3] == 2


def test_no_labels_give_no_rows_with_all_columns(make: Make) -> None:
    definitions = make(feature("spend", EVENTS, **SPEND))
    frame = definitions.get_training_data(
        ["spend"], labels([], []).cast({"user_id": pl.String, "label_time": pl.Datetime("us")}), timestamp="label_time"
    )
    assert frame.shape == (0, 3)
    assert frame.schema["amount__sum__7d"] == pl.Float64


def test_keys_without_any_value_are_null(make: Make) -> None:
    definitions = make(feature("spend", EVENTS, **SPEND))
    frame = definitions.get_training_data(["spend"], labels([None, None], [START, START]), timestamp="label_time")
    assert frame["amount__sum__7d"].to_list() == [None, None]


@pytest.mark.parametrize("stored", [pl.Int8, pl.Int64, pl.UInt64, pl.String])
@pytest.mark.parametrize("asked", [pl.Int8, pl.Int32, pl.Int64, pl.UInt64, pl.String, pl.Categorical])
def test_an_entity_is_its_text_whatever_the_dtypes(stored: Any, asked: Any, make: Make) -> None:
    rows = pl.DataFrame({"user_id": ["1", "12", "3"], "n": [1, 12, 3]})
    keys = rows["user_id"] if stored == pl.String else rows["n"].cast(stored)
    wanted = pl.Series(["12", "1", "7"])
    if asked != pl.String:
        wanted = wanted.cast(asked)
    definitions = make(feature("user", rows.with_columns(user_id=keys)))
    frame = definitions.get_training_data(["user"], pl.DataFrame({"user_id": wanted}))
    assert frame["n"].to_list() == [12, 1, None]
    assert frame.schema["user_id"] == asked


def test_text_that_only_looks_like_the_number_is_another_entity(make: Make) -> None:
    definitions = make(feature("user", pl.DataFrame({"user_id": [1, 2], "n": [1, 2]})))
    frame = definitions.get_training_data(["user"], pl.DataFrame({"user_id": ["01", "1 ", "1.0", "+1", "1"]}))
    assert frame["n"].to_list() == [None, None, None, None, 1]


def test_a_number_beyond_int64_is_no_entity(make: Make) -> None:
    definitions = make(feature("user", pl.DataFrame({"user_id": [-1], "n": [1]})))
    big = pl.Series([2**64 - 1, 5], dtype=pl.UInt64)
    assert definitions.get_training_data(["user"], pl.DataFrame({"user_id": big}))["n"].to_list() == [None, None]


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        (pl.Series([date(2026, 1, 2)]), pl.Series(["2026-01-02"])),
        (pl.Series([True]), pl.Series(["true"])),
        (pl.Series([START]), pl.Series(["2026-03-01T00:00:00.000000Z"])),
        (pl.Series([START]), pl.Series([START]).cast(pl.Datetime("ns", "UTC")).dt.convert_time_zone("Asia/Kolkata")),
        (pl.Series([START]), pl.Series([START.replace(tzinfo=None)])),
    ],
)
def test_dates_booleans_and_datetimes_are_keys_too(stored: pl.Series, asked: pl.Series, make: Make) -> None:
    definitions = make(feature("user", pl.DataFrame({"user_id": stored, "n": [1]})))
    assert definitions.get_training_data(["user"], pl.DataFrame({"user_id": asked}))["n"].to_list() == [1]
    assert definitions.get_training_data(["user"], pl.DataFrame({"user_id": stored}))["n"].to_list() == [1]


def test_composite_keys_are_all_used(make: Make) -> None:
    rows = pl.DataFrame({"shop": ["x", "x", "y"], "user_id": [1, 2, 1], "n": [10, 20, 30]})
    definitions = make(feature("visits", rows, keys=["user_id", "shop"]))
    asked = pl.DataFrame({"user_id": ["1", "1", "2", "2", "1"], "shop": ["x", "y", "x", "y", None]})
    assert definitions.get_training_data(["visits"], asked)["n"].to_list() == [10, 30, 20, None, None]


def test_several_features_with_different_keys_at_once(make: Make) -> None:
    shops = pl.DataFrame({"shop": ["x", "y"], "size": [1, 2]})
    latest = EVENTS.rename({"amount": "latest"})
    definitions = make(
        feature("spend", EVENTS, **SPEND),
        feature("shops", shops, keys=["shop"]),
        feature("last", latest, timestamp="ts"),
    )
    asked = labels(["b", "a"], [START + DAY, START + 3 * DAY], shop=["y", "x"])
    frame = definitions.get_training_data(["shops", "last", "spend"], asked, timestamp="label_time")
    assert frame.columns == ["user_id", "label_time", "shop", "size", "latest", "amount__sum__7d"]
    assert frame.select("size", "latest", "amount__sum__7d").rows() == [(2, 4.0, 4.0), (1, 2.0, 3.0)]


def test_columns_can_be_chosen(make: Make) -> None:
    definitions = make(feature("user", pl.DataFrame({"user_id": ["a"], "x": [1], "y": [2]})))
    asked = pl.DataFrame({"user_id": ["a"]})
    assert definitions.get_training_data({"user": ["y"]}, asked).columns == ["user_id", "y"]
    assert definitions.get_training_data({"user": ["y", "x"]}, asked).columns == ["user_id", "y", "x"]
    assert definitions.get_training_data({"user": None}, asked).columns == ["user_id", "x", "y"]
    with pytest.raises(RequestError, match="Feature 'user' has no column 'z'; known: 'x', 'y'"):
        definitions.get_training_data({"user": ["z"]}, asked)


def test_single_columns_are_named_with_their_feature(make: Make) -> None:
    rows = pl.DataFrame({"user_id": ["a"], "x": [1], "y": [2]})
    definitions = make(feature("user", rows), feature("other", rows.rename({"x": "p", "y": "q"})))
    asked = pl.DataFrame({"user_id": ["a"]})
    for selection, columns in (
        (["user:y"], ["y"]),
        (["user:y", "other", "user:x"], ["y", "x", "p", "q"]),
        (["other:q", "user"], ["q", "x", "y"]),
        (["user:y", "user"], ["x", "y"]),
    ):
        assert definitions.get_training_data(selection, asked).columns == ["user_id", *columns]
    with pytest.raises(RequestError, match="Feature 'user' has no column 'z'; known: 'x', 'y'"):
        definitions.get_training_data(["user:z"], asked)
    with pytest.raises(RequestError, match="There is no feature 'usr'; did you mean 'user'"):
        definitions.get_training_data(["usr:x"], asked)


@pytest.mark.parametrize(
    "times",
    [
        pl.Series([START + DAY]),
        pl.Series([datetime(2026, 3, 2)]),
        pl.Series([datetime(2026, 3, 2)]).cast(pl.Datetime("ms")),
        pl.Series([datetime(2026, 3, 2)]).cast(pl.Datetime("ns")),
        pl.Series([START + DAY]).dt.convert_time_zone("America/New_York"),
        pl.Series([datetime(2026, 3, 2, 5, 30)]).dt.replace_time_zone("Asia/Kolkata"),
        pl.Series([date(2026, 3, 2)]),
    ],
)
def test_label_times_are_instants_of_every_kind(times: pl.Series, make: Make) -> None:
    definitions = make(feature("spend", EVENTS, **SPEND))
    for asked, value in ((times, 1.0), (times.dt.offset_by("-1d"), None)):
        frame = definitions.get_training_data(["spend"], labels(["a"], asked), timestamp="label_time")
        assert frame["amount__sum__7d"].to_list() == [value]
        assert frame.schema["label_time"] == times.dtype


def test_a_nanosecond_before_a_change_point_is_before_it(make: Make) -> None:
    definitions = make(feature("spend", EVENTS, **SPEND))
    at = pl.Series([START + DAY]).cast(pl.Datetime("ns", "UTC")).to_physical()[0]
    times = pl.Series([at - 1, at, at + 1]).cast(pl.Datetime("ns"))
    frame = definitions.get_training_data(["spend"], labels(["a"] * 3, times), timestamp="label_time")
    assert frame["amount__sum__7d"].to_list() == [None, 1.0, 1.0]


def test_without_a_timestamp_every_label_gets_the_value_at_as_of(make: Make) -> None:
    asked = pl.DataFrame({"user_id": ["b", "a"]})
    for as_of, value in ((START, None), (START + 3 * DAY, 3.0), ("2026-03-09", 2.0)):
        definitions = make(feature("spend", EVENTS, **SPEND), as_of=as_of)
        assert definitions.get_training_data(["spend"], asked)["amount__sum__7d"].to_list()[1] == value
    now = make(feature("spend", EVENTS, **SPEND))
    assert now.get_training_data(["spend"], asked)["amount__sum__7d"].to_list() == [0.0, 0.0]


def test_features_references_and_sets_say_the_same(make: Make) -> None:
    rows = pl.DataFrame({"user_id": ["a"], "x": [1], "y": [2]})
    user, other = feature("user", rows), feature("other", rows.rename({"x": "p", "y": "q"}))
    definitions = make(user, other)
    asked = pl.DataFrame({"user_id": ["a"]})
    fraud = mlf.FeatureSet("fraud", features=["user:y", mlf.FeatureRef("other", columns=["q"])])
    for selection, columns in (
        ([user], ["x", "y"]),
        ([mlf.FeatureRef("user", columns=["y", "x", "y"])], ["y", "x"]),
        (fraud, ["y", "q"]),
        ([fraud, "user:x"], ["y", "x", "q"]),
        (mlf.FeatureSet("all", [fraud, user, other]), ["x", "y", "p", "q"]),
    ):
        assert definitions.get_training_data(selection, asked).columns == ["user_id", *columns]
    with pytest.raises(DefinitionError, match="features is a list"):
        mlf.FeatureSet("fraud", features="user")
    with pytest.raises(RequestError, match="columns is a list"):
        mlf.FeatureRef("user", columns="x")


def test_columns_of_the_same_name_get_their_features_as_a_prefix(make: Make) -> None:
    definitions = make(feature("spend", EVENTS, **SPEND), feature("again", EVENTS, **SPEND))
    frame = definitions.get_training_data(["spend", "again"], labels(["a"], [START]), "label_time", prefix=True)
    assert frame.columns == ["user_id", "label_time", "spend__amount__sum__7d", "again__amount__sum__7d"]


def test_a_version_can_be_pinned(make: Make) -> None:
    source = Frame(EVENTS)
    spend = mlf.feature(keys=["user_id"], source=source, name="spend", **SPEND)(same)
    definitions = make(spend)
    source.frame = EVENTS.with_columns(pl.col("amount") * 10)
    (report,) = definitions.build()
    assert report.version == "1.0.1"
    asked = labels(["a"], [START + 3 * DAY])
    for version, value in (("1.0.0", 3.0), ("1.0.1", 30.0), (None, 30.0)):
        reference = mlf.FeatureRef("spend", version=version)
        frame = definitions.get_training_data([reference], asked, "label_time")
        assert frame["amount__sum__7d"].to_list() == [value]
    with pytest.raises(RequestError, match=r"1\.0\.7"):
        definitions.get_training_data([mlf.FeatureRef("spend", version="1.0.7")], asked, "label_time")


def test_a_set_pinned_at_the_newest_versions_is_what_a_model_keeps(make: Make) -> None:
    source = Frame(EVENTS)
    spend = mlf.feature(keys=["user_id"], source=source, name="spend", **SPEND)(same)
    other = feature("other", pl.DataFrame({"user_id": ["a"], "q": [1], "r": [2]}))
    definitions = make(spend, other)
    model = pickle.loads(pickle.dumps(definitions.pin(mlf.FeatureSet("m", [spend, "other:q"], description="A model."))))
    source.frame = EVENTS.with_columns(pl.col("amount") * 10)
    definitions.build()
    assert model.name == "m"
    assert model.refs == [mlf.FeatureRef("spend", None, "1.0.0"), mlf.FeatureRef("other", ["q"], "1.0.0")]
    asked = labels(["a"], [START + 3 * DAY])
    assert definitions.get_training_data(model, asked, "label_time")["amount__sum__7d"].to_list() == [3.0]
    assert definitions.pin(model) == mlf.FeatureSet("m", model.refs)
    assert definitions.pin(["spend"], name="next").refs == [mlf.FeatureRef("spend", None, "1.0.1")]
    for wrong, what in (("spend:nothing", "has no column 'nothing'"), ("nobody", "no feature 'nobody'")):
        with pytest.raises(RequestError, match=what):
            definitions.pin([wrong])


def test_a_set_of_features_can_be_pickled(make: Make) -> None:
    spend = feature("spend", EVENTS, **SPEND)
    kept = pickle.loads(pickle.dumps(mlf.FeatureSet("m", [spend], description="A model.")))
    assert (kept.name, kept.features, kept.description) == ("m", (mlf.FeatureRef("spend"),), "A model.")


def test_keys_that_are_text_are_text_in_a_csv_file_of_labels(make: Make, tmp_path: Path) -> None:
    definitions = make(feature("user", pl.DataFrame({"user_id": ["007", "7"], "x": [1, 2]})))
    (tmp_path / "labels.csv").write_text("user_id,label\n007,1\n7,0\n")
    frame = definitions.get_training_data(["user"], tmp_path / "labels.csv")
    assert frame.rows() == [("007", 1, 1), ("7", 0, 2)]


def test_labels_may_be_lazy_or_a_file_and_the_result_lazy(make: Make, tmp_path: Path) -> None:
    definitions = make(feature("spend", EVENTS, **SPEND))
    asked = labels(["b", "a", "zoe"], [START + DAY, START + 3 * DAY, START])
    asked.write_parquet(tmp_path / "labels.parquet")
    wanted = definitions.get_training_data(["spend"], asked, "label_time")
    given: list[Any] = [asked.lazy(), tmp_path / "labels.parquet", str(tmp_path / "labels.parquet")]
    for each in given:
        assert definitions.get_training_data(["spend"], each, "label_time").equals(wanted)
        lazy = definitions.get_training_data(["spend"], each, "label_time", lazy=True)
        assert isinstance(lazy, pl.LazyFrame)
        assert lazy.collect().equals(wanted)
    assert lazy.select("amount__sum__7d").collect().height == 3


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("engine", ["streaming", "in-memory"])
@pytest.mark.parametrize("kind", ["unique", "group_by", "join", "left join"])
def test_labels_whose_rows_come_in_another_order_each_time_get_their_own_values(
    kind: str, engine: Any, lazy: bool, make: Make
) -> None:
    users = pl.DataFrame({"user_id": range(5_000), "ts": START, "x": range(5_000)})
    definitions = make(feature("f", users, timestamp="ts"), feature("g", users.rename({"x": "y"}), timestamp="ts"))
    asked = pl.LazyFrame({"user_id": [*range(5_000)] * 3, "label_time": START + DAY})
    kinds = {
        "unique": asked.unique,
        "group_by": lambda: asked.group_by("user_id").agg(pl.col("label_time").max()),
        "join": lambda: asked.join(users.lazy().select("user_id"), on="user_id"),
        "left join": lambda: asked.join(users.lazy().select("user_id"), on="user_id", how="left"),
    }
    found = definitions.get_training_data(["f", "g"], kinds[kind](), "label_time", lazy=lazy).lazy()
    wrong = found.filter(pl.any_horizontal(pl.col("x", "y").ne_missing(pl.col("user_id")))).collect(engine=engine)
    assert wrong.height == 0


@pytest.mark.parametrize("dtype", [pl.Date, pl.Datetime("ms"), pl.Datetime("us", "UTC"), pl.Datetime("ns")])
def test_times_that_are_far_out_are_before_or_after_all_events(dtype: Any, make: Make) -> None:
    definitions = make(feature("spend", EVENTS, timestamp="ts"))
    far = 2**31 - 1 if dtype == pl.Date else 2**63 - 1
    physical = pl.Int32 if dtype == pl.Date else pl.Int64
    times = pl.Series([-far, -1, far, None], dtype=physical).cast(dtype)
    found = definitions.get_training_data(["spend"], labels(["a"] * 4, times), "label_time")
    newest = EVENTS.filter(user_id="a").sort("ts")["amount"][-1]
    assert found["amount"].to_list() == [None, None, newest, None]


@pytest.mark.parametrize("lazy", [False, True])
def test_labels_that_cannot_be_read_are_one_line_that_says_so(lazy: bool, make: Make, tmp_path: Path) -> None:
    definitions = make(feature("spend", EVENTS, **SPEND))
    (tmp_path / "labels.parquet").write_text("no parquet at all")
    (tmp_path / "table" / "_delta_log").mkdir(parents=True)
    (tmp_path / "table" / "_delta_log" / f"{0:020}.json").write_text("{")
    says = {
        tmp_path / "labels.parquet": f"The labels in '{tmp_path / 'labels.parquet'}' cannot be read: ",
        tmp_path / "table": f"The labels cannot be read: The path '{tmp_path / 'table'}' cannot be read: ",
        Path("nowhere.parquet"): "The labels cannot be read: The path 'nowhere.parquet' does not exist (looked",
        Path("no*.parquet"): "The labels cannot be read: No file matches the path 'no*.parquet'.",
    }
    for path, line in says.items():
        with pytest.raises(DataError, match=f"^{re.escape(line)}.*$"):
            definitions.get_training_data(["spend"], path, "label_time", lazy=lazy)


def test_labels_whose_rows_are_damaged_are_not_taken_for_a_damaged_table(make: Make, tmp_path: Path) -> None:
    definitions = make(feature("spend", EVENTS, **SPEND))
    path = tmp_path / "labels.parquet"
    labels([f"user {n}" for n in range(1000)], [START] * 1000).write_parquet(path)
    content = path.read_bytes()
    # What says where the columns are is whole: only reading these shows it.
    path.write_bytes(content[:4] + b"x" * 200 + content[204:])
    given: list[Any] = [path, pl.scan_parquet(path)]
    for each in given:
        with pytest.raises(DataError, match=r"^The labels( in '.*/labels.parquet')? cannot be read: .*$"):
            definitions.get_training_data(["spend"], each, "label_time")


def test_labels_with_a_name_of_mlforges_own_are_refused(make: Make) -> None:
    definitions = make(feature("spend", EVENTS, **SPEND))
    for name in ("mlforge_row", "mlforge_time", "mlforge_key0"):
        asked = labels(["a"], [START], **{name: [1]})
        with pytest.raises(
            RequestError, match=rf"^The labels have a column '{name}': rename it, names with 'mlforge_'"
        ):
            definitions.get_training_data(["spend"], asked, "label_time")


@pytest.mark.parametrize("number", [1, 30])
@pytest.mark.parametrize("keys", [("user_id",), ("user_id", "shop")])
def test_few_labels_of_a_long_history_get_what_many_would(keys: tuple[str, ...], number: int, make: Make) -> None:
    chance = random.Random(number)
    rows = pl.DataFrame(
        {
            "user_id": [chance.randrange(40) for _ in range(2000)],
            "shop": [chance.choice("xy") for _ in range(2000)],
            "ts": [START + HOUR * hour for hour in chance.sample(range(9000), 2000)],
            "amount": [float(n) for n in range(2000)],
        }
    )
    definitions = make(feature("latest", rows.drop(["shop"] if len(keys) == 1 else []), keys, timestamp="ts"))
    asked = labels(
        [str(chance.randrange(50)) for _ in range(number)],
        [START + HOUR * chance.randrange(9000) for _ in range(number)],
        shop=[chance.choice("xyz") for _ in range(number)],
    )
    found = definitions.get_training_data(["latest"], asked, "label_time")
    assert found.drop("amount").equals(asked)
    own = rows.with_columns(pl.col("user_id").cast(pl.String)).to_dicts()
    for label in found.iter_rows(named=True):
        entity = {key: label[key] for key in keys}
        past = [row for row in own if entity.items() <= row.items() and row["ts"] <= label["label_time"]]
        assert label["amount"] == max(past, key=lambda row: row["ts"], default={"amount": None})["amount"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"timestamp": "labeltime"}, "The labels have no column 'labeltime'; did you mean 'label_time'?"),
        ({"timestamp": "user_id"}, "The labels' column 'user_id' is String, not a datetime or date"),
        ({"features": ["spent"]}, "There is no feature 'spent'; did you mean 'spend'?"),
        ({"features": "spend"}, "features is a list"),
        ({"entity_df": pl.DataFrame({"user": ["a"]})}, "The labels have no column 'user_id', which is a key of"),
        ({"entity_df": pl.DataFrame({"user_id": [1.0]})}, "cannot be an entity key: its dtype is Float64"),
        (
            {"entity_df": pl.DataFrame({"user_id": ["a"], "amount__sum__7d": [1]})},
            "Column 'amount__sum__7d' of feature 'spend' is in the labels or another feature already",
        ),
        ({"features": ["spend", "again"]}, "Column 'amount__sum__7d' of feature 'again' is in the labels or another"),
        ({"features": ["spend", mlf.FeatureRef("spend", version="1.0.0")]}, "'spend' is asked for at two versions"),
        ({"features": [7]}, "7 is no name of a feature"),
        ({"features": {"spend": "amount"}}, "columns is a list: write columns=['amount']"),
        ({"features": {7: None}}, "7 is no name of a feature"),
        ({"entity_df": [{"user_id": "a"}]}, "The labels are of the type builtins.list: write a polars.DataFrame, as"),
    ],
)  # fmt: skip
def test_a_request_that_does_not_fit_is_an_error_that_says_why(
    arguments: dict[str, Any], says: str, make: Make
) -> None:
    definitions = make(feature("spend", EVENTS, **SPEND), feature("again", EVENTS, **SPEND))
    with pytest.raises(RequestError) as caught:
        definitions.get_training_data(**{"features": ["spend"], "entity_df": labels(["a"], [START]), **arguments})
    assert says in str(caught.value)


def test_a_column_of_a_label_may_have_the_name_of_a_features_timestamp(make: Make) -> None:
    definitions = make(feature("spend", EVENTS, **SPEND))
    asked = pl.DataFrame({"user_id": ["a"], "ts": [START + DAY]})
    assert definitions.get_training_data(["spend"], asked, timestamp="ts").columns == [
        "user_id",
        "ts",
        "amount__sum__7d",
    ]


def test_columns_come_back_in_their_stored_dtypes(make: Make) -> None:
    wide = pl.DataFrame({
        "user_id": ["a"], "i": pl.Series([1], dtype=pl.Int8), "c": pl.Series(["x"], dtype=pl.Categorical),
        "l": [[1, None]], "s": [{"x": 1.5}], "at": [datetime(2026, 1, 1)],
    })  # fmt: skip
    definitions = make(feature("wide", wide))
    frame = definitions.get_training_data(["wide"], pl.DataFrame({"user_id": ["a", "b"]}))
    assert dict(frame.drop("user_id").schema) == {
        "i": pl.Int64,
        "c": pl.String,
        "l": pl.List(pl.Int64),
        "s": pl.Struct({"x": pl.Float64}),
        "at": pl.Datetime("us", "UTC"),
    }
    assert frame.drop("user_id").rows() == [
        (1, "x", [1, None], {"x": 1.5}, datetime(2026, 1, 1, tzinfo=UTC)),
        (None,) * 5,
    ]


HOUR = timedelta(hours=1)
TIMES = st.integers(-40, 40).map(lambda half: START + half * HOUR / 2) | st.integers(-3, 3).map(
    lambda number: START + number * TICK
)
AMOUNTS = st.none() | st.integers(-5, 5).map(float) | st.floats(-1e6, 1e6, allow_subnormal=False)
# Tuples, since the order of the columns is what breaks ties.
ROWS = st.lists(st.tuples(st.sampled_from("ab"), TIMES, AMOUNTS, st.integers(-9, 9)), min_size=1, max_size=12)
WINDOWS, AGGREGATIONS = ["2h", "9h"], {"x": ["sum", "mean", "last"], "n": ["count", "max"]}
SCHEMA: dict[str, Any] = {"k": pl.String, "ts": pl.Datetime("us", "UTC"), "x": pl.Float64, "n": pl.Int64}


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(tuples=ROWS, interval=st.sampled_from([None, "1h", "5h"]), asked=st.lists(TIMES, max_size=5))
def test_training_sets_agree_with_the_oracle(
    tuples: list[tuple[Any, ...]], interval: str | None, asked: list[datetime]
) -> None:
    events = pl.DataFrame(tuples, schema=SCHEMA, orient="row")
    rows = events.to_dicts()
    snapshot = events.unique("k", keep="first", maintain_order=True).drop("ts")
    metric = mlf.Rolling(windows=WINDOWS, aggregations=AGGREGATIONS)  # type: ignore[arg-type]
    features = [
        feature("rolling", events, ["k"], timestamp="ts", interval=interval, metrics=[metric]),
        feature("newest", events, ["k"], timestamp="ts"),
        feature("fixed", snapshot.rename({"x": "fixed_x", "n": "fixed_n"}), ["k"]),
    ]
    own = [
        row["ts"] + after
        for row in events.to_dicts()
        for after in (-TICK, timedelta(0), TICK, HOUR, 2 * HOUR, 9 * HOUR)
    ]
    entities = ["a", "b", "c"]
    pairs = list(itertools.product([*asked, *own], entities))
    label = pl.DataFrame(
        {"k": [k for _, k in pairs], "at": [t for t, _ in pairs]}, schema={"k": pl.String, "at": SCHEMA["ts"]}
    )
    with tempfile.TemporaryDirectory() as folder:
        definitions = Definitions(features=features, store=LocalStore(folder))
        definitions.build()
        found = definitions.get_training_data(["rolling", "newest", "fixed"], label, timestamp="at")
    assert found.select("k", "at").equals(label)
    for (time, k), row in zip(pairs, found.iter_rows(named=True), strict=True):
        entity = {"k": k}
        rolling = value_at(
            events.to_dicts(),
            entity,
            time,
            timestamp="ts",
            interval=interval,
            windows=WINDOWS,
            aggregations=AGGREGATIONS,
        )
        newest = value_of_timestamped(rows, entity, time, timestamp="ts")
        fixed = value_of_snapshot(snapshot.to_dicts(), entity)
        expected = {
            **(rolling or dict.fromkeys(metric.columns)),
            **(newest or {"x": None, "n": None}),
            **{f"fixed_{name}": value for name, value in (fixed or {"x": None, "n": None}).items()},
        }
        for name, value in expected.items():
            assert agrees(row[name], value), (time, k, name, row[name], value)
