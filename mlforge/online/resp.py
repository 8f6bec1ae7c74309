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


def chunks(frame: pl.DataFrame, *, ttl: int | None) -> Iterator[Chunk]:
    """The commands that set each key to its value: one MSET a chunk, or with a TTL one SET .. EX a key.

    Args:
        frame: Redis keys as `key`, and what each is set to as `value`; strings without nulls.
        ttl: Whole seconds after which the values go away.
    """
    pair = pl.concat_str(*_bulk("key"), *_bulk("value"))
    if ttl is None:
        commands = frame.select(pair)
    else:
        expiry = f"$2\r\nEX\r\n${len(str(ttl))}\r\n{ttl}\r\n"
        commands = frame.select(pl.concat_str(pl.lit("*5\r\n$3\r\nSET\r\n"), pair, pl.lit(expiry)))
    for part in commands.iter_slices(KEYS_PER_CHUNK):
        text: str = part.to_series().str.join("").item()
        if ttl is None:
            yield Chunk(data=f"*{2 * part.height + 1}\r\n$4\r\nMSET\r\n{text}".encode(), replies=1)
        else:
            yield Chunk(data=text.encode(), replies=part.height)


def deletions(keys: pl.Series) -> Iterator[Chunk]:
    """The commands that delete keys, one UNLINK a chunk; each reply is how many there were."""
    commands = pl.DataFrame({"key": keys}).select(pl.concat_str(_bulk("key")))
    for part in commands.iter_slices(KEYS_PER_CHUNK):
        text: str = part.to_series().str.join("").item()
        yield Chunk(data=f"*{part.height + 1}\r\n$6\r\nUNLINK\r\n{text}".encode(), replies=1)


def _bulk(column: str) -> list[pl.Expr]:
    text = pl.col(column)
    return [pl.lit("$"), text.str.len_bytes().cast(pl.String), pl.lit("\r\n"), text, pl.lit("\r\n")]
