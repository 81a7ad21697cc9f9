"""Dataclasses and regular expressions that cost little until they are used.

A command loads the definitions of many records and patterns, and uses few of them. `dataclass` of
the standard library compiles six methods for each class, which takes up to a millisecond, and
`re.compile` parses each pattern. Here both happen at the first use. For type checkers, both names
are those of the standard library.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn

__all__ = ["dataclass", "pattern"]

if TYPE_CHECKING:
    from dataclasses import dataclass
    from re import compile as pattern
else:

    def dataclass(*, frozen: bool = False, slots: bool = False, eq: bool = True, **others: bool):
        """Return the decorator of a dataclass, which differs from the standard one in its cost.

        Classes with other options or special fields are made by the standard one, as are those
        that inherit fields, and those that the standard one refuses. Deriving from a frozen class
        is an error: the objects of the derived one would be of the frozen one.
        """

        def decorate(kind: type[Any]) -> type[Any]:
            if not slots or others or not _is_simple(kind):
                options = {"frozen": frozen, "slots": slots, "eq": eq, **others}
                return dataclasses.dataclass(**options)(kind)
            return _with_methods(kind, frozen, eq)

        return decorate

    def pattern(text: str | bytes, flags: int = 0) -> _Pattern:
        """Return the compiled regular expression `text`; it is compiled when it is first used."""
        return _Pattern(text, flags)


class _Pattern:
    """The methods of a compiled regular expression, which is compiled at the first of its calls."""

    def __init__(self, text: Any, flags: int) -> None:
        self._arguments = (text, flags)

    def __reduce__(self) -> tuple[type[_Pattern], tuple[Any, int]]:
        """Return what copies and pickled patterns are made from."""
        return _Pattern, self._arguments

    def __getattr__(self, name: str) -> Any:
        text, flags = self._arguments
        found = getattr(re.compile(text, flags), name)  # re keeps what it compiles
        setattr(self, name, found)  # the next call finds it without this method
        return found


_OWN = {"__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__"} | {
    "__getstate__", "__setstate__", "__slots__", "__match_args__", "__init_subclass__",
}  # fmt: skip
"""What the methods of this module would replace."""


def _is_simple(kind: type[Any]) -> bool:
    """Whether all fields are those of `kind` itself, with ordinary types and methods."""
    annotations = vars(kind).get("__annotations__", {})
    ordinary = all(
        isinstance(each, str) and not any(special in each for special in _SPECIAL)
        for each in annotations.values()
    )
    defaults = [vars(kind)[name] for name in annotations if name in vars(kind)]
    inherited = any(hasattr(base, "__dataclass_fields__") for base in kind.__bases__)
    replaced = hasattr(kind, "__post_init__") or _OWN & vars(kind).keys()
    return (
        bool(annotations)
        and ordinary
        and all(map(_is_ordinary, defaults))
        and not (inherited or replaced)
    )


_SPECIAL = ("ClassVar", "InitVar", "KW_ONLY")


def _is_ordinary(default: object) -> bool:
    """Whether a field with this default is a parameter, and its value is not shared by mistake."""
    if isinstance(default, dataclasses.Field):
        if not default.init or default.kw_only is True or default.hash is not None:
            return False
        default = default.default
    return type(default).__hash__ is not None


def _with_methods(kind: type[Any], frozen: bool, eq: bool) -> type[Any]:
    """Return `kind` with slots for its fields, and with the methods of a dataclass."""
    annotations: dict[str, str] = vars(kind)["__annotations__"]
    content = {
        key: value
        for key, value in vars(kind).items()
        if key not in annotations and key not in ("__dict__", "__weakref__")
    }
    defaults = {name: vars(kind)[name] for name in annotations if name in vars(kind)}
    names = tuple(annotations)
    compared = [name for name in names if _option(defaults.get(name), "compare")]
    shown = [name for name in names if _option(defaults.get(name), "repr")]
    content |= {
        "__slots__": names,
        "__match_args__": names,
        "__dataclass_fields__": _Fields(annotations, defaults),
        "__init__": _Initializer(names, defaults, frozen),
        "__repr__": _representation(shown),
    }
    if eq:
        values = _values(compared)
        content["__eq__"] = _equality(values)
        content["__hash__"] = _hash(values) if frozen else None
    if frozen:
        content |= _FROZEN
    metaclass: Any = type(kind)
    made: type[Any] = metaclass(kind.__name__, kind.__bases__, content)
    made.__qualname__ = kind.__qualname__
    return made


def _option(default: object, name: str) -> bool:
    return not isinstance(default, dataclasses.Field) or bool(getattr(default, name))


class _Fields:
    """The fields of a class, as the functions of the module `dataclasses` expect them."""

    def __init__(self, annotations: dict[str, str], defaults: dict[str, object]) -> None:
        self._content = {"__annotations__": annotations, **defaults}

        self._owner: type[Any] = object

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._owner = owner

    def __get__(self, record: object, kind: type[Any]) -> dict[str, dataclasses.Field[Any]]:
        owner = self._owner
        content = {**self._content, "__module__": owner.__module__, "__doc__": owner.__doc__}
        plain = type(owner.__name__, (), content)
        of_fields_only = dataclasses.dataclass(init=False, repr=False, eq=False, match_args=False)
        fields: dict[str, dataclasses.Field[Any]] = vars(of_fields_only(plain))[
            "__dataclass_fields__"
        ]
        owner.__dataclass_fields__ = fields
        return fields


class _Initializer:
    """Compiles the `__init__` of a class when its first object is made."""

    def __init__(self, names: Sequence[str], defaults: dict[str, object], frozen: bool) -> None:
        self._definition = (names, defaults, frozen)
        self._owner: type[Any] = object

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._owner = owner

    def __get__(self, record: object, kind: type[Any]) -> Any:
        function = _compile_initializer(self._owner, *self._definition)
        self._owner.__init__ = function
        return function if record is None else function.__get__(record, kind)


def _compile_initializer(
    kind: type[Any], names: Sequence[str], defaults: dict[str, object], frozen: bool
) -> Any:
    parameters, lines = [], []
    values: dict[str, object] = {"__name__": kind.__module__}
    if frozen:
        # The fields of an object that is not frozen yet are set in a quarter of the time. Its class
        # has the same slots, and permits to set them.
        metaclass: Any = type(kind)
        content = {"__slots__": tuple(names)}
        if "__orig_bases__" in vars(kind):  # of a generic class
            content["__orig_bases__"] = vars(kind)["__orig_bases__"]
        values |= {
            "_set_class": object.__dict__["__class__"].__set__,
            "_Unfrozen": metaclass(kind.__name__, kind.__bases__, content),
            "_Frozen": kind,
        }
        lines.append(" _set_class(self, _Unfrozen)")
    for name in names:
        parameter = value = name
        if name in defaults:
            default = defaults[name]
            if isinstance(default, dataclasses.Field):
                if default.default_factory is not dataclasses.MISSING:
                    values[f"_make_{name}"] = default.default_factory
                    value = f"_make_{name}() if {name} is _MISSING else {name}"
                default = default.default
            if default is not dataclasses.MISSING or value != name:
                values[f"_default_{name}"] = default
                parameter = f"{name}=_default_{name}"
        parameters.append(parameter)
        lines.append(f" self.{name} = {value}")
    if frozen:
        lines.append(" self.__class__ = _Frozen")
    values["_MISSING"] = dataclasses.MISSING
    source = f"def __init__(self, {', '.join(parameters)}):\n" + "\n".join(lines)
    exec(source, values)
    function: Any = values["__init__"]
    function.__qualname__ = f"{kind.__qualname__}.__init__"
    function.__annotations__ = {**kind.__annotations__, "return": None}
    return function


def _values(names: Sequence[str]) -> Callable[[Any], tuple[object, ...]]:
    """Return a function that returns the values of fields as a tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda record: ()
    get = attrgetter(names[0])
    return lambda record: (get(record),)


def _equality(values: Callable[[Any], tuple[object, ...]]) -> Callable[[Any, object], Any]:
    def equal(self: Any, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    return equal


def _hash(values: Callable[[Any], tuple[object, ...]]) -> Callable[[Any], int]:
    def hashed(self: Any) -> int:
        return hash(values(self))

    return hashed


def _representation(names: Sequence[str]) -> Callable[[Any], str]:
    def represent(self: Any) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({fields})"

    return represent


def _refuse_to_set(record: object, name: str, value: object) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(record: object, name: str) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _refuse_to_derive(kind: type[Any], /, **options: object) -> NoReturn:
    raise TypeError(f"{kind.__name__} cannot derive from a frozen dataclass of publisher.lazy")


def _state(record: Any) -> list[object]:
    return [getattr(record, name) for name in type(record).__match_args__]


def _set_state(record: Any, state: Sequence[object]) -> None:
    for name, value in zip(type(record).__match_args__, state, strict=True):
        object.__setattr__(record, name, value)


_FROZEN = {
    "__setattr__": _refuse_to_set,
    "__delattr__": _refuse_to_delete,
    "__init_subclass__": classmethod(_refuse_to_derive),
    "__getstate__": _state,
    "__setstate__": _set_state,
}
"""The methods of frozen classes. The state is what copies and pickled objects are made from."""
