"""Dataclasses and patterns that are compiled at their first use."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import field
from typing import Generic, TypeVar

import pytest

from publisher.lazy import dataclass, pattern

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Frozen:
    """A frozen record."""

    name: str
    size: int = 1
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = field(default="", repr=False, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Standard:
    """What the standard library makes of the same fields."""

    name: str
    size: int = 1
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = field(default="", repr=False, compare=False)


@dataclass(slots=True)
class Mutable:
    """A record that can be changed."""

    first: int
    second: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class One:
    """A record with a single field."""

    value: float


def test_a_class_is_as_the_standard_one() -> None:
    for kind in (Frozen, Standard):
        made = kind("a", tags={"b": "c"}, note="d")
        assert (made.name, made.size, made.tags, made.note) == ("a", 1, {"b": "c"}, "d")
        assert made == kind("a", 1, {"b": "c"}) != kind("a", 2, {"b": "c"})
        assert repr(made) == f"{kind.__name__}(name='a', size=1, tags={{'b': 'c'}})"
        assert dataclasses.asdict(made) == {"name": "a", "size": 1, "tags": {"b": "c"}, "note": "d"}
        assert dataclasses.replace(made, size=3) == kind("a", 3, {"b": "c"})
        assert dataclasses.is_dataclass(kind)
        assert kind.__match_args__ == ("name", "size", "tags", "note")
        assert copy.copy(made) == pickle.loads(pickle.dumps(made)) == made
        assert kind("a").tags is not kind("a").tags
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'size'"):
            setattr(made, "size", 2)  # noqa: B010 - the checker knows that it is frozen
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'size'"):
            del made.size
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'name'"):
            kind()  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="unhashable"):
            hash(made)
        assert made.__slots__ == kind.__match_args__
        assert not hasattr(made, "__dict__")
    mine, standard = inspect.signature(Frozen), inspect.signature(Standard)
    assert list(mine.parameters) == list(standard.parameters)
    assert [f.name for f in dataclasses.fields(Frozen)] == [*mine.parameters]
    others: list[object] = [Standard("a"), None]
    assert Frozen("a") not in others


def test_equal_records_have_equal_hashes_and_a_value_equals_itself() -> None:
    assert hash(One(1)) == hash(One(1.0)) == hash((1,))
    nan = float("nan")
    assert One(nan) == One(nan)  # compared as tuples are, as in the standard library
    match [One(2.0)]:
        case [One(value)]:
            assert value == 2.0
        case other:
            raise AssertionError(other)


@dataclass(frozen=True, slots=True)
class Box(Generic[T]):
    """A generic record."""

    content: T


def test_a_record_may_be_generic() -> None:
    assert Box[int](1) == Box(1) != Box(2)
    assert type(Box(1)) is Box


def test_records_that_are_not_frozen_can_be_changed_and_have_no_hash() -> None:
    made = Mutable(1)
    made.second.append(2)
    made.first = 3
    assert made == Mutable(3, [2])
    assert vars(Mutable)["__hash__"] is None
    with pytest.raises(AttributeError):
        setattr(made, "third", 1)  # noqa: B010 - the checker knows that it is missing


def test_what_only_the_standard_library_can_make_is_made_by_it() -> None:
    @dataclass(frozen=True, slots=True)
    class Checked:
        """A record that computes a field."""

        size: int
        twice: int = field(init=False, default=0)

        def __post_init__(self) -> None:
            object.__setattr__(self, "twice", 2 * self.size)

    @dataclass(frozen=True, slots=True, order=True)
    class Ordered:
        """A record that can be sorted."""

        size: int

    assert Checked(2).twice == 4
    assert Ordered(1) < Ordered(2)


class _Base:
    def __post_init__(self) -> None:
        raise ValueError("called")


def test_special_methods_and_fields_are_not_ignored() -> None:
    @dataclass(frozen=True, slots=True)
    class Derived(_Base):
        """A record that inherits a check."""

        size: int

    @dataclass(frozen=True, slots=True)
    class Named:
        """A record with fields that have to be named, or do not count in its hash."""

        size: int = field(default=1, hash=False)
        note: str = field(kw_only=True)

    @dataclass(slots=True)
    class Pickled:
        """A record with a state of its own."""

        size: int

        def __getstate__(self) -> object:
            return None

    with pytest.raises(ValueError, match="called"):
        Derived(1)
    with pytest.raises(TypeError, match="positional"):
        Named(1, "a")  # type: ignore[call-arg]
    assert hash(Named(1, note="a")) == hash(Named(2, note="a"))
    assert Pickled(1).__getstate__() is None
    with pytest.raises(ValueError, match="mutable default"):

        @dataclass(slots=True)
        class Shared:
            """A record with one list for all."""

            values: list[int] = []  # noqa: RUF012 - the mistake


def test_deriving_from_a_frozen_record_is_an_error() -> None:
    with pytest.raises(TypeError, match="Further cannot derive from a frozen dataclass"):

        class Further(Frozen):
            pass

    class Other(Mutable):
        pass

    assert type(Other(1)) is Other


def test_nothing_is_compiled_before_the_first_use() -> None:
    program = (
        "import re\n"
        "from publisher.lazy import dataclass, pattern\n"
        "import builtins\n"
        "re.compile = builtins.exec = builtins.compile = None\n"
        "@dataclass(frozen=True, slots=True)\n"
        "class Record:\n    '''A record.'''\n    __annotations__ = {'size': 'int'}\n"
        "pattern('a')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_pattern_is_compiled_once_and_has_all_methods() -> None:
    words = pattern(r"[a-z]+", re.IGNORECASE)
    assert words.fullmatch("Abc")
    assert words.sub("x", "a 1 B") == "x 1 x"
    assert words.fullmatch == re.compile(r"[a-z]+", re.IGNORECASE).fullmatch
    assert words.pattern == r"[a-z]+"
    for other in (copy.copy(words), copy.deepcopy(words), pickle.loads(pickle.dumps(words))):
        assert other.fullmatch("Abc")
    with pytest.raises(re.error):
        pattern("(").match("")
