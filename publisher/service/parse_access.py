"""Tokens and anonymous access in the configuration of the service, with their mistakes."""

from __future__ import annotations

from collections.abc import Collection

import yaml

from publisher.errors import presentable
from publisher.lazy import pattern
from publisher.service.access import Anonymous, Token
from publisher.service.fields import read_keys, read_known_names, read_name
from publisher.service.verbs import GRANTED, Verb
from publisher.wishlist.fields import read_date
from publisher.yaml_nodes import Problems, describe, read_mapping, read_texts

_MOST_TOKENS = 1000
_SHA256 = pattern(r"[0-9a-f]{64}")
_TOKEN = ("name", "sha256", "allows", "expires", "projects")
_REQUIRED = _TOKEN[:3]
_WRITE = "write tokens: [{name: ci, sha256: HEX, allows: [read]}]"


def parse_anonymous(node: yaml.Node | None, problems: Problems) -> Anonymous:
    """Return what requests without a token may read."""
    found = read_keys(node, problems, "access", ("anonymous",)).get("anonymous")
    if found is None:
        return Anonymous.NOTHING
    text = found.value if isinstance(found, yaml.ScalarNode) else ""
    if text in tuple(Anonymous):
        return Anonymous(text)
    message = f"anonymous must be one of {', '.join(Anonymous)}"
    problems.error(found, message, "write anonymous: nothing")
    return Anonymous.NOTHING


def parse_tokens(
    node: yaml.Node | None, problems: Problems, projects: Collection[str]
) -> tuple[Token, ...]:
    """Return the tokens; `projects` are the names of those that they may be for."""
    if node is None:
        return ()
    if not (isinstance(node, yaml.SequenceNode) and 0 < len(node.value) <= _MOST_TOKENS):
        problems.error(node, f"tokens must be a list, with one to {_MOST_TOKENS}", _WRITE)
        return ()
    read = [(_token(item, problems, projects), item) for item in node.value]
    found = [(token, item) for token, item in read if token is not None]
    names: set[str] = set()
    hashes: dict[str, str] = {}
    for token, item in found:
        if token.name in names:
            message = f"the token {token.name} is given twice"
            problems.error(item, message, "choose another name")
        elif token.sha256 in hashes:
            message = f"{token.name} and {hashes[token.sha256]} are the same token"
            problems.error(item, message, "make a token for each")
        names.add(token.name)
        hashes.setdefault(token.sha256, token.name)
    return tuple(token for token, _ in found)


def _token(node: yaml.Node, problems: Problems, projects: Collection[str]) -> Token | None:
    if not isinstance(node, yaml.MappingNode):
        message = f"a token must be a mapping, but this is {describe(node)}"
        problems.error(node, message, _WRITE)
        return None
    found = read_mapping(node, problems, "in a token", _TOKEN, {})
    missing = [key for key in _REQUIRED if key not in found]
    if missing:
        problems.error(node, f"the token has no {' and no '.join(missing)}", _WRITE)
    name = read_name(found["name"], problems, "name") if "name" in found else None
    sha256 = _sha256(found.get("sha256"), problems)
    allows = parse_verbs(found["allows"], problems) if "allows" in found else frozenset()
    expires = read_date(found["expires"], problems, "expires") if "expires" in found else None
    chosen: tuple[str, ...] = ()
    if "projects" in found:
        chosen = read_known_names(found["projects"], problems, "projects", "project", projects)
        if not chosen:
            return None  # without projects it would be a token for all of them
    if name is None or sha256 is None:
        return None
    return Token(name, sha256, allows, expires, chosen)


def _sha256(node: yaml.Node | None, problems: Problems) -> str | None:
    """Return a hash; messages do not quote the value, which may be a token by mistake."""
    if node is None:
        return None
    text: str = node.value if isinstance(node, yaml.ScalarNode) else ""
    if _SHA256.fullmatch(text):
        return text
    message = "sha256 is not a hash of 64 hexadecimal digits in lower case"
    problems.error(node, message, 'print it: printf %s "$TOKEN" | sha256sum')
    return None


def parse_verbs(node: yaml.Node, problems: Problems) -> frozenset[Verb]:
    """Return the verbs in the list `allows`."""
    texts = read_texts(node, problems, "allows")
    for text, item in texts:
        if text not in GRANTED:
            message = f"a token cannot allow {presentable(text)!r}"
            problems.error(item, message, f"known are {', '.join(GRANTED)}")
    return frozenset(Verb(text) for text, _ in texts if text in GRANTED)
