from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.sources.configuration import KEYS, InvalidConfiguration, parse_settings
from publisher.sources.settings import (
    MAX_CONCURRENT,
    Proxies,
    RegistrySettings,
    Settings,
    bypasses_proxy,
)

WHOLE = """
registries:
  Quay.io:
    mirror: https://mirror.example.org:8443/quay
    ca: certs/ca.pem
    client-certificate: /etc/ssl/me.pem
    client-key: /etc/ssl/me.key
    credentials: auth.json
    max-concurrent: 8
    image-timeout: 1h30m
  registry-1.docker.io:
    mirror: mirror.example.org
    credential-helper: pass
  "127.0.0.1:5000": {insecure: true}
  "[::1]:5000": {}
"""


def test_every_setting_is_read() -> None:
    settings = parse_settings(WHOLE, "/etc/publisher/config.yaml")
    assert settings.registry("quay.io") == RegistrySettings(
        mirror="https://mirror.example.org:8443/quay",
        ca=Path("/etc/publisher/certs/ca.pem"),
        client_certificate=Path("/etc/ssl/me.pem"),
        client_key=Path("/etc/ssl/me.key"),
        credentials=Path("/etc/publisher/auth.json"),
        max_concurrent=8,
        image_timeout=timedelta(minutes=90),
    )
    hub = RegistrySettings(mirror="mirror.example.org", credential_helper="pass")
    assert settings.registry("docker.io") == hub
    assert settings.registry("index.docker.io") == hub
    assert settings.registry("127.0.0.1:5000").insecure
    assert settings.registry("[::1]:5000") == RegistrySettings()
    assert settings.registry("127.0.0.1") == RegistrySettings()


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "registries:\n", "registries: {}", "---\n...\n"]
)
def test_an_empty_configuration_means_the_defaults(text: str) -> None:
    settings = parse_settings(text, "config.yaml")
    assert settings == Settings()
    assert settings.registry("quay.io").max_concurrent == MAX_CONCURRENT


def test_the_documented_example_is_a_configuration() -> None:
    document = Path(__file__).parents[3] / "docs/registries.md"
    (example,) = re.findall(r"```yaml\n(.*?)```", document.read_text(), re.DOTALL)
    settings = parse_settings(example, "config.yaml")
    assert set(settings.registries) >= {"docker.io", "registry.example.org"}
    for name in KEYS:
        assert f"{name}: " in example, "every setting is shown"


def test_all_mistakes_are_reported_at_once_with_their_places() -> None:
    text = """
registrys: {}
registries:
  https://quay.io: {}
  quay.io:
    mirorr: x
    max-concurrent: 0
    insecure: maybe
    mirror: "https://user:secret@mirror"
    client-key: key.pem
  b.io: [1, 2]
  b.io: {}
  c.io: {ca: 7, credential-helper: ../x}
  d.io: {image-timeout: 15}
  e.io: {image-timeout: 0s}
"""
    with pytest.raises(InvalidConfiguration) as caught:
        parse_settings(text, "config.yaml")
    places = [str(problem).split(": ")[0] for problem in caught.value.problems]
    assert places == [
        "config.yaml:2:1",
        "config.yaml:4:3",
        "config.yaml:6:5",
        "config.yaml:7:21",
        "config.yaml:8:15",
        "config.yaml:9:13",
        "config.yaml:10:17",
        "config.yaml:11:9",
        "config.yaml:12:3",
        "config.yaml:13:14",
        "config.yaml:13:36",
        "config.yaml:14:25",
        "config.yaml:15:25",
    ]
    assert "unknown key 'mirorr' in a registry (did you mean 'mirror'?)" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "registries: [",
        "a: b: c",
        "\x00",
        "[1]",
        "just text",
        "{{}: 1}",
        "a: *b",
        "!!python/object:x {}",
        "[" * 5000,
    ],
)
def test_a_malformed_configuration_is_an_error_with_the_file(text: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"config\.yaml"):
        parse_settings(text, "config.yaml")


def test_a_huge_file_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="larger"):
        parse_settings("#" * 2_000_000, "config.yaml")


@given(st.text() | st.binary())
def test_any_text_is_read_or_refused_with_its_problems(text: str | bytes) -> None:
    try:
        parse_settings(text, "config.yaml")
    except InvalidConfiguration as error:
        assert error.problems


@pytest.mark.parametrize(
    ("host", "port", "no_proxy", "direct"),
    [
        ("quay.io", 443, "", False),
        ("quay.io", 443, "*", True),
        ("quay.io", 443, "quay.io", True),
        ("cdn.quay.io", 443, "quay.io", True),
        ("cdn.quay.io", 443, ".quay.io", True),
        ("cdn.quay.io", 443, "*.quay.io", True),
        ("notquay.io", 443, "quay.io", False),
        ("quay.io", 443, "a.org, QUAY.io ,b.org", True),
        ("quay.io", 443, "quay.io:443", True),
        ("quay.io", 443, "quay.io:8443", False),
        ("127.0.0.1", 5000, "127.0.0.1", True),
        ("10.1.2.3", 443, "10.0.0.0/8", True),
        ("11.1.2.3", 443, "10.0.0.0/8", False),
        ("::1", 443, "[::1]", True),
        ("fd00::1", 443, "fd00::/8", True),
        ("quay.io", 443, ",,", False),
    ],
)
def test_hosts_in_no_proxy_are_reached_directly(
    host: str, port: int, no_proxy: str, direct: bool
) -> None:
    assert bypasses_proxy(host, port, no_proxy) is direct


def test_proxies_are_per_scheme_and_hide_their_passwords() -> None:
    proxies = Proxies("proxy:3128", "http://user:s3cret@proxy:3129", "inside.org")
    assert proxies.for_host("http", "quay.io", 80) == "http://proxy:3128"
    assert proxies.for_host("https", "quay.io", 443) == "http://user:s3cret@proxy:3129"
    assert proxies.for_host("https", "inside.org", 443) == ""
    assert Proxies().for_host("https", "quay.io", 443) == ""
    assert "s3cret" not in repr(Settings(proxies=proxies))
