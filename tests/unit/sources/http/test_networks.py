"""A registry cannot have requests sent to this machine, or to other networks than its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from publisher.oci.document import Document
from publisher.oci.reference import parse_reference
from publisher.sources import SourceError
from publisher.sources.http import networks
from publisher.sources.http.clock import Clock
from publisher.sources.http.hosts import Hosts
from publisher.sources.http.networks import Network, leads_to, network_of
from publisher.sources.settings import Proxies, RegistrySettings, Settings
from tests.registry import OwnRegistry, Reply
from tests.registry_auth import BearerAuth
from tests.registry_faults import redirect, status
from tests.registry_images import fast_sources, open_image, read_blob, sample_image

FAR = {"127.0.0.2": "198.18.0.1", "127.0.0.3": "93.184.216.34"}
"""Addresses of loopback that stand for others in these tests: a private and a public one."""

PUBLIC, PRIVATE = Network.PUBLIC, Network.PRIVATE
LOOPBACK, LINK_LOCAL = Network.LOOPBACK, Network.LINK_LOCAL


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("93.184.216.34", PUBLIC),
        ("2606:4700::1", PUBLIC),
        ("[2606:4700::1]", PUBLIC),
        ("registry.example.org", PUBLIC),
        ("64:ff9b::5db8:d822", PUBLIC),
        ("10.1.2.3", PRIVATE),
        ("172.31.0.1", PRIVATE),
        ("192.168.0.1", PRIVATE),
        ("100.100.100.200", PRIVATE),
        ("192.0.0.192", PRIVATE),
        ("168.63.129.16", PRIVATE),
        ("fd00:ec2::254", PRIVATE),
        ("::ffff:10.0.0.1", PRIVATE),
        ("64:ff9b::a00:1", PRIVATE),
        ("2002:a00:1::", PRIVATE),
        ("::7f00:1", PRIVATE),
        ("fec0::2", PRIVATE),
        ("224.0.0.1", PRIVATE),
        ("255.255.255.255", PRIVATE),
        ("127.0.0.1", LOOPBACK),
        ("127.1", LOOPBACK),
        ("2130706433", LOOPBACK),
        ("0x7f.0.0.1", LOOPBACK),
        ("0.0.0.0", LOOPBACK),
        ("::", LOOPBACK),
        ("::1", LOOPBACK),
        ("::ffff:127.0.0.1", LOOPBACK),
        ("localhost", LOOPBACK),
        ("LocalHost.", LOOPBACK),
        ("a.localhost", LOOPBACK),
        ("169.254.169.254", LINK_LOCAL),
        ("::ffff:169.254.169.254", LINK_LOCAL),
        ("fe80::1%eth0", LINK_LOCAL),
    ],
)
def test_the_network_of_an_address_in_any_form(host: str, network: Network) -> None:
    assert network_of(host) is network


def test_a_server_leads_to_its_own_network_and_outwards() -> None:
    addresses = {PUBLIC: "93.184.216.34", PRIVATE: "10.0.0.1", LOOPBACK: "127.0.0.1"}
    addresses[LINK_LOCAL] = "169.254.169.254"
    assert {
        origin: {each for each in Network if leads_to(origin, addresses[each])}
        for origin in Network
    } == {
        PUBLIC: {PUBLIC},
        PRIVATE: {PUBLIC, PRIVATE},
        LOOPBACK: {PUBLIC, PRIVATE, LOOPBACK},
        LINK_LOCAL: {PUBLIC, LINK_LOCAL},
    }


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = networks._parse

    def elsewhere(host: str) -> object:
        return parse(FAR.get(host, host))

    monkeypatch.setattr(networks, "_parse", elsewhere)


@pytest.fixture
def inside() -> Iterator[OwnRegistry]:
    with OwnRegistry() as server:
        server.add("library/x", "latest", sample_image())
        yield server


def follow(registry: OwnRegistry, settings: Settings, urls: tuple[str, ...] = ()) -> bytes:
    """Read the layer of the image in the registry."""
    [layer] = sample_image().layers
    with fast_sources(settings) as sources:
        source = open_image(sources, registry)
        source.manifest()
        return read_blob(source, replace(layer.descriptor, urls=urls))


def only(*registries: OwnRegistry, **more: Any) -> Settings:
    return Settings(only=frozenset(each.host for each in registries), **more)


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize(
    ("registry_at", "target_at", "is_followed"),
    [
        ("127.0.0.3", "127.0.0.1", False),
        ("127.0.0.3", "127.0.0.2", False),
        ("127.0.0.3", "127.0.0.3", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("127.0.0.2", "127.0.0.2", True),
        ("127.0.0.2", "127.0.0.3", True),
        ("127.0.0.1", "127.0.0.1", True),
    ],
)
def test_a_redirect_is_followed_to_the_network_of_the_registry_and_outwards(
    registry_at: str, target_at: str, is_followed: bool
) -> None:
    built = sample_image()
    [layer] = built.layers
    with OwnRegistry(address=registry_at) as registry, OwnRegistry(address=target_at) as target:
        for each in (registry, target):
            each.add("library/x", "latest", built)
        registry.misbehave(redirect(target.url + "{path}"), path="/blobs/")
        if is_followed:
            assert follow(registry, only(registry)) == layer.blob
            return
        with pytest.raises(SourceError, match=f"leads to the [a-z-]* address {target_at}") as error:
            follow(registry, only(registry))
        assert "PUBLISHER_REGISTRIES" in error.value.hint
        assert registry.count("GET", "/blobs/") == 1 and target.requests == []
        # Where the user permits all registries, or this one.
        for settings in (Settings(), only(registry, target)):
            assert follow(registry, settings) == layer.blob
        own = {registry.host: RegistrySettings(mirror=f"http://{target.host}/none")}
        assert follow(registry, only(registry, registries=own)) == layer.blob


@pytest.mark.parametrize(
    ("url", "is_named"),
    [
        ("https://storage.test/x", True),
        ("https://storage.test:443/x", True),
        ("https://storage.test:5000/x", False),
        ("http://storage.test/x", False),
        ("http://mirror.test:80/x", True),
        ("http://mirror.test/x", True),
        ("https://mirror.test/x", False),
        ("https://plain.test:443/x", True),
        ("http://plain.test/x", True),
        ("https://[fd00::1]/x", True),
    ],
)
def test_a_host_is_named_also_with_the_usual_port(url: str, is_named: bool) -> None:
    settings = Settings(
        {"registry.test": RegistrySettings(mirror="http://mirror.test:80/images")},
        only=frozenset({"storage.test:443", "plain.test", "[fd00::1]:443"}),
    )
    origin = Hosts(settings, Clock()).origin(url, "https://registry.test/v2/")
    assert (origin is None) is is_named


@pytest.mark.usefixtures("far")
def test_a_name_is_resolved_when_it_is_connected_to(inside: OwnRegistry) -> None:
    with OwnRegistry(address="127.0.0.3") as registry:
        registry.add("library/x", "latest", sample_image())
        port = inside.host.rpartition(":")[2]
        target = f"http://localhost:{port}"
        registry.misbehave(redirect(target + "{path}"), path="/blobs/")
        with pytest.raises(SourceError, match="leads to the loopback address"):
            follow(registry, only(registry))
        # Connections to a host that the user names are not used for what others lead to.
        settings = only(registry)
        with fast_sources(settings) as sources:
            exchange = sources._exchange
            deadline = exchange.deadline("x")
            with exchange.request("GET", f"{target}/v2/", deadline=deadline) as answer:
                assert answer.status == 200
            with pytest.raises(SourceError, match="leads to the loopback address"):
                with exchange.request(
                    "GET", f"{target}/v2/", deadline=deadline, led_by=f"{registry.url}/v2/"
                ):
                    pass


@pytest.mark.usefixtures("far")
def test_token_services_layers_and_uploads_elsewhere_are_bounded_as_redirects(
    inside: OwnRegistry,
) -> None:
    service = BearerAuth(realm=f"{inside.url}/token")
    with OwnRegistry(service, address="127.0.0.3") as registry:
        registry.add("library/x", "latest", sample_image())
        with pytest.raises(SourceError, match="leads to the loopback address"):
            follow(registry, only(registry))
    with OwnRegistry(address="127.0.0.3") as registry:
        registry.add("library/x", "latest", sample_image())
        registry.misbehave(status(404), path="/blobs/")
        [layer] = sample_image().layers
        foreign = f"{inside.url}/v2/library/x/blobs/{layer.digest}"
        with pytest.raises(SourceError, match="leads to the loopback address"):
            follow(registry, only(registry), (foreign,))

        registry.misbehave(
            lambda request, reply: Reply(202, {"Location": f"{inside.url}/upload"}),
            path="/uploads/",
        )
        with fast_sources(only(registry)) as sources:
            destination = sources.destination(parse_reference(f"{registry.url}/library/x:1"))
            with pytest.raises(SourceError, match="leads to the loopback address"):
                destination.put_blob(Document(b"x", "", "sha256:" + "0" * 64))
    assert inside.requests == []


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "169.254.169.254"])
def test_a_proxy_is_not_asked_for_an_address_of_such_a_network(host: str) -> None:
    """A proxy resolves names itself."""
    with OwnRegistry() as proxy, OwnRegistry(address="127.0.0.3") as registry:
        registry.add("library/x", "latest", sample_image())
        registry.misbehave(redirect(f"http://{host}:9/x"), path="/blobs/")
        proxies = Proxies(http=proxy.url, no_proxy="127.0.0.3")
        with pytest.raises(SourceError, match=f"leads to the [a-z-]* address {host}"):
            follow(registry, only(registry, proxies=proxies))
        assert proxy.requests == []
        registry.misbehave(redirect("http://storage.example.org/x"), path="/blobs/")
        with pytest.raises(SourceError):
            follow(registry, only(registry, proxies=proxies))
        assert proxy.requests


@pytest.mark.parametrize("realm", ["https://[/token", "https://a:b/token", "file:///etc/passwd"])
def test_a_token_service_without_a_usable_address_is_an_error(realm: str) -> None:
    with OwnRegistry(BearerAuth(realm=realm)) as registry:
        registry.add("library/x", "latest", sample_image())
        for settings in (Settings(), only(registry)):
            with pytest.raises(SourceError, match="its address is"):
                follow(registry, settings)


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize(("address", "is_followed"), [("127.0.0.1", True), ("127.0.0.3", False)])
def test_the_address_of_a_registry_counts_and_not_its_name(
    inside: OwnRegistry, monkeypatch: pytest.MonkeyPatch, address: str, is_followed: bool
) -> None:
    resolve = socket.getaddrinfo

    def resolved(host: str, *arguments: Any) -> Any:
        return resolve(address if host == "registry.test" else host, *arguments)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with OwnRegistry(address=address) as registry:
        registry.add("library/x", "latest", sample_image())
        registry.misbehave(redirect(inside.url + "{path}"), path="/blobs/")
        registry.host = f"registry.test:{registry.host.rpartition(':')[2]}"
        registry.url = f"http://{registry.host}"
        if is_followed:
            assert follow(registry, only(registry)) == sample_image().layers[0].blob
            return
        with pytest.raises(SourceError, match="leads to the loopback address"):
            follow(registry, only(registry))
        assert inside.requests == []


@pytest.mark.usefixtures("far")
def test_of_a_name_with_several_addresses_only_the_permitted_ones_are_used(
    inside: OwnRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def resolved(host: str, *arguments: Any) -> Any:
        if host != "storage.test":
            return resolve(host, *arguments)
        return [*resolve("127.0.0.1", *arguments), *resolve("127.0.0.3", *arguments)]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with OwnRegistry(address="127.0.0.3") as registry, OwnRegistry(address="127.0.0.3") as target:
        for each in (registry, target):
            each.add("library/x", "latest", sample_image())
        for server, is_followed in ((target, True), (inside, False)):
            port = server.host.rpartition(":")[2]
            registry.misbehave(redirect(f"http://storage.test:{port}{{path}}"), path="/blobs/")
            if is_followed:
                assert follow(registry, only(registry)) == sample_image().layers[0].blob
                continue
            with pytest.raises(SourceError, match="Connection refused"):
                follow(registry, only(registry))
    assert inside.connections == 0
