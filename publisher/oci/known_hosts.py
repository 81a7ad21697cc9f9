"""The hosts of public registries, to suggest one for a host that is misspelled. Pure."""

from __future__ import annotations

import difflib

KNOWN_HOSTS = (
    *("docker.io", "index.docker.io", "registry.hub.docker.com", "registry-1.docker.io"),
    *("quay.io", "ghcr.io", "registry.gitlab.com", "gitlab-registry.cern.ch"),
    *("gcr.io", "registry.k8s.io", "mcr.microsoft.com", "public.ecr.aws", "nvcr.io"),
    *("registry.access.redhat.com", "registry.redhat.io", "registry.fedoraproject.org"),
)
_WEBSITES = {
    "github.com": "ghcr.io",
    "gitlab.com": "registry.gitlab.com",
    "docker.com": "docker.io",
    "hub.docker.io": "docker.io",
}
_SIMILAR = 0.8
"""From `difflib`: one exchanged or missing letter in a short name gives more."""


def suggest_host(host: str) -> str:
    """Return the hint for a host that is not a working registry; "" if no known one is similar."""
    if host in KNOWN_HOSTS:
        return ""
    near = difflib.get_close_matches(host, KNOWN_HOSTS, 2, _SIMILAR)
    found = _WEBSITES.get(host) or " or ".join(near)
    return f"did you mean {found}?" if found else ""


def host_like(name: str) -> str:
    """Return the known host that begins with `name` and a dot, such as quay.io for quay, or ""."""
    return next((host for host in KNOWN_HOSTS if host.startswith(f"{name}.")), "")
