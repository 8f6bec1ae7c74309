"""Many key hashes in 16 bytes each, as numbers: a text of 32 hex digits takes several times that."""

from collections.abc import Iterator

import polars as pl

from mlforge.online.keys import DIGITS, entity_key_hash_expr

# How many are texts at a time.
LOT = 50_000


def to_numbers(hashes: pl.Series) -> pl.Series:
    """Key hashes as numbers; nulls are left out.

    >>> to_numbers(pl.Series(["000000000000000000000000000000ff", None])).to_list()
    [255]
    """
    return hashes.drop_nulls().str.decode("hex").bin.reinterpret(dtype=pl.UInt128, endianness="big")


def entity_numbers(entities: pl.DataFrame) -> pl.Series:
    """The key hashes of the entities of a frame of key columns, as numbers."""
    return to_numbers(entities.select(entity_key_hash_expr(entities.schema)).to_series())


def to_texts(numbers: pl.Series) -> Iterator[pl.Series]:
    """The key hashes again, some after the other.

    >>> [texts.to_list() for texts in to_texts(pl.Series([255], dtype=pl.UInt128))]
    [['000000000000000000000000000000ff']]
    """
    for start in range(0, len(numbers), LOT):
        texts = [f"{number:0{DIGITS}x}" for number in numbers[start : start + LOT]]
        yield pl.Series(texts, dtype=pl.String)


def once(numbers: pl.Series) -> pl.Series:
    """Each number once, sorted."""
    # `unique` needs six times the memory.
    numbers = numbers.sort()
    return numbers.filter(numbers.ne_missing(numbers.shift()))


def without(numbers: pl.Series, others: pl.Series) -> pl.Series:
    """The numbers that are not among others."""
    left, right = numbers.alias("number").to_frame().lazy(), others.alias("number").to_frame().lazy()
    # Streaming, which needs a quarter of the memory.
    return left.join(right, on="number", how="anti").collect(engine="streaming").to_series()
