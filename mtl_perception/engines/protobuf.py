"""The fields of a protobuf message, which ONNX files are, read without the packages for either."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_VARINT, BYTES = 0, 2  # wire types
_FIXED = {1: 8, 5: 4}  # wire type -> bytes


@dataclass(frozen=True)
class Field:
    """One field of a message.

    Attributes:
        value: a number, or the bytes of what else it holds.
        whole: all its bytes, with its number and length.
    """

    number: int
    value: memoryview | int
    whole: memoryview

    @property
    def content(self) -> memoryview:
        """The bytes that it holds.

        Raises:
            ValueError: it is a number.
        """
        if isinstance(self.value, int):
            raise ValueError(f'not protobuf: field {self.number} is a number')
        return self.value


def fields(message: bytes | memoryview) -> Iterator[Field]:
    """The fields of a message, in their order.

    Raises:
        ValueError: these bytes are no message.
    """
    message = memoryview(message)
    start = 0
    while start < len(message):
        key, end = _varint(message, start)
        wire = key & 7
        value: memoryview | int
        if wire == _VARINT:
            value, end = _varint(message, end)
        elif wire == BYTES or wire in _FIXED:
            size, begin = _varint(message, end) if wire == BYTES else (_FIXED[wire], end)
            end = begin + size
            if end > len(message):
                raise ValueError('not protobuf: a field is longer than the file')
            value = message[begin:end]
        else:
            raise ValueError(f'not protobuf: wire type {wire}')
        yield Field(key >> 3, value, message[start:end])
        start = end


def _varint(data: memoryview, start: int) -> tuple[int, int]:
    """A number, seven bits in a byte with the lowest first, and where it ends."""
    value = shift = 0
    while start < len(data):
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
        shift += 7
    raise ValueError('not protobuf: it ends in the middle of a number')
