"""Online stores that are wrong on purpose, and by which test of the conformance suite that is found."""

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import polars as pl

from accounting_store import AccountingStore, AccountingTurn
from mlforge.errors import RequestError
from mlforge.online import OnlineStore, Status
from mlforge.online.base import Found, Part, Published, Turn
from mlforge.online.codec import encode
from mlforge.online.keys import entity_key_hash
from mlforge.testing import MemoryStore

Keys = dict[str, Any]
Rows = list[dict[str, Any] | None]


class SortsItsAnswers(MemoryStore):
    def read_batch(self, feature_name: str, entity_keys: list[Keys]) -> Rows:
        return super().read_batch(feature_name, sorted(entity_keys, key=str))


class AnswersTheSameOnce(MemoryStore):
    def read_batch(self, feature_name: str, entity_keys: list[Keys]) -> Rows:
        return super().read_batch(feature_name, list({str(keys): keys for keys in entity_keys}.values()))


class HasAnEmptyDictForMissing(MemoryStore):
    def read_batch(self, feature_name: str, entity_keys: list[Keys]) -> Rows:
        return [values or {} for values in super().read_batch(feature_name, entity_keys)]


class HasNoneForEmpty(MemoryStore):
    def read_batch(self, feature_name: str, entity_keys: list[Keys]) -> Rows:
        return [values or None for values in super().read_batch(feature_name, entity_keys)]


class Keyed(MemoryStore):
    """Finds entities by something else than all of their keys as text."""

    def key(self, keys: Keys) -> Keys:
        raise NotImplementedError

    def write(self, feature_name: str, entity_keys: Keys, values: dict[str, Any]) -> None:
        super().write(feature_name, self.key(entity_keys), values)

    def write_batch(self, feature_name: str, records: list[dict[str, Any]], entity_key_columns: list[str]) -> None:
        changed = [{**r, **self.key({c: r[c] for c in entity_key_columns if c in r})} for r in records]
        super().write_batch(feature_name, changed, entity_key_columns)

    def read_batch(self, feature_name: str, entity_keys: list[Keys]) -> Rows:
        return super().read_batch(feature_name, [self.key(keys) for keys in entity_keys])


class TellsDtypesApart(Keyed):
    def key(self, keys: Keys) -> Keys:
        return {c: f"int {v}" if isinstance(v, int) else v for c, v in keys.items()}


class FoldsCase(Keyed):
    def key(self, keys: Keys) -> Keys:
        return {c: v.lower() if isinstance(v, str) else v for c, v in keys.items()}


class TakesNoneForText(Keyed):
    def key(self, keys: Keys) -> Keys:
        return {c: "None" if v is None else v for c, v in keys.items()}


class UsesOneKeyOnly(Keyed):
    def key(self, keys: Keys) -> Keys:
        first = min(keys, default=None)
        return {c: v if c == first else "" for c, v in keys.items()}


class JoinsItsKeys(Keyed):
    def key(self, keys: Keys) -> Keys:
        if not all(isinstance(v, str) for v in keys.values()):
            return keys
        return dict.fromkeys(keys, ":".join(v for _, v in sorted(keys.items())))


class MindsTheOrderOfKeys(Keyed):
    def key(self, keys: Keys) -> Keys:
        return {c: f"{n}{v}" if isinstance(v, str) else v for n, (c, v) in enumerate(keys.items())}


class Merges(MemoryStore):
    def write(self, feature_name: str, entity_keys: Keys, values: dict[str, Any]) -> None:
        super().write(feature_name, entity_keys, (self.read(feature_name, entity_keys) or {}) | values)


class ForgetsTheFeature(MemoryStore):
    def write(self, feature_name: str, entity_keys: Keys, values: dict[str, Any]) -> None:
        super().write("f", entity_keys, values)

    def read_batch(self, feature_name: str, entity_keys: list[Keys]) -> Rows:
        return super().read_batch("f", entity_keys)


class WritesHalfOfABadBatch(MemoryStore):
    def write_batch(self, feature_name: str, records: list[dict[str, Any]], entity_key_columns: list[str]) -> None:
        for record in records:
            super().write_batch(feature_name, [record], entity_key_columns)


class KeepsTheFirstOfTwo(MemoryStore):
    def write_batch(self, feature_name: str, records: list[dict[str, Any]], entity_key_columns: list[str]) -> None:
        super().write_batch(feature_name, records[::-1], entity_key_columns)


class KeepsKeysAsValues(MemoryStore):
    def write_batch(self, feature_name: str, records: list[dict[str, Any]], entity_key_columns: list[str]) -> None:
        super().write_batch(feature_name, records, entity_key_columns)
        for record in records:
            self.write(feature_name, {c: record[c] for c in entity_key_columns}, record)


class HoldsAllNumbersAsFloats(MemoryStore):
    def read_batch(self, feature_name: str, entity_keys: list[Keys]) -> Rows:
        rows = super().read_batch(feature_name, entity_keys)
        return [row and {c: float(v) if isinstance(v, int) else v for c, v in row.items()} for row in rows]


class HoldsObjects(OnlineStore):
    """No codec: the objects themselves."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], dict[str, Any]] = {}

    def write(self, feature_name: str, entity_keys: Keys, values: dict[str, Any]) -> None:
        encode(values)
        self.values[feature_name, entity_key_hash(entity_keys)] = values

    def write_batch(self, feature_name: str, records: list[dict[str, Any]], entity_key_columns: list[str]) -> None:
        for record in records:
            keys = {column: record[column] for column in entity_key_columns}
            self.write(feature_name, keys, {c: v for c, v in record.items() if c not in keys})

    def read(self, feature_name: str, entity_keys: Keys) -> dict[str, Any] | None:
        return self.values.get((feature_name, entity_key_hash(entity_keys)))

    def read_batch(self, feature_name: str, entity_keys: list[Keys]) -> Rows:
        return [self.read(feature_name, keys) for keys in entity_keys]


class WritesColumnByColumn(MemoryStore):
    def write(self, feature_name: str, entity_keys: Keys, values: dict[str, Any]) -> None:
        for column, value in values.items():
            so_far = self.read(feature_name, entity_keys) or {}
            super().write(feature_name, entity_keys, so_far | {column: value})


class DeletesBeforeItWrites(HoldsObjects):
    def write(self, feature_name: str, entity_keys: Keys, values: dict[str, Any]) -> None:
        self.values.pop((feature_name, entity_key_hash(entity_keys)), None)
        time.sleep(1e-4)
        super().write(feature_name, entity_keys, values)


class WritesAllOfItBack(MemoryStore):
    def write(self, feature_name: str, entity_keys: Keys, values: dict[str, Any]) -> None:
        everything = dict(self._values)
        time.sleep(1e-4)
        everything[feature_name, entity_key_hash(entity_keys)] = encode(values)
        self._values = everything


class AwaitsSomethingElse(MemoryStore):
    async def aread_batch(self, feature_name: str, entity_keys: list[Keys]) -> Rows:
        return [values for values in self.read_batch(feature_name, entity_keys) if values is not None]


class MixesUpFeatures(MemoryStore):
    def read_features(self, requests: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Rows]:
        found = super().read_features(requests)
        return dict(zip(found, reversed(found.values()), strict=True))


class TakesAnything(MemoryStore):
    def write(self, feature_name: str, entity_keys: Keys, values: dict[str, Any]) -> None:
        try:
            super().write(feature_name, entity_keys, values)
        except RequestError:
            super().write(feature_name, entity_keys, {str(c): repr(v) for c, v in values.items()})


class PublishesTextOnly(MemoryStore):
    @contextmanager
    def turn(self, feature_name: str, *, writing: bool = True) -> Generator[Turn]:
        yield TextTurn(self, feature_name)


class TextTurn(Turn):
    def publish(self, rows: pl.DataFrame, vanished: pl.DataFrame | None, status: Status) -> Published:
        return super().publish(rows.with_columns(pl.col(pl.Date).cast(pl.String) + " 00:00"), vanished, status)


class ServesTheFirstSchema(AccountingStore):
    def lookup(self, requests: Mapping[str, pl.DataFrame], *, primary: bool = False) -> dict[str, Found]:
        found = super().lookup(requests)
        return {name: replace(each, schema=self.__dict__.setdefault(name, each.schema)) for name, each in found.items()}


class ConfirmsAndForgets(AccountingStore):
    @contextmanager
    def turn(self, feature_name: str, *, writing: bool = True) -> Generator[Turn]:
        with super().turn(feature_name, writing=writing) as turn:
            before = self.status(feature_name)
            yield turn
            if before is not None and before.token != self.statuses[feature_name].token:
                self.statuses[feature_name] = before


class IsPleasedWithItself(AccountingStore):
    def touched(self, feature_name: str, key_columns: list[str]) -> None:
        pass


class KeepsWhatVanished(AccountingStore):
    def delete(self, feature_name: str, hashes: set[str]) -> int:
        return len(hashes)


class TakesEachPartForAll(AccountingStore):
    @contextmanager
    def turn(self, feature_name: str, *, writing: bool = True) -> Generator[Turn]:
        with super().turn(feature_name, writing=writing):
            yield PartTurn(self, feature_name)


class PartTurn(AccountingTurn):
    def publish_parts(self, parts: Iterable[Part], status: Status) -> Published:
        done = [self.publish(part.rows, part.vanished, status) for part in parts]
        return Published(written=sum(each.written for each in done), deleted=sum(each.deleted for each in done))


class DeletesWhatStays(AccountingStore):
    @contextmanager
    def turn(self, feature_name: str, *, writing: bool = True) -> Generator[Turn]:
        with super().turn(feature_name, writing=writing) as turn:
            yield turn
        self.delete(feature_name, {entity_key_hash({"user_id": 2})})


class LetsTurnsOverlap(AccountingStore):
    @contextmanager
    def turn(self, feature_name: str, *, writing: bool = True) -> Generator[Turn]:
        yield AccountingTurn(self, feature_name)


class NeverEndsATurnThatFailed(AccountingStore):
    @contextmanager
    def turn(self, feature_name: str, *, writing: bool = True) -> Generator[Turn]:
        if writing and not self.turns[feature_name].acquire(timeout=0.1):
            raise RequestError("Somebody else's turn does not end.")
        yield AccountingTurn(self, feature_name)
        if writing:
            self.turns[feature_name].release()


class ListsOtherFeatures(AccountingStore):
    def entity_hashes(self, feature_name: str) -> pl.Series | None:
        return pl.Series([key for name, key in self._values if name.startswith(feature_name)], dtype=pl.String)


class TrustsNobody(AccountingStore):
    def distrust(self, feature_name: str, token: str) -> bool:
        return super().distrust(feature_name, getattr(self.status(feature_name), "token", ""))


class ClearsEverything(AccountingStore):
    def clear(self, feature_name: str) -> int:
        count = super().clear(feature_name)
        self._values.clear()
        return count


FOUND_BY: dict[type[OnlineStore], str] = {
    SortsItsAnswers: "test_values_come_in_the_order_they_were_asked_for",
    AnswersTheSameOnce: "test_the_same_entity_twice_is_given_twice_and_apart",
    HasAnEmptyDictForMissing: "test_an_entity_that_was_never_written_is_none",
    HasNoneForEmpty: "test_an_entity_without_values_is_not_missing",
    TellsDtypesApart: "test_the_dtype_of_a_key_does_not_matter",
    FoldsCase: "test_a_key_may_be_any_text",
    TakesNoneForText: "test_keys_that_cannot_be_are_refused_and_nothing_is_written",
    UsesOneKeyOnly: "test_all_key_columns_count_and_where_one_ends",
    JoinsItsKeys: "test_all_key_columns_count_and_where_one_ends",
    MindsTheOrderOfKeys: "test_the_order_of_key_columns_does_not_matter",
    Merges: "test_a_write_replaces_all_values_and_old_columns_go",
    ForgetsTheFeature: "test_features_do_not_see_each_other",
    WritesHalfOfABadBatch: "test_one_bad_record_and_nothing_is_written",
    KeepsTheFirstOfTwo: "test_of_two_records_for_one_entity_the_last_one_counts",
    KeepsKeysAsValues: "test_keys_are_no_values_and_values_no_keys",
    HoldsAllNumbersAsFloats: "test_every_kind_of_value_comes_back_exactly",
    HoldsObjects: "test_a_dict_that_is_changed_later_changes_nothing_in_the_store",
    WritesColumnByColumn: "test_readers_see_whole_values_while_they_are_written",
    DeletesBeforeItWrites: "test_readers_see_whole_values_while_they_are_written",
    WritesAllOfItBack: "test_writers_at_once_lose_nothing",
    AwaitsSomethingElse: "test_asynchronous_reads_give_the_same",
    MixesUpFeatures: "test_several_features_are_read_at_once",
    TakesAnything: "test_what_no_column_can_hold_is_refused_and_the_old_values_stay",
    PublishesTextOnly: "test_what_is_published_is_read_in_the_offline_dtypes",
    ServesTheFirstSchema: "test_columns_and_key_columns_may_change",
    ConfirmsAndForgets: "test_confirming_changes_the_status_and_no_value",
    IsPleasedWithItself: "test_after_a_write_by_hand_the_status_is_not_relied_on",
    KeepsWhatVanished: "test_without_knowing_what_is_there_the_rows_are_all_that_is_left",
    TakesEachPartForAll: "test_parts_leave_what_all_of_it_at_once_would",
    DeletesWhatStays: "test_knowing_what_is_there_only_that_is_touched",
    LetsTurnsOverlap: "test_where_there_is_a_status_one_turn_waits_for_another",
    NeverEndsATurnThatFailed: "test_a_turn_that_fails_can_be_followed_by_another",
    ListsOtherFeatures: "test_clear_takes_away_one_feature_or_says_that_it_cannot",
    TrustsNobody: "test_a_status_can_be_distrusted_by_those_who_saw_it",
    ClearsEverything: "test_clear_takes_away_one_feature_or_says_that_it_cannot",
}
