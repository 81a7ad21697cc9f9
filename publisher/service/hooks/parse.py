"""The key `hooks` of the configuration of the service. Pure, apart from the files with secrets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import yaml

from publisher.errors import presentable
from publisher.lazy import pattern
from publisher.oci.reference import HUB
from publisher.service.fields import read_name, read_registry
from publisher.service.hooks.model import Hook, HookKind
from publisher.yaml_nodes import (
    Problems,
    describe,
    read_entries,
    read_mapping,
    read_named_file,
    read_text,
    read_texts,
)

_WRITE = "write hooks: {NAME: {kind: harbor, secret-file: PATH, registry: HOST}}"
_MAKE_SECRET = "make one: openssl rand -hex 32 > PATH"
_KEYS = ("kind", "secret-file", "registry", "repositories")
_MOVED = {"secret": "a secret does not belong here: write it to a file; name it by secret-file"}
_SECRET = pattern(r"[\x21-\x7e]+")
_IN_PATH = pattern(r"[A-Za-z0-9._~-]+")
_LEAST_SECRET = 16
_MAX_BYTES = 4096
_MOST = 1000
_REGISTRIES = {HookKind.GITHUB: "ghcr.io", HookKind.QUAY: "quay.io", HookKind.DOCKER_HUB: HUB}


def parse_hooks(
    node: yaml.Node | None,
    problems: Problems,
    read_file: Callable[[str], bytes],
    repositories: Collection[str],
) -> tuple[Hook, ...]:
    """Return the hooks, after reporting all mistakes; no message has a secret.

    Args:
        node: The value of the key, or None without it.
        problems: Collects the mistakes.
        read_file: Returns the first bytes of a file with a secret, or raises OSError.
        repositories: The names of the repositories of the configuration.
    """
    if node is None:
        return ()
    if not (isinstance(node, yaml.MappingNode) and 0 < len(node.value) <= _MOST):
        message = f"hooks must be a mapping, with one to {_MOST}"
        problems.error(node, message, _WRITE)
        return ()
    reader = _Reader(problems, read_file, repositories)
    found = [reader.hook(key, value) for key, value in read_entries(node, problems)]
    return tuple(hook for hook in found if hook is not None)


class _Reader:
    def __init__(
        self,
        problems: Problems,
        read_file: Callable[[str], bytes],
        repositories: Collection[str],
    ) -> None:
        self._problems = problems
        self._read_file = read_file
        self._repositories = repositories

    def hook(self, key: yaml.Node, node: yaml.Node) -> Hook | None:
        """Return the hook of an entry, or None after reporting its mistakes."""
        name = read_name(key, self._problems, "the name of a hook")
        if not isinstance(node, yaml.MappingNode):
            message = f"a hook must be a mapping, but this is {describe(node)}"
            self._problems.error(node, message, _WRITE)
            return None
        found = read_mapping(node, self._problems, "in a hook", _KEYS, _MOVED)
        kind = self._kind(node, found.get("kind"))
        secret = self._secret(node, found.get("secret-file"), kind)
        registry = self._registry(node, found.get("registry"), kind)
        repositories = self._chosen(found)
        if name is None or kind is None or secret is None or registry is None:
            return None
        return Hook(name, kind, secret, registry, repositories)

    def _kind(self, hook: yaml.Node, node: yaml.Node | None) -> HookKind | None:
        kinds = f"kinds are {', '.join(HookKind)}"
        if node is None:
            self._problems.error(hook, "the hook has no kind", kinds)
            return None
        text = read_text(node, self._problems, "kind")
        if text is None or text in tuple(HookKind):
            return None if text is None else HookKind(text)
        self._problems.error(node, f"{presentable(text)!r} is not a kind of hook", kinds)
        return None

    def _secret(self, hook: yaml.Node, node: yaml.Node | None, kind: HookKind | None) -> str | None:
        if node is None:
            self._problems.error(hook, "the hook has no secret", "add secret-file: PATH")
            return None
        path = read_text(node, self._problems, "secret-file")
        if path is None:
            return None
        text = read_named_file(node, path, self._problems, self._read_file, _MAX_BYTES)
        if text is None:
            return None
        in_path = kind is not None and kind.has_secret_in_path
        if not (_IN_PATH if in_path else _SECRET).fullmatch(text):
            allowed = "letters, digits and '.', '_', '~', '-'" if in_path else "visible ASCII"
            message = f"the secret in {presentable(path)} has other characters than {allowed}"
            self._problems.error(node, message, _MAKE_SECRET)
            return None
        if len(text) < _LEAST_SECRET:
            message = f"the secret in {presentable(path)} is shorter than {_LEAST_SECRET} letters"
            self._problems.error(node, message, _MAKE_SECRET)
            return None
        return text

    def _registry(
        self, hook: yaml.Node, node: yaml.Node | None, kind: HookKind | None
    ) -> str | None:
        write = "write the host as the wishes do, such as registry: harbor.example.org"
        if node is None:
            default = _REGISTRIES.get(kind) if kind is not None else ""
            if default is None:
                self._problems.error(hook, "the hook has no registry", write)
            return default
        text = read_text(node, self._problems, "registry")
        return None if text is None else read_registry(text, node, self._problems, write)

    def _chosen(self, found: Mapping[str, yaml.Node]) -> frozenset[str]:
        if "repositories" not in found:
            return frozenset()
        texts = read_texts(found["repositories"], self._problems, "repositories")
        for text, item in texts:
            if text not in self._repositories:
                message = f"there is no repository {presentable(text)!r}"
                known = ", ".join(self._repositories) or "none"
                self._problems.error(item, message, f"repositories are {known}")
        return frozenset(text for text, _ in texts)
