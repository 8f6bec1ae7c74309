"""Part of the conformance suite: many entities and many features in one call."""

from typing import Any

import pytest

from mlforge.errors import RequestError
from mlforge.online.base import OnlineStore
from mlforge.testing.samples import REFUSED, hashes, row, user

# More than the rows that stores are known to send in one piece.
MANY = 1_234
BAD_RECORDS: dict[str, dict[Any, Any]] = {
    "no key": {"x": 1},
    "a null key": {"user_id": None, "x": 1},
    "a float as a key": {"user_id": 1.5, "x": 1},
    **{name: {"user_id": "2", **values} for name, values in REFUSED.items()},
}


class BatchTests:
    """A batch keeps its order, and is written as a whole or not at all."""

    def test_values_come_in_the_order_they_were_asked_for(self, store: OnlineStore, feature_name: str) -> None:
        store.write_batch(feature_name, [{**user(n), "x": n} for n in range(9)], ["user_id"])
        asked = [7, 0, 100, 3, 7, 7, 101, 0]
        found = store.read_batch(feature_name, [user(n) for n in asked])
        assert found == [{"x": n} if n < 9 else None for n in asked]

    def test_the_same_entity_twice_is_given_twice_and_apart(self, store: OnlineStore, feature_name: str) -> None:
        store.write(feature_name, user(1), {"x": [1]})
        found = store.read_batch(feature_name, [user(1), user(1)])
        assert found == [{"x": [1]}, {"x": [1]}]
        first, second = found
        assert first is not None
        first["x"].append(2)
        assert second == {"x": [1]}

    def test_no_entities_are_no_values(self, store: OnlineStore, feature_name: str) -> None:
        assert store.read_batch(feature_name, []) == []
        assert store.read_features({}) == {}

    def test_no_records_are_no_write(self, store: OnlineStore, feature_name: str) -> None:
        store.write_batch(feature_name, [], ["user_id"])
        assert store.status(feature_name) is None
        assert not hashes(store, feature_name)

    def test_of_two_records_for_one_entity_the_last_one_counts(self, store: OnlineStore, feature_name: str) -> None:
        records: list[dict[str, Any]] = [
            {"user_id": "1", "x": 1},
            {"user_id": "2", "x": 2},
            {"user_id": 1, "y": 3},
            {"user_id": "2", "x": 4},
        ]
        store.write_batch(feature_name, records, ["user_id"])
        assert store.read_batch(feature_name, [user(1), user(2)]) == [{"y": 3}, {"x": 4}]

    def test_keys_are_no_values_and_values_no_keys(self, store: OnlineStore, feature_name: str) -> None:
        store.write_batch(feature_name, [{"x": 1, "b": "2", "y": None, "a": "1"}], ["a", "b"])
        assert store.read(feature_name, {"a": "1", "b": "2"}) == {"x": 1, "y": None}

    def test_a_batch_replaces_only_its_own_entities(self, store: OnlineStore, feature_name: str) -> None:
        store.write_batch(feature_name, [{**user(n), "x": n} for n in range(3)], ["user_id"])
        store.write_batch(feature_name, [{**user(1), "y": 1}], ["user_id"])
        found = store.read_batch(feature_name, [user(n) for n in range(3)])
        assert found == [{"x": 0}, {"y": 1}, {"x": 2}]

    def test_a_batch_may_be_large(self, store: OnlineStore, feature_name: str) -> None:
        store.write_batch(feature_name, [{**user(n), **row(n)} for n in range(MANY)], ["user_id"])
        asked = [*range(MANY - 1, -1, -1), MANY, *range(10)]
        found = store.read_batch(feature_name, [user(n) for n in asked])
        assert found == [row(n) if n < MANY else None for n in asked]
        listed = hashes(store, feature_name)
        assert listed is None or len(listed) == MANY

    @pytest.mark.parametrize("bad", BAD_RECORDS.values(), ids=BAD_RECORDS)
    def test_one_bad_record_and_nothing_is_written(
        self, store: OnlineStore, feature_name: str, bad: dict[str, Any]
    ) -> None:
        store.write(feature_name, user(1), row(1))
        with pytest.raises(RequestError):
            store.write_batch(feature_name, [{**user(1), "x": 2}, {**user(3), "x": 3}, bad], ["user_id"])
        assert store.read_batch(feature_name, [user(1), user(2), user(3)]) == [row(1), None, None]

    def test_a_batch_without_key_columns_is_refused(self, store: OnlineStore, feature_name: str) -> None:
        with pytest.raises(RequestError):
            store.write_batch(feature_name, [{"x": 1}], [])

    def test_several_features_are_read_at_once(self, store: OnlineStore, feature_name: str) -> None:
        other, unknown = f"{feature_name}_2", f"{feature_name}_3"
        store.write_batch(feature_name, [{**user(n), "x": n} for n in range(3)], ["user_id"])
        store.write(other, {"a": "1", "b": "2"}, {"y": 1})
        found = store.read_features(
            {
                other: [{"b": 2, "a": 1}],
                feature_name: [user(2), user(9), {"user_id": 0}, user(2)],
                unknown: [user(1)],
                f"{feature_name}_4": [],
            }
        )
        assert found == {
            other: [{"y": 1}],
            feature_name: [{"x": 2}, None, {"x": 0}, {"x": 2}],
            unknown: [None],
            f"{feature_name}_4": [],
        }
        assert list(found) == [other, feature_name, unknown, f"{feature_name}_4"]
