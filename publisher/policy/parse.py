"""Read a policy file, and report every mistake with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import yaml

from publisher.errors import presentable
from publisher.lazy import pattern
from publisher.oci.tag_patterns import InvalidPattern, check_brackets
from publisher.policy.model import (
    InvalidPolicy,
    PolicyFile,
    Rules,
    Setting,
    SignatureRule,
    Signer,
)
from publisher.sizes import parse_size
from publisher.yaml_nodes import (
    Problems,
    describe,
    load_mapping,
    place,
    read_entries,
    read_mapping,
    read_text,
    read_texts,
)

MAX_BYTES = 1024 * 1024
"""The largest policy file that is read."""

_PATTERN = pattern(r"[A-Za-z0-9._:/*?\[\]!-]+")


def parse_policy(data: bytes | str, name: str) -> PolicyFile:
    """Read a policy file.

    Args:
        data: Its content, in YAML.
        name: Its path, for messages; the paths of keys are relative to its directory.

    Raises:
        InvalidPolicy: With all mistakes in the file.
    """
    problems = Problems(name, "policy", InvalidPolicy)
    root = load_mapping(data, problems, MAX_BYTES, "a policy")
    policy = _Reader(problems).policy(root)
    if problems.found:
        raise problems.failure()
    return policy


class _Reader:
    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._directory = PurePath(problems.name).parent

    def policy(self, root: yaml.MappingNode) -> PolicyFile:
        own = ("version", "owners", "known-owners-only")
        moved = {"users": "'users' belongs to an owner: owners: {NAME: {users: […]}}"}
        known = (*own, *(key for key in _KEYS if key != "users"))
        found = read_mapping(root, self._problems, "in a policy", known, moved)
        self._check_version(root, found.get("version"))
        only_known = found.get("known-owners-only")
        return PolicyFile(
            self._problems.name,
            self._rules({key: node for key, node in found.items() if key not in own}),
            self._owners(found.get("owners")),
            None if only_known is None else self._flag(only_known, "known-owners-only"),
        )

    def _check_version(self, root: yaml.Node, node: yaml.Node | None) -> None:
        if node is None:
            self._problems.error(root, "the policy has no version", "add the line 'version: 1'")
        elif not (isinstance(node, yaml.ScalarNode) and node.value == "1"):
            self._problems.error(node, "policies have version 1 only", "write version: 1")

    def _owners(self, node: yaml.Node | None) -> Mapping[str, Rules]:
        owners = {}
        moved = {"known-owners-only": "'known-owners-only' applies to all owners"}
        for key, value in self._entries(node, "owners"):
            if isinstance(value, yaml.MappingNode):
                where = f"for the owner {presentable(key)}"
                found = read_mapping(value, self._problems, where, tuple(_KEYS), moved)
                owners[key] = self._rules(found)
            else:
                self._expected(value, "the rules of an owner", "a mapping", "users: [NAME]")
        return owners

    def _rules(self, found: Mapping[str, yaml.Node]) -> Rules:
        values: dict[str, Any] = {}
        for key, node in found.items():
            values |= _KEYS[key](self, node, key)
        return Rules(**values)

    def _entries(self, node: yaml.Node | None, what: str) -> list[tuple[str, yaml.Node]]:
        """Return the keys and values of a mapping; report all else."""
        if node is None:
            return []
        if not isinstance(node, yaml.MappingNode):
            self._expected(node, what, "a mapping", f"{what}: {{NAME: …}}")
            return []
        entries = []
        for key, value in read_entries(node, self._problems):
            text = read_text(key, self._problems, f"a key of {what}")
            if text is not None:
                entries.append((text, value))
        return entries

    def _expected(self, node: yaml.Node, what: str, kind: str, write: str) -> None:
        self._problems.error(
            node, f"{what} must be {kind}, but this is {describe(node)}", f"write {write}"
        )

    # --- values ---------------------------------------------------------------------------------

    def _flag(self, node: yaml.Node, what: str) -> Setting[bool] | None:
        if isinstance(node, yaml.ScalarNode) and node.value in ("true", "false"):
            return Setting(True, place(node)[0]) if node.value == "true" else None
        self._expected(node, what, "true or false", f"{what}: true")
        return None

    def _patterns(self, node: yaml.Node, what: str) -> list[Setting[str]]:
        found = []
        for text, item in read_texts(node, self._problems, what):
            if _PATTERN.fullmatch(text):
                try:
                    check_brackets(text)
                except InvalidPattern as error:
                    self._problems.error(item, error.what, error.hint)
                    continue
                found.append(Setting(text, place(item)[0]))
            else:
                message = f"{presentable(text)!r} is not a pattern for {what}"
                self._problems.error(item, message, "such as '*.example.org' or 'docker.io/team/*'")
        return found

    def _allow_and_deny(self, node: yaml.Node, what: str) -> dict[str, object]:
        if not isinstance(node, yaml.MappingNode):
            self._expected(node, what, "a mapping", f"{what}: {{allow: […], deny: […]}}")
            return {}
        found = read_mapping(node, self._problems, f"in {what}", ("allow", "deny"), {})
        values: dict[str, object] = {}
        if "allow" in found:
            patterns = self._patterns(found["allow"], what)
            allowed = tuple(pattern.value for pattern in patterns)
            values[f"allow_{what}"] = Setting(allowed, place(found["allow"])[0])
        if "deny" in found:
            values[f"deny_{what}"] = tuple(self._patterns(found["deny"], what))
        return values

    def _tags(self, node: yaml.Node, what: str) -> dict[str, object]:
        return {"forbid_tags": tuple(self._patterns(node, what))}

    def _pinned(self, node: yaml.Node, what: str) -> dict[str, object]:
        return {"pinned": self._flag(node, what)}

    def _count(self, node: yaml.Node, what: str) -> dict[str, object]:
        if isinstance(node, yaml.ScalarNode) and re.fullmatch(r"[0-9]{1,12}", node.value):
            return {what.replace("-", "_"): Setting(int(node.value), place(node)[0])}
        self._expected(node, what, "a whole number", f"{what}: 100")
        return {}

    def _size(self, node: yaml.Node, what: str) -> dict[str, object]:
        try:
            size = parse_size(node.value if isinstance(node, yaml.ScalarNode) else "")
        except ValueError as error:
            self._problems.error(node, f"{what} {error}", "write for example 20 GB or 500 MiB")
            return {}
        return {"max_size": Setting(size, place(node)[0])}

    def _labels(self, node: yaml.Node, what: str) -> dict[str, object]:
        found = []
        for name, value in self._entries(node, what):
            pattern = read_text(value, self._problems, f"the value of the label {name}")
            if pattern is not None:
                found.append(Setting((name, pattern), place(value)[0]))
        return {"labels": tuple(found)}

    def _signatures(self, node: yaml.Node, what: str) -> dict[str, object]:
        if not isinstance(node, yaml.SequenceNode):
            self._expected(node, what, "a list", "- {images: ['*'], keys: [cosign.pub]}")
            return {}
        found = []
        for item in node.value:
            if not isinstance(item, yaml.MappingNode):
                self._expected(item, "an item of signatures", "a mapping", "keys: [cosign.pub]")
                continue
            rule = self._signature(item)
            if rule is not None:
                found.append(Setting(rule, place(item)[0]))
        return {"signatures": tuple(found)}

    def _signature(self, item: yaml.MappingNode) -> SignatureRule | None:
        known = ("images", "keys", "identities", "trusted-root")
        values = read_mapping(item, self._problems, "in an item of signatures", known, {})
        if not {"keys", "identities"} & values.keys():
            message = "neither keys nor identities are named"
            self._problems.error(item, message, "add keys: [cosign.pub]")
            return None
        images = self._patterns(values["images"], "images") if "images" in values else []
        files = read_texts(values["keys"], self._problems, "keys") if "keys" in values else []
        root = None
        if "trusted-root" in values:
            root = read_text(values["trusted-root"], self._problems, "trusted-root")
        return SignatureRule(
            tuple(pattern.value for pattern in images) or ("*",),
            tuple(str(self._directory / text) for text, _ in files),
            tuple(self._signers(values.get("identities"))),
            str(self._directory / root) if root else "",
        )

    def _signers(self, node: yaml.Node | None) -> Iterator[Signer]:
        write = "identities: [{issuer: 'https://…', subject: '…'}]"
        if node is not None and not (isinstance(node, yaml.SequenceNode) and node.value):
            self._expected(node, "identities", "a list of mappings", write)
        for item in node.value if isinstance(node, yaml.SequenceNode) else ():
            if not isinstance(item, yaml.MappingNode):
                self._expected(item, "an identity", "a mapping", write)
                continue
            keys = ("issuer", "subject")
            values = read_mapping(item, self._problems, "in an identity", keys, {})
            texts = {key: read_text(node, self._problems, key) for key, node in values.items()}
            if texts.keys() != set(keys):
                self._problems.error(item, "an identity has an issuer and a subject", write)
            elif texts["issuer"] and texts["subject"]:
                yield Signer(texts["issuer"], texts["subject"])

    def _users(self, node: yaml.Node, what: str) -> dict[str, object]:
        names = tuple(text for text, _ in read_texts(node, self._problems, what))
        return {"users": Setting(names, place(node)[0])}


_KEYS: Mapping[str, Callable[[_Reader, yaml.Node, str], dict[str, object]]] = {
    "registries": _Reader._allow_and_deny,
    "images": _Reader._allow_and_deny,
    "forbid-tags": _Reader._tags,
    "pinned": _Reader._pinned,
    "max-size": _Reader._size,
    "max-entries": _Reader._count,
    "max-images": _Reader._count,
    "max-tags": _Reader._count,
    "labels": _Reader._labels,
    "signatures": _Reader._signatures,
    "users": _Reader._users,
}
"""The rules that apply in general, and to single owners."""
