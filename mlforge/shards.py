"""Entities in parts, so that of a large table not all has to be in memory at once."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TypeVar

import polars as pl

from mlforge.memory import SYNC_OWN
from mlforge.online.keys import key_text_expr
from mlforge.store.snapshot import Snapshot

T = TypeVar("T")
# What reading or comparing an entity takes at its peak, as measured with keys and rows of several widths: so much
# whatever its width is, and so many times its row and its keys.
ENTITY_BYTES, COPIES = 100, 3
# For less than this a pass over the table costs more than it spares.
LEAST_BYTES = 20_000_000
# Entities are counted and measured by one shard of so many.
SAMPLE = 64
# Any, but not that of Polars' own tables: the entities of a shard would all be in one place there.
_SEED = 64_023


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Some of all entities, by a hash of their keys; the same ones in every table of this process.

    Attributes:
        number: Which one, from 0.
        of: How many there are; of one, it is all entities.
    """

    number: int = 0
    of: int = 1

    def holds(self, keys: Mapping[str, pl.DataType]) -> pl.Expr | None:
        """Whether the entity of a row is in it; None where all are.

        By the text of the keys, as they are told apart online: 123 and "123" are in the same shard.

        Args:
            keys: The key columns and their dtypes.
        """
        if self.of == 1:
            return None
        texts = [key_text_expr(name, keys[name]) for name in sorted(keys)]
        return pl.struct(texts).hash(_SEED) % self.of == self.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many entities there are at an instant, and what they take.

    Attributes:
        entities: How many there are, about.
        each: How many bytes it takes at its peak to read one of them or to compare it, about.
    """

    entities: int
    each: float


def room(memory_limit: int, *, held: float = 0) -> float:
    """How many bytes there are for a part of the work.

    Args:
        memory_limit: How many the process shall take, about.
        held: How many are taken all the time.
    """
    return max(memory_limit - SYNC_OWN - held, LEAST_BYTES)


def shards(work: float, room: float) -> list[Shard]:
    """As many as it takes for the work on one of them to have room; both in bytes."""
    of = max(1, math.ceil(work / room))
    return [Shard(number=number, of=of) for number in range(of)]


def measured(snapshot: Snapshot, instant: datetime) -> Size:
    """What holds at an instant, told from a sample that takes one pass over the table.

    Raises:
        StoreError: A file of the table cannot be read.
    """
    sample = snapshot.at(instant, Shard(of=SAMPLE).holds(snapshot.key_schema))
    copied = sample.estimated_size() + sample.select(snapshot.record.keys).estimated_size()
    return Size(
        entities=SAMPLE * sample.height,
        each=ENTITY_BYTES + COPIES * copied / max(1, sample.height),
    )


def begun(parts: Iterator[T]) -> Iterator[T] | None:
    """The same parts, of which the first is made now, and is not held once the next one is; None if there are none."""
    first = [*islice(parts, 1)]
    return _resumed(first, parts) if first else None


def _resumed(first: list[T], others: Iterator[T]) -> Iterator[T]:
    yield first.pop()
    yield from others
