"""What one request for values sends, made while the server works on it already, and what becomes of the replies.

The format is RESP: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby, islice
from math import ceil
from operator import is_
from typing import Any

import polars as pl

from mlforge.online.codec import parsed
from mlforge.online.keys import entity_key_hashes, frame_key_hashes, redis_key

Payload = bytes | None
# So many that commands cost nothing; so few that other readers do not wait long behind one, and that the server works
# on the first while the others are still made.
KEYS_PER_COMMAND = 250


def entity_keys(prefix: str, requests: Mapping[str, Sequence[Mapping[str, Any]]]) -> "Keys":
    """The Redis keys of the entities of features."""
    return Keys(_lots(prefix, requests, _entity_hashes), sum(map(len, requests.values())))


def frame_keys(prefix: str, requests: Mapping[str, pl.DataFrame]) -> "Keys":
    """The Redis keys of the entities of features, from frames of their key columns without nulls."""
    return Keys(_lots(prefix, requests, _frame_hashes), sum(map(len, requests.values())))


class Keys(Iterable[str]):
    """Redis keys in lots, each of which is made when it is wanted, and kept."""

    def __init__(self, lots: Iterator[list[str]], count: int) -> None:
        # What is wrong with the first shows before anything is sent.
        self._made = list(islice(lots, 1))
        self._lots = lots
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self.lots())

    def lots(self) -> Iterator[list[str]]:
        """All of them, `KEYS_PER_COMMAND` at a time."""
        yield from self._made
        for lot in self._lots:
            self._made.append(lot)
            yield lot


NO_KEYS = Keys(iter(()), 0)


class Commands(Iterable[bytes]):
    """The commands of one flight, of which the last are made while the server works on the first.

    The statuses come last: as long as a sync may have left values of two schemas, they say so.

    Attributes:
        lots: How many replies with values they bring.
        replies: How many replies, those with the statuses included.
    """

    def __init__(self, keys: Keys, statuses: Sequence[bytes]) -> None:
        self._keys = keys
        self._statuses = b"".join(statuses)
        self.lots = ceil(len(keys) / KEYS_PER_COMMAND)
        self.replies = self.lots + len(statuses)

    def __iter__(self) -> Iterator[bytes]:
        if not self.lots:
            yield self._statuses
        for number, lot in enumerate(self._keys.lots(), 1):
            yield mget(lot) + self._statuses if number == self.lots else mget(lot)

    def read(self, place: int, reply: Any) -> Any:
        """Decode the values of a lot while the server works on the next; damaged ones stay as they are."""
        return parsed(reply) if place < self.lots else reply

    def fetched(self, replies: list[Any]) -> tuple[list[Any], list[list[Payload]]]:
        """The values and the statuses in the replies."""
        lots = self.lots
        return replies[0] if lots == 1 else list(chain.from_iterable(replies[:lots])), replies[lots:]


def get(key: str) -> bytes:
    r"""The command for the value of one key.

    >>> get("a:b")
    b'*2\r\n$3\r\nGET\r\n$3\r\na:b\r\n'
    """
    data = key.encode()
    return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(data), data)


def mget(keys: Sequence[str]) -> bytes:
    r"""The command for the values of keys, of which those of one length also have one number of bytes.

    >>> mget(["a:b", "a:c"])
    b'*3\r\n$4\r\nMGET\r\n$3\r\na:b\r\n$3\r\na:c\r\n'
    """
    return "".join([f"*{len(keys) + 1}\r\n$4\r\nMGET\r\n", *_bulks(keys)]).encode()


def _bulks(keys: Sequence[str]) -> Iterator[str]:
    for _, group in groupby(keys, len):
        run = list(group)
        # What tells a feature's keys apart is ASCII, so they are all as long as the first.
        before = f"${len(run[0].encode())}\r\n"
        yield before + f"\r\n{before}".join(run) + "\r\n"


def _lots(
    prefix: str, requests: Mapping[str, Any], hashed: Callable[[Any], Iterator[list[str]]]
) -> Iterator[list[str]]:
    lot: list[str] = []
    before: Any = None
    hashes: list[list[str]] = []
    for name, entities in requests.items():
        head = redis_key(prefix, name, "")
        # Features are mostly read of the same entities.
        again = before is not None and _same(before, entities)
        if not again:
            before, hashes = entities, []
        for some in hashes if again else hashed(entities):
            if not again:
                hashes.append(some)
            lot += [head + key_hash for key_hash in some]
            while len(lot) >= KEYS_PER_COMMAND:
                yield lot[:KEYS_PER_COMMAND]
                lot = lot[KEYS_PER_COMMAND:]
    if lot:
        yield lot


def _entity_hashes(entities: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for start in range(0, len(entities), KEYS_PER_COMMAND):
        yield entity_key_hashes(entities[start : start + KEYS_PER_COMMAND])


def _frame_hashes(keys: pl.DataFrame) -> Iterator[list[str]]:
    return frame_key_hashes(keys, lot=KEYS_PER_COMMAND)


def _same(one: Any, other: Any) -> bool:
    if one is other or isinstance(one, pl.DataFrame):
        return one is other
    # Not by ==: 1 and True are equal, and different entities.
    return len(one) == len(other) and all(map(is_, one, other))
