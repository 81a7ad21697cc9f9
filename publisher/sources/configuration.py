"""Parse the configuration file, and report all mistakes at once. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from publisher.durations import parse_duration
from publisher.errors import presentable
from publisher.lazy import pattern
from publisher.oci.reference import canonical_name
from publisher.problems import InvalidFile
from publisher.sources.settings import RegistrySettings, Settings
from publisher.yaml_nodes import (
    MAPPING,
    NULL,
    STRING,
    Problems,
    describe,
    load,
    read_entries,
    read_mapping,
)

MAX_FILE = 1024 * 1024
_HOST = pattern(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?\Z")
_MIRROR = pattern(r"(?:https?://)?([^/@?#\s]+)((?:/[a-z0-9][a-z0-9._-]*)*)/?\Z")
_HELPER = pattern(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


class InvalidConfiguration(InvalidFile):
    """A configuration file has mistakes."""


def parse_settings(data: str | bytes, name: str) -> Settings:
    """Return the settings in a configuration file.

    Args:
        data: The content of the file, in YAML.
        name: Its path, for messages; relative paths in the file are relative to its directory.

    Raises:
        InvalidConfiguration: With all mistakes in the file.
    """
    problems = Problems(name, "configuration", InvalidConfiguration)
    registries: dict[str, RegistrySettings] = {}
    root = _mapping(load(data, problems, MAX_FILE), problems, "a configuration")
    if root is not None:
        fields = read_mapping(root, problems, "in a configuration", ("registries",), {})
        registries = dict(_registries(problems, fields.get("registries")))
    if problems.found:
        raise problems.failure()
    return Settings(registries=registries)


def _mapping(node: yaml.Node | None, problems: Problems, what: str) -> yaml.MappingNode | None:
    """Return a mapping; None if it is missing or, with an error, if it has another type."""
    if node is None or node.tag == NULL:
        return None
    if isinstance(node, yaml.MappingNode) and node.tag == MAPPING:
        return node
    problems.error(node, f"{what} must be a mapping, but this is {describe(node)}", "KEY: VALUE")
    return None


def _registries(
    problems: Problems, node: yaml.Node | None
) -> Iterator[tuple[str, RegistrySettings]]:
    mapping = _mapping(node, problems, "registries")
    for key, value in read_entries(mapping, problems) if mapping is not None else ():
        host = key.value.lower() if isinstance(key, yaml.ScalarNode) else ""
        if not _HOST.match(host):
            name = repr(presentable(key.value)) if host else describe(key)
            problems.error(key, f"{name} is not a registry", "write HOST or HOST:PORT")
            continue
        yield canonical_name(host), _registry(problems, value)


def _registry(problems: Problems, node: yaml.Node) -> RegistrySettings:
    mapping = _mapping(node, problems, "a registry")
    if mapping is None:
        return RegistrySettings()
    fields = read_mapping(mapping, problems, "in a registry", tuple(KEYS), {})
    values: dict[str, Any] = {}
    for key, value in fields.items():
        name, parse = KEYS[key]
        try:
            if not isinstance(value, yaml.ScalarNode):
                raise ValueError("expected a single value")
            values[name] = parse(value, Path(problems.name).parent)
        except ValueError as error:
            problems.error(value, f"{key}: {error}")
    if "client_key" in values and "client_certificate" not in values:
        problems.error(
            fields["client-key"], "client-key has no client-certificate", "add client-certificate"
        )
    return RegistrySettings(**values)


def _text(node: yaml.ScalarNode, directory: Path) -> str:
    if node.tag != STRING or not node.value:
        raise ValueError("expected a string")
    return str(node.value)


def _path(node: yaml.ScalarNode, directory: Path) -> Path:
    return directory / _text(node, directory)


def _mirror(node: yaml.ScalarNode, directory: Path) -> str:
    text = _text(node, directory)
    found = _MIRROR.match(text)
    if found is None or not _HOST.match(found[1].lower()):
        raise ValueError("write [https://]HOST[:PORT][/PREFIX]")
    return text.rstrip("/")


def _helper(node: yaml.ScalarNode, directory: Path) -> str:
    text = _text(node, directory)
    if not _HELPER.match(text):
        raise ValueError("write NAME, for a program docker-credential-NAME")
    return text


def _count(node: yaml.ScalarNode, directory: Path) -> int:
    if node.tag != "tag:yaml.org,2002:int" or not re.fullmatch(r"[1-9][0-9]{0,2}", node.value):
        raise ValueError("expected a number from 1 to 999")
    return int(node.value)


def _duration(node: yaml.ScalarNode, directory: Path) -> timedelta:
    duration = parse_duration(_text(node, directory))
    if not duration:
        raise ValueError("expected a duration above zero")
    return duration


def _flag(node: yaml.ScalarNode, directory: Path) -> bool:
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
