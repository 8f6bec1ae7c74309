"""Frames of what is online, asked for in an event loop or not."""

import asyncio
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

import mlforge as mlf
from mlforge import Definitions
from mlforge.errors import RequestError, StoreError
from mlforge.online import RedisStore
from mlforge.online.codec import SchemaMismatchError, schema_to_json
from mlforge.online.keys import entity_key_hash, redis_key, status_key
from mlforge.store import LocalStore
from mlforge.testing import MemoryStore
from servers import RedisServer

Get = Callable[..., pl.DataFrame]


def at_once(definitions: Definitions, *arguments: Any) -> pl.DataFrame:
    return definitions.get_online_features(*arguments)


def in_a_loop(definitions: Definitions, *arguments: Any) -> pl.DataFrame:
    async def get() -> pl.DataFrame:
        try:
            return await definitions.aget_online_features(*arguments)
        finally:
            if isinstance(definitions.online_store, RedisStore):
                await definitions.online_store.aclose()

    return asyncio.run(get())


@pytest.fixture(params=[at_once, in_a_loop])
def get(request: pytest.FixtureRequest) -> Get:
    ways: Get = request.param
    return ways


class Online:
    """Features of users as a sync in any state has left them."""

    def __init__(self, server: RedisServer, store: RedisStore, folder: Path) -> None:
        self._server = server
        self._prefix = store.prefix
        source = folder / "none.parquet"
        keys = {"spend": ["user_id"], "user": ["user_id"], "visits": ["shop", "user_id"]}
        features = [mlf.feature(keys=by, source=source, name=name)(lambda df: df) for name, by in keys.items()]
        self.definitions = Definitions(features=features, store=LocalStore(folder / "store"), online_store=store)

    def status(self, feature: str, schema: dict[str, pl.DataType], state: str = "complete", *keys: str) -> None:
        columns = orjson.dumps(sorted(keys or ["user_id"])).decode()
        said = {"key_columns": columns, "schema": schema_to_json(schema), "state": state, "token": "t"}
        with self._server.client() as client:
            client.hset(status_key(self._prefix, feature), mapping=said)

    def value(self, feature: str, keys: Any, text: str) -> None:
        entity = keys if isinstance(keys, dict) else {"user_id": keys}
        self._server.command("SET", redis_key(self._prefix, feature, entity_key_hash(entity)), text)


@pytest.fixture
def online(redis_server: RedisServer, redis_store: RedisStore, tmp_path: Path) -> Online:
    return Online(redis_server, redis_store, tmp_path)


BEFORE: dict[str, pl.DataType] = {"a": pl.Int64(), "gone": pl.String()}
AFTER: dict[str, pl.DataType] = {"a": pl.Int64(), "new": pl.Float64()}
USERS = pl.DataFrame({"user_id": ["old", "new", "nobody"]})


def test_a_new_version_is_noticed_by_its_values(online: Online, get: Get) -> None:
    online.status("spend", BEFORE)
    online.value("spend", "old", '{"a":1,"gone":"x"}')
    assert get(online.definitions, ["spend"], USERS)["gone"].to_list() == ["x", None, None]
    online.status("spend", AFTER)
    for user in ("old", "new"):
        online.value("spend", user, '{"a":2,"new":0.5}')
    found = get(online.definitions, ["spend"], USERS)
    assert found.schema == {"user_id": pl.String, "a": pl.Int64, "new": pl.Float64}
    assert found.rows() == [("old", 2, 0.5), ("new", 2, 0.5), ("nobody", None, None)]


@pytest.mark.parametrize("cached", [BEFORE, AFTER], ids=["knows the old schema", "knows the new schema"])
def test_while_a_sync_rewrites_the_values_those_of_before_lack_the_new_columns(
    online: Online, get: Get, cached: dict[str, pl.DataType]
) -> None:
    online.status("spend", cached)
    get(online.definitions, ["spend"], [{"user_id": "nobody"}])
    online.status("spend", AFTER, "writing")
    online.value("spend", "old", '{"a":1,"gone":"x"}')
    online.value("spend", "new", '{"a":2,"new":0.5}')
    found = get(online.definitions, ["spend"], USERS)
    assert found.schema == {"user_id": pl.String, "a": pl.Int64, "new": pl.Float64}
    assert found.rows() == [("old", 1, None), ("new", 2, 0.5), ("nobody", None, None)]
    online.status("spend", AFTER, "complete")
    with pytest.raises(SchemaMismatchError, match="differ in 'gone', 'new'"):
        get(online.definitions, ["spend"], USERS)


def test_a_value_of_another_type_is_an_error_in_the_middle_of_a_sync_too(online: Online, get: Get) -> None:
    for state in ("writing", "complete", "dirty"):
        online.status("spend", AFTER, state)
        online.value("spend", "new", '{"a":2,"new":"0.5"}')
        with pytest.raises(SchemaMismatchError, match=r"'new' is Float64, but the store holds '0\.5'"):
            get(online.definitions, ["spend"], USERS)


def test_values_of_other_columns_are_an_error_where_no_sync_is_under_way(online: Online, get: Get) -> None:
    for state in ("complete", "dirty"):
        for text in ('{"a":1}', '{"a":1,"new":0.5,"c":1}', "{}"):
            online.status("spend", AFTER, state)
            online.value("spend", "new", text)
            with pytest.raises(StoreError, match="A stored value and its schema differ in"):
                get(online.definitions, ["spend"], USERS)


def test_features_of_different_keys_come_in_one_frame_and_null_keys_give_nulls(online: Online, get: Get) -> None:
    online.status("spend", AFTER)
    online.status("user", {"city": pl.String(), "since": pl.Date()})
    online.status("visits", {"n": pl.Int64()}, "complete", "user_id", "shop")
    online.value("spend", "x", '{"a":1,"new":2.5}')
    online.value("user", "x", '{"city":"Köln","since":"2026-01-31"}')
    online.value("visits", {"user_id": "x", "shop": 7}, '{"n":3}')
    asked = pl.DataFrame({"shop": [7, None, 7, 8], "user_id": ["x", "x", None, "x"], "more": [[1], None, [], [2, 3]]})
    found = get(online.definitions, ["visits", "user", "spend"], asked)
    assert found.select(asked.columns).equals(asked)
    assert found.drop(asked.columns).rows() == [
        (3, "Köln", dt.date(2026, 1, 31), 1, 2.5),
        (None, "Köln", dt.date(2026, 1, 31), 1, 2.5),
        (None, None, None, None, None),
        (None, "Köln", dt.date(2026, 1, 31), 1, 2.5),
    ]


def test_a_column_of_only_null_keys_is_all_null(online: Online, get: Get) -> None:
    online.status("spend", AFTER)
    for asked in ([{"user_id": None}], pl.DataFrame({"user_id": [None, None]})):
        found = get(online.definitions, ["spend"], asked)
        assert found["a"].null_count() == found.height == len(asked)
    assert get(online.definitions, ["spend"], []).schema == {"user_id": pl.String, "a": pl.Int64, "new": pl.Float64}


@pytest.mark.parametrize(
    ("selection", "columns"),
    [
        (["spend:new"], ["new"]),
        (["spend:new", "user", "spend:a"], ["new", "a", "city"]),
        (["user", "spend:a"], ["city", "a"]),
        (["spend:a", "spend:a", "user:city"], ["a", "city"]),
        (["spend:a", "spend"], ["a", "new"]),
        (["spend", "spend:a"], ["a", "new"]),
        ({"user": None, "spend": ["new"]}, ["city", "new"]),
    ],
    ids=str,
)
def test_single_columns_are_named_with_their_feature(
    online: Online, get: Get, selection: Any, columns: list[str]
) -> None:
    online.status("spend", AFTER)
    online.status("user", {"city": pl.String()})
    online.value("spend", "x", '{"a":1,"new":2.5}')
    online.value("user", "x", '{"city":"Köln"}')
    found = get(online.definitions, selection, [{"user_id": "x"}])
    assert found.to_dicts() == [{"user_id": "x"} | {c: {"a": 1, "new": 2.5, "city": "Köln"}[c] for c in columns}]
    assert found.columns == ["user_id", *columns]


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        (["spend:nwe"], "Feature 'spend' has no column 'nwe'; did you mean 'new'?"),
        (["spend:"], "Feature 'spend' has no column ''"),
        (["spend:new:x"], "Feature 'spend' has no column 'new:x'"),
        (["spent:new"], "There is no feature 'spent'; did you mean 'spend'?"),
        ([":new"], "There is no feature ''"),
        ([3], "3 is no name of a feature"),
        ("spend:new", "features is a list: write features=['spend:new']"),
        (["spend", "user"], "Column 'a' of feature 'user' is there already: say prefix=True"),
        (["visits"], "The entities have no 'shop', which is a key of 'visits'"),
    ],
)
def test_a_selection_that_cannot_be_is_an_error_that_says_why(
    online: Online, get: Get, selection: Any, says: str
) -> None:
    for feature in ("spend", "user", "visits"):
        online.status(feature, AFTER)
    with pytest.raises(RequestError) as caught:
        get(online.definitions, selection, [{"user_id": "x"}])
    assert says in str(caught.value)


def test_a_feature_that_is_not_online_is_said_to_be_so(online: Online, get: Get) -> None:
    with pytest.raises(RequestError, match="Feature 'spend' is not online: run `mlforge build"):
        get(online.definitions, ["spend"], USERS)


def test_what_was_lost_is_not_online_whatever_is_built(tmp_path: Path, redis_store: RedisStore, get: Get) -> None:
    pl.DataFrame({"user_id": ["a"], "f": [1.0]}).write_parquet(tmp_path / "rows.parquet")
    user = mlf.feature(keys=["user_id"], source=tmp_path / "rows.parquet", name="user")(lambda df: df)
    definitions = Definitions(features=[user], store=LocalStore(tmp_path / "store"), online_store=redis_store)
    definitions.build(online=True)
    assert get(definitions, ["user"], [{"user_id": "b"}])["f"].to_list() == [None]
    redis_store.clear("user")
    with pytest.raises(RequestError, match="Feature 'user' is not online"):
        get(definitions, ["user"], [{"user_id": "a"}])


def test_a_version_that_is_pinned_is_served_with_newer_data_and_not_with_other_columns(
    tmp_path: Path, redis_store: RedisStore, get: Get
) -> None:
    asked, user = [{"user_id": "a"}], tmp_path / "rows.parquet"
    definitions = Definitions(
        features=[mlf.feature(keys=["user_id"], source=user, name="user")(lambda df: df)],
        store=LocalStore(tmp_path / "store"),
        online_store=redis_store,
    )

    def built(**columns: Any) -> str | None:
        pl.DataFrame({"user_id": ["a"], **columns}).write_parquet(user)
        (report,) = definitions.build(online=True, allow_breaking=True)
        return report.version

    def pinned(version: str) -> list[float]:
        return get(definitions, mlf.FeatureSet("s", [mlf.FeatureRef("user", ["f"], version)]), asked)["f"].to_list()

    assert built(f=[1.0]) == "1.0.0"
    assert pinned("1.0.0") == [1.0]
    assert built(f=[2.0]) == "1.0.1"
    assert (pinned("1.0.0"), pinned("1.0.1"), pinned("1.0.7")) == ([2.0], [2.0], [2.0])
    for wanted in ("1.1.0", "2.0.1", "10.0.0", "1.0"):
        with pytest.raises(RequestError, match=rf"asked for at version {wanted}, and 1\.0\.1 is online, which may"):
            pinned(wanted)
    assert built(f=[2.0], g=[1]) == "1.1.0"
    with pytest.raises(RequestError, match=r"at version 1\.0\.1, and 1\.1\.0 is online, .*: train on that one and ask"):
        pinned("1.0.1")
    assert built(f=[3.0]) == "2.0.0"
    assert pinned("2.0.5") == [3.0]
    with pytest.raises(RequestError, match=r"at version 1\.1\.0, and 2\.0\.0 is online"):
        pinned("1.1.0")


def test_entities_that_make_no_frame_are_one_line_that_says_what_would(online: Online, get: Get) -> None:
    online.status("spend", AFTER)
    for asked in ([{"user_id": dt.date(2026, 1, 1)}, {"user_id": "x"}], [{"user_id": "x"}, 7]):
        with pytest.raises(
            RequestError, match=r"^The entities are no list of dicts that makes a frame \([^;]*\): give .*$"
        ):
            get(online.definitions, ["spend"], asked)


def test_a_store_without_a_status_gives_the_offline_dtypes(tmp_path: Path, get: Get) -> None:
    rows = pl.DataFrame({"user_id": ["a", "b"], "day": [dt.date(2026, 1, 31), None], "f": [1.0, 2.5]})
    rows.write_parquet(tmp_path / "rows.parquet")
    user = mlf.feature(keys=["user_id"], source=tmp_path / "rows.parquet", name="user")(lambda df: df)
    definitions = Definitions(features=[user], store=LocalStore(tmp_path / "store"), online_store=MemoryStore())
    definitions.build(online=True)
    assert get(definitions, ["user"], rows.select("user_id")).equals(rows)
    assert get(definitions, ["user:f"], [{"user_id": "b"}, {"user_id": "c"}])["f"].to_list() == [2.5, None]


def test_frames_of_any_size_hold_the_same(online: Online, get: Get) -> None:
    schema = {"i": pl.Int64(), "f": pl.Float64(), "s": pl.String(), "b": pl.Boolean(), "d": pl.Date()}
    online.status("spend", schema)
    rows = [(n, n / 7, f"é{n}", n % 2 == 0, dt.date(2026, 1, 1 + n % 28)) for n in range(1_200)]
    with online._server.client() as client:
        pipeline = client.pipeline(transaction=False)
        for number, row in enumerate(rows):
            values = orjson.dumps(dict(zip(schema, row, strict=True)))
            pipeline.set(redis_key(online._prefix, "spend", entity_key_hash({"user_id": number})), values)
        pipeline.execute()
    for count in (1, 3, 100, 101, 499, 501, 1_200):
        found = get(online.definitions, ["spend"], pl.DataFrame({"user_id": range(count)}))
        assert found.drop("user_id").rows() == rows[:count]
        assert found.drop("user_id").schema == schema
