"""The key `harbor` of the configuration of the service. Pure, apart from the password's file."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

import yaml

from publisher.errors import presentable
from publisher.service.fields import read_keys
from publisher.service.harbor.model import GroupType, HarborConfiguration
from publisher.sizes import parse_size
from publisher.yaml_nodes import (
    Problems,
    describe,
    read_entries,
    read_named_file,
    read_text,
)

_KEYS = ("url", "user", "password-file", "groups", "storage")
_WRITE = "write harbor: {url: 'https://HOST', user: NAME, password-file: PATH}"
_MAX_BYTES = 4096
_GROUPS = {"oidc": GroupType.OIDC, "ldap": GroupType.LDAP, "http": GroupType.HTTP}


def parse_harbor(
    node: yaml.Node | None,
    problems: Problems,
    read_file: Callable[[str], bytes],
    projects: Collection[str],
) -> HarborConfiguration | None:
    """Return the value of the key, after reporting all mistakes; no message has the password.

    Args:
        node: The value, or None without it.
        problems: Collects the mistakes.
        read_file: Returns the first bytes of the file with the password, or raises OSError.
        projects: The names of the projects of the configuration.
    """
    if node is None:
        return None
    found = read_keys(node, problems, "harbor", _KEYS)
    for key in _KEYS[:3]:
        if key not in found and isinstance(node, yaml.MappingNode):
            problems.error(node, f"harbor has no {key}", _WRITE)
    url = _url(found.get("url"), problems)
    user = read_text(found["user"], problems, "user") if "user" in found else None
    if user is not None and ":" in user:
        problems.error(found["user"], "the name of a user has no ':'", "correct it")
    password = _password(found.get("password-file"), problems, read_file)
    groups = _groups(found.get("groups"), problems)
    storage = _storage(found.get("storage"), problems, projects)
    if url is None or user is None or password is None:
        return None
    return HarborConfiguration(url, user, password, groups, storage)


def _url(node: yaml.Node | None, problems: Problems) -> str | None:
    text = None if node is None else read_text(node, problems, "url")
    if node is None or text is None:
        return None
    try:
        parts = urlsplit(text)
        is_valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if (
        is_valid
        and parts.scheme in ("https", "http")
        and "@" not in parts.netloc
        and not (parts.path.strip("/") or parts.query or parts.fragment)
    ):
        return f"{parts.scheme}://{parts.netloc.lower()}"
    message = "url is not an address of https or http without a path and a password"
    problems.error(node, message, "such as https://harbor.example.org")
    return None


def _password(
    node: yaml.Node | None, problems: Problems, read_file: Callable[[str], bytes]
) -> str | None:
    path = None if node is None else read_text(node, problems, "password-file")
    if node is None or path is None:
        return None
    text = read_named_file(node, path, problems, read_file, _MAX_BYTES)
    if text is None or re.fullmatch(r"[^\x00-\x1f\x7f]+", text):
        return text
    message = f"{presentable(path)} is empty, or has more than one line"
    problems.error(node, message, "write the password there, in one line")
    return None


def _groups(node: yaml.Node | None, problems: Problems) -> GroupType:
    text = "oidc" if node is None else read_text(node, problems, "groups")
    if text is not None and text in _GROUPS:
        return _GROUPS[text]
    if node is not None and text is not None:
        message = f"groups must be one of {', '.join(_GROUPS)}"
        problems.error(node, message, "write groups: oidc")
    return GroupType.OIDC


def _storage(
    node: yaml.Node | None, problems: Problems, projects: Collection[str]
) -> dict[str, int]:
    if node is None:
        return {}
    write = "write storage: {PROJECT: 100 GB}"
    if not isinstance(node, yaml.MappingNode):
        problems.error(node, f"storage must be a mapping, but this is {describe(node)}", write)
        return {}
    found = {}
    for key, value in read_entries(node, problems):
        name, text = read_text(key, problems, "a project"), read_text(value, problems, "a size")
        if name is not None and name not in projects:
            problems.error(key, f"there is no project {presentable(name)!r}", "correct the name")
        if name is None or text is None:
            continue
        try:
            found[name] = parse_size(text)
        except ValueError as error:
            problems.error(value, f"the quota of {presentable(name)} {error}", write)
    return found
