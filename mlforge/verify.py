"""Comparing what an online store holds with what it should hold."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import orjson
import polars as pl

from mlforge import precedence
from mlforge.errors import RequestError, UnavailableError
from mlforge.online.base import OnlineStore
from mlforge.online.codec import DamagedValueError, encode_expr
from mlforge.online.keys import entity_key_hash_expr
from mlforge.online.status import Status
from mlforge.store.base import Store
from mlforge.store.snapshot import Snapshot

# Small enough that readers do not wait long behind one of these.
ENTITIES_PER_READ = 1_000
EXAMPLES = 5
ATTEMPTS = 3
_VALUE = "mlforge_value"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """How what is online differs from what should be there.

    Attributes:
        feature: The feature's name.
        version: The version it was compared with.
        as_of: The instant it was compared at, UTC.
        checked: How many entities were compared.
        missing: How many of them are not there.
        expired: How many more are not there, and may be so because their time to live is over.
        extra: How many entities are there and should not be; 0 where only a sample was compared, or the store cannot
            list what it holds.
        different: How many have other values, or something that is no value.
        examples: Some of each kind: dicts of `problem` (`missing`, `extra` or `different`), `entity` (the keys; of an
            extra one the key hash), and `expected` and `found` where they differ.
        seconds: How long it took.
    """

    feature: str
    version: str
    as_of: datetime
    checked: int
    missing: int = 0
    expired: int = 0
    extra: int = 0
    different: int = 0
    examples: Sequence[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def agrees(self) -> bool:
        """Whether nothing is missing, extra or different."""
        return not (self.missing or self.extra or self.different)


def verify(
    feature_name: str,
    store: Store,
    online_store: OnlineStore,
    *,
    as_of: datetime | None = None,
    now: datetime,
    sample: int | None = None,
) -> VerifyReport:
    """Computes again what should be online, and compares.

    Where something differs from what the store's own status says, the status is marked, so that the next sync writes
    everything.

    Args:
        feature_name: The feature.
        store: Where its table is.
        online_store: What is looked at.
        as_of: Compare with the newest version at this instant; None: with the version and instant that the status
            names, or, where there is no status, with the newest version at `now`.
        now: The instant that it is.
        sample: Compare so many entities, chosen at random; None: all, and look for others.

    Raises:
        RequestError: The feature is not built, another project has put it online, or the sample is no number from 1.
        StoreError: A store cannot be read, or syncs kept changing what is online meanwhile.
    """
    if sample is not None and (isinstance(sample, bool) or not isinstance(sample, int) or sample < 1):
        raise RequestError(f"{sample!r} is no sample: write how many entities, from 1.")
    began = time.monotonic()
    for _ in range(ATTEMPTS):
        status = online_store.status(feature_name)
        snapshot, instant = _expected(feature_name, store, status, as_of, now)
        found = _compare(snapshot, instant, online_store, status, sample)
        after = online_store.status(feature_name)
        if (status and status.token, status and status.state) == (after and after.token, after and after.state):
            if not found.agrees and as_of is None and status is not None and status.state == "complete":
                online_store.distrust(feature_name, status.token)
            return replace(found, seconds=time.monotonic() - began)
    raise UnavailableError(f"Feature {feature_name!r} was synced during each of {ATTEMPTS} attempts to verify it.")


def _expected(
    feature_name: str, store: Store, status: Status | None, as_of: datetime | None, now: datetime
) -> tuple[Snapshot, datetime]:
    newest = store.require(feature_name)
    if status is not None and status.synced:
        precedence.require_same_project(newest, status)
    if as_of is not None or status is None or not status.synced or status.table_id != newest.table_id:
        return newest, as_of or now
    if status.delta_version == newest.delta_version:
        return newest, status.as_of
    return store.open(feature_name, status.delta_version) or newest, status.as_of


def _compare(
    snapshot: Snapshot, instant: datetime, online_store: OnlineStore, status: Status | None, sample: int | None
) -> VerifyReport:
    name, keys = snapshot.feature_name, list(snapshot.record.keys)
    rows = snapshot.at(instant)
    part = rows if sample is None or sample >= rows.height else rows.sample(sample)
    values = part.select(*keys, encode_expr(snapshot.value_schema).alias(_VALUE))
    missing: list[dict[str, Any]] = []
    different: list[dict[str, Any]] = []
    for some in values.iter_slices(ENTITIES_PER_READ):
        entities = some.select(keys)
        found = _held(online_store, name, entities)
        for entity, text, value in zip(entities.iter_rows(named=True), some[_VALUE], found, strict=True):
            expected = orjson.loads(text)
            if value is None:
                missing.append({"problem": "missing", "entity": entity, "expected": expected})
            elif orjson.dumps(value, option=orjson.OPT_SORT_KEYS) != orjson.dumps(
                expected, option=orjson.OPT_SORT_KEYS
            ):
                different.append({"problem": "different", "entity": entity, "expected": expected, "found": value})
    # Where nothing says since when the values are there, any of them may have expired.
    over = status.expired if status is not None else online_store.ttl is not None
    missing, expired = ([], missing) if over else (missing, [])
    hashes = rows.select(entity_key_hash_expr(rows.select(keys).schema)).to_series()
    there = online_store.entity_hashes(name) if sample is None else None
    extra = [] if there is None else sorted(set(there) - set(hashes))
    return VerifyReport(
        feature=name,
        version=snapshot.version,
        as_of=instant,
        checked=part.height,
        missing=len(missing),
        expired=len(expired),
        extra=len(extra),
        different=len(different),
        examples=[
            *missing[:EXAMPLES],
            *different[:EXAMPLES],
            *({"problem": "extra", "entity": {"key_hash": key_hash}} for key_hash in extra[:EXAMPLES]),
        ],
    )


def _held(online_store: OnlineStore, feature_name: str, entities: pl.DataFrame) -> list[Any]:
    """What is there for entities; for one that is damaged, what is said about it."""
    try:
        return list(online_store.lookup({feature_name: entities}, primary=True)[feature_name].rows)
    except DamagedValueError as error:
        if entities.height == 1:
            return [str(error)]
        half = entities.height // 2
        return [
            *_held(online_store, feature_name, entities[:half]),
            *_held(online_store, feature_name, entities[half:]),
        ]
