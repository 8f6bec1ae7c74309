"""Whole chunks of Redis commands as bytes, made from frames.

The format is RESP: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

# Small enough that a reader does not wait long behind one chunk, large enough that commands cost nothing.
KEYS_PER_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Bytes to send as they are, and how many replies they bring."""

    data: bytes
    replies: int


def chunks(frame: pl.DataFrame, *, ttl: int | None, together: bool = True) -> Iterator[Chunk]:
    """The commands that set each key to its value: one MSET a chunk, or with a TTL one SET .. EX a key.

    Args:
        frame: Redis keys as `key`, and what each is set to as `value`; strings without nulls.
        ttl: Whole seconds after which the values go away.
        together: Whether a command may have several keys; if not, there is one SET a key.
    """
    pair = pl.concat_str(*_bulk("key"), *_bulk("value"))
    if ttl is None and together:
        yield from _commands("MSET", frame.select(pair), words=2)
        return
    words = 3 if ttl is None else 5
    expiry = "" if ttl is None else f"$2\r\nEX\r\n${len(str(ttl))}\r\n{ttl}\r\n"
    yield from _each(frame.select(pl.concat_str(pl.lit(f"*{words}\r\n$3\r\nSET\r\n"), pair, pl.lit(expiry))))


def deletions(keys: pl.Series, *, together: bool = True) -> Iterator[Chunk]:
    """The commands that delete keys, one UNLINK a chunk; the replies add up to how many there were.

    Args:
        keys: Redis keys.
        together: Whether a command may have several keys.
    """
    frame = pl.DataFrame({"key": keys})
    if together:
        yield from _commands("UNLINK", frame.select(pl.concat_str(_bulk("key"))), words=1)
    else:
        yield from _each(frame.select(pl.concat_str(pl.lit("*2\r\n$6\r\nUNLINK\r\n"), *_bulk("key"))))


def _commands(name: str, arguments: pl.DataFrame, *, words: int) -> Iterator[Chunk]:
    """One command a chunk; each row has so many of its arguments."""
    for part in arguments.iter_slices(KEYS_PER_CHUNK):
        head = f"*{words * part.height + 1}\r\n${len(name)}\r\n{name}\r\n"
        yield Chunk(data=f"{head}{part.to_series().str.join('').item()}".encode(), replies=1)


def _each(commands: pl.DataFrame) -> Iterator[Chunk]:
    """One command a row."""
    for part in commands.iter_slices(KEYS_PER_CHUNK):
        text: str = part.to_series().str.join("").item()
        yield Chunk(data=text.encode(), replies=part.height)


def _bulk(column: str) -> list[pl.Expr]:
    text = pl.col(column)
    return [pl.lit("$"), text.str.len_bytes().cast(pl.String), pl.lit("\r\n"), text, pl.lit("\r\n")]
