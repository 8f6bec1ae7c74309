"""Part of the conformance suite: turns at a feature, and what a store says that it holds after them."""

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mlforge.errors import RequestError
from mlforge.online.base import OnlineStore, Part
from mlforge.online.codec import to_frame
from mlforge.online.keys import entity_key_hash
from mlforge.testing.samples import exact, frame, hashes, kept, publish, row, status_of, user

# Offline dtypes, with a null in each; and what a read of the first row gives.
DTYPES = pl.DataFrame(
    {
        "user_id": [1, 2],
        "whole": [2**63 - 1, None],
        "real": [5e-324, None],
        "half": [0.1, None],
        "text": ['"é\r\n🎉\x00', None],
        "flag": [True, None],
        "day": [dt.date(2026, 1, 31), None],
        "seen": [dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC), None],
        "price": [Decimal("1234567890.10"), None],
        "days": [[dt.date(2026, 1, 31), None], None],
        "home": [{"since": dt.date(2026, 1, 31), "at": {"x": 0.5, "tags": ["a"]}}, None],
    },
    schema={
        "user_id": pl.Int64,
        "whole": pl.Int64,
        "real": pl.Float64,
        "half": pl.Float32,
        "text": pl.String,
        "flag": pl.Boolean,
        "day": pl.Date,
        "seen": pl.Datetime("us", "UTC"),
        "price": pl.Decimal(20, 2),
        "days": pl.List(pl.Date),
        "home": pl.Struct({"since": pl.Date, "at": pl.Struct({"x": pl.Float64, "tags": pl.List(pl.String)})}),
    },
)
READ = {
    "whole": 2**63 - 1,
    "real": 5e-324,
    "half": 0.10000000149011612,
    "text": '"é\r\n🎉\x00',
    "flag": True,
    "day": "2026-01-31",
    "seen": "2026-01-31T12:00:00.000000Z",
    "price": "1234567890.10",
    "days": ["2026-01-31", None],
    "home": {"since": "2026-01-31", "at": {"x": 0.5, "tags": ["a"]}},
}


class SyncTests:
    """A whole frame is published in a turn, and a status, where there is one, can be relied on."""

    def test_what_is_published_is_read_in_the_offline_dtypes(self, store: OnlineStore, feature_name: str) -> None:
        status = status_of(DTYPES)
        published = publish(store, feature_name, DTYPES, None, status)
        assert (published.written, published.deleted) == (2, 0)
        found = store.read_batch(feature_name, [user(1), user(2), user(3)])
        assert list(map(exact, found)) == [exact(READ), exact(dict.fromkeys(READ)), None]
        assert hashes(store, feature_name) in (None, {entity_key_hash(user(1)), entity_key_hash(user(2))})

        looked_up = store.lookup({feature_name: DTYPES.select("user_id")}, primary=True)[feature_name]
        assert looked_up.settled
        assert looked_up.schema == (status.schema if kept(store, feature_name, status) else None)
        # The point of it all: what a model is served has the dtypes that it was trained on.
        assert_frame_equal(to_frame(looked_up.rows, status.schema), DTYPES.drop("user_id"))

    def test_rows_with_a_null_key_belong_to_no_entity(self, store: OnlineStore, feature_name: str) -> None:
        rows = pl.DataFrame({"a": ["1", None, "1"], "b": [2, 2, None], "x": [1, 2, 3]})
        status = status_of(rows, "a", "b", total=1)
        assert publish(store, feature_name, rows, None, status).written == 1
        assert store.read(feature_name, {"b": "2", "a": "1"}) == {"x": 1}
        listed = hashes(store, feature_name)
        assert listed is None or len(listed) == 1
        kept(store, feature_name, status)

    def test_a_frame_without_rows_can_be_published(self, store: OnlineStore, feature_name: str) -> None:
        rows = frame({})
        assert publish(store, feature_name, rows, None, status_of(rows)).written == 0
        kept(store, feature_name, status_of(rows))
        assert store.read(feature_name, user(1)) is None
        assert not hashes(store, feature_name)

    def test_without_knowing_what_is_there_the_rows_are_all_that_is_left(
        self, store: OnlineStore, feature_name: str
    ) -> None:
        first = frame({1: 10, 2: 20, 3: 30})
        publish(store, feature_name, first, None, status_of(first))
        store.write(feature_name, user(4), row(40))
        store.write(f"{feature_name}_2", user(1), row(1))
        second = frame({2: 21, 5: 50})
        status = status_of(second, version=2)
        published = publish(store, feature_name, second, None, status)
        found = store.read_batch(feature_name, [user(n) for n in range(1, 6)])
        assert [found[1], found[4]] == [row(21), row(50)]
        left = [value for value in (found[0], found[2], found[3]) if value is not None]
        assert (published.written, published.deleted) == (2, 3 - len(left))
        if kept(store, feature_name, status):
            assert left == [], "the status says that they are gone"
        listed = hashes(store, feature_name)
        assert listed is None or len(listed) == 2 + len(left)
        assert store.read(f"{feature_name}_2", user(1)) == row(1)

    def test_knowing_what_is_there_only_that_is_touched(self, store: OnlineStore, feature_name: str) -> None:
        first = frame({1: 10, 2: 20, 3: 30, 4: 40})
        publish(store, feature_name, first, None, status_of(first))
        changed = frame({2: 21})
        # Text, as in another dtype before; the second one stays, since it is among the rows.
        vanished = pl.DataFrame({"user_id": ["3", "2"]})
        status = status_of(changed, version=2, total=3)
        published = publish(store, feature_name, changed, vanished, status)
        found = store.read_batch(feature_name, [user(n) for n in range(1, 5)])
        assert [found[0], found[1], found[3]] == [row(10), row(21), row(40)]
        assert (published.written, published.deleted) == (1, int(found[2] is None))
        if kept(store, feature_name, status):
            assert found[2] is None, "the status says that it is gone"
        listed = hashes(store, feature_name)
        assert listed is None or len(listed) == 3 + int(found[2] is not None)

    @pytest.mark.parametrize("known", [True, False])
    def test_parts_leave_what_all_of_it_at_once_would(self, store: OnlineStore, feature_name: str, known: bool) -> None:
        first = frame({1: 10, 2: 20, 3: 30, 4: 40})
        publish(store, feature_name, first, None, status_of(first))
        # Of the two that vanish one is in each part.
        vanished = [pl.DataFrame({"user_id": [number]}) if known else None for number in (2, 3)]
        parts = [
            Part(rows=frame({1: 11}), vanished=vanished[0], change=-1 if known else 1),
            Part(rows=frame({5: 50}), vanished=vanished[1], change=0 if known else 1),
        ]
        status = status_of(first, version=2, total=4 if known else 0)
        with store.turn(feature_name) as turn:
            published = turn.publish_parts(iter(parts), status)
        found = store.read_batch(feature_name, [user(n) for n in range(1, 6)])
        assert [found[0], found[4]] == [row(11), row(50)]
        gone = [found[number] is None for number in (1, 2, 3)]
        assert (published.written, published.deleted) == (2, sum(gone))
        if kept(store, feature_name, replace(status, rows=3 if known else 2)):
            assert gone == [True, True, not known], "the status says what is there"

    def test_what_was_only_written_by_hand_is_touched_no_more_than_that(
        self, store: OnlineStore, feature_name: str
    ) -> None:
        for number in (1, 2, 3):
            store.write(feature_name, user(number), row(10 * number))
        changed = frame({2: 21})
        status = status_of(changed, total=2)
        published = publish(store, feature_name, changed, pl.DataFrame({"user_id": [3]}), status)
        found = store.read_batch(feature_name, [user(n) for n in range(1, 4)])
        assert found[:2] == [row(10), row(21)]
        assert (published.written, published.deleted) == (1, int(found[2] is None))
        if kept(store, feature_name, status):
            assert found[2] is None, "the status says that it is gone"

    def test_columns_and_key_columns_may_change(self, store: OnlineStore, feature_name: str) -> None:
        first = pl.DataFrame({"a": [1, 2], "x": [10, 20]})
        publish(store, feature_name, first, None, status_of(first, "a"))
        assert list(store.lookup({feature_name: first.select("a")})[feature_name].rows) == [{"x": 10}, {"x": 20}]
        second = pl.DataFrame({"b": ["1"], "a": [1], "y": ["n"]})
        status = status_of(second, "a", "b", version=2)
        publish(store, feature_name, second, first.select("a"), status)
        if kept(store, feature_name, status):
            # It may also say that there are other key columns now.
            with suppress(RequestError):
                assert store.read(feature_name, {"a": "1"}) is None
        assert store.read(feature_name, {"a": "1", "b": "1"}) == {"y": "n"}
        found = store.lookup({feature_name: second.select("a", "b")}, primary=True)[feature_name]
        assert list(found.rows) == [{"y": "n"}]
        assert found.schema in (None, status.schema)

    def test_the_next_turn_knows_what_the_last_one_left(self, store: OnlineStore, feature_name: str) -> None:
        with store.turn(feature_name) as turn:
            assert turn.status is None
            assert turn.doubt is not None, "nothing is known, so nothing can be relied on"
        rows = frame({1: 10})
        publish(store, feature_name, rows, None, status_of(rows))
        for writing in (False, True):
            with store.turn(feature_name, writing=writing) as turn:
                assert turn.status == store.status(feature_name)
                assert turn.status is not None or turn.doubt is not None

    def test_confirming_changes_the_status_and_no_value(self, store: OnlineStore, feature_name: str) -> None:
        rows = frame({1: 10, 2: 20})
        publish(store, feature_name, rows, None, status_of(rows))
        later = status_of(rows, version=2)
        with store.turn(feature_name) as turn:
            turn.confirm(later)
        kept(store, feature_name, later)
        assert store.read_batch(feature_name, [user(1), user(2), user(3)]) == [row(10), row(20), None]

    @pytest.mark.parametrize("batch", [False, True], ids=["write", "write_batch"])
    def test_after_a_write_by_hand_the_status_is_not_relied_on(
        self, store: OnlineStore, feature_name: str, batch: bool
    ) -> None:
        rows = frame({1: 10})
        publish(store, feature_name, rows, None, status_of(rows))
        if batch:
            store.write_batch(feature_name, [{**user(1), **row(11)}], ["user_id"])
        else:
            store.write(feature_name, user(1), row(11))
        status = store.status(feature_name)
        assert status is None or status.state == "dirty"
        with store.turn(feature_name) as turn:
            assert turn.doubt is not None
            turn.publish(rows, None, status_of(rows, version=2))
        kept(store, feature_name, status_of(rows, version=2))
        assert store.read(feature_name, user(1)) == row(10)

    def test_a_status_can_be_distrusted_by_those_who_saw_it(self, store: OnlineStore, feature_name: str) -> None:
        rows = frame({1: 10})
        publish(store, feature_name, rows, None, status_of(rows))
        seen = store.status(feature_name)
        assert not store.distrust(feature_name, "somebody else's")
        assert store.status(feature_name) == seen
        assert store.distrust(feature_name, "" if seen is None else seen.token) == (seen is not None)
        if seen is not None:
            assert store.status(feature_name) == replace(seen, state="dirty")
            with store.turn(feature_name, writing=False) as turn:
                assert turn.doubt is not None
        assert store.read(feature_name, user(1)) == row(10)

    def test_clear_takes_away_one_feature_or_says_that_it_cannot(self, store: OnlineStore, feature_name: str) -> None:
        rows = frame({1: 10, 2: 20})
        publish(store, feature_name, rows, None, status_of(rows))
        publish(store, f"{feature_name}_2", rows, None, status_of(rows))
        store.write(feature_name, user(3), row(30))
        try:
            cleared = store.clear(feature_name)
        except RequestError:
            assert store.read_batch(feature_name, [user(1), user(3)]) == [row(10), row(30)]
            return
        assert cleared == 3
        assert store.read_batch(feature_name, [user(n) for n in (1, 2, 3)]) == [None] * 3
        assert store.status(feature_name) is None
        assert not hashes(store, feature_name)
        assert store.clear(feature_name) == 0
        assert store.read(f"{feature_name}_2", user(1)) == row(10)
        kept(store, f"{feature_name}_2", status_of(rows))
        publish(store, feature_name, rows, None, status_of(rows, version=2))
        assert store.read(feature_name, user(1)) == row(10)

    def test_a_turn_that_fails_can_be_followed_by_another(self, store: OnlineStore, feature_name: str) -> None:
        rows = frame({1: 10})
        with pytest.raises(ZeroDivisionError), store.turn(feature_name):
            raise ZeroDivisionError
        publish(store, feature_name, rows, None, status_of(rows))
        with pytest.raises(ZeroDivisionError), store.turn(feature_name):
            raise ZeroDivisionError
        kept(store, feature_name, status_of(rows))
        assert store.read(feature_name, user(1)) == row(10)

    def test_where_there_is_a_status_one_turn_waits_for_another(self, store: OnlineStore, feature_name: str) -> None:
        rows = frame({1: 10})
        publish(store, feature_name, rows, None, status_of(rows))
        inside = threading.Event()

        def second() -> None:
            with store.turn(feature_name):
                inside.set()

        with ThreadPoolExecutor(1) as pool:
            with store.turn(feature_name), store.turn(f"{feature_name}_2"):
                waiting = pool.submit(second)
                at_once = inside.wait(0.1)
            waiting.result(timeout=60)
        if kept(store, feature_name, status_of(rows)):
            assert not at_once, "two turns at a feature at once, and only one of them can be right about its status"

    def test_the_memory_of_entities_is_a_number_or_not_known(self, store: OnlineStore, feature_name: str) -> None:
        rows = frame({1: 10, 2: 20})
        assert store.bytes_per_entity(feature_name, rows.select("user_id")) is None
        publish(store, feature_name, rows, None, status_of(rows))
        size = store.bytes_per_entity(feature_name, pl.DataFrame({"user_id": [1, 9]}))
        assert size is None or size > 0
