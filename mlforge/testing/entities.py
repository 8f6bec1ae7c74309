"""Part of the conformance suite: which entity keys are the same, and which are none."""

import datetime as dt
from typing import Any

import pytest

from mlforge.errors import RequestError
from mlforge.online.base import OnlineStore
from mlforge.testing.samples import hashes, user

_NOON = dt.datetime(2026, 1, 31, 12)
# One entity each, whatever dtype a source has.
SAME: dict[str, list[Any]] = {
    "integers": [123, "123"],
    "booleans": [True, "true"],
    "dates": [dt.date(2026, 1, 31), "2026-01-31"],
    "datetimes": [
        _NOON,
        _NOON.replace(tzinfo=dt.UTC),
        _NOON.replace(tzinfo=dt.UTC).astimezone(dt.timezone(dt.timedelta(hours=5))),
        "2026-01-31T12:00:00.000000Z",
    ],
}
# All different, though a database may take some of them for the same, or for nothing.
TEXTS = [
    *("a", "A", "\uff41", "á", "a\u0301", " a", "a ", "a\n", "a\x00", "a\x00b", "", " "),
    *("0", "00", "-0", "1", "1.0", "1e0", "null", "None", "true", "True"),
    *("a:b", "a,b", "a/b", "a*", "a?", "a%", "a_", "'", '"', "\\", "🎉", "x" * 2000),
]
REFUSED: dict[str, dict[str, Any]] = {
    "no keys": {},
    "None": {"user_id": None},
    "a float": {"user_id": 1.0},
    "one of two is None": {"store_id": "s", "user_id": None},
    "bytes": {"user_id": b"1"},
}


class EntityTests:
    """Entities are told apart by all of their keys, as text, and by nothing else."""

    def test_an_entity_that_was_never_written_is_none(self, store: OnlineStore, feature_name: str) -> None:
        assert store.read(feature_name, user(1)) is None
        assert store.read_batch(feature_name, [user(1), user(2)]) == [None, None]
        store.write(feature_name, user(1), {"x": 1})
        assert store.read(feature_name, user(2)) is None

    def test_features_do_not_see_each_other(self, store: OnlineStore, feature_name: str) -> None:
        names = [feature_name, f"{feature_name}_", f"{feature_name}_2", f"{feature_name}2", feature_name.upper()]
        for number, name in enumerate(names[:-1]):
            store.write(name, user(1), {"x": number})
        found = [store.read(name, user(1)) for name in names]
        assert found == [{"x": 0}, {"x": 1}, {"x": 2}, {"x": 3}, None]

    @pytest.mark.parametrize("same", SAME.values(), ids=SAME)
    def test_the_dtype_of_a_key_does_not_matter(self, store: OnlineStore, feature_name: str, same: list[Any]) -> None:
        for number, written in enumerate(same):
            store.write(feature_name, {"k": written}, {"x": number})
            assert store.read_batch(feature_name, [{"k": key} for key in same]) == [{"x": number}] * len(same)
            store.write_batch(feature_name, [{"k": written, "x": -number}], ["k"])
            assert [store.read(feature_name, {"k": key}) for key in same] == [{"x": -number}] * len(same)
        listed = hashes(store, feature_name)
        assert listed is None or len(listed) == 1

    def test_the_order_of_key_columns_does_not_matter(self, store: OnlineStore, feature_name: str) -> None:
        store.write(feature_name, {"a": "1", "b": "2"}, {"x": 1})
        assert store.read(feature_name, {"b": "2", "a": "1"}) == {"x": 1}
        store.write_batch(feature_name, [{"x": 2, "b": "2", "a": "1"}], ["b", "a"])
        assert store.read(feature_name, {"a": "1", "b": "2"}) == {"x": 2}

    def test_all_key_columns_count_and_where_one_ends(self, store: OnlineStore, feature_name: str) -> None:
        pairs = [("1", "2"), ("2", "1"), ("12", ""), ("", "12"), ("1", "22"), ("1:2", "3"), ("1", "2:3"), ("1,", "2")]
        records = [{"a": a, "b": b, "x": number} for number, (a, b) in enumerate(pairs)]
        store.write_batch(feature_name, records, ["a", "b"])
        found = store.read_batch(feature_name, [{"a": a, "b": b} for a, b in pairs])
        assert found == [{"x": number} for number in range(len(pairs))]
        assert store.read(feature_name, {"a": "1", "b": "1"}) is None

    def test_a_key_may_be_any_text(self, store: OnlineStore, feature_name: str) -> None:
        for number, text in enumerate(TEXTS):
            store.write(feature_name, {"k": text}, {"x": number})
        found = store.read_batch(feature_name, [{"k": text} for text in TEXTS])
        assert found == [{"x": number} for number in range(len(TEXTS))]

    def test_other_key_columns_find_nothing(self, store: OnlineStore, feature_name: str) -> None:
        store.write(feature_name, {"user_id": "1", "store_id": "2"}, {"x": 1})
        others: list[dict[str, str]] = [
            {"user_id": "1"},
            {"user_id": "1", "shop_id": "2"},
            {"user_id": "1", "store_id": "2", "day": "3"},
        ]
        for keys in others:
            try:
                found = store.read_batch(feature_name, [keys])
            except RequestError:
                # A store that knows the key columns says that these are others.
                continue
            assert found == [None]

    @pytest.mark.parametrize("keys", REFUSED.values(), ids=REFUSED)
    def test_keys_that_cannot_be_are_refused_and_nothing_is_written(
        self, store: OnlineStore, feature_name: str, keys: dict[str, Any]
    ) -> None:
        columns = list(keys)
        good = {**dict.fromkeys(columns, "1"), "x": 1}
        with pytest.raises(RequestError):
            store.read(feature_name, keys)
        with pytest.raises(RequestError):
            store.read_batch(feature_name, [dict.fromkeys(columns or ["user_id"], "1"), keys])
        with pytest.raises(RequestError):
            store.write(feature_name, keys, {"x": 1})
        with pytest.raises(RequestError):
            store.write_batch(feature_name, [good, {**keys, "x": 1}], columns)
        assert store.read(feature_name, dict.fromkeys(columns or ["user_id"], "1")) is None
        assert store.status(feature_name) is None
        assert not hashes(store, feature_name)
