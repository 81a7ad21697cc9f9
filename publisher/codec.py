"""Convert JSON records to typed values and back: one codec for all records of the program.

A record is a frozen dataclass. Its type hints define the accepted values, and the order of its
fields is the order in which they are written. A reader ignores unknown keys (or keeps them, if the
codec names a field for them), refuses values of a wrong type, and uses the default of a field whose
key is missing.

The json module of the standard library is used: names in the published tree may contain lone
surrogates, which stricter parsers refuse, and the output has to stay the same byte for byte.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import (
    Annotated,
    Any,
    Generic,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from publisher.lazy import dataclass
from publisher.times import format_time, parse_time

T = TypeVar("T")
_Decoder = Callable[[Any], Any]
_Encoder = Callable[[Any], Any]
_Coder = tuple[_Decoder, _Encoder]


class Malformed(ValueError):
    """A record does not have the form that its codec expects.

    `field` is the path of the invalid value, such as "entries[3].name", or "" for the record as a
    whole. `why` is the cause.
    """

    def __init__(self, why: str, field: str = "") -> None:
        super().__init__(why, field)
        self.why = why
        self.field = field

    def __str__(self) -> str:
        return f"{self.field} {self.why}" if self.field else self.why

    def within(self, place: str) -> Malformed:
        """Return the same error with `place` before the path of the field."""
        joint = "." if self.field and not self.field.startswith("[") else ""
        return type(self)(self.why, f"{place}{joint}{self.field}")


class UnknownVersion(Malformed):
    """A record is written in a version of its format that this program does not read."""


class AsArray:
    """Base of records that are written as arrays of their fields' values, not as objects."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class JsonObject:
    """A JSON object of another format, which a record contains and this program keeps as it is.

    `text` is the object as JSON. Equal values in the same order have the same text.
    """

    text: str

    @classmethod
    def parse(cls, data: bytes | str) -> JsonObject:
        """Return the object in `data`; raise Malformed for anything else."""
        return _json_object(load_object(data))


@dataclass(frozen=True, slots=True)
class Check:
    """A condition on a value, for use in `Annotated`; `why` is the message after the field."""

    holds: Callable[[Any], bool]
    why: str


def camel_case(name: str) -> str:
    """Return the JSON key of the field `name`: "sourceDigest" for "source_digest"."""
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


def omit_default(default: Any) -> Any:
    """Return a dataclass field that is not written while it has its default value."""
    return dataclasses.field(default=default, metadata={"omit": True})


def load_object(data: bytes | str) -> dict[str, Any]:
    """Parse a JSON object; raise Malformed for anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    return value


def dump(value: Any) -> bytes:
    """Return `value` as the published tree's records are written: indented by one space."""
    return json.dumps(value, indent=1, ensure_ascii=True).encode() + b"\n"


class Codec(Generic[T]):
    """Reads and writes the records of one dataclass.

    Args:
        kind: The dataclass. Fields may be `str`, `int`, `float`, `bool`, `datetime`, `date`,
            `JsonObject`, `object` (any JSON value), mappings, variable-length tuples, frozen sets,
            dataclasses, and unions with None of these; `Annotated` with `Check`s restricts them
            further.
        version: The version that is written, and the only one that is read; None for a format
            without versions.
        naming: Converts the name of a field to a JSON key.
        extra: The field that keeps the keys that the record does not define.
        required: Fields that a file has to have although they have a default.
    """

    def __init__(
        self,
        kind: type[T],
        *,
        version: int | None = None,
        naming: Callable[[str], str] = camel_case,
        extra: str = "",
        required: Sequence[str] = (),
    ) -> None:
        self._version = version
        self._definition = (kind, naming, extra, required)

    @functools.cached_property
    def _coder(self) -> _Coder:
        return _dataclass(*self._definition)  # at first use: a command uses few of all codecs

    def parse(self, data: bytes | str) -> T:
        """Read a record from JSON text.

        Raises:
            UnknownVersion: The record is of another version.
            Malformed: The text is not JSON, or not such a record.
        """
        return self.from_object(load_object(data))

    def from_object(self, value: dict[str, Any]) -> T:
        """Read a record from a parsed JSON object; remove its version from the object."""
        if self._version is not None:
            take_version(value, self._version)
        decoded: T = self._coder[0](value)
        return decoded

    def from_value(self, value: Any) -> T:
        """Read a record without a version: one that is part of another."""
        decoded: T = self._coder[0](value)
        return decoded

    def to_value(self, record: T) -> Any:
        """Return the record as JSON values, without its version."""
        return self._coder[1](record)

    def to_object(self, record: T) -> dict[str, Any]:
        """Return the record as a JSON object, beginning with its version."""
        version = {} if self._version is None else {"version": self._version}
        encoded: dict[str, Any] = self._coder[1](record)
        return version | encoded

    def dump(self, record: T) -> bytes:
        """Return the bytes of the record's file in the published tree."""
        return dump(self.to_object(record))


def take_version(value: dict[str, Any], *known: int) -> int:
    """Remove and return the version of a record; raise UnknownVersion unless it is in `known`."""
    version = value.pop("version", None)
    if version is None:
        raise Malformed("it has no version")
    if isinstance(version, bool) or version not in known:
        names = " and ".join(map(str, known))
        raise UnknownVersion(f"its version is {version!r}, and this program reads {names}")
    return int(version)


def _dataclass(
    kind: type[Any],
    naming: Callable[[str], str],
    extra: str = "",
    required: Sequence[str] = (),
) -> _Coder:
    hints = get_type_hints(kind, include_extras=True)
    fields = [field for field in dataclasses.fields(kind) if field.name != extra]
    coders = {field.name: _coder(hints[field.name], naming) for field in fields}
    if issubclass(kind, AsArray):
        return _array(kind, fields, coders)
    reading = [
        (naming(f.name), f.name, coders[f.name][0], _has_default(f) and f.name not in required)
        for f in fields
    ]
    writing = [
        (naming(f.name), f.name, coders[f.name][1], f.default, bool(f.metadata.get("omit")))
        for f in fields
    ]
    return _object_decoder(kind, reading, extra), _object_encoder(writing, extra)


def _object_decoder(
    kind: type[Any], reading: Sequence[tuple[str, str, _Decoder, bool]], extra: str
) -> _Decoder:
    """Return the reader of `kind`; `reading` has key, field, decoder, and "may be missing"."""
    keys = {key for key, *_ in reading}

    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Malformed("is not an object")
        found: dict[str, Any] = {}
        for key, name, decoder, may_be_missing in reading:
            if key in value:
                found[name] = _decode_at(key, decoder, value[key])
            elif not may_be_missing:
                raise Malformed("is missing", key)
        if extra:
            found[extra] = {key: each for key, each in value.items() if key not in keys}
        return kind(**found)

    return decode


def _object_encoder(
    writing: Sequence[tuple[str, str, _Encoder, Any, bool]], extra: str
) -> _Encoder:
    """Return the writer of a record; `writing` has key, field, encoder, default, and "omit"."""

    def encode(record: Any) -> dict[str, Any]:
        written: dict[str, Any] = {}
        for key, name, encoder, default, omit in writing:
            found = getattr(record, name)
            if not (omit and found == default):
                written[key] = encoder(found)
        return written | dict(getattr(record, extra)) if extra else written

    return encode


def _array(
    kind: type[Any],
    fields: list[dataclasses.Field[Any]],
    coders: Mapping[str, _Coder],
) -> _Coder:
    required = sum(not _has_default(field) for field in fields)
    decoders = [coders[field.name][0] for field in fields]

    def decode(value: Any) -> Any:
        if not isinstance(value, list) or not required <= len(value) <= len(fields):
            raise Malformed(f"is not an array of {len(fields)} values")
        return kind(*map(_decode_at, _places(), decoders, value))

    def encode(record: Any) -> list[Any]:
        return [coders[field.name][1](getattr(record, field.name)) for field in fields]

    return decode, encode


def _has_default(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _coder(hint: Any, naming: Callable[[str], str]) -> _Coder:
    """Return the functions that read and write values of one type."""
    simple = _SIMPLE.get(hint)
    if simple is not None:
        return simple
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _checked(_coder(arguments[0], naming), arguments[1:])
    if origin in (Union, types.UnionType):
        (inner,) = (each for each in arguments if each is not type(None))
        return _optional(_coder(inner, naming))
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return _sequence(_coder(arguments[0], naming), tuple, list)
    if origin is frozenset:
        return _sequence(_coder(arguments[0], naming), frozenset, sorted)
    if origin in (dict, Mapping) and arguments[0] is str:
        return _mapping(_coder(arguments[1], naming))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _dataclass(hint, naming)
    raise TypeError(f"no JSON form is known for {hint}")


def _checked(coder: _Coder, checks: tuple[Any, ...]) -> _Coder:
    inner, encode = coder

    def decode(value: Any) -> Any:
        decoded = inner(value)
        for check in checks:
            if not check.holds(decoded):
                raise Malformed(f"{check.why}: {decoded!r}")
        return decoded

    return decode, encode


def _optional(coder: _Coder) -> _Coder:
    decode, encode = coder
    return (
        lambda value: None if value is None else decode(value),
        lambda value: None if value is None else encode(value),
    )


def _sequence(
    coder: _Coder,
    collect: Callable[[Iterable[Any]], Any],
    order: Callable[[Any], list[Any]],
) -> _Coder:
    inner, encode = coder

    def decode(value: Any) -> Any:
        if not isinstance(value, list):
            raise Malformed("is not a list")
        return collect(map(_decode_at, _places(), itertools.repeat(inner), value))

    return decode, lambda value: [encode(each) for each in order(value)]


def _mapping(coder: _Coder) -> _Coder:
    inner, encode = coder

    def decode(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Malformed("is not an object")
        return {key: _decode_at(key, inner, each) for key, each in value.items()}

    return decode, lambda value: {key: encode(each) for key, each in value.items()}


def _decode_at(place: str, decoder: _Decoder, value: Any) -> Any:
    """Return the decoded value; Malformed names its place in the record that contains it."""
    try:
        return decoder(value)
    except Malformed as error:
        raise error.within(place) from error


def _places() -> Iterator[str]:
    return (f"[{number}]" for number in itertools.count())


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Malformed("is not a string")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Malformed("is neither true nor false")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)  # JSON does not distinguish 1.0 and 1
    if not isinstance(value, int) or isinstance(value, bool):
        raise Malformed("is not an integer")
    return value


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    raise Malformed("is not a number")


def _moment(value: Any) -> datetime:
    try:
        return parse_time(_text(value))
    except ValueError as error:
        raise Malformed("is not a time such as 2026-11-20T08:15:00Z") from error


def _day(value: Any) -> date:
    try:
        return date.fromisoformat(_text(value))
    except ValueError as error:
        raise Malformed("is not a day such as 2026-11-20") from error


def _json_object(value: Any) -> JsonObject:
    if not isinstance(value, dict):
        raise Malformed("is not an object")
    try:
        return JsonObject(json.dumps(value))
    except RecursionError as error:
        raise Malformed("is nested too deeply") from error


def _same(value: Any) -> Any:
    return value


_SIMPLE: dict[Any, _Coder] = {
    object: (_same, _same),
    str: (_text, _same),
    bool: (_flag, _same),
    int: (_integer, _same),
    float: (_number, _same),
    datetime: (_moment, format_time),
    date: (_day, date.isoformat),
    JsonObject: (_json_object, lambda value: json.loads(value.text)),
}
