"""Protocol-buffer messages as bytes, and back: the few wire types that an execution trace has.

A message is a list of (field number, value): a whole number is a varint, bytes are length-delimited. Source: the
encoding page of protobuf.dev; https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Field", "Malformed", "delimited", "encoded", "fields", "packed", "signed", "split", "unpacked"]

Field = tuple[int, int | bytes]
_VARINT, _EIGHT_BYTES, _DELIMITED, _FOUR_BYTES = 0, 1, 2, 5
_WORD = 1 << 64


class Malformed(ValueError):
    """Bytes that are no message; `offset` says where."""

    def __init__(self, offset: int, reason: str) -> None:
        self.offset = offset
        super().__init__(reason)


def _varint(value: int) -> bytes:
    value %= _WORD                       # negative numbers are told modulo 2**64
    told = bytearray()
    while value > 0x7F:
        told.append(value & 0x7F | 0x80)
        value >>= 7
    told.append(value)
    return bytes(told)


def encoded(fields: Iterable[Field]) -> bytes:
    """One message."""
    told = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            told += _varint(number << 3 | _VARINT) + _varint(value)
        else:
            told += _varint(number << 3 | _DELIMITED) + _varint(len(value)) + value
    return bytes(told)


def delimited(messages: Iterable[bytes]) -> bytes:
    """Messages one after the other, each behind its length."""
    return b"".join(_varint(len(message)) + message for message in messages)


def packed(values: Iterable[int]) -> bytes:
    """A repeated whole number as one length-delimited field."""
    return b"".join(_varint(value) for value in values)


def _number(told: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    for position in range(offset, min(offset + 10, len(told))):
        value |= (told[position] & 0x7F) << shift
        if told[position] < 0x80:
            return value % _WORD, position + 1
        shift += 7
    raise Malformed(offset, "a whole number that does not end")


def split(told: bytes) -> list[tuple[int, bytes]]:
    """The messages of a delimited file, each with the offset at which it begins."""
    found, offset = [], 0
    while offset < len(told):
        length, begin = _number(told, offset)
        if begin + length > len(told):
            raise Malformed(offset, f"a message of {length} bytes, of which {len(told) - begin} are there")
        found.append((begin, told[begin:begin + length]))
        offset = begin + length
    return found


def fields(told: bytes) -> list[Field]:
    """What a message says; fixed-width numbers are left as bytes."""
    found: list[Field] = []
    offset = 0
    while offset < len(told):
        key, begin = _number(told, offset)
        kind = key & 7
        if kind == _VARINT:
            value, offset = _number(told, begin)
            found.append((key >> 3, value))
            continue
        length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(kind, -1)
        if kind == _DELIMITED:
            length, begin = _number(told, begin)
        if length < 0 or begin + length > len(told):
            raise Malformed(offset, f"field {key >> 3} of wire type {kind}, which does not fit")
        found.append((key >> 3, told[begin:begin + length]))
        offset = begin + length
    return found


def unpacked(value: int | bytes) -> list[int]:
    """A repeated whole number, packed or one of many."""
    if isinstance(value, int):
        return [value]
    found, offset = [], 0
    while offset < len(value):
        number, offset = _number(value, offset)
        found.append(number)
    return found


def signed(value: int) -> int:
    """A varint as the signed number that it stands for."""
    return value - _WORD if value >= _WORD // 2 else value
