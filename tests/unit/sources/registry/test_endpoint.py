from __future__ import annotations

import pytest

from publisher.sources.credentials.lookup import Credentials
from publisher.sources.http.exchange import Exchange
from publisher.sources.registry.auth import RegistryAuth
from publisher.sources.registry.endpoint import Endpoint
from publisher.sources.settings import Settings


@pytest.mark.parametrize(
    ("registry", "repository", "plain_http", "address"),
    [
        ("docker.io", "library/debian", False, "https://registry-1.docker.io/v2/library/debian"),
        ("index.docker.io", "group/x", False, "https://registry-1.docker.io/v2/group/x"),
        ("registry.hub.docker.com", "a/b", False, "https://registry-1.docker.io/v2/a/b"),
        ("hub.docker.com", "a/b", False, "https://registry-1.docker.io/v2/a/b"),
        ("quay.io", "a/b/c/d", False, "https://quay.io/v2/a/b/c/d"),
        ("quay.io", "my.org/tool", False, "https://quay.io/v2/my.org/tool"),
        ("quay.io", "tool", False, "https://quay.io/v2/tool"),
        ("localhost", "x", True, "http://localhost/v2/x"),
        ("localhost:5000", "x/y", True, "http://localhost:5000/v2/x/y"),
        ("[::1]:5000", "x", True, "http://[::1]:5000/v2/x"),
        ("registry", "x", False, "https://registry/v2/x"),
    ],
)
def test_addresses_are_those_of_the_registrys_api(
    registry: str, repository: str, plain_http: bool, address: str
) -> None:
    settings = Settings()
    auth = RegistryAuth(registry, plain_http, Exchange(settings), Credentials(settings))
    endpoint = Endpoint(auth, repository)
    assert endpoint.manifest_url("1.0") == f"{address}/manifests/1.0"
    assert endpoint.blob_url("sha256:00") == f"{address}/blobs/sha256:00"
    assert endpoint.tags_url() == f"{address}/tags/list"
