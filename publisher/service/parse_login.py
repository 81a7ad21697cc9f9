"""Login, job tokens and the trusted proxy in the configuration of the service, with mistakes."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from urllib.parse import urlsplit

import yaml

from publisher.durations import duration_text, parse_duration
from publisher.errors import presentable
from publisher.lazy import pattern
from publisher.service.fields import read_file_path, read_keys, read_known_name, read_named
from publisher.service.parse_access import parse_verbs
from publisher.service.parse_projects import parse_claims
from publisher.service.providers import (
    GROUPS_CLAIM,
    GROUPS_HEADER,
    SESSION,
    USER_CLAIM,
    USER_HEADER,
    JobRule,
    JobTokens,
    Login,
    Network,
    Provider,
    Proxy,
    is_secure,
)
from publisher.yaml_nodes import Problems, describe, read_named_file, read_text, read_texts

_LOGIN = (
    "issuer", "client", "client-secret-file", "scopes", "user", "groups", "session", "ca",
)  # fmt: skip
_PROXY = ("addresses", "secret-file", "user", "groups")
_JOBS = ("issuer", "audience", "jwks", "ca", "rules")
_RULE = ("project", "claims", "allows")
_HEADER = pattern(r"[A-Za-z0-9-]{1,64}")
_MAX_SECRET = 4096
_SHORTEST_SECRET = 16
_MOST_RULES = 1000
_MOST_SESSION = timedelta(days=30)


class LoginReader:
    """Reads these keys; `read_file` returns the first bytes of a file, or raises OSError."""

    def __init__(self, problems: Problems, read_file: Callable[[str], bytes]) -> None:
        self._problems = problems
        self._read_file = read_file

    def url(self, node: yaml.Node | None) -> str:
        """Return the address of the service, without a path; "" if it is not given."""
        text = self._address(node, "url")
        parts = urlsplit(text)
        if text and (parts.path not in ("", "/") or parts.query or parts.fragment):
            assert node is not None
            message = "url has more than a scheme, a host and a port"
            self._problems.error(node, message, "such as https://images.example.org")
        return f"{parts.scheme}://{parts.netloc}".lower() if text else ""

    def login(self, node: yaml.Node | None, url: str) -> Login | None:
        """Return the login; `url` is the address of the service."""
        found = read_keys(node, self._problems, "login", _LOGIN)
        if node is None:
            return None
        self._need(node, found, "login", ("issuer", "client"))
        if not url:
            message = "a login needs the address of the service as browsers know it"
            self._problems.error(node, message, "add url: https://images.example.org")
        scopes: tuple[str, ...] = ()
        if "scopes" in found:
            scopes = tuple(
                each for each, _ in read_texts(found["scopes"], self._problems, "scopes")
            )
        return Login(
            Provider(
                self._address(found.get("issuer"), "issuer"),
                "",
                read_file_path(found.get("ca"), self._problems, "ca"),
            ),
            self._text(found, "client"),
            self._secret(found.get("client-secret-file"), "client-secret-file", least=1),
            scopes,
            self._text(found, "user") or USER_CLAIM,
            self._text(found, "groups") or GROUPS_CLAIM,
            self._session(found.get("session")),
        )

    def proxy(self, node: yaml.Node | None, url: str) -> Proxy | None:
        """Return the proxy; `url` is the address of the service."""
        found = read_keys(node, self._problems, "proxy", _PROXY)
        if node is None:
            return None
        self._need(node, found, "proxy", ("addresses", "secret-file"))
        if not url:
            message = "a proxy needs the address of the service as browsers know it"
            self._problems.error(node, message, "add url: https://images.example.org")
        addresses = self._networks(found["addresses"]) if "addresses" in found else ()
        secret = self._secret(found.get("secret-file"), "secret-file", least=_SHORTEST_SECRET)
        user, groups = (
            self._header(found.get(key), key, default)
            for key, default in (("user", USER_HEADER), ("groups", GROUPS_HEADER))
        )
        return Proxy(addresses, secret, user, groups)

    def job_tokens(
        self, node: yaml.Node | None, projects: Collection[str]
    ) -> tuple[JobTokens, ...]:
        """Return the tokens of jobs; `projects` are the names of those that rules may have."""
        if node is None:
            return ()
        issuers: dict[str, str] = {}

        def read(name: str, value: yaml.Node) -> JobTokens:
            found = read_keys(value, self._problems, f"the job tokens {name}", _JOBS)
            self._need(value, found, f"job tokens {name}", ("issuer", "audience", "rules"))
            issuer = self._address(found.get("issuer"), "issuer")
            if issuer and issuers.setdefault(issuer, name) != name:
                message = f"{name} and {issuers[issuer]} have the same issuer"
                self._problems.error(value, message, "keep one, with the rules of both")
            jwks = self._address(found.get("jwks"), "jwks")
            provider = Provider(issuer, jwks, read_file_path(found.get("ca"), self._problems, "ca"))
            rules = self._rules(found["rules"], projects) if "rules" in found else ()
            return JobTokens(name, provider, self._text(found, "audience"), rules)

        write = "write job-tokens: {gitlab: {issuer: …, audience: …, rules: […]}}"
        return read_named(node, self._problems, "job-tokens", write, read)

    def _rules(self, node: yaml.Node, projects: Collection[str]) -> tuple[JobRule, ...]:
        write = (
            "write rules: [{project: NAME, claims: {project_path: GROUP/NAME}, allows: [submit]}]"
        )
        if not (isinstance(node, yaml.SequenceNode) and 0 < len(node.value) <= _MOST_RULES):
            message = f"rules must be a list, with one to {_MOST_RULES}"
            self._problems.error(node, message, write)
            return ()
        rules = []
        for item in node.value:
            if not isinstance(item, yaml.MappingNode):
                message = f"a rule must be a mapping, but this is {describe(item)}"
                self._problems.error(item, message, write)
                continue
            found = read_keys(item, self._problems, "a rule", _RULE)
            if not self._need(item, found, "rule", _RULE):
                continue
            project = read_known_name(found["project"], self._problems, "project", projects)
            claims = parse_claims(found["claims"], self._problems)
            allows = parse_verbs(found["allows"], self._problems)
            if project and claims:
                rules.append(JobRule(project, claims, allows))
        return tuple(rules)

    def _need(
        self, node: yaml.Node, found: Mapping[str, yaml.Node], what: str, keys: Collection[str]
    ) -> bool:
        missing = [key for key in keys if key not in found]
        if missing:
            self._problems.error(node, f"the {what} has no {' and no '.join(missing)}", "add it")
        return not missing

    def _text(self, found: Mapping[str, yaml.Node], key: str) -> str:
        return (read_text(found[key], self._problems, key) if key in found else None) or ""

    def _address(self, node: yaml.Node | None, key: str) -> str:
        """Return a web address with TLS, or on this machine; "" without one."""
        text = None if node is None else read_text(node, self._problems, key)
        if node is None or text is None:
            return ""
        try:
            parts = urlsplit(text)
            _ = parts.port  # raises ValueError if it is malformed
            is_plain = not (parts.username or parts.password)
        except ValueError:
            is_plain = False
        if is_plain and is_secure(text):
            return text
        message = f"{key} is not an address that begins with https://"
        self._problems.error(node, message, f"write {key}: https://id.example.org")
        return ""

    def _secret(self, node: yaml.Node | None, key: str, least: int) -> str:
        """Return the content of a file; messages do not quote it."""
        path = None if node is None else read_text(node, self._problems, key)
        if node is None or path is None:
            return ""
        text = read_named_file(node, path, self._problems, self._read_file, _MAX_SECRET)
        if text is not None and (len(text) < least or not text.isprintable()):
            message = (
                f"the secret in {presentable(path)} is not a text of at least {least} characters"
            )
            self._problems.error(node, message, "make one: openssl rand -hex 32")
        return text or ""

    def _networks(self, node: yaml.Node) -> tuple[Network, ...]:
        found: list[Network] = []
        for text, item in read_texts(node, self._problems, "addresses"):
            try:
                found.append(ipaddress.ip_network(text))
            except ValueError:
                message = f"{presentable(text)!r} is neither an address nor a network"
                self._problems.error(item, message, "such as 127.0.0.1 or 10.1.0.0/24")
        return tuple(found)

    def _header(self, node: yaml.Node | None, key: str, default: str) -> str:
        text = None if node is None else read_text(node, self._problems, key)
        if node is None or text is None:
            return default
        if not _HEADER.fullmatch(text):
            message = f"{presentable(text)!r} is not the name of a header"
            self._problems.error(node, message, f"such as {default}")
        return text

    def _session(self, node: yaml.Node | None) -> timedelta:
        text = None if node is None else read_text(node, self._problems, "session")
        if node is None or text is None:
            return SESSION
        try:
            found = parse_duration(text)
        except ValueError as error:
            self._problems.error(node, f"session: {error}", f"write {duration_text(SESSION)}")
            return SESSION
        if not timedelta(minutes=1) <= found <= _MOST_SESSION:
            message = "session is not between one minute and 30 days"
            self._problems.error(node, message, f"write {duration_text(SESSION)}")
        return found
