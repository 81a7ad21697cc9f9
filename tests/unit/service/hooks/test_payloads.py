"""The payloads of registries, as their documentation has them, and hostile ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.oci.media_types import DOCKER_MANIFEST, OCI_INDEX
from publisher.service.hooks.model import Hook, HookKind, InvalidPayload, Push
from publisher.service.hooks.payloads import MOST_PUSHES, read_pushes

DIGEST = f"sha256:{'ab' * 32}"
HOSTS = {HookKind.GITHUB: "ghcr.io", HookKind.QUAY: "quay.io", HookKind.DOCKER_HUB: "docker.io"}


def hook(kind: HookKind) -> Hook:
    return Hook("h", kind, "s" * 16, HOSTS.get(kind, "registry.example.org:5000"))


def read(kind: HookKind, value: Any) -> list[tuple[str, str | None, str | None]]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return [
        (f"{push.image.registry}/{push.image.repository}", push.tag, push.digest)
        for push in read_pushes(hook(kind), body)
    ]


def event(action: str = "push", **target: object) -> dict[str, object]:
    """An event of https://distribution.github.io/distribution/about/notifications/."""
    return {
        "id": "asdf-asdf-asdf-asdf-0",
        "timestamp": "2006-01-02T15:04:05Z",
        "action": action,
        "target": {
            "mediaType": DOCKER_MANIFEST,
            "length": 1,
            "digest": DIGEST,
            "repository": "library/test",
            "url": "https://user:password@elsewhere.example.org/v2/library/test/manifests/latest",
            **target,
        },
        "request": {"id": "a", "addr": "c.local", "host": "elsewhere.example.org"},
        "actor": {"name": "test-actor"},
        "source": {"addr": "hostname.local:port"},
    }


def test_events_of_distribution_are_pushes_of_manifests_to_the_registry_of_the_hook() -> None:
    events = [
        event(tag="1"),
        event(mediaType=OCI_INDEX),
        event("pull", tag="1"),
        event(mediaType="application/octet-stream"),
        event("delete", mediaType=None),
        event(tag="1"),
    ]
    assert read(HookKind.DISTRIBUTION, {"events": events}) == [
        ("registry.example.org:5000/library/test", "1", DIGEST),
        ("registry.example.org:5000/library/test", None, DIGEST),
    ]
    assert read(HookKind.DISTRIBUTION, {"events": []}) == []


def harbor_data(*tags: str | None) -> dict[str, object]:
    """As in Harbor's documentation, "Configure Webhook Notifications"."""
    resources = [
        {"digest": DIGEST, "tag": tag, "resource_url": f"harbor.example.org/astro/app:{tag}"}
        for tag in tags
    ]
    repository = {
        "date_created": 1680501893,
        "name": "app",
        "namespace": "astro",
        "repo_full_name": "astro/app",
        "repo_type": "private",
    }
    return {"resources": resources, "repository": repository}


def test_both_forms_of_harbor_are_read() -> None:
    name = "registry.example.org:5000/astro/app"
    default = {"occur_at": 1680501893, "operator": "admin", "event_data": harbor_data("1", DIGEST)}
    expected = [(name, "1", DIGEST), (name, None, DIGEST)]
    assert read(HookKind.HARBOR, {"type": "PUSH_ARTIFACT", **default}) == expected
    assert read(HookKind.HARBOR, {"type": "PULL_ARTIFACT", **default}) == []
    replicated = {"type": "REPLICATION", "event_data": {"replication": {}}}
    assert read(HookKind.HARBOR, replicated) == []
    cloud = {"specversion": "1.0", "id": "1", "data": harbor_data("2"), "operator": "admin"}
    pushed = {"type": "harbor.artifact.pushed", **cloud}
    assert read(HookKind.HARBOR, pushed) == [(name, "2", DIGEST)]
    assert read(HookKind.HARBOR, {"type": "harbor.artifact.pulled", **cloud}) == []


def test_a_pipeline_of_gitlab_may_have_pushed_all_images_of_its_project() -> None:
    pipeline = {
        "object_kind": "pipeline",
        "object_attributes": {"id": 31, "status": "success", "ref": "main"},
        "project": {"id": 1, "path_with_namespace": "Astro/Tools"},
    }
    [push] = read_pushes(hook(HookKind.GITLAB), json.dumps(pipeline).encode())
    assert (push.image.repository, push.tag, push.is_prefix) == ("astro/tools", None, True)
    pipeline["object_attributes"] = {"status": "failed"}
    assert read(HookKind.GITLAB, pipeline) == []
    assert read(HookKind.GITLAB, {"object_kind": "push", "project": {}}) == []


def test_packages_of_github_are_images_if_they_are_containers() -> None:
    package = {
        "name": "tools/App",
        "namespace": "Astro",
        "ecosystem": "CONTAINER",
        "package_type": "CONTAINER",
        "package_version": {
            "version": DIGEST,
            "package_url": "ghcr.io/astro/tools/app:1",
            "container_metadata": {"tag": {"name": "1", "digest": DIGEST}, "labels": {}},
        },
    }
    for key in ("package", "registry_package"):
        published = {"action": "published", key: package}
        assert read(HookKind.GITHUB, published) == [("ghcr.io/astro/tools/app", "1", DIGEST)]
    package["package_version"] = {"version": DIGEST, "container_metadata": {"tag": {"name": ""}}}
    updated = {"action": "updated", "package": package}
    assert read(HookKind.GITHUB, updated) == [("ghcr.io/astro/tools/app", None, DIGEST)]
    package["package_type"] = "npm"
    assert read(HookKind.GITHUB, updated) == []
    assert read(HookKind.GITHUB, {"zen": "Design for failure.", "hook_id": 1}) == []


def test_quay_and_docker_hub_name_tags() -> None:
    push: dict[str, object] = {
        "name": "app",
        "repository": "astro/app",
        "namespace": "astro",
        "docker_url": "quay.io/astro/app",
        "homepage": "https://quay.io/repository/astro/app",
        "updated_tags": ["latest", "1"],
    }
    expected = [("quay.io/astro/app", "latest", None), ("quay.io/astro/app", "1", None)]
    assert read(HookKind.QUAY, push) == expected
    assert read(HookKind.QUAY, push | {"updated_tags": {"latest": "ab"}}) == expected[:1]
    del push["updated_tags"]
    assert read(HookKind.QUAY, push | {"build_id": "1"}) == []
    hub = {
        "callback_url": "https://registry.hub.docker.com/u/a/b/hook/1/",
        "push_data": {"pushed_at": 1417566161, "pusher": "a", "tag": "latest"},
        "repository": {"repo_name": "svendowideit/testhook", "dockerfile": "#\n#\tBUILD"},
    }
    assert read(HookKind.DOCKER_HUB, hub) == [("docker.io/svendowideit/testhook", "latest", None)]
    hub["repository"] = {"repo_name": "debian"}
    assert read(HookKind.DOCKER_HUB, hub) == [("docker.io/library/debian", "latest", None)]


@pytest.mark.parametrize(
    "path",
    [
        "user:password@evil.example.org/app",
        "evil.example.org:5000/app",
        "../app",
        "app/../../x",
        "/app",
        "app\x1b[31m",
        "app@sha256",
        "a" * 300,
        "app*",
        "",
        "a?b",
        "\ud800",
    ],
)
def test_a_path_that_cannot_be_one_of_an_image_is_refused(path: str) -> None:
    for kind, value in (
        (HookKind.DISTRIBUTION, {"events": [event(repository=path, tag="1")]}),
        (HookKind.QUAY, {"repository": path, "updated_tags": ["1"]}),
    ):
        with pytest.raises(InvalidPayload) as caught:
            read(kind, value)
        assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"events": [' + b"[" * 500 + b"]" * 500 + b"]}",
        b'{"events": []} {}',
        b'{"events": [], "events": []}',
        b'{"events": NaN}',
        b'{"events": ' + b"9" * 10_000 + b"}",
        b'{"events": {}}',
        b'{"events": [{"action": 1}]}',
        json.dumps({"events": [event(tag="a:b")]}).encode(),
        json.dumps({"events": [event(tag="1@x")]}).encode(),
        json.dumps({"events": [event(tag="*")]}).encode(),
        json.dumps({"events": [event(digest="sha256:ab")]}).encode(),
        json.dumps({"events": [event(repository=None)]}).encode(),
        json.dumps({"events": [event(tag=str(n)) for n in range(MOST_PUSHES + 1)]}).encode(),
    ],
)
def test_a_body_that_no_registry_sends_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidPayload):
        read(HookKind.DISTRIBUTION, body)


_TEXT = st.sampled_from(["push", "PUSH_ARTIFACT", "pipeline", "success", DOCKER_MANIFEST, DIGEST])
_KEYS = st.sampled_from(
    [
        "events", "action", "target", "repository", "tag", "digest", "mediaType", "type", "data",
        "event_data", "resources", "repo_full_name", "object_kind", "object_attributes", "status",
        "project", "path_with_namespace", "package", "package_version", "container_metadata",
        "name", "namespace", "updated_tags", "push_data", "repo_name",
    ]
)  # fmt: skip
_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | _TEXT
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(HookKind), _JSON | st.binary(max_size=20))
def test_any_body_is_pushes_or_a_named_error(kind: HookKind, value: Any) -> None:
    try:
        found = read(kind, value)
    except InvalidPayload as error:
        assert str(error).isprintable() and error.hint
    else:
        assert all(name.startswith(f"{hook(kind).registry}/") for name, _, _ in found)


def test_a_push_compares_by_its_image() -> None:
    body = json.dumps({"events": [event(tag="1"), event(tag="1")]}).encode()
    [push] = read_pushes(hook(HookKind.DISTRIBUTION), body)
    assert push == Push(push.image, "1", DIGEST)
