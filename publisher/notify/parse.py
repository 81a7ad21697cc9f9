"""Read the configuration of notifications, and report every mistake with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import yaml

from publisher.errors import presentable
from publisher.lazy import pattern
from publisher.notify.model import (
    InvalidNotifications,
    Kind,
    Notifications,
    Receiver,
    Secret,
    Service,
    Webhook,
)
from publisher.notify.webhook import secret_bytes
from publisher.yaml_nodes import (
    Problems,
    describe,
    load_mapping,
    place,
    read_entries,
    read_mapping,
    read_named_file,
    read_text,
    read_texts,
)

MAX_BYTES = 1024 * 1024
"""The largest configuration, and the largest file with a secret, that is read."""

DEFAULT_SECONDS = 30.0
_MOST_SECONDS = 300
_LEAST_SECRET = 16
_NAME = pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SERVICE = pattern(r"[A-Za-z][A-Za-z0-9]{1,31}://\S+")
_KINDS = tuple(str(kind) for kind in Kind if kind is not Kind.TEST)
_PLACES = ("", "-env", "-file")
_ADDRESSES = tuple(f"{key}{place}" for key in ("service", "webhook") for place in _PLACES)
_KEYS = (*_ADDRESSES, "secret-env", "secret-file", "events", "owners", "lists")
_MOVED = {"secret": "a secret does not belong here: name it by secret-env or secret-file"}


def parse_notifications(
    data: bytes | str,
    name: str,
    environment: Mapping[str, str],
    read_file: Callable[[str], bytes],
) -> Notifications:
    """Read a configuration, with the secrets that it refers to.

    Args:
        data: Its content, in YAML.
        name: Its path, for messages.
        environment: The variables in which secrets may be.
        read_file: Returns the first bytes of a file with a secret, or raises OSError. Paths in the
            configuration are relative to its directory.

    Raises:
        InvalidNotifications: With all mistakes. No message has a secret.
    """
    problems = Problems(name, "notifications", InvalidNotifications)
    root = load_mapping(data, problems, MAX_BYTES, "notifications")
    configuration = _Reader(problems, environment, read_file).notifications(root)
    if problems.found:
        raise problems.failure()
    return configuration


class _Reader:
    def __init__(
        self,
        problems: Problems,
        environment: Mapping[str, str],
        read_file: Callable[[str], bytes],
    ) -> None:
        self._problems = problems
        self._environment = environment
        self._read_file = read_file

    def notifications(self, root: yaml.MappingNode) -> Notifications:
        known = ("version", "timeout", "receivers")
        found = read_mapping(root, self._problems, "in notifications", known, {})
        version = found.get("version")
        if version is None:
            self._problems.error(root, "no version is given", "add the line 'version: 1'")
        elif not (isinstance(version, yaml.ScalarNode) and version.value == "1"):
            self._problems.error(version, "notifications have version 1 only", "write version: 1")
        return Notifications(
            self._problems.name,
            self._receivers(root, found.get("receivers")),
            self._timeout(found.get("timeout")),
        )

    def _timeout(self, node: yaml.Node | None) -> float:
        if node is None:
            return DEFAULT_SECONDS
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        if re.fullmatch(r"[0-9]{1,3}", text) and 1 <= int(text) <= _MOST_SECONDS:
            return float(text)
        self._problems.error(
            node,
            f"timeout must be a number of seconds from 1 to {_MOST_SECONDS}",
            "write timeout: 30",
        )
        return DEFAULT_SECONDS

    def _receivers(self, root: yaml.Node, node: yaml.Node | None) -> tuple[Receiver, ...]:
        write = "write receivers: {NAME: {service-file: PATH}}"
        if node is None:
            self._problems.error(root, "no receivers are named", write)
        elif not (isinstance(node, yaml.MappingNode) and node.value):
            self._problems.error(node, "receivers must be a mapping, with at least one", write)
        else:
            found = [self._receiver(*pair) for pair in read_entries(node, self._problems)]
            return tuple(receiver for receiver in found if receiver is not None)
        return ()

    def _receiver(self, key: yaml.Node, node: yaml.Node) -> Receiver | None:
        name = read_text(key, self._problems, "the name of a receiver")
        if name is None:
            return None
        if not _NAME.fullmatch(name):
            message = f"{presentable(name)!r} is not a name for a receiver"
            self._problems.error(key, message, "use letters, digits, '.', '_' and '-'")
        if not isinstance(node, yaml.MappingNode):
            message = f"a receiver must be a mapping, but this is {describe(node)}"
            self._problems.error(node, message, "service-file: PATH")
            return None
        where = f"for the receiver {presentable(name)}"
        found = read_mapping(node, self._problems, where, _KEYS, _MOVED)
        address = self._address(node, found)
        kinds = self._kinds(found.get("events"))
        owners, lists = (self._patterns(found.get(each), each) for each in ("owners", "lists"))
        if address is None:
            return None
        return Receiver(name, address, kinds, owners, lists, place(key)[0])

    def _address(self, node: yaml.Node, found: Mapping[str, yaml.Node]) -> Webhook | Service | None:
        given = [key for key in _ADDRESSES if key in found]
        if len(given) != 1:
            several = " and ".join(given)
            message = f"it has {several}" if given else "it has neither a service nor a webhook"
            self._problems.error(node, message, "give one of service-file, webhook")
            return None
        [key] = given
        url = self._text(found, key.partition("-")[0])
        if key.startswith("webhook"):
            return self._webhook(node, found[key], found, url)
        for each in ("secret-env", "secret-file"):
            if each in found:
                self._problems.error(found[each], f"{each} is for webhooks only", "remove it")
        if url is not None and not _SERVICE.fullmatch(url):
            message = "the service is not an URL of apprise"
            self._problems.error(found[key], message, "such as mailtos://… or slack://…")
            return None
        return None if url is None else Service(Secret(url))

    def _webhook(
        self, node: yaml.Node, url_node: yaml.Node, found: Mapping[str, yaml.Node], url: str | None
    ) -> Webhook | None:
        if url is not None and not _is_address(url):
            message = "the webhook is not an address of http or https, without a password"
            self._problems.error(url_node, message, "such as https://hooks.example.org/publisher")
            url = None
        given = [key for key in ("secret-env", "secret-file") if key in found]
        if len(given) != 1:
            message = "a webhook needs one secret, by which its receiver verifies the messages"
            self._problems.error(node, message, "add secret-file: PATH or secret-env: NAME")
            return None
        secret = self._text(found, "secret")
        if secret is None:
            return None
        try:
            length = len(secret_bytes(secret))
        except ValueError as error:
            self._problems.error(found[given[0]], str(error), _MAKE_SECRET)
            return None
        if length < _LEAST_SECRET:
            message = f"the secret has less than {_LEAST_SECRET} bytes"
            self._problems.error(found[given[0]], message, _MAKE_SECRET)
            return None
        return None if url is None else Webhook(Secret(url), Secret(secret))

    def _text(self, found: Mapping[str, yaml.Node], key: str) -> str | None:
        """Return the value of `key`, of the variable `key`-env, or of the file `key`-file."""
        for suffix in _PLACES:
            node = found.get(f"{key}{suffix}")
            if node is None:
                continue
            text = read_text(node, self._problems, f"{key}{suffix}")
            if text is None or suffix == "":
                return text
            read = self._from_variable if suffix == "-env" else self._from_file
            value = read(node, text)
            if value is not None and not (value and value.isprintable()):
                message = f"{presentable(text)} is empty, or has more than one line"
                self._problems.error(node, message, "write the value there, in one line")
                return None
            return value
        return None

    def _from_variable(self, node: yaml.Node, name: str) -> str | None:
        value = self._environment.get(name)
        if value is None:
            message = f"the environment variable {presentable(name)} is not set"
            self._problems.error(node, message, "set it for the job, or name a file")
        return value

    def _from_file(self, node: yaml.Node, path: str) -> str | None:
        return read_named_file(node, path, self._problems, self._read_file, MAX_BYTES)

    def _kinds(self, node: yaml.Node | None) -> frozenset[Kind]:
        if node is None:
            return frozenset(Kind)
        found = set()
        for text, item in read_texts(node, self._problems, "events"):
            if text in _KINDS:
                found.add(Kind(text))
            else:
                message = f"{presentable(text)!r} is not an event"
                self._problems.error(item, message, f"events are {', '.join(_KINDS)}")
        return frozenset(found)

    def _patterns(self, node: yaml.Node | None, what: str) -> tuple[str, ...] | None:
        if node is None:
            return None
        return tuple(text for text, _ in read_texts(node, self._problems, what))


_MAKE_SECRET = "make one: openssl rand -hex 32 > PATH"


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return valid and parts.scheme in ("http", "https") and "@" not in parts.netloc
