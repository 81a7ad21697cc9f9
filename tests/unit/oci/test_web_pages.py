"""The address of a web page is answered with the reference of the image that it shows."""

from __future__ import annotations

import pytest

from publisher.errors import InvalidReference
from publisher.oci.reference import parse_reference
from publisher.oci.web_pages import web_page_of

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("address", "reference"),
    [
        ("hub.docker.com/r/rootproject/root", "docker.io/rootproject/root"),
        (
            "hub.docker.com/r/rootproject/root/tags?page=2&name=6.30",
            "docker.io/rootproject/root:6.30",
        ),
        ("hub.docker.com/r/_/debian/", "docker.io/library/debian"),
        ("hub.docker.com/_/debian/tags?name=stable", "docker.io/library/debian:stable"),
        ("hub.docker.com/_/debian#description", "docker.io/library/debian"),
        (
            "hub.docker.com/layers/library/debian/stable/images/sha256-0123",
            "docker.io/library/debian:stable",
        ),
        ("hub.docker.com/repository/docker/team/app/general", "docker.io/team/app"),
        ("hub.docker.com/repository/docker/team/app/tags/v1/sha256-0", "docker.io/team/app:v1"),
        ("quay.io/repository/fedora/fedora", "quay.io/fedora/fedora"),
        ("quay.io/repository/fedora/fedora?tab=tags&tag=40", "quay.io/fedora/fedora:40"),
        ("quay.io/repository/fedora/fedora/tag/40", "quay.io/fedora/fedora:40"),
        (f"quay.io/repository/a/b/manifest/{DIGEST}", f"quay.io/a/b@{DIGEST}"),
        ("github.com/Foo/Bar/pkgs/container/tool", "ghcr.io/foo/tool"),
        ("github.com/foo/bar/pkgs/container/tool/123?tag=v1", "ghcr.io/foo/tool:v1"),
        ("www.github.com/orgs/Foo/packages/container/package/core%2Fgo", "ghcr.io/foo/core/go"),
        ("github.com/users/foo/packages/container/go/9?tag=1.18", "ghcr.io/foo/go:1.18"),
        (
            "gitlab.com/group/Sub/project/container_registry/12",
            "registry.gitlab.com/group/sub/project",
        ),
        ("gitlab.com/group/project/-/container_registry", "registry.gitlab.com/group/project"),
        ("gitlab.example.org/group/project/-/container_registry", "the address that its button"),
        ("quay.io/repository/..%2F/x", "the address that its button"),
    ],
)
def test_a_page_is_answered_with_the_reference_that_it_shows(address: str, reference: str) -> None:
    for text in (address, f"https://{address}", f"HTTP://{address}"):
        with pytest.raises(InvalidReference) as caught:
            parse_reference(text)
        assert "website" in caught.value.why
        assert caught.value.hint.startswith(f"write {reference}")
        if "button" not in reference:
            assert caught.value.hint == f"write {reference}"
            parse_reference(reference)


@pytest.mark.parametrize(
    "text",
    [
        *("quay.io/team/app:1", "hub.docker.com/team/app", "registry.hub.docker.com/r/x/y"),
        *("quay.io/repository/app", "github.com/team/app", "example.org/team/container_registry"),
        *("ghcr.io/orgs/x/packages/container/y", "debian", "example.org/a/container_registry/3"),
    ],
)
def test_a_reference_is_not_taken_for_a_page(text: str) -> None:
    assert web_page_of(text) is None
    parse_reference(text)
