"""Images wait for each other where the disk is too small for all at once; none fails that fits."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from publisher.ingest.report import Report, Silent
from publisher.ingest.run import ingest
from publisher.repository import Repository
from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree.layout import RepositoryURL
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.any_repository import environment_of, make_repository
from tests.command import command, environment, publisher
from tests.components import program, require_mounts, run, unmount_below
from tests.layer_builder import Image, file, image, layer
from tests.registry import OwnRegistry, Reply, wait_for
from tests.registry import Request as Received
from tests.registry_images import fast_sources, noise, noisy_layer

SECONDS = 60
"""How long a test waits for what never comes, if it fails."""

Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a tmpfs of that size, or an ext4 with a journal, at a directory."""
    require_mounts()
    with ExitStack() as stack:

        def make(size: int, point: Path = tmp_path / "small", kind: str = "tmpfs") -> Path:
            point.mkdir(exist_ok=True)
            if kind == "tmpfs":
                run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", point)
            else:
                disk = tmp_path / "disk"
                disk.touch()
                os.truncate(disk, size)
                run(program("mkfs.ext4"), "-q", "-F", "-m", "0", "-J", "size=1", "-b", "1024", disk)
                run("mount", "-o", "loop", disk, point)
            stack.callback(unmount_below, point)
            return point

        yield make


@pytest.fixture
def registry() -> Iterator[OwnRegistry]:
    with OwnRegistry() as registry:
        yield registry


class Steps(Silent):
    """Records the steps of each image."""

    def __init__(self) -> None:
        self.steps: dict[str, list[str]] = {}

    def image_step(self, name: str, step: str) -> None:
        self.steps.setdefault(name.rpartition("/")[2], []).append(step)


def in_directory(place: Path) -> Repository:
    return DirectoryRepository(RepositoryURL("dir", str(place)), writable=True, may_be_new=True)


def compressible(name: str, size: int) -> Image:
    """Return an image whose unpacked size does not follow from that of its download."""
    return image(layer(file(name, noise(1000) * (size // 1000))))


def ingest_all(
    repository: Repository, names: list[str], jobs: int, progress: Silent | None = None
) -> Report:
    with fast_sources() as sources:
        requests = [Request(wish_for(name), "list") for name in names]
        return ingest(requests, repository, sources, jobs=jobs, progress=progress)


def failures(report: Report) -> dict[str, str]:
    return {each.name.rpartition("/")[2]: each.error for each in report.outcomes if each.error}


@pytest.mark.parametrize(("jobs", "kind"), [(1, "tmpfs"), (2, "ext4"), (3, "tmpfs"), (4, "ext4")])
def test_only_the_image_fails_that_does_not_fit_whatever_is_processed_beside_it(
    mount: Mount, registry: OwnRegistry, jobs: int, kind: str
) -> None:
    """Nothing shows in advance that it is too large: its download is small."""
    point = mount(9_000_000, kind=kind)
    registry.add("team/huge", "1", image(noisy_layer(), *compressible("huge", 12_000_000).layers))
    names = ["a", "b", "c"]
    for name in names:
        registry.add(f"team/{name}", "1", compressible(name, 1_300_000))
    names.insert(jobs - 1, "huge")
    with closing(in_directory(point / "images")) as repository:
        report = ingest_all(repository, [f"{registry.url}/team/{name}:1" for name in names], jobs)
        assert list(failures(report)) == ["huge:1"], failures(report)
        assert "cannot store an image in" in failures(report)["huge:1"]
        again = ingest_all(repository, [f"{registry.url}/team/huge:1"], 1)
        assert list(failures(again)) == ["huge:1"]


@pytest.mark.parametrize("jobs", [1, 2, 3, 4])
def test_images_that_fit_into_the_spool_one_after_another_are_all_published(
    mount: Mount, registry: OwnRegistry, tmp_path: Path, jobs: int
) -> None:
    made = make_repository("cvmfs", tmp_path)
    assert made.machine is not None
    made.machine.state.mkdir(exist_ok=True)
    mount(1_600_000, made.machine.state)
    names = ["a", "b", "c"]
    for seed, name in enumerate(names):
        registry.add(
            f"team/{name}",
            "1",
            image(noisy_layer(500_000, 2 * seed), noisy_layer(400_000, 2 * seed + 1)),
        )
    names = [*names[jobs - 1 :], *names[: jobs - 1]]
    steps = Steps()
    with environment_of(made), closing(made.open()) as repository:
        images = [f"{registry.url}/team/{name}:1" for name in names]
        report = ingest_all(repository, images, jobs, steps)
    assert not failures(report), failures(report)
    waited = [name for name, seen in steps.steps.items() if "waiting for space" in seen]
    assert bool(waited) == (jobs > 1)
    for name in waited:
        assert steps.steps[name][-2:] == ["fetching", "publishing"]


def test_layers_of_an_image_that_failed_leave_their_space_to_others(
    mount: Mount, registry: OwnRegistry
) -> None:
    point = mount(4_000_000)
    parts = (noisy_layer(2_500_000, 1), *compressible("huge", 9_000_000).layers)
    registry.add("team/huge", "1", image(*parts))
    registry.add("team/b", "1", image(noisy_layer(2_000_000, 2)))
    with closing(in_directory(point / "images")) as repository:
        names = [f"{registry.url}/team/{name}:1" for name in ("huge", "b")]
        assert list(failures(ingest_all(repository, names, 1))) == ["huge:1"]


def filling(disk: Path, count: int) -> Callable[[Received, Reply], Reply]:
    """Return a change of answers by which another program fills the disk, at the first one."""
    lock = threading.Lock()

    def change(received: Received, reply: Reply) -> Reply:
        with lock:
            if not (disk / "filler").exists():
                (disk / "filler").write_bytes(bytes(count))
        return reply

    return change


def test_a_disk_that_another_program_fills_meanwhile_ends_only_what_does_not_fit(
    mount: Mount, registry: OwnRegistry
) -> None:
    point = mount(6_000_000)
    registry.add("team/large", "1", image(noisy_layer(2_500_000, 1)))
    registry.add("team/small", "1", image(noisy_layer(200_000, 2)))
    registry.misbehave(filling(point, 4_500_000), path="/blobs/")
    names = [f"{registry.url}/team/{name}:1" for name in ("large", "small")]
    with closing(in_directory(point / "images")) as repository:
        report = ingest_all(repository, names, 2)
        assert list(failures(report)) == ["large:1"], failures(report)
        assert "are missing" in failures(report)["large:1"]
        (point / "filler").unlink()
        registry.heal()
        assert not failures(ingest_all(repository, names, 2))


def test_a_killed_run_leaves_no_reservation_and_its_space_is_used_again(
    mount: Mount, registry: OwnRegistry, tmp_path: Path
) -> None:
    point = mount(4_000_000)
    stalled = threading.Event()
    over = threading.Event()

    def stall(received: Received, reply: Reply) -> Reply:
        stalled.set()
        over.wait(SECONDS)
        return reply

    registry.add("team/a", "1", image(noisy_layer(1_500_000, 1), noisy_layer(100_000, 2)))
    registry.add("team/b", "1", image(noisy_layer(1_600_000, 3)))
    registry.misbehave(stall, path=f"/blobs/{noisy_layer(100_000, 2).digest}")
    images = tmp_path / "list.yaml"
    images.write_text(
        f"version: 2\nrepository: dir:{point}/images\nimages:\n"
        + "".join(f"- image: '{registry.url}/team/{name}:1'\n" for name in "ab")
    )
    first = subprocess.Popen(
        command("ingest", images, "--jobs", "1"),
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert stalled.wait(SECONDS)
        wait_for(lambda: list((point / "images/.metadata/.publisher/layers").glob("*")) != [])
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        over.set()
    registry.heal()
    result = publisher("ingest", images, home=tmp_path)
    assert result.code == 0, result.err
