import datetime as dt
import hashlib
import json
import zoneinfo
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlforge.errors import DefinitionError, RequestError
from mlforge.online.keys import (
    check_prefix,
    entity_key_hash,
    entity_key_hash_expr,
    entity_key_hashes,
    frame_key_hashes,
    key_text,
    redis_key,
    redis_key_expr,
    status_key,
)

VECTORS = json.loads((Path(__file__).parents[1] / "docs" / "reference" / "key-vectors.json").read_text())
READ = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "date": dt.date.fromisoformat,
    "datetime": dt.datetime.fromisoformat,
}
ZONES = ["UTC", "America/New_York", "Asia/Kathmandu"]

text = st.text(st.characters(exclude_categories=["Cs"]))
# A day off both ends, so that no zone leaves the years that Python has.
naive = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))
columns: dict[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "string": (pl.String(), text),
    "i8": (pl.Int8(), st.integers(-(2**7), 2**7 - 1)),
    "i64": (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    "u64": (pl.UInt64(), st.integers(0, 2**64 - 1)),
    "i128": (pl.Int128(), st.integers(-(2**127), 2**127 - 1)),
    "boolean": (pl.Boolean(), st.booleans()),
    "date": (pl.Date(), st.dates()),
    "naive": (pl.Datetime("us"), naive),
    "utc": (pl.Datetime("us", "UTC"), naive.map(lambda t: t.replace(tzinfo=dt.UTC))),
    "ms": (pl.Datetime("ms"), naive.map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))),
    "ns": (pl.Datetime("ns"), st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))),
    "enum": (pl.Enum(["a", "é", ""]), st.sampled_from(["a", "é", ""])),
    "categorical": (pl.Categorical(), text),
}


def hashes(frame: pl.DataFrame) -> list[str | None]:
    return frame.select(entity_key_hash_expr(frame.schema)).to_series().to_list()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: ascii(vector["hashed"]))
def test_golden_vectors_hold_for_dicts_and_for_frames(vector: dict[str, Any]) -> None:
    keys = {name: READ[kind](value) for name, (kind, value) in vector["keys"].items()}
    assert hashlib.sha256(vector["hashed"].encode()).hexdigest()[:32] == vector["hash"]
    assert entity_key_hash(keys) == vector["hash"]
    assert hashes(pl.DataFrame({name: [value] for name, value in keys.items()})) == [vector["hash"]]


@pytest.mark.parametrize("name", columns)
def test_frames_and_dicts_hash_alike(name: str) -> None:
    dtype, values = columns[name]

    @given(st.lists(values, max_size=5), text)
    def check(column: list[Any], other: str) -> None:
        frame = pl.DataFrame(
            {"é": pl.Series(column, dtype=dtype), "b": pl.Series([other] * len(column), dtype=pl.String)}
        )
        assert hashes(frame) == [entity_key_hash({"b": other, "é": value}) for value in column]

    check()


@given(st.lists(naive, max_size=5), st.sampled_from(ZONES))
def test_the_zone_of_an_instant_does_not_matter(instants: list[dt.datetime], zone: str) -> None:
    utc = pl.DataFrame({"at": pl.Series(instants, dtype=pl.Datetime("us", "UTC"))})
    there = utc.select(pl.col("at").dt.convert_time_zone(zone))
    info = zoneinfo.ZoneInfo(zone)
    aware = [entity_key_hash({"at": instant.replace(tzinfo=dt.UTC).astimezone(info)}) for instant in instants]
    assert hashes(utc) == hashes(there) == aware == [entity_key_hash({"at": instant}) for instant in instants]


@given(st.dictionaries(text, text, min_size=1, max_size=4), st.randoms())
def test_key_order_does_not_matter(keys: dict[str, str], random: Any) -> None:
    names = list(keys)
    random.shuffle(names)
    assert entity_key_hash({name: keys[name] for name in names}) == entity_key_hash(keys)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "é", "c"]), text | st.integers() | st.booleans(), min_size=1)))
def test_many_entities_hash_as_each_does_alone(entities: list[dict[str, Any]]) -> None:
    assert entity_key_hashes(entities) == [entity_key_hash(entity) for entity in entities]


@given(st.lists(st.tuples(text, st.integers() | st.booleans(), text), max_size=9))
def test_entities_of_the_same_columns_in_any_order_hash_as_each_does_alone(rows: list[tuple[Any, ...]]) -> None:
    orders = ["é", "a", "b"], ["b", "é", "a"]
    for columns in orders:
        entities = [dict(zip(columns, row, strict=True)) for row in rows]
        mixed = [dict(sorted(entity.items())) if number % 2 else entity for number, entity in enumerate(entities)]
        assert entity_key_hashes(mixed) == [entity_key_hash(entity) for entity in entities]


@pytest.mark.parametrize("wrong", [{"user_id": 1.5}, {"user_id": None}, {}, {"user_id": "\ud800"}, {1: "a"}, "user_id"])
def test_one_wrong_entity_among_many_is_refused_as_alone(wrong: Any) -> None:
    with pytest.raises(RequestError) as alone:
        entity_key_hash(wrong)
    for place in (0, 7, 19):
        entities: list[Any] = [{"user_id": number} for number in range(20)]
        entities[place] = wrong
        with pytest.raises(RequestError) as among:
            entity_key_hashes(entities)
        assert str(among.value) == str(alone.value)


@pytest.mark.parametrize("name", columns)
def test_frames_of_any_height_hash_row_by_row(name: str) -> None:
    dtype, values = columns[name]

    @settings(max_examples=10)
    @given(st.lists(values, min_size=1, max_size=3))
    def check(column: list[Any]) -> None:
        few = pl.DataFrame({"é": pl.Series(column, dtype=dtype), "b": pl.Series(column, dtype=dtype)})
        for frame in (few, pl.concat([few] * 40), few.clear()):
            lots = list(frame_key_hashes(frame, lot=7))
            assert [key_hash for lot in lots for key_hash in lot] == hashes(frame)
            assert {len(lot) for lot in lots[:-1]} <= {7}

    check()


def test_nanoseconds_count_as_their_microsecond() -> None:
    frame = pl.DataFrame({"at": pl.Series([-1, 1_999], dtype=pl.Int64).cast(pl.Datetime("ns"))})
    epoch = dt.datetime(1970, 1, 1)
    assert hashes(frame) == [
        entity_key_hash({"at": epoch + dt.timedelta(microseconds=microseconds)}) for microseconds in (-1, 1)
    ]


def test_values_of_different_columns_never_run_together() -> None:
    assert entity_key_hash({"a": "1,1:b,1:2"}) != entity_key_hash({"a": "1", "b": "2"})


def test_a_row_with_a_null_key_has_no_hash_and_no_redis_key() -> None:
    frame = pl.DataFrame({"a": ["x", None, "y"], "b": [1, 2, None]})
    key_hash = entity_key_hash_expr(frame.schema)
    assert [value is None for value in hashes(frame)] == [False, True, True]
    keys = frame.select(redis_key_expr("mlforge", "f", key_hash)).to_series().to_list()
    assert keys == [redis_key("mlforge", "f", entity_key_hash({"a": "x", "b": 1})), None, None]


def test_an_enum_of_strings_is_its_value() -> None:
    class Color(str, Enum):  # noqa: UP042 -- StrEnum has another str()
        RED = "red"

    assert key_text(Color.RED) == "red"


@pytest.mark.parametrize("value", [1.0, float("nan"), None, b"x", Decimal(1), dt.time(1), ["a"], "\ud800"])
def test_what_cannot_be_a_key_is_refused_with_the_entity(value: Any) -> None:
    with pytest.raises(RequestError, match="user_id"):
        entity_key_hash({"user_id": value})


def test_an_instant_before_the_year_one_is_refused() -> None:
    with pytest.raises(RequestError, match="years 1 and 9999"):
        key_text(dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))))


@pytest.mark.parametrize("keys", [{}, {1: "a"}, ["user_id"], "user_id"])
def test_what_is_no_dict_of_keys_is_refused(keys: Any) -> None:
    with pytest.raises(RequestError, match=r"user_id|dict of column names"):
        entity_key_hash(keys)


@pytest.mark.parametrize("dtype", [pl.Float64(), pl.Float32(), pl.Binary(), pl.List(pl.Int64), pl.Duration()], ids=str)
def test_a_key_column_of_another_dtype_is_refused_by_name(dtype: pl.DataType) -> None:
    with pytest.raises(RequestError, match="'user_id' cannot be an entity key"):
        entity_key_hash_expr({"user_id": dtype})
    with pytest.raises(RequestError, match="without key columns"):
        entity_key_hash_expr({})


@pytest.mark.parametrize("prefix", ["", "a*", "a?", "[a", "a]", "a\\", "^a", "{a}", "a\n", None, 3])
def test_a_prefix_that_means_something_in_a_pattern_is_refused(prefix: Any) -> None:
    with pytest.raises(DefinitionError, match="cannot be a prefix"):
        check_prefix(prefix)
    with pytest.raises(DefinitionError, match="cannot be a prefix"):
        redis_key(prefix, "f", "0" * 32)


@pytest.mark.parametrize("name", ["", "1a", "a:b", "a*", "é", "a\n", "_a", None])
def test_a_feature_name_of_other_characters_is_refused(name: Any) -> None:
    with pytest.raises(RequestError, match="is not a feature name"):
        status_key("mlforge", name)


def test_redis_keys_are_spelled_as_documented() -> None:
    assert redis_key("acme:prod", "user_spend", "ab") == "acme:prod:user_spend:ab"
    assert status_key("mlforge", "user_spend") == "mlforge:user_spend:status"
