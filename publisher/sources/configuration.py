"""The configuration file: text to settings, with all mistakes reported at once. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from publisher.durations import parse_duration
from publisher.errors import PublisherError
from publisher.sources.settings import RegistrySettings, Settings, canonical_name

MAX_FILE = 1024 * 1024
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?\Z")
_MIRROR = re.compile(r"(?:https?://)?([^/@?#\s]+)((?:/[a-z0-9][a-z0-9._-]*)*)/?\Z")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


class InvalidConfiguration(PublisherError):
    """A configuration file has mistakes; `problems` lists each with its line."""

    def __init__(self, name: str, problems: tuple[str, ...]) -> None:
        super().__init__(f"cannot use configuration {name}", why="; ".join(problems))
        self.problems = problems


@dataclass(slots=True)
class _Reader:
    """A file that is being read: its name and the problems so far."""

    name: str
    problems: list[str] = field(default_factory=list)

    def add_problem(self, node: yaml.Node, text: str) -> None:
        mark = node.start_mark
        self.problems.append(f"{self.name}:{mark.line + 1}:{mark.column + 1}: {text}")


def parse_settings(data: str | bytes, name: str) -> Settings:
    """Return the settings in a configuration file.

    Args:
        data: The content of the file, in YAML.
        name: Its path, for messages; relative paths in the file start at its folder.

    Raises:
        InvalidConfiguration: With all mistakes in the file.
    """
    reader = _Reader(name)
    registries: dict[str, RegistrySettings] = {}
    for key, node in _entries(reader, _compose(data, name), "a configuration"):
        if key.value == "registries":
            registries = dict(_registries(reader, node))
        else:
            reader.add_problem(key, f"{key.value!r} is not known; the key is: registries")
    if reader.problems:
        raise InvalidConfiguration(name, tuple(reader.problems))
    return Settings(registries=registries)


def _compose(data: str | bytes, name: str) -> yaml.Node | None:
    if len(data) > MAX_FILE:
        raise InvalidConfiguration(name, (f"{name}: larger than {MAX_FILE} bytes",))
    try:
        return yaml.compose(data, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise InvalidConfiguration(name, (f"{where}: not YAML: {error.problem}",)) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidConfiguration(name, (f"{name}: not YAML: it cannot be read",)) from error


def _entries(
    reader: _Reader, node: yaml.Node | None, what: str
) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    """Yield keys and values of a mapping; nothing for null."""
    if node is None or node.tag == "tag:yaml.org,2002:null":
        return
    if not isinstance(node, yaml.MappingNode) or node.tag != "tag:yaml.org,2002:map":
        reader.add_problem(node, f"{what} has to be a mapping of names to values")
        return
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            reader.add_problem(key, "expected a name")
        elif key.value in seen:
            reader.add_problem(key, f"{key.value!r} is given twice")
        else:
            seen.add(key.value)
            yield key, value


def _registries(reader: _Reader, node: yaml.Node) -> Iterator[tuple[str, RegistrySettings]]:
    for key, value in _entries(reader, node, "registries"):
        host = key.value.lower()
        if not _HOST.match(host):
            reader.add_problem(key, f"{key.value!r} is not HOST or HOST:PORT")
            continue
        yield canonical_name(host), _registry(reader, value)


def _registry(reader: _Reader, node: yaml.Node) -> RegistrySettings:
    values: dict[str, Any] = {}
    keys: dict[str, yaml.Node] = {}
    for key, value in _entries(reader, node, "a registry"):
        read = KEYS.get(key.value)
        if read is None:
            reader.add_problem(key, f"{key.value!r} is not known; the keys are: {', '.join(KEYS)}")
            continue
        try:
            if not isinstance(value, yaml.ScalarNode):
                raise ValueError("expected a single value")
            name, parse = read
            values[name] = parse(value, Path(reader.name).parent)
            keys[name] = key
        except ValueError as error:
            reader.add_problem(value, f"{key.value}: {error}")
    if "client_key" in values and "client_certificate" not in values:
        reader.add_problem(keys["client_key"], "client-key requires client-certificate")
    return RegistrySettings(**values)


def _text(node: yaml.ScalarNode, folder: Path) -> str:
    if node.tag != "tag:yaml.org,2002:str" or not node.value:
        raise ValueError("expected a string")
    return str(node.value)


def _path(node: yaml.ScalarNode, folder: Path) -> Path:
    return folder / _text(node, folder)


def _mirror(node: yaml.ScalarNode, folder: Path) -> str:
    text = _text(node, folder)
    found = _MIRROR.match(text)
    if found is None or not _HOST.match(found[1].lower()):
        raise ValueError("write [https://]HOST[:PORT][/PREFIX]")
    return text.rstrip("/")


def _helper(node: yaml.ScalarNode, folder: Path) -> str:
    text = _text(node, folder)
    if not _HELPER.match(text):
        raise ValueError("write NAME, for a program docker-credential-NAME")
    return text


def _count(node: yaml.ScalarNode, folder: Path) -> int:
    if node.tag != "tag:yaml.org,2002:int" or not re.fullmatch(r"[1-9][0-9]{0,2}", node.value):
        raise ValueError("expected a number from 1 to 999")
    return int(node.value)


def _duration(node: yaml.ScalarNode, folder: Path) -> timedelta:
    duration = parse_duration(_text(node, folder))
    if not duration:
        raise ValueError("expected a duration above zero")
    return duration


def _flag(node: yaml.ScalarNode, folder: Path) -> bool:
    if node.tag != "tag:yaml.org,2002:bool":
        raise ValueError("expected true or false")
    return node.value.lower() in ("true", "yes", "on")


KEYS: Mapping[str, tuple[str, Callable[[yaml.ScalarNode, Path], Any]]] = {
    "mirror": ("mirror", _mirror),
    "ca": ("ca", _path),
    "client-certificate": ("client_certificate", _path),
    "client-key": ("client_key", _path),
    "credentials": ("credentials", _path),
    "credential-helper": ("credential_helper", _helper),
    "max-concurrent": ("max_concurrent", _count),
    "image-timeout": ("image_timeout", _duration),
    "insecure": ("insecure", _flag),
}
"""The keys of a registry: the field of RegistrySettings, and the parser of the value."""
