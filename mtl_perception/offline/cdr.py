"""Messages as CDR bytes, as bags hold them, without ROS: their types, packing and unpacking."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .. import PerceptionError, one_line
from ..share import message_definition

if TYPE_CHECKING:
    from rosbags.interfaces.typing import Typesdict
    from rosbags.typesys.store import Typestore

# What vision_msgs calls them, for machines without it; the types are equal, and so their hashes.
_DEFINITIONS = {
    'vision_msgs/msg/VisionClass': 'uint16 class_id\nstring class_name\n',
    'vision_msgs/msg/LabelInfo': (
        'std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n'
    ),
}
_IDL_SEPARATOR = '=' * 80 + '\n'


class RecordingError(PerceptionError):
    """A recording that cannot be read or written; the message names the path and the reason."""


def header_stamp_ns(data: bytes) -> int:
    """Read the stamp of a serialized message whose first field is a std_msgs/Header.

    Args:
        data: CDR bytes; both byte orders are understood.

    Returns:
        Nanoseconds since the epoch of the message's clock.
    """
    if len(data) < 12:
        raise RecordingError(f'message of {len(data)} bytes is too short to hold a header')
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def header_frame(data: bytes) -> str:
    """Read the frame_id of a serialized message whose first field is a std_msgs/Header."""
    order = '<I' if data[1] & 1 else '>I'
    if len(data) < 16 or len(data) < 16 + (length := struct.unpack_from(order, data, 12)[0]):
        raise RecordingError(f'message of {len(data)} bytes is too short to hold a header')
    return data[16 : 16 + length].rstrip(b'\0').decode(errors='replace')


class Types:
    """CDR (de)serialization of message types: the common ones built in, others from .msg files."""

    def __init__(self) -> None:
        try:
            from rosbags.typesys import Stores, get_typestore
        except ImportError:
            raise RecordingError(
                'recordings need the Python package rosbags: pip install rosbags'
            ) from None
        # Humble's definitions are the ones that every later distribution still agrees with.
        self.store: Typestore = get_typestore(Stores.ROS2_HUMBLE)

    def require(self, kind: str) -> str:
        """Make a type known, with the types it holds.

        Args:
            kind: such as ``vision_msgs/msg/LabelInfo``.

        Returns:
            The same name.

        Raises:
            RecordingError: No definition of the type was found.
        """
        if kind in self.store.fielddefs:
            return kind
        from rosbags.typesys import get_types_from_msg

        path = message_definition(kind)
        if path is None and kind not in _DEFINITIONS:
            raise RecordingError(
                f'the definition of {kind} was not found under AMENT_PREFIX_PATH; '
                f'source the workspace that holds it'
            )
        text = path.read_text(encoding='utf-8') if path else _DEFINITIONS[kind]
        found = get_types_from_msg(text, kind)
        for fields in found.values():
            for _, description in fields[1]:
                for nested in _named_types(description):
                    self.require(nested)
        self.store.register(found)
        return kind

    def adopt(self, kind: str, definition: str) -> None:
        """Learn a type from the definition that a recording carries, unless it is known.

        Raises:
            RecordingError: it is not a definition.
        """
        if not definition or kind in self.store.fielddefs:
            return
        try:
            found = _parse(kind, definition)
            known = self.store.fielddefs
            self.store.register({name: f for name, f in found.items() if name not in known})
        except Exception as error:  # the parser's own, and what it stumbles over
            raise RecordingError(
                f'the definition of {kind} cannot be parsed: {one_line(error)}'
            ) from error

    def pack(self, kind: str, **fields: Any) -> bytes:
        """Serialize a message given by its fields (nested messages from ``make``) to CDR."""
        return bytes(self.store.serialize_cdr(self.make(kind, **fields), kind))

    def make(self, kind: str, **fields: Any) -> Any:
        """Make a message object with all its fields given."""
        return self.store.types[self.require(kind)](**fields)

    def unpack(self, kind: str, data: bytes) -> Any:
        """Deserialize CDR bytes to a message object with the fields of its .msg file.

        Raises:
            RecordingError: they are not those of such a message.
        """
        try:
            return self.store.deserialize_cdr(data, self.require(kind))
        except RecordingError:
            raise
        except Exception as error:  # of NumPy, struct and rosbags
            raise RecordingError(f'a {kind} cannot be read: {one_line(error)}') from error

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """Make a std_msgs/Header."""
        seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
        stamp = self.make('builtin_interfaces/msg/Time', sec=seconds, nanosec=nanoseconds)
        return self.make('std_msgs/msg/Header', stamp=stamp, frame_id=frame_id)


def _parse(kind: str, definition: str) -> Typesdict:
    """All types in a definition: .msg with what it needs, or IDL, each part with a title line."""
    from rosbags.typesys import get_types_from_idl, get_types_from_msg

    if not definition.startswith(f'{_IDL_SEPARATOR}IDL: '):
        return get_types_from_msg(definition, kind)
    found: Typesdict = {}
    for part in definition.split(_IDL_SEPARATOR)[1:]:
        found.update(get_types_from_idl(part.partition('\n')[2]))
    return found


def _named_types(description: Any) -> Iterator[str]:
    """Names of the message types inside a field description of rosbags' type system."""
    if isinstance(description, str):
        if '/' in description:
            yield description
    elif isinstance(description, tuple):
        for part in description:
            yield from _named_types(part)
