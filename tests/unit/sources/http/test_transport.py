"""TLS and proxies between the publisher and a registry."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from publisher.oci.reference import ImageReference, Transport, parse_reference
from publisher.sources import Source, SourceError
from publisher.sources.http.exchange import Exchange
from publisher.sources.open import Sources
from publisher.sources.settings import Proxies, RegistrySettings, Settings
from tests.certificates import Authority, server_context
from tests.registry import OwnRegistry
from tests.registry_faults import redirect
from tests.registry_images import fast_sources, read_blob, sample_image

# The product turns this warning off when it is imported; pytest turns it on again.
pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority"))


def open_bare(sources: Sources, host: str, name: str = "library/x") -> Source:
    """A reference without a scheme: HTTPS, unless the settings allow something else."""
    return sources.open(
        ImageReference(Transport.REGISTRY, registry=host, repository=name, tag="latest")
    )


def test_a_registry_whose_certificate_a_configured_authority_signed_is_trusted(
    authority: Authority,
) -> None:
    certificate = authority.issue("good")
    with OwnRegistry(tls=server_context(certificate)) as registry:
        built = sample_image()
        registry.add("library/x", "latest", built)
        settings = Settings({registry.host: RegistrySettings(ca=authority.own.certificate)})
        with fast_sources(settings) as sources:
            source = open_bare(sources, registry.host)
            assert source.manifest() == built.manifest
            assert read_blob(source, built.layers[0].descriptor) == built.layers[0].blob


def test_an_authority_that_the_machine_trusts_is_trusted(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL itself reads this variable: it has the effect of what an administrator installed."""
    with OwnRegistry(tls=server_context(authority.issue("site"))) as registry:
        registry.add("library/x", "latest", sample_image())
        with fast_sources() as sources, pytest.raises(SourceError, match="not accepted"):
            open_bare(sources, registry.host).resolve()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.own.certificate))
        with fast_sources() as sources:
            assert open_bare(sources, registry.host).resolve()


def test_the_authorities_that_the_library_requests_brings_are_not_trusted(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trust in an authority ends when an administrator removes it from the machine."""
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(authority.own.certificate))
    with OwnRegistry(tls=server_context(authority.issue("bundled"))) as registry:
        registry.add("library/x", "latest", sample_image())
        with fast_sources() as sources, pytest.raises(SourceError, match="not accepted"):
            open_bare(sources, registry.host).resolve()


@pytest.mark.parametrize("kind", ["unknown", "expired", "other-host"])
def test_an_invalid_certificate_is_an_error_without_another_try(
    authority: Authority, kind: str
) -> None:
    certificate = authority.issue(
        kind,
        expired=kind == "expired",
        host="DNS:registry.example.org" if kind == "other-host" else "IP:127.0.0.1",
    )
    ca = None if kind == "unknown" else authority.own.certificate
    words = {
        "unknown": "unable to get local issuer",
        "expired": "expired",
        "other-host": "mismatch",
    }
    with OwnRegistry(tls=server_context(certificate)) as registry:
        registry.add("library/x", "latest", sample_image())
        settings = Settings({registry.host: RegistrySettings(ca=ca)})
        with fast_sources(settings) as sources:
            with pytest.raises(SourceError, match=f"certificate is not accepted.*{words[kind]}"):
                open_bare(sources, registry.host).resolve()
        assert registry.count() == 0
        assert registry.connections == 1
        settings = Settings({registry.host: RegistrySettings(insecure=True)})
        with fast_sources(settings) as sources:
            assert open_bare(sources, registry.host).resolve()


def test_a_client_certificate_is_sent_to_a_server_that_requires_one(authority: Authority) -> None:
    server, client = authority.issue("server"), authority.issue("client")
    ca = authority.own.certificate
    with OwnRegistry(tls=server_context(server, clients=authority)) as registry:
        registry.add("library/x", "latest", sample_image())
        own = RegistrySettings(ca=ca, client_certificate=client.certificate, client_key=client.key)
        with fast_sources(Settings({registry.host: own})) as sources:
            assert open_bare(sources, registry.host).resolve()
        without = Settings({registry.host: RegistrySettings(ca=ca)})
        with fast_sources(without) as sources, pytest.raises(SourceError):
            open_bare(sources, registry.host).resolve()


def test_a_client_certificate_is_sent_only_to_the_registry_that_it_is_for(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.own.certificate))
    server, client = authority.issue("server"), authority.issue("me")
    requiring = server_context(server, clients=authority)
    with OwnRegistry(tls=requiring) as named, OwnRegistry(tls=requiring) as other:
        for registry in (named, other):
            registry.add("library/x", "latest", sample_image())
        own = RegistrySettings(client_certificate=client.certificate, client_key=client.key)
        with fast_sources(Settings({named.host: own})) as sources:
            assert open_bare(sources, named.host).resolve()
            with pytest.raises(SourceError):
                open_bare(sources, other.host).resolve()


@pytest.mark.parametrize("missing", ["ca", "client_certificate"])
def test_a_missing_certificate_file_is_an_error(
    authority: Authority, tmp_path: Path, missing: str
) -> None:
    with OwnRegistry(tls=server_context(authority.issue("plain"))) as registry:
        fields = {"ca": authority.own.certificate, missing: tmp_path / "nowhere.pem"}
        settings = Settings({registry.host: RegistrySettings(**fields)})  # type: ignore[arg-type]
        with fast_sources(settings) as sources:
            with pytest.raises(SourceError, match=r"nowhere\.pem"):
                open_bare(sources, registry.host).resolve()


def test_a_certificate_file_with_other_content_is_an_error(tmp_path: Path) -> None:
    odd = tmp_path / "odd.pem"
    odd.write_text("hello")
    for own in (RegistrySettings(ca=odd), RegistrySettings(client_certificate=odd)):
        with fast_sources(Settings({"127.0.0.1:1": own})) as sources:
            with pytest.raises(SourceError, match=r"odd\.pem.*not a PEM"):
                open_bare(sources, "127.0.0.1:1").resolve()


def test_a_registry_without_tls_is_an_error_without_another_try(
    registry: OwnRegistry, sources: Sources
) -> None:
    with pytest.raises(SourceError, match=r"does not support TLS.*http:// before its name"):
        open_bare(sources, registry.host).resolve()
    assert registry.connections == 1


def test_insecure_uses_plain_http_where_tls_is_not_spoken(registry: OwnRegistry) -> None:
    registry.add("library/x", "latest", sample_image())
    settings = Settings({registry.host: RegistrySettings(insecure=True)})
    with fast_sources(settings) as sources:
        for _ in range(3):
            assert open_bare(sources, registry.host).resolve()
    assert registry.count() == 3


def test_a_redirect_from_https_to_http_is_refused(
    authority: Authority, registry: OwnRegistry
) -> None:
    with OwnRegistry(tls=server_context(authority.issue("redirecting"))) as secure:
        secure.misbehave(redirect(registry.url + "{path}"))
        settings = Settings({secure.host: RegistrySettings(ca=authority.own.certificate)})
        with fast_sources(settings) as sources:
            with pytest.raises(SourceError, match=r"from HTTPS to .* without encryption"):
                open_bare(sources, secure.host).resolve()
    assert registry.count() == 0


@pytest.mark.parametrize("address", [r"{other}\@{own}/", r"{other}\.{own}/", "{encoded}/"])
def test_an_address_that_libraries_read_differently_gets_no_request(
    registry: OwnRegistry, address: str
) -> None:
    """urllib3 would connect to the other registry, with the credentials for this one."""
    with OwnRegistry() as other:
        encoded = other.host.replace("1", "%31", 1)
        target = address.format(other=other.host, own=registry.host, encoded=encoded)
        registry.misbehave(redirect(f"http://{target}"))
        with closing(Exchange(Settings(), base_delay=0)) as exchange:
            deadline, headers = exchange.deadline_after(60), {"Authorization": "Bearer secret"}
            for url in (f"{registry.url}/v2/", f"http://{target}"):
                with pytest.raises(SourceError, match="cannot fetch"):
                    with exchange.request("GET", url, deadline=deadline, headers=headers):
                        pass
        assert other.requests == []


def test_settings_are_those_of_the_host_also_if_a_part_without_a_path_follows(
    authority: Authority, registry: OwnRegistry
) -> None:
    with OwnRegistry(tls=server_context(authority.issue("own"))) as secure:
        settings = Settings({registry.host: RegistrySettings(insecure=True)})
        with closing(Exchange(settings, base_delay=0)) as exchange:
            url, deadline = f"https://{secure.host}#@{registry.host}", exchange.deadline_after(60)
            with pytest.raises(SourceError, match="certificate is not accepted"):
                with exchange.request("GET", url, deadline=deadline):
                    pass


# Proxies ------------------------------------------------------------------------------------------


@contextmanager
def connecting_proxy(
    tls: ssl.SSLContext | None = None, answer: str = "200 Connected"
) -> Iterator[tuple[str, list[str]]]:
    """A proxy that forwards every connection to 127.0.0.1, whatever host was asked for."""
    asked: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                if tls is not None:
                    client = tls.wrap_socket(client, server_side=True)
            except ssl.SSLError:  # the client does not accept the certificate
                continue
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(65536)
            asked.append(head.decode())
            port = int(head.split()[1].rpartition(b":")[2])
            upstream = socket.create_connection(("127.0.0.1", port))
            client.sendall(f"HTTP/1.1 {answer}\r\n\r\n".encode())
            threading.Thread(target=pump, args=(client, upstream), daemon=True).start()
            threading.Thread(target=pump, args=(upstream, client), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize("tls", [False, True])
def test_https_goes_through_the_proxy_unless_no_proxy_excludes_the_host(
    authority: Authority, tls: bool
) -> None:
    certificate = authority.issue("far", host="DNS:registry.example.org")
    to_proxy = server_context(authority.issue("proxy")) if tls else None
    with (
        OwnRegistry(tls=server_context(certificate)) as registry,
        connecting_proxy(to_proxy) as (proxy, asked),
    ):
        registry.add("library/x", "latest", sample_image())
        host = f"registry.example.org:{registry.host.rpartition(':')[2]}"
        own = {host: RegistrySettings(ca=authority.own.certificate)}
        proxies = Proxies(https=proxy.replace("//", "//user:s3cret@"))
        with fast_sources(Settings(own, proxies=proxies)) as sources:
            assert open_bare(sources, host).resolve()
        assert [line.split(" HTTP")[0] for line in asked] == [f"CONNECT {host}"]
        assert "Proxy-Authorization: Basic dXNlcjpzM2NyZXQ=" in asked[0]
        assert not any("proxy-authorization" in r.headers for r in registry.requests)
        direct = replace(proxies, no_proxy="127.0.0.1")
        local = {registry.host: RegistrySettings(insecure=True)}
        with fast_sources(Settings(local, proxies=direct)) as sources:
            assert open_bare(sources, registry.host).resolve()
        assert len(asked) == 1


def test_the_certificate_of_a_proxy_is_verified_also_for_an_insecure_registry(
    authority: Authority,
) -> None:
    certificate = authority.issue("far", host="DNS:registry.example.org")
    with (
        OwnRegistry(tls=server_context(certificate)) as registry,
        connecting_proxy(server_context(authority.issue("proxy"))) as (proxy, asked),
    ):
        registry.add("library/x", "latest", sample_image())
        host = f"registry.example.org:{registry.host.rpartition(':')[2]}"
        own = RegistrySettings(insecure=True)
        with fast_sources(Settings({host: own}, proxies=Proxies(https=proxy))) as sources:
            with pytest.raises(SourceError, match="its certificate is not accepted"):
                open_bare(sources, host).resolve()
        assert asked == [] and registry.requests == []
        own = replace(own, ca=authority.own.certificate)
        with fast_sources(Settings({host: own}, proxies=Proxies(https=proxy))) as sources:
            assert open_bare(sources, host).resolve()


def test_a_proxy_that_cannot_be_used_is_an_error_without_its_password() -> None:
    with OwnRegistry() as gone:
        pass
    proxies = Proxies(https=f"http://user:s3cret@{gone.host}")
    with fast_sources(Settings(proxies=proxies)) as sources:
        with pytest.raises(SourceError) as caught:
            open_bare(sources, "registry.example.org").resolve()
    assert "s3cret" not in str(caught.value)
    assert "tried 5 times" in str(caught.value)


@pytest.mark.parametrize(("status", "tries"), [(407, 1), (503, 5)])
def test_the_status_with_which_a_proxy_refuses_is_in_the_error_but_not_its_text(
    registry: OwnRegistry, status: int, tries: int
) -> None:
    """A wrong password is not sent again: it may lock the user out."""
    with connecting_proxy(answer=f"{status} secret") as (proxy, asked):
        with fast_sources(Settings(proxies=Proxies(https=proxy))) as sources:
            with pytest.raises(SourceError) as caught:
                open_bare(sources, registry.host).resolve()
    assert f"the proxy refuses the connection with status {status}" in caught.value.why
    assert "secret" not in str(caught.value)
    assert len(asked) == tries
    assert ("HTTPS_PROXY" in caught.value.hint) == (status == 407)


def test_a_known_registry_is_suggested_for_a_host_that_does_not_exist() -> None:
    with fast_sources() as sources:
        for _ in range(2):  # the second time, the host is known to be unreachable
            source = sources.open(parse_reference("registry.fedoraproject.invalid/x:1"))
            with pytest.raises(SourceError) as caught:
                source.resolve()
            assert caught.value.hint == "did you mean registry.fedoraproject.org?"


def test_plain_http_through_a_proxy_names_the_address_but_not_its_password() -> None:
    with OwnRegistry() as proxy:
        url = "http://me:p%40ss@lists.example.org/v2/a b.yaml?of=1#part"
        through = Proxies(http=f"user:s3cr%C5%82t@{proxy.host}")
        with closing(Exchange(Settings(proxies=through), base_delay=0)) as exchange:
            with exchange.request("GET", url, deadline=exchange.deadline_after(60)):
                pass
        [request] = proxy.requests
    assert request.target == "http://lists.example.org/v2/a%20b.yaml?of=1"
    assert request.headers["host"] == "lists.example.org"
    assert request.headers["authorization"] == "Basic bWU6cEBzcw=="
    encoded = base64.b64encode("user:s3crłt".encode()).decode()  # as in RFC 7617, section 2.1
    assert request.headers["proxy-authorization"] == f"Basic {encoded}"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("socks5://user:s3cret@127.0.0.1:1080", "the proxy is neither http nor https"),
        ("http://user:s3cret@[127.0.0.1:3128", "its address is malformed"),
    ],
)
def test_the_address_of_a_proxy_that_cannot_be_used_is_an_error_without_its_password(
    address: str, why: str
) -> None:
    with fast_sources(Settings(proxies=Proxies(https=address))) as sources:
        with pytest.raises(SourceError, match="cannot use the proxy for registry") as caught:
            open_bare(sources, "registry.example.org").resolve()
    assert caught.value.why == why
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


def test_a_header_with_a_line_break_is_never_sent(registry: OwnRegistry) -> None:
    with closing(Exchange(Settings(), base_delay=0)) as exchange:
        headers = {"Authorization": "Bearer a\r\nX-Other: b"}  # as a token service may answer
        deadline = exchange.deadline_after(60)
        with pytest.raises(SourceError, match="cannot fetch"):
            with exchange.request("GET", registry.url, deadline=deadline, headers=headers):
                pass
    assert registry.requests == []
