"""Sources that are engines and what engines save: dockerd, podman, buildah and skopeo."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard

from publisher.oci.digest import check_digest
from publisher.oci.image import PlatformImage
from publisher.oci.reference import parse_reference
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.image import fetch_images
from publisher.sources.open import Sources
from publisher.sources.settings import EngineTLS, Settings
from tests.certificates import Authority
from tests.command import succeed
from tests.components import (
    Engine,
    Registry,
    docker_registry,
    dockerd,
    podman,
    program,
    run,
    skopeo_copy,
)
from tests.layer_builder import Image, file, image, layer, whiteout, write_layout
from tests.registry import OwnRegistry, wait_for
from tests.registry_faults import slow
from tests.registry_images import AMD64, noise, read_blob

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def built(folder: Path) -> Image:
    built = image(
        layer(file("a", noise(200_000)), file("b", b"gone soon")),
        layer(whiteout("b"), file("c", b"hello")),
        config={"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
    )
    write_layout(built, folder / "layout", "1.0")
    return built


@pytest.fixture(scope="module")
def registry(folder: Path, built: Image) -> Iterator[Registry]:
    with docker_registry(folder / "registry") as registry:
        registry.push(f"oci:{folder}/layout:1.0", "group/x:1.0")
        yield registry


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    """The authority of the engine's and the client's certificates, stored as docker stores them."""
    authority = Authority.create(folder)
    issued = authority.issue("engine"), authority.issue("client")
    for name, each in zip(("engine", "client"), issued, strict=True):
        (folder / name).mkdir()
        shutil.copy(authority.own.certificate, folder / name / "ca.pem")
        shutil.copy(each.certificate, folder / name / "cert.pem")
        shutil.copy(each.key, folder / name / "key.pem")
    return authority


@pytest.fixture(scope="module")
def address() -> str:
    """Where the engine listens besides its socket."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(scope="module")
def docker(
    folder: Path, registry: Registry, authority: Authority, address: str
) -> Iterator[Engine]:
    keys = folder / "engine"
    tls = ["-H", address, "--tlsverify", f"--tlscacert={keys}/ca.pem"]
    tls += [f"--tlscert={keys}/cert.pem", f"--tlskey={keys}/key.pem"]
    with dockerd(folder / "docker", insecure_registries=[registry.host], options=tls) as engine:
        engine("pull", f"{registry.host}/group/x:1.0")
        engine("tag", f"{registry.host}/group/x:1.0", "mine:2")
        yield engine


def fetch(reference: str, docker_host: str = "") -> PlatformImage:
    """An image with all its layers, their digests and diff IDs verified."""
    with Sources(Settings(docker_host=docker_host)) as sources:
        source = sources.open(parse_reference(reference))
        (found,) = fetch_images(source, [AMD64], source.resolve())
        pairs = list(zip(found.manifest.layers, found.config.diff_ids, strict=True))
        for descriptor, diff_id in pairs:
            data = read_blob(source, descriptor)
            check_digest(data, descriptor.digest, "layer")
            if descriptor.media_type.endswith("gzip"):
                data = gzip.decompress(data)
            elif descriptor.media_type.endswith("zstd"):
                data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            check_digest(data, diff_id, "diff ID")
        return found


def is_same_image(found: PlatformImage, built: Image) -> None:
    """The same root file system and settings: layers by diff ID, and what to run."""
    assert found.config.diff_ids == tuple(each.diff_id for each in built.layers)
    assert found.config.container.command == ("/bin/sh",)


def test_an_image_that_the_engine_pulled_is_fetched_from_it(
    docker: Engine, registry: Registry, built: Image
) -> None:
    through_registry = fetch(f"http://{registry.host}/group/x:1.0")
    for name in ("mine:2", f"{registry.host}/group/x:1.0"):
        found = fetch(f"docker-daemon:{name}", docker.socket)
        is_same_image(found, built)
        assert found.config_document.data == through_registry.config_document.data
        assert found.manifest.image_id == docker("inspect", "--format", "{{.Id}}", name).strip()


def test_a_name_is_resolved_by_an_engine_without_saving_the_image(
    docker: Engine, built: Image
) -> None:
    with Sources(Settings(docker_host=docker.socket)) as sources:
        digest = sources.open(parse_reference("docker-daemon:mine:2")).resolve()
    assert digest == built.image_id


def test_an_engine_on_the_network_is_reached_by_tls_as_docker_reaches_it(
    docker: Engine, built: Image, folder: Path, address: str, tmp_path: Path
) -> None:
    other = Authority.create(tmp_path, "other").own.certificate
    certificates = {"DOCKER_HOST": address, "DOCKER_CERT_PATH": str(folder / "client")}
    verified = certificates | {"DOCKER_TLS_VERIFY": "1"}
    docker("version")
    run(docker.command[2], "version", env={**os.environ, **verified})
    home = tmp_path / "home"
    shutil.copytree(folder / "client", home / ".docker")
    for number, environment in enumerate(
        (verified, certificates, {"DOCKER_HOST": address, "DOCKER_TLS_VERIFY": "1"})
    ):
        result = succeed(
            *("ingest-image", "docker-daemon:mine:2", "--name", "mine", "--output", "json"),
            *("--repository", tmp_path / f"images-{number}"),
            env={**environment, "REQUESTS_CA_BUNDLE": str(other)},
            home=home,
        )
        assert result.json["outcomes"][0]["digest"] == built.image_id


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_an_engine_with_a_certificate_of_another_authority_is_refused_unless_verification_is_off(
    docker: Engine, folder: Path, address: str, tmp_path: Path
) -> None:
    other = Authority.create(tmp_path, "other")
    keys = tmp_path / "keys"
    shutil.copytree(folder / "client", keys)
    shutil.copy(other.own.certificate, keys / "ca.pem")
    name = parse_reference("docker-daemon:mine:2")
    with Sources(Settings(docker_host=address, docker_tls=EngineTLS(keys, True))) as sources:
        with pytest.raises(SourceError, match="its certificate is not accepted"):
            sources.open(name).resolve()
    with Sources(Settings(docker_host=address, docker_tls=EngineTLS(keys, False))) as sources:
        assert sources.open(name).resolve()


def test_an_engine_refuses_a_client_without_a_certificate_of_its_authority(
    docker: Engine, folder: Path, address: str, tmp_path: Path
) -> None:
    other = Authority.create(tmp_path, "other").issue("stranger")
    keys = tmp_path / "keys"
    keys.mkdir()
    shutil.copy(folder / "client/ca.pem", keys / "ca.pem")
    shutil.copy(other.certificate, keys / "cert.pem")
    shutil.copy(other.key, keys / "key.pem")
    name = parse_reference("docker-daemon:mine:2")
    with Sources(Settings(docker_host=address, docker_tls=EngineTLS(keys, True))) as sources:
        with pytest.raises(SourceError, match=r"contains its certificates"):
            sources.open(name).resolve()
    with Sources(Settings(docker_host=address, docker_tls=EngineTLS(tmp_path, True))) as sources:
        with pytest.raises(SourceError, match=r"does not contain ca\.pem"):
            sources.open(name).resolve()


def test_a_missing_image_of_an_engine_is_absent(docker: Engine) -> None:
    with pytest.raises(ImageNotFound, match=r"nobody/nothing:latest"):
        fetch("docker-daemon:nobody/nothing", docker.socket)


def test_an_engine_that_cannot_be_reached_is_an_error(tmp_path: Path) -> None:
    for host in (f"unix://{tmp_path}/no.sock", "tcp://127.0.0.1:1"):
        with pytest.raises(SourceError, match=r"check that an engine listens") as caught:
            fetch("docker-daemon:mine:2", host)
        assert not isinstance(caught.value, ImageNotFound)


@pytest.mark.parametrize(
    "host", ["ssh://root@host", "fd://0", "tcp://", "tcp://host", "tcp://me:s3cret@host:1", "a b"]
)
def test_an_unsupported_address_of_an_engine_is_refused_without_repeating_it(host: str) -> None:
    with pytest.raises(SourceError, match=r"address is not supported.*unix:///PATH") as caught:
        fetch("docker-daemon:mine:2", host)
    assert "s3cret" not in str(caught.value)


def test_an_engine_that_does_not_answer_does_not_delay_the_end_of_a_run(tmp_path: Path) -> None:
    """It may take minutes to write an image before it sends any of it."""
    with (
        OwnRegistry() as silent,
        Sources(Settings(docker_host=silent.url)) as sources,
        ThreadPoolExecutor(1) as pool,
    ):
        silent.misbehave(slow(delay=300))
        waiting = pool.submit(sources.open(parse_reference("docker-daemon:mine:2")).resolve)
        wait_for(lambda: silent.count() > 0)
        sources.close()
        with pytest.raises(SourceError, match="the program is ending"):
            waiting.result(60)


def test_a_broken_configuration_of_docker_is_an_error_that_does_not_quote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text('{"auths": {"x.io": {"auth": "s3cret"}}}')
    with pytest.raises(SourceError) as caught:
        fetch("docker-daemon:mine:2", f"unix://{tmp_path}/no.sock")
    assert "s3cret" not in str(caught.value)


def test_an_archive_of_docker_save_is_the_image(
    docker: Engine, built: Image, tmp_path: Path
) -> None:
    archive = tmp_path / "saved.tar"
    docker("save", "--output", archive, "mine:2")
    found = fetch(f"docker-archive:{archive}")
    is_same_image(found, built)
    assert found.document == fetch("docker-daemon:mine:2", docker.socket).document
    run("gzip", archive)
    assert fetch(f"docker-archive:{archive}.gz:mine:2").document == found.document


def test_an_engine_image_by_another_store_is_the_same(
    docker: Engine, built: Image, tmp_path: Path
) -> None:
    """skopeo reads the engine too: both make the same layers of it."""
    reported = json.loads(
        run(program("skopeo"), "inspect", "--daemon-host", docker.socket, "docker-daemon:mine:2")
    )
    found = fetch("docker-daemon:mine:2", docker.socket)
    assert [each.digest for each in found.manifest.layers] == reported["Layers"]


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
def test_an_archive_of_podman_save_is_the_image(
    registry: Registry, built: Image, tmp_path: Path, form: str
) -> None:
    name = f"{registry.host}/group/x:1.0"
    with podman(tmp_path / "podman") as engine:
        engine("pull", "--tls-verify=false", name)
        engine("save", "--format", form, "--output", tmp_path / "saved", name)
    transport = {"oci-dir": "oci"}.get(form, form)
    suffix = f":{name}" if form == "docker-archive" else ""
    is_same_image(fetch(f"{transport}:{tmp_path}/saved{suffix}"), built)


@pytest.mark.parametrize(
    ("destination", "reference"),
    [
        ("oci:{0}/copy:1.0", "oci:{0}/copy:1.0"),
        ("oci-archive:{0}/copy.tar:1.0", "oci-archive:{0}/copy.tar:1.0"),
        ("docker-archive:{0}/copy.tar:group/x:1.0", "docker-archive:{0}/copy.tar:group/x:1.0"),
    ],
)
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_copy_by_skopeo_is_the_image(
    folder: Path, built: Image, tmp_path: Path, destination: str, reference: str, compression: str
) -> None:
    skopeo_copy(
        f"oci:{folder}/layout:1.0",
        destination.format(tmp_path),
        *("--dest-compress-format", compression),
    )
    is_same_image(fetch(reference.format(tmp_path)), built)
