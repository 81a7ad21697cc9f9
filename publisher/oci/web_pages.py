"""Recognize the web pages of images, whose addresses are often given instead of references. Pure.

Only addresses that cannot be references of the same host are recognized.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote

from publisher.lazy import dataclass, pattern

_NAME = r"[^/]+"
_HUB = pattern(
    rf"(?:r|repository/docker|layers)/(?P<owner>{_NAME})/(?P<name>{_NAME})(?:/(?P<rest>.*))?"
    rf"|_/(?P<official>{_NAME})(?:/.*)?"
)
_QUAY = pattern(
    rf"repository/(?P<owner>{_NAME})/(?P<name>{_NAME})"
    r"(?:/manifest/(?P<digest>sha256:[0-9a-f]{64})|/tag/(?P<tag>[^/]+)|/.*)?"
)
_GITHUB = pattern(
    rf"(?:orgs|users)/(?P<owner>{_NAME})/packages/container/(?:package/)?(?P<name>{_NAME})(?:/.*)?"
    rf"|(?P<user>{_NAME})/{_NAME}/pkgs/container/(?P<package>{_NAME})(?:/.*)?"
)
_GITLAB = pattern(r"(?P<project>.+?)/(?:-/container_registry(?:/.*)?|container_registry/\d+)")


@dataclass(frozen=True, slots=True)
class WebPage:
    """The page of an image on a website; `reference` is "" if the page does not name the image."""

    website: str
    reference: str


def web_page_of(text: str) -> WebPage | None:
    """Return the page that an address names, if it is that of an image on a known website."""
    address = re.sub(r"\A(?:https?|docker)://", "", text.partition("#")[0], flags=re.IGNORECASE)
    address, _, query = address.partition("?")
    host, _, path = address.rstrip("/").partition("/")
    host = host.lower().removeprefix("www.")
    options = {key: values[0] for key, values in parse_qs(query).items()}
    if host == "hub.docker.com" and (found := _HUB.fullmatch(path)):
        return WebPage("Docker Hub", _hub_reference(found, options))
    if host == "quay.io" and (found := _QUAY.fullmatch(path)):
        name = f"quay.io/{found['owner']}/{found['name']}"
        if found["digest"]:
            return WebPage("quay.io", f"{name}@{found['digest']}")
        return WebPage("quay.io", _tagged(name, found["tag"] or options.get("tag")))
    if host == "github.com" and (found := _GITHUB.fullmatch(path)):
        owner = found["owner"] or found["user"]
        package = unquote(found["name"] or found["package"])
        return WebPage("GitHub", _tagged(f"ghcr.io/{owner}/{package}".lower(), options.get("tag")))
    known = host == "gitlab.com"
    # Without the "-", the path is a valid name in the registries of other hosts.
    if (found := _GITLAB.fullmatch(path)) and (known or "/-/" in path):
        project = found["project"].lower()
        return WebPage("GitLab", f"registry.gitlab.com/{project}" if known else "")
    return None


def _hub_reference(found: re.Match[str], options: dict[str, str]) -> str:
    if found["official"]:
        return _tagged(f"docker.io/library/{found['official']}", options.get("name"))
    owner = "library" if found["owner"] == "_" else found["owner"]
    first, _, tag = (found["rest"] or "").partition("/")
    tag = first if found[0].startswith("layers/") else tag if first == "tags" else ""
    return _tagged(
        f"docker.io/{owner}/{found['name']}", tag.partition("/")[0] or options.get("name")
    )


def _tagged(name: str, tag: str | None) -> str:
    return f"{name}:{tag}" if tag and re.fullmatch(r"\w[\w.-]{0,127}", tag, re.ASCII) else name
