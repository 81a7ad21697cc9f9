"""Values of many keys in the configuration of the service: names, mappings, paths, numbers, times.

The readers report each mistake with its place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import yaml

from publisher.durations import duration_text, parse_duration
from publisher.errors import InvalidReference, presentable
from publisher.lazy import pattern
from publisher.oci.reference import canonical_name, parse_repository
from publisher.yaml_nodes import (
    Problems,
    describe,
    read_entries,
    read_mapping,
    read_text,
    read_texts,
)

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""The regular expression of a name."""
_NAME = pattern(NAME)
_REMEDY = "use letters, digits, '.', '_' and '-', and begin with one of the first two"
_Value = TypeVar("_Value")


def is_name(text: str) -> bool:
    """Return whether a text is a name."""
    return _NAME.fullmatch(text) is not None


def read_name(node: yaml.Node, problems: Problems, what: str) -> str | None:
    """Return a name, or None after reporting a mistake."""
    name = read_text(node, problems, what)
    if name is None or is_name(name):
        return name
    problems.error(node, f"{presentable(name)!r} is not a name", _REMEDY)
    return None


def read_known_name(
    node: yaml.Node, problems: Problems, what: str, known: Collection[str]
) -> str | None:
    """Return a name that is defined elsewhere, or None after reporting a mistake."""
    name = read_text(node, problems, what)
    if name is None or name in known:
        return name
    suggestion = f"known are {', '.join(known)}" if known else f"define the {what} first"
    problems.error(node, f"there is no {what} {presentable(name)!r}", suggestion)
    return None


def read_known_names(
    node: yaml.Node, problems: Problems, key: str, what: str, known: Collection[str]
) -> tuple[str, ...]:
    """Return the names in the list `key`, each of a `what` that is defined elsewhere."""
    items = [item for _, item in read_texts(node, problems, key)]
    names = [read_known_name(item, problems, what, known) for item in items]
    return tuple(name for name in names if name is not None)


def read_named(
    node: yaml.Node,
    problems: Problems,
    what: str,
    write: str,
    read: Callable[[str, yaml.Node], _Value | None],
) -> tuple[_Value, ...]:
    """Return what `read` makes of each value of a mapping whose keys are names."""
    if not (isinstance(node, yaml.MappingNode) and node.value):
        problems.error(node, f"{what} must be a mapping, with at least one", write)
        return ()
    values = []
    for key, value in read_entries(node, problems):
        name = read_text(key, problems, "a name")
        if name is None:
            continue
        if not is_name(name):
            problems.error(key, f"{presentable(name)!r} is not a name", _REMEDY)
        made = read(presentable(name), value)
        values += [made] if made is not None else []
    return tuple(values)


def names_in(node: yaml.Node | None) -> tuple[str, ...]:
    """Return the keys of a mapping that are texts; mistakes in it are reported elsewhere."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return tuple(key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode))


def read_keys(
    node: yaml.Node | None, problems: Problems, what: str, known: Sequence[str]
) -> dict[str, yaml.Node]:
    """Return the values of the `known` keys of a mapping that may be missing."""
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        message = f"{what} must be a mapping, but this is {describe(node)}"
        problems.error(node, message, f"known keys are {', '.join(known)}")
        return {}
    return read_mapping(node, problems, f"in {what}", known, {})


def read_file_path(node: yaml.Node | None, problems: Problems, key: str) -> Path | None:
    """Return the path of a file, relative to the directory of the configuration; None without."""
    text = None if node is None else read_text(node, problems, key)
    return None if text is None else Path(problems.name).parent / text


def read_directory(node: yaml.Node, problems: Problems, key: str) -> Path | None:
    """Return the absolute path of a directory with data; None after reporting a mistake."""
    text = read_text(node, problems, key)
    if text is None or os.path.isabs(text):
        return None if text is None else Path(os.path.normpath(text))
    message = f"{key} must be an absolute path, but this is {presentable(text)!r}"
    problems.error(node, message, "begin it with '/'")
    return None


def read_registry(text: str, node: yaml.Node, problems: Problems, write: str) -> str | None:
    """Return the canonical name of a registry, as wishes write its host; `write` is the remedy."""
    try:
        reference = parse_repository(f"https://{text}/a/b")
    except InvalidReference:
        reference = None
    if reference is None or reference.repository != "a/b":
        problems.error(node, f"{presentable(text)!r} is not a host", write)
        return None
    return canonical_name(reference.registry)


def read_number(
    node: yaml.Node | None, problems: Problems, what: str, least: int, most: int, default: int
) -> int:
    """Return a number from `least` to `most`; `default` without one, or after a mistake."""
    if node is None:
        return default
    text = node.value if isinstance(node, yaml.ScalarNode) else ""
    if re.fullmatch(r"[0-9]{1,8}", text) and least <= int(text) <= most:
        return int(text)
    message = f"{what} must be a number from {least} to {most}"
    problems.error(node, message, f"write {what}: {default}")
    return default


def read_duration(
    node: yaml.Node | None,
    problems: Problems,
    what: str,
    default: timedelta,
    least: timedelta = timedelta(minutes=1),
) -> timedelta:
    """Return a duration of at least `least`; `default` without one, or after a mistake."""
    if node is None:
        return default
    text = read_text(node, problems, what)
    if text is None:
        return default
    try:
        duration = parse_duration(text)
    except ValueError as error:
        problems.error(node, f"{what}: {error}", f"write {what}: {duration_text(default)}")
        return default
    if duration < least:
        message = f"{what} is shorter than {duration_text(least)}"
        problems.error(node, message, f"write {what}: {duration_text(default)}")
    return duration
