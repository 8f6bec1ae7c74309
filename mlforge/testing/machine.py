"""A random user of an online store, who keeps a dict beside it and compares."""

from collections.abc import Callable
from typing import Any

import polars as pl
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mlforge.errors import RequestError
from mlforge.online.base import OnlineStore
from mlforge.online.keys import entity_key_hash
from mlforge.online.status import Status
from mlforge.testing.samples import exact, hashes, kept, new_name, publish, status_of

EXAMPLES, STEPS = 25, 15
ENTITIES = 4
# One feature with one key column and one with two; the keys of a frame are numbers, those of a request are text.
KEY_COLUMNS = (("user_id",), ("a", "b"))
SCHEMA = {"x": pl.Int64(), "y": pl.Float64(), "text": pl.String()}

_features = st.integers(0, len(KEY_COLUMNS) - 1)
_entities = st.integers(0, ENTITIES - 1)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
)
_values = st.dictionaries(st.sampled_from([*SCHEMA, "é"]), _scalars | st.lists(_scalars, max_size=2), max_size=3)
_records = st.lists(st.tuples(_entities, _values), max_size=4)
_rows = st.dictionaries(
    _entities,
    st.fixed_dictionaries(
        {
            "x": st.none() | st.integers(-(2**63), 2**63 - 1),
            "y": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "text": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        }
    ),
)


def state_machine(make_store: Callable[[], OnlineStore]) -> type[RuleBasedStateMachine]:
    """A Hypothesis state machine that drives a store and a dict side by side: writes, batches, syncs, clears, reads.

    `TestMine = state_machine(make_store).TestCase` is a test of some seconds; its `settings` may be replaced. Whether
    the store keeps a status, deletes, or lists its entities is seen from what it does.

    Args:
        make_store: Called for every example. It may give the same store each time, which may hold other features.
    """

    class OnlineStoreMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.store = make_store()
            self.features = [_Feature(self.store, columns) for columns in KEY_COLUMNS]
            # Listing looks through the whole store, so only what was just touched is listed.
            self.touched = self.features[0]

        def touch(self, feature: int) -> _Feature:
            self.touched = self.features[feature]
            return self.touched

        @rule(feature=_features, entity=_entities, values=_values)
        def write(self, feature: int, entity: int, values: dict[str, Any]) -> None:
            self.touch(feature).write(entity, values)

        @rule(feature=_features, records=_records)
        def write_batch(self, feature: int, records: list[tuple[int, dict[str, Any]]]) -> None:
            self.touch(feature).write_batch(records)

        @rule(feature=_features, rows=_rows)
        def publish_everything(self, feature: int, rows: dict[int, dict[str, Any]]) -> None:
            self.touch(feature).publish(rows, None)

        @rule(feature=_features, rows=_rows, vanished=st.sets(_entities))
        def publish_what_differs(self, feature: int, rows: dict[int, dict[str, Any]], vanished: set[int]) -> None:
            self.touch(feature).publish(rows, vanished)

        @rule(feature=_features)
        def clear(self, feature: int) -> None:
            self.touch(feature).clear()

        @rule(feature=_features, entity=_entities)
        def read(self, feature: int, entity: int) -> None:
            self.touch(feature).compare_one(entity)

        @invariant()
        def all_reads_agree(self) -> None:
            everything = {each.name: [each.keys(entity) for entity in range(ENTITIES)] for each in self.features}
            at_once = self.store.read_features(everything)
            for each in self.features:
                each.compare(at_once[each.name])
                each.compare(self.store.read_batch(each.name, everything[each.name]))

        @invariant()
        def what_is_listed_is_there(self) -> None:
            self.touched.compare_hashes()

        @invariant()
        def the_status_is_right(self) -> None:
            for each in self.features:
                each.compare_status()

    machine = OnlineStoreMachine
    machine.TestCase.settings = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return machine


class _Feature:
    """One feature in a store, and beside it what should be there."""

    def __init__(self, store: OnlineStore, key_columns: tuple[str, ...]) -> None:
        self.name = new_name()
        self.model: dict[int, dict[str, Any]] = {}
        self._store = store
        self._key_columns = key_columns
        self._version = 0
        # What the last sync left; None before the first one, and once it was cleared.
        self._published: Status | None = None
        self._by_hand = False
        # Whether the store keeps a status, once a sync has shown it.
        self._keeps = False

    def keys(self, entity: int) -> dict[str, str]:
        return {column: str(number) for column, number in self._numbers(entity).items()}

    def write(self, entity: int, values: dict[str, Any]) -> None:
        self._store.write(self.name, self.keys(entity), values)
        self.model[entity] = values
        self._by_hand = True

    def write_batch(self, records: list[tuple[int, dict[str, Any]]]) -> None:
        batch = [{**values, **self.keys(entity)} for entity, values in records]
        self._store.write_batch(self.name, batch, list(self._key_columns))
        self.model.update(records)
        self._by_hand = self._by_hand or bool(records)

    def publish(self, rows: dict[int, dict[str, Any]], vanished: set[int] | None) -> None:
        """Publish; without knowing what vanished, the rows are all that shall be there."""
        self._version += 1
        going = (self.model.keys() if vanished is None else vanished) - rows.keys()
        total = len((self.model.keys() | rows.keys()) - going)
        keys = dict.fromkeys(self._key_columns, pl.Int64())
        frame = pl.DataFrame(
            [{**self._numbers(entity), **values} for entity, values in rows.items()], schema={**keys, **SCHEMA}
        )
        gone = None if vanished is None else pl.DataFrame(list(map(self._numbers, vanished)), schema=keys)
        status = status_of(frame, *self._key_columns, version=self._version, total=total)
        published = publish(self._store, self.name, frame, gone, status)
        assert published.written == len(rows)
        self._keeps = kept(self._store, self.name, status)
        self._published, self._by_hand = status, False
        self.model.update(rows)
        going &= self.model.keys()
        assert published.deleted == self._remove(going, may_stay=not self._keeps)

    def clear(self) -> None:
        try:
            cleared = self._store.clear(self.name)
        except RequestError:
            return
        assert cleared == len(self.model)
        self.model.clear()
        self._published, self._by_hand = None, False

    def compare(self, found: list[dict[str, Any] | None]) -> None:
        assert list(map(exact, found)) == [exact(self.model.get(entity)) for entity in range(ENTITIES)]

    def compare_one(self, entity: int) -> None:
        assert exact(self._store.read(self.name, self.keys(entity))) == exact(self.model.get(entity))

    def compare_hashes(self) -> None:
        listed = hashes(self._store, self.name)
        assert listed is None or listed == {entity_key_hash(self.keys(entity)) for entity in self.model}

    def compare_status(self) -> None:
        status = self._store.status(self.name)
        if self._by_hand:
            assert (status is None and not self._keeps) or (status is not None and status.state == "dirty")
        elif self._published is None:
            assert status is None
        else:
            assert kept(self._store, self.name, self._published) == self._keeps

    def _numbers(self, entity: int) -> dict[str, int]:
        numbers = (entity,) if len(self._key_columns) == 1 else divmod(entity, 2)
        return dict(zip(self._key_columns, numbers, strict=True))

    def _remove(self, entities: set[int], *, may_stay: bool) -> int:
        """Take entities out of the model, but those that are still in a store that is free to keep them."""
        found = self._store.read_batch(self.name, [self.keys(entity) for entity in entities])
        gone = {entity for entity, values in zip(entities, found, strict=True) if values is None or not may_stay}
        for entity in gone:
            del self.model[entity]
        return len(gone)
