"""Whole ingests with misbehaving registries, credentials, engines and many wishes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from publisher.ingest.report import Report
from publisher.ingest.run import ingest
from publisher.repository.directory.repository import DirectoryRepository
from publisher.sources.open import Sources
from publisher.tree.layout import RepositoryURL
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.command import TIMEOUT, command, environment, publisher, succeed
from tests.components import docker_registry, dockerd, podman
from tests.layer_builder import directory, file, image, layer, symlink, whiteout, write_layout
from tests.registry import OwnRegistry, wait_for
from tests.registry_auth import BasicAuth, BearerAuth, basic
from tests.registry_faults import Unreliable, slow
from tests.registry_images import fast_sources, noise, sample_image, write_auths
from tests.trees import assert_same_tree

pytestmark = pytest.mark.system


@contextmanager
def opened(path: Path) -> Iterator[DirectoryRepository]:
    repository = DirectoryRepository(
        RepositoryURL("dir", str(path)), writable=True, may_be_new=True
    )
    try:
        yield repository
    finally:
        repository.close()


def ingest_all(images: Sequence[str], path: Path, sources: Sources, jobs: int = 8) -> Report:
    with opened(path) as repository:
        return ingest([Request(wish_for(name)) for name in images], repository, sources, jobs=jobs)


def wish_list(path: Path, images: Iterable[str]) -> Path:
    lines = ["version: 2", "images:", *(f"  - {json.dumps(name)}" for name in images)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_two_hundred_images_from_a_registry_that_fails_every_fifth_request(
    tmp_path: Path,
) -> None:
    images = {f"group/image-{n}": sample_image(5_000, 20_000, seed=n) for n in range(200)}
    unreliable = Unreliable(0.2, seed=11)
    with OwnRegistry() as registry, fast_sources() as sources:
        for name, built in images.items():
            registry.add(name, "latest", built)
        registry.misbehave(unreliable)
        names = [f"{registry.url}/{name}:latest" for name in images]
        report = ingest_all(names, tmp_path / "images", sources)
        assert [outcome.status for outcome in report.outcomes] == ["published"] * len(images)
        needed = 5 * len(images)  # HEAD, manifest, config, two layers
        assert needed // 10 < unreliable.failures
        assert registry.count() <= needed + 2 * unreliable.failures
        for name, built in images.items():
            for number, _ in enumerate(built.layers):
                seed = list(images).index(name) * 100 + number
                size = (5_000, 20_000)[number]
                tree = tmp_path / "images" / registry.host / f"{name}:latest"
                assert (tree / f"noise-{seed}").read_bytes() == noise(size, seed)
        registry.heal()
        before = registry.count()
        report = ingest_all(names, tmp_path / "images", sources)
        assert {outcome.status for outcome in report.outcomes} == {"unchanged"}
        assert registry.count() == before + len(images)


WITH_PEAK = """
import re
from pathlib import Path
from publisher.cli.main import main
try:
    main()
finally:
    peak = re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())
    print("peak", peak[1])
"""


def quiet_run(wishes: Path, images: Path) -> int:
    """`publisher ingest`: its peak memory in KiB.

    It is the kernel's figure for this process image alone: that of wait4 for a child counts
    the memory of its parent from before the exec.
    """
    words = ["ingest", wishes, "--repository", images, "--quiet"]
    command = [sys.executable, "-c", WITH_PEAK, *map(str, words)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (done.returncode, done.stderr) == (0, "")
    return int(done.stdout.removeprefix("peak "))


def publish_again(images: Path, name: str, other: str) -> None:
    """Publish the image `name` as `other` too, by copying its link and its records."""
    (images / other).symlink_to((images / name).readlink())
    shutil.copytree(images / ".metadata" / name, images / ".metadata" / other)
    record = images / ".metadata" / other / "publication.json"
    record.write_text(record.read_text().replace(name, other))


def test_a_thousand_wishes_with_nothing_new(tmp_path: Path) -> None:
    """One HEAD each over kept connections, and of memory what a wish itself takes.

    A record that is not accepted would cost further requests.
    """
    built = sample_image(1_000)
    few, many = 100, 1000
    images = tmp_path / "images"
    with OwnRegistry() as registry:
        tagged = [f"group/image-{n}:latest" for n in range(many)]
        names = [f"{registry.url}/{each}" for each in tagged]
        for n in range(many):
            registry.add(f"group/image-{n}", "latest", built)
        wishes = wish_list(tmp_path / "wishes.yaml", names[:1])
        quiet_run(wishes, images)
        for other in tagged[1:]:
            publish_again(images, f"{registry.host}/{tagged[0]}", f"{registry.host}/{other}")
        peaks = {}
        for count in (many, few):
            wish_list(wishes, names[:count])
            registry.requests.clear()
            registry.connections = 0
            peaks[count] = quiet_run(wishes, images)
            assert [request.method for request in registry.requests] == ["HEAD"] * count
            assert len({request.path for request in registry.requests}) == count
            assert registry.connections <= 4
    per_wish = (peaks[many] - peaks[few]) / (many - few)
    print(f"{per_wish:.1f} KiB of memory per wish")
    assert per_wish < 3.5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("stalls_in", ["/manifests/", "/blobs/"])
def test_a_registry_that_does_not_answer_does_not_delay_the_end_of_a_run(
    tmp_path: Path, number: signal.Signals, stalls_in: str
) -> None:
    """The run ends in seconds, not after the timeout of a minute; the next run continues."""
    images = {f"library/x{n}": sample_image(2_000_000, seed=n) for n in range(3)}
    with OwnRegistry() as registry:
        for name, built in images.items():
            registry.add(name, "1", built)
        registry.misbehave(slow(pause=300, piece=300), path=stalls_in)
        wishes = wish_list(tmp_path / "wishes.yaml", [f"{registry.url}/{n}:1" for n in images])
        words = ("ingest", wishes, "--repository", tmp_path / "images")
        run = subprocess.Popen(command(*words), env=environment(), stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: registry.paused > 0, 60)
            run.send_signal(number)
            code = run.wait(60)
        finally:
            run.kill()
        assert code == (-9 if number is signal.SIGKILL else 130)
        registry.heal()
        succeed(*words)
    for number_of_image, name in enumerate(images):
        tree = tmp_path / "images" / registry.host / f"{name}:1"
        assert (tree / f"noise-{number_of_image * 100}").stat().st_size == 2_000_000


SECRETS = {"ann": "s3cret-of-ann", "ben": "s3cret-of-ben", "mia": "s3cret-of-mia"}


def test_no_secret_is_printed_or_published(tmp_path: Path) -> None:
    """Four registries, one of which needs another's tokens; one password is wrong."""
    bearer = BearerAuth({"ben": SECRETS["ben"]}, name="t0ken")
    with (
        OwnRegistry(BasicAuth({"ann": SECRETS["ann"]})) as one,
        OwnRegistry(bearer) as two,
        OwnRegistry(BasicAuth({"mia": "another"})) as three,
        OwnRegistry(BearerAuth({}, identity_tokens={"zoe": "s3cret-of-zoe"})) as four,
    ):
        registries = (one, two, three, four)
        for registry in registries:
            registry.add("library/x", "1", sample_image())
        authfile = write_auths(
            tmp_path / "auth.json",
            {
                one.host: ("ann", SECRETS["ann"]),
                two.host: ("ben", SECRETS["ben"]),
                three.host: ("mia", SECRETS["mia"]),
            },
        )
        auths = json.loads(authfile.read_text())
        auths["auths"][four.host] = {"identitytoken": "s3cret-of-zoe"}
        authfile.write_text(json.dumps(auths))
        names = [f"{registry.url}/library/x:1" for registry in registries]
        names.append(f"{one.url}/library/absent:1")
        wishes = wish_list(tmp_path / "wishes.yaml", names)
        results = [
            publisher(
                *("ingest", wishes, "--repository", tmp_path / "images", *options),
                env={"REGISTRY_AUTH_FILE": str(authfile)},
            )
            for options in (("--debug",), ("--retry-failed", "--output", "json", *JSON_LOG))
        ]
        assert [result.code for result in results] == [1, 1]
        statuses = [outcome["status"] for outcome in results[1].json["outcomes"]]
        assert statuses == ["unchanged", "unchanged", "failed", "unchanged", "failed"]
        issued = [*bearer.issued, *four.auth.issued]  # type: ignore[union-attr]
        assert issued
    printed = "".join(result.out + result.err for result in results)
    assert "HEAD" in printed, "requests are logged at --debug"
    published = b"".join(
        str(path).encode() + (path.read_bytes() if path.is_file() else b"")
        for path in (tmp_path / "images").rglob("*")
        if not path.is_symlink()
    )
    for secret in (
        *SECRETS.values(),
        "s3cret-of-zoe",
        *issued,
        *(basic(*pair).partition(" ")[2] for pair in SECRETS.items()),
    ):
        assert secret not in printed
        assert secret.encode() not in published


JSON_LOG = ("--log-level", "debug", "--log-format", "json")


def test_an_image_is_the_same_through_registry_engine_and_archives(tmp_path: Path) -> None:
    built = image(
        layer(
            directory("bin"),
            file("bin/tool", noise(50_000), mode=0o755),
            symlink("tool", "bin/tool"),
            file("gone", b"x"),
            directory("etc", uid=7, gid=8),
        ),
        layer(whiteout("gone"), file("etc/motd", b"hello", mode=0o640, gid=5)),
    )
    write_layout(built, tmp_path / "layout", "1")
    images = tmp_path / "images"

    def published(reference: str, name: str, **env: str) -> Path:
        wishes = tmp_path / "wish.yaml"
        wishes.write_text(f"version: 2\nimages: [{{image: {json.dumps(reference)}, name: {name}}}]")
        result = succeed("ingest", wishes, "--repository", images, "--output", "json", env=env).json
        return (images / str(result["outcomes"][0]["name"])).resolve()

    with docker_registry(tmp_path / "registry") as registry:
        through_registry = registry.push(f"oci:{tmp_path}/layout:1", "x/y:1")
        expected = published(f"http://{through_registry}", "registry")
        trees = [published(f"oci:{tmp_path}/layout:1", "layout")]
        with dockerd(tmp_path / "docker", insecure_registries=[registry.host]) as docker:
            docker("pull", through_registry)
            docker("save", "--output", tmp_path / "docker.tar", through_registry)
            trees.append(
                published(f"docker-daemon:{through_registry}", "engine", DOCKER_HOST=docker.socket)
            )
        trees.append(published(f"docker-archive:{tmp_path}/docker.tar", "docker"))
        with podman(tmp_path / "podman") as engine:
            engine("pull", "--tls-verify=false", through_registry)
            for form in ("docker-archive", "oci-archive"):
                archive = tmp_path / f"podman-{form}.tar"
                engine("save", "--format", form, "--output", archive, through_registry)
                trees.append(published(f"{form}:{archive}", f"podman-{form}"))
    for tree in trees:
        assert_same_tree(tree, expected)
