"""Bytes to struct and back, and which partition a key belongs to."""

from typing import Final

import msgspec

_MIX: Final = 0x5BD1E995
_WORD: Final = 0xFFFFFFFF
_SEED: Final = 0x9747B28C

pack: Final = msgspec.msgpack.Encoder(decimal_format="string").encode
to_json: Final = msgspec.json.Encoder(decimal_format="number", order="deterministic").encode


def murmur2(data: bytes) -> int:
    """The 32-bit murmur2 of a key, as the Java client computes it."""
    length = len(data)
    state = (_SEED ^ length) & _WORD
    whole = length & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _MIX & _WORD
        word = (word ^ (word >> 24)) * _MIX & _WORD
        state = (state * _MIX & _WORD) ^ word
    if length > whole:
        state = (state ^ int.from_bytes(data[whole:], "little")) * _MIX & _WORD
    state = (state ^ (state >> 13)) * _MIX & _WORD
    return state ^ (state >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: the same as Java's default partitioner and `murmur2_random`."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
