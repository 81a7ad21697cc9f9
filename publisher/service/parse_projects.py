"""The projects and administrators in the configuration of the service, with their mistakes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import yaml

from publisher.errors import presentable
from publisher.lazy import pattern
from publisher.service.fields import read_file_path, read_keys, read_named, read_registry
from publisher.service.projects import Member, Project
from publisher.service.verbs import Role
from publisher.sizes import parse_size
from publisher.tree import layout
from publisher.wishlist.quota import Quota
from publisher.yaml_nodes import (
    Problems,
    describe,
    read_entries,
    read_mapping,
    read_text,
    read_texts,
)

_MOST_MEMBERS = 10_000
_MEMBER = ("role", "user", "group", "claims")
_PROJECT = ("members", "credentials", "settings", "prefix", "quota", "registries")
_MOST_REGISTRIES = 1000
_NUMBER = pattern(r"[0-9]{1,9}")
_WRITE = "write members: [{user: alice, role: editor}]"


def parse_projects(node: yaml.Node | None, problems: Problems) -> tuple[Project, ...]:
    """Return the projects."""
    if node is None:
        return ()

    def read(name: str, value: yaml.Node) -> Project:
        found = read_keys(value, problems, f"the project {name}", _PROJECT)
        return Project(
            name,
            parse_members(found.get("members"), problems),
            read_file_path(found.get("credentials"), problems, "credentials"),
            read_file_path(found.get("settings"), problems, "settings"),
            _prefix(found.get("prefix"), problems),
            _quota(name, found.get("quota"), problems),
            _registries(found.get("registries"), problems),
        )

    write = "write projects: {NAME: {members: [{user: alice, role: editor}]}}"
    projects = read_named(node, problems, "projects", write, read)
    _check_prefixes(node, projects, problems)
    return projects


def _quota(name: str, node: yaml.Node | None, problems: Problems) -> Quota:
    """Return what a project may use: any amount, unless it is limited."""
    found = read_keys(node, problems, f"the quota of {name}", ("images", "bytes"))
    images: int | None = None
    size: int | None = None
    if "images" in found:
        given = found["images"]
        if isinstance(given, yaml.ScalarNode) and _NUMBER.fullmatch(given.value):
            images = int(given.value)
        else:
            message = "images must be a whole number"
            problems.error(given, message, "such as images: 200")
    if "bytes" in found:
        given = found["bytes"]
        try:
            size = parse_size(given.value if isinstance(given, yaml.ScalarNode) else "")
        except ValueError as error:
            problems.error(given, f"bytes {error}", "such as bytes: 500 GB")
    return Quota(name, images, size)


def _prefix(node: yaml.Node | None, problems: Problems) -> str:
    """Return a directory of public names, "" if it is missing."""
    text = None if node is None else read_text(node, problems, "prefix")
    if node is None or text is None:
        return ""
    if layout.is_directory_of_names(text):
        return text
    message = f"{presentable(text)!r} is not a directory of public names"
    write = f"such as prefix: registry.example.org/astro, or {layout.LOCAL}/astro"
    problems.error(node, message, write)
    return ""


def _check_prefixes(node: yaml.Node, projects: Sequence[Project], problems: Problems) -> None:
    """Report projects with the same images: one could replace those of the other."""
    # In this order, what is nested in a directory follows it at once.
    ordered = sorted((f"{each.prefix}/", each.name) for each in projects if each.prefix)
    for (first, one), (second, other) in itertools.pairwise(ordered):
        if second.startswith(first):
            message = f"the prefixes of {one} and {other} are the same, or nested"
            problems.error(node, message, "give each project a directory of its own")


def _registries(node: yaml.Node | None, problems: Problems) -> tuple[str, ...]:
    if node is None:
        return ()
    write = "write hosts as the wishes do, such as registries: [quay.io, docker.io]"
    texts = read_texts(node, problems, "registries")
    if len(texts) > _MOST_REGISTRIES:
        problems.error(node, f"registries has more than {_MOST_REGISTRIES}", write)
    found = [read_registry(text, item, problems, write) for text, item in texts]
    return tuple(dict.fromkeys(each for each in found if each is not None))


def parse_members(node: yaml.Node | None, problems: Problems) -> tuple[Member, ...]:
    """Return the members in a list; () without one."""
    if node is None:
        return ()
    if not (isinstance(node, yaml.SequenceNode) and 0 < len(node.value) <= _MOST_MEMBERS):
        message = f"members must be a list, with one to {_MOST_MEMBERS}"
        problems.error(node, message, _WRITE)
        return ()
    found = [_member(item, problems) for item in node.value]
    return tuple(each for each in found if each is not None)


def _member(node: yaml.Node, problems: Problems) -> Member | None:
    if not isinstance(node, yaml.MappingNode):
        message = f"a member must be a mapping, but this is {describe(node)}"
        problems.error(node, message, _WRITE)
        return None
    found = read_mapping(node, problems, "in a member", _MEMBER, {})
    given = [key for key in ("user", "group", "claims") if key in found]
    if len(given) != 1:
        message = "a member has one of user, group, claims"
        problems.error(node, message, _WRITE)
    role = _role(node, found.get("role"), problems)
    user = read_text(found["user"], problems, "user") if "user" in found else ""
    group = read_text(found["group"], problems, "group") if "group" in found else ""
    claims = parse_claims(found["claims"], problems) if "claims" in found else {}
    if role is None or len(given) != 1:
        return None
    return Member(role, user or "", group or "", claims)


def _role(member: yaml.Node, node: yaml.Node | None, problems: Problems) -> Role | None:
    text = node.value if isinstance(node, yaml.ScalarNode) else ""
    if text in tuple(Role):
        return Role(text)
    problems.error(node or member, f"role must be one of {', '.join(Role)}", _WRITE)
    return None


def parse_claims(node: yaml.Node, problems: Problems) -> dict[str, str]:
    """Return the claims in a mapping of names to texts, all of which an identity has to have."""
    if not (isinstance(node, yaml.MappingNode) and node.value):
        message = "claims must be a mapping, with at least one"
        problems.error(node, message, "write claims: {department: astronomy}")
        return {}
    claims = {}
    for key, value in read_entries(node, problems):
        name, text = read_text(key, problems, "a claim"), read_text(value, problems, "a claim")
        if name is not None and text is not None:
            claims[name] = text
    return claims
