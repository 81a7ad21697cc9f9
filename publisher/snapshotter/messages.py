"""The messages of containerd's snapshots service, as dictionaries, and their wire format. Pure.

Source: the wire format of `containerd.services.snapshots.v1` and `containerd.types`, as containerd
1.6 to 2.x speak it; Protocol Buffers documentation, "Encoding" (proto3). The protobuf library is
not used: for these few messages it would be a fifth of the memory of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from publisher.lazy import dataclass

SERVICE = "containerd.services.snapshots.v1.Snapshots"

_NEW = "snapshotter string 1, key string 2, parent string 3, labels Label* 4"
_BY_KEY = "snapshotter string 1, key string 2"
_MESSAGES = {
    "Empty": "",
    "Timestamp": "seconds int 1, nanos int 2",
    "FieldMask": "paths string* 1",
    "Label": "key string 1, value string 2",
    "Mount": "type string 1, source string 2, target string 3, options string* 4",
    "Info": "name string 1, parent string 2, kind int 3, created_at Timestamp 4, "
    "updated_at Timestamp 5, labels Label* 6",
    "Mounts": "mounts Mount* 1",
    "New": _NEW,
    "ByKey": _BY_KEY,
    "Commit": "snapshotter string 1, name string 2, key string 3, labels Label* 4, parent string 5",
    "OneInfo": "info Info 1",
    "Update": "snapshotter string 1, info Info 2, update_mask FieldMask 3",
    "List": "snapshotter string 1, filters string* 2",
    "Infos": "info Info* 1",
    "Usage": "size int 1, inodes int 2",
    "Cleanup": "snapshotter string 1",
}
"""Each message: its fields, each with type and number; "*" means repeated. An enum is transmitted
as an int, a map as repeated pairs of key and value."""

METHODS = {
    "Prepare": ("New", "Mounts"),
    "View": ("New", "Mounts"),
    "Mounts": ("ByKey", "Mounts"),
    "Commit": ("Commit", "Empty"),
    "Remove": ("ByKey", "Empty"),
    "Stat": ("ByKey", "OneInfo"),
    "Update": ("Update", "OneInfo"),
    "List": ("List", "Infos"),
    "Usage": ("ByKey", "Usage"),
    "Cleanup": ("Cleanup", "Empty"),
}
"""Each method: its request and its response. The names of messages are not transmitted."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTH = {_FIXED64: 8, _FIXED32: 4}


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    kind: str
    number: int
    repeated: bool

    @property
    def default(self) -> Any:
        if self.repeated:
            return []
        return {"string": "", "int": 0}.get(self.kind)


def _fields(text: str) -> list[_Field]:
    words = (field.split() for field in text.split(", ") if field)
    return [_Field(name, kind.rstrip("*"), int(n), kind.endswith("*")) for name, kind, n in words]


_FIELDS = {name: _fields(text) for name, text in _MESSAGES.items()}
_BY_NUMBER = {name: {field.number: field for field in fields} for name, fields in _FIELDS.items()}


def encoder(message: str) -> Callable[[Mapping[str, Any]], bytes]:
    """Return the function that encodes a message; missing keys have their default values."""
    return lambda value: _encode(message, value)


def decoder(message: str) -> Callable[[bytes], dict[str, Any]]:
    """Return the function that decodes a message, with all of its keys.

    The function raises ValueError for bytes that are not such a message.
    """
    return lambda data: _decode(message, data)


def labels_of(pairs: list[dict[str, str]]) -> dict[str, str]:
    """Return the map that these pairs represent."""
    return {pair["key"]: pair["value"] for pair in pairs}


def label_pairs(labels: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the pairs that represent a map."""
    return [{"key": key, "value": value} for key, value in labels.items()]


def _encode(message: str, value: Mapping[str, Any]) -> bytes:
    parts = bytearray()
    for field in _FIELDS[message]:
        found = value.get(field.name, field.default)
        if field.repeated:
            for each in found:
                parts += _encode_field(field, each)
        elif found is not None and found not in ("", 0):  # a default value is not written
            parts += _encode_field(field, found)
    return bytes(parts)


def _encode_field(field: _Field, value: Any) -> bytes:
    if field.kind == "int":
        return _varint(field.number << 3 | _VARINT) + _varint(value)
    data = value.encode() if field.kind == "string" else _encode(field.kind, value)
    return _varint(field.number << 3 | _BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # negative numbers are two's complements
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _decode(message: str, data: bytes) -> dict[str, Any]:
    value = {field.name: field.default for field in _FIELDS[message]}
    known = _BY_NUMBER[message]
    for number, raw in _split(data):
        field = known.get(number)
        if field is None:
            continue
        decoded = _decode_field(field, raw)
        if field.repeated:
            value[field.name].append(decoded)
        else:
            value[field.name] = decoded
    for field in known.values():
        if value[field.name] is None:
            value[field.name] = _decode(field.kind, b"")
    return value


def _decode_field(field: _Field, raw: int | bytes) -> Any:
    if field.kind == "int":
        if not isinstance(raw, int):
            raise ValueError(f"{field.name} is not a number")
        return raw - 2**64 if raw >= 2**63 else raw
    if not isinstance(raw, bytes):
        raise ValueError(f"{field.name} has no length")
    return raw.decode() if field.kind == "string" else _decode(field.kind, raw)


def _split(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number of each field, with its integer or its bytes."""
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        wire_type = tag & 7
        if wire_type == _VARINT:
            number, position = _read_varint(data, position)
            yield tag >> 3, number
            continue
        if wire_type == _BYTES:
            length, position = _read_varint(data, position)
        elif wire_type in _WIDTH:
            length = _WIDTH[wire_type]
        else:
            raise ValueError(f"unknown wire type {wire_type}")
        if position + length > len(data):
            raise ValueError("the message is cut off")
        yield tag >> 3, data[position : position + length]
        position += length


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position == len(data) or shift > 63:
            raise ValueError("a number is cut off, or too large")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value & (2**64 - 1), position
