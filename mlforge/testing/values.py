"""Part of the conformance suite: what a value may be, and that it is replaced as a whole."""

import pytest

from mlforge.errors import RequestError
from mlforge.online.base import OnlineStore
from mlforge.testing.samples import REFUSED, VALUES, exact, new_name, row, user


class ValueTests:
    """Values come back exactly, and a write replaces all of an entity's values."""

    def test_every_kind_of_value_comes_back_exactly(self, store: OnlineStore, feature_name: str) -> None:
        given = {column: value for column, (value, _) in VALUES.items()}
        expected = {column: value for column, (_, value) in VALUES.items()}
        store.write(feature_name, user(1), given)
        assert exact(store.read(feature_name, user(1))) == exact(expected)

    def test_a_batch_keeps_values_as_a_single_write_does(self, store: OnlineStore, feature_name: str) -> None:
        given = {column: value for column, (value, _) in VALUES.items()}
        expected = {column: value for column, (_, value) in VALUES.items()}
        store.write_batch(feature_name, [{**user(1), **given}], ["user_id"])
        assert exact(store.read(feature_name, user(1))) == exact(expected)
        assert list(map(exact, store.read_batch(feature_name, [user(1)]))) == [exact(expected)]

    def test_a_write_replaces_all_values_and_old_columns_go(self, store: OnlineStore, feature_name: str) -> None:
        store.write(feature_name, user(1), {"x": 1, "old": 1})
        store.write(feature_name, user(1), {"x": 2, "new": 2})
        assert store.read(feature_name, user(1)) == {"x": 2, "new": 2}
        store.write_batch(feature_name, [{**user(1), "x": 3}], ["user_id"])
        assert store.read(feature_name, user(1)) == {"x": 3}

    def test_an_entity_without_values_is_not_missing(self, store: OnlineStore, feature_name: str) -> None:
        store.write(feature_name, user(1), {"x": None})
        store.write(feature_name, user(2), {})
        store.write_batch(feature_name, [user(3)], ["user_id"])
        found = store.read_batch(feature_name, [user(1), user(2), user(3), user(4)])
        assert found == [{"x": None}, {}, {}, None]

    def test_the_name_of_a_column_may_be_any_text(self, store: OnlineStore, feature_name: str) -> None:
        names = ["amount__sum__7d", "é y", "a:b", "a.b", '"quoted"', "back\\slash", "'", "$x", "%s", "{}", "x" * 300]
        values = dict(zip(names, range(len(names)), strict=True))
        store.write(feature_name, user(1), values)
        assert store.read(feature_name, user(1)) == values

    @pytest.mark.parametrize("values", REFUSED.values(), ids=REFUSED)
    def test_what_no_column_can_hold_is_refused_and_the_old_values_stay(
        self, store: OnlineStore, feature_name: str, values: dict[str, object]
    ) -> None:
        store.write(feature_name, user(1), row(1))
        with pytest.raises(RequestError):
            store.write(feature_name, user(1), {"good": 1, **values})
        assert store.read(feature_name, user(1)) == row(1)

    def test_a_dict_that_is_changed_later_changes_nothing_in_the_store(
        self, store: OnlineStore, feature_name: str
    ) -> None:
        keys, values = user(1), {"x": [1]}
        store.write(feature_name, keys, values)
        values["x"].append(2)
        keys["user_id"] = "2"
        found = store.read(feature_name, user(1))
        assert found == {"x": [1]}
        found["x"].append(3)
        assert store.read(feature_name, user(1)) == {"x": [1]}

    def test_what_is_given_is_left_as_it_is(self, store: OnlineStore, feature_name: str) -> None:
        records = [{**user(1), "x": 1}]
        keys = [user(1)]
        columns = ["user_id"]
        store.write_batch(feature_name, records, columns)
        store.read_batch(feature_name, keys)
        assert (records, keys, columns) == ([{**user(1), "x": 1}], [user(1)], ["user_id"])

    def test_the_arguments_have_the_names_of_the_contract(self, store: OnlineStore) -> None:
        name = new_name()
        store.write(feature_name=name, entity_keys=user(1), values={"x": 1})
        store.write_batch(feature_name=name, records=[{**user(2), "x": 2}], entity_key_columns=["user_id"])
        assert store.read(feature_name=name, entity_keys=user(2)) == {"x": 2}
        assert store.read_batch(feature_name=name, entity_keys=[user(1)]) == [{"x": 1}]
