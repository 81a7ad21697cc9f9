"""A misspelled host is answered with the registry that it is similar to."""

from __future__ import annotations

import pytest

from publisher.oci.known_hosts import KNOWN_HOSTS, host_like, suggest_host


@pytest.mark.parametrize(
    ("host", "meant"),
    [
        *(("dokcer.io", "docker.io"), ("docker.oi", "docker.io"), ("docker.com", "docker.io")),
        *(("qauy.io", "quay.io"), ("quay.com", "quay.io"), ("gchr.io", "gcr.io or ghcr.io")),
        *(("github.com", "ghcr.io"), ("gitlab.com", "registry.gitlab.com")),
        ("registry.gitlab.org", "registry.gitlab.com"),
    ],
)
def test_the_nearest_known_registry_is_suggested(host: str, meant: str) -> None:
    assert suggest_host(host) == f"did you mean {meant}?"


@pytest.mark.parametrize(
    "host", [*KNOWN_HOSTS, "registry.example.org", "localhost:5000", "127.0.0.1", "harbor.uni.edu"]
)
def test_other_hosts_are_not_taken_for_misspelled_ones(host: str) -> None:
    assert suggest_host(host) == ""


def test_a_host_may_lack_its_domain() -> None:
    assert (host_like("quay"), host_like("ghcr"), host_like("team")) == ("quay.io", "ghcr.io", "")
