"""Several at once: publishers with overlapping wish lists, and continuous readers."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.ingest.run import ingest
from publisher.oci.manifest import parse_published_manifest
from publisher.repository.directory.repository import DirectoryRepository
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from publisher.verify.run import verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.any_repository import environment_of, make_repository
from tests.command import command, environment
from tests.layer_builder import Image, directory, file, image, layer
from tests.transactions.client import FaultyCommands, faulty_commands
from tests.transactions.scenarios import (
    SECOND,
    Stage,
    State,
    assert_nothing_is_left,
    differences,
    quick_directory,
    state_of,
)

CHANGES = 500


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with quick_directory() as folder:
        made = Stage(folder / "stage", getattr(request, "param", "directory"))
        made.begin()
        yield made


@pytest.mark.parametrize(
    ("count", "stage"),
    [(2, "directory"), (8, "directory"), (3, "cvmfs")],
    indirect=["stage"],
)
def test_publishers_with_overlapping_lists_publish_the_same_as_one(
    stage: Stage, count: int
) -> None:
    published = stage.published
    layers = [layer(directory(f"d{n}"), file(f"d{n}/file", b"x" * n)) for n in range(6)]
    for number in range(count + 2):
        stage.put(image(*layers[: number % 6 + 1]), f"t{number}")
    lists = [stage.ingest(f"t{n}", f"t{n + 1}", f"t{n + 2}") for n in range(count)]

    running = [
        subprocess.Popen(
            [*command(*words, "--jobs", "3")],
            env=environment() | {**published.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words in lists
    ]
    ended = [(process.communicate(timeout=240)[0], process.returncode) for process in running]
    assert [code for _, code in ended] == [0] * count, ended
    together = _in_any_order(state_of(stage.repository))
    with environment_of(published):
        repository = published.open(writable=False)
    assert verify(repository, deep=True).findings == ()
    assert_nothing_is_left(stage.published)

    published.whole.rename(stage.folder / "together")
    make_repository(stage.kind, stage.folder)
    with faulty_commands(stage.folder) as commands:
        for words in lists:
            stage.succeed(commands, words)
    alone = _in_any_order(state_of(stage.repository))
    assert not differences(together, alone)


def _in_any_order(state: State) -> State:
    """Sort the lists that a publication names, whose order depends on which list was first."""
    for path, data in state.items():
        if path.endswith(layout.PUBLICATION_FILE):
            assert isinstance(data, bytes)
            lists = sorted(re.findall(rb'"([^"]*\.yaml)"', data))
            state[path] = re.sub(rb'"wishLists?": [^\]}]*', b"", data) + repr(lists).encode()
    return state


class Reader(threading.Thread):
    """Walks all images without pause, and records what is incomplete."""

    def __init__(self, root: Path, allowed: dict[str, dict[str, bytes]]) -> None:
        super().__init__()
        self.root = root
        self.allowed = allowed
        self.stop = threading.Event()
        self.walks = 0
        self.complaints: list[str] = []
        self.seen: set[str] = set()

    def run(self) -> None:
        while not self.stop.is_set():
            repository = DirectoryRepository(RepositoryURL("dir", str(self.root)))
            try:
                for name in repository.names():
                    self._look_at(repository, name)
                for path in self.root.glob("local/*"):
                    self._walk(path)
            except OSError as error:
                self.complaints.append(repr(error))
            self.walks += 1

    def _look_at(self, repository: DirectoryRepository, name: str) -> None:
        data = repository.read(layout.manifest_file(name))
        assert data is not None
        for each in parse_published_manifest(data).layers:
            if not repository.exists(layout.layer_tree(each.digest)):
                self.complaints.append(f"{name} names {each.digest}, which is missing")

    def _walk(self, public: Path) -> None:
        # A process that runs in an image has it open: the link may move concurrently.
        top = os.open(public, os.O_RDONLY | os.O_DIRECTORY)
        try:
            image_id = Path(os.readlink(f"/proc/self/fd/{top}")).name
            found = {}
            for folder, _, files, descriptor in os.fwalk(".", dir_fd=top):
                for name in files:
                    path = os.path.normpath(os.path.join(folder, name))
                    if path.startswith((".", "etc", "run", "singularity", "environment")):
                        continue  # made for runtimes
                    with open(os.open(name, os.O_RDONLY, dir_fd=descriptor), "rb") as opened:
                        found[path] = opened.read()
        finally:
            os.close(top)
        self.seen.add(image_id)
        if found != self.allowed.get(image_id):
            self.complaints.append(f"{public} shows {sorted(found)}, which is not an image")


def test_a_continuous_reader_sees_only_whole_images(stage: Stage) -> None:
    base = layer(*(file(f"base{n}", b"base") for n in range(5)))
    images: list[tuple[Image, dict[str, bytes]]] = []
    for number in range(8):
        content = {f"file{n}": f"{number}".encode() * 50 for n in range(number + 3)}
        built = image(base, layer(*(file(name, data) for name, data in content.items())))
        images.append((built, content | {f"base{n}": b"base" for n in range(5)}))
    allowed = {built.image_id.partition(":")[2]: content for built, content in images}
    repository = DirectoryRepository(
        RepositoryURL("dir", str(stage.repository)), writable=True, may_be_new=True
    )
    reader = Reader(stage.repository, allowed)
    reader.start()
    try:
        with Sources() as sources:
            for change in range(CHANGES):
                tag = f"t{change % 3}"
                stage.put(images[change % 8][0], tag)
                wish = wish_for(f"oci:{stage.folder}/layout:{tag}", name="tool")
                report = ingest([Request(wish)], repository, sources, jobs=1)
                assert not report.failed
    finally:
        reader.stop.set()
        reader.join()
        repository.close()
    assert reader.complaints == []
    assert reader.walks > 20
    assert len(reader.seen) == 8


@pytest.fixture
def commands(stage: Stage) -> Iterator[FaultyCommands]:
    with faulty_commands(stage.folder) as running:
        yield running


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_without_hard_links_files_are_copied_and_one_warning_is_printed(
    stage: Stage, commands: FaultyCommands, code: int
) -> None:
    for tag in ("one", "two"):
        stage.put(SECOND, tag)
    ended = commands.run(
        stage.repository, stage.ingest("one", "two"), mode="never", only="link", code=code
    )
    assert ended.code == 0, ended.output
    assert ended.output.count("refused a hard link") == 1, ended.output
    assert ended.output.count("copies") == 1
    flat = stage.repository / layout.flat_image(SECOND.image_id)
    assert (flat / "implied/new").read_bytes() == b"new" * 1000
    assert (flat / "implied/new").stat().st_nlink == 1
    commands.succeed(stage.repository, stage.verify())


def test_the_history_contains_the_changes_of_every_command(
    stage: Stage, commands: FaultyCommands
) -> None:
    stage.put(SECOND, "one")
    commands.succeed(stage.repository, stage.ingest("one"))
    words = ["log", "--image", "local/tool:one", "--output", "json", *stage.place]
    value = json.loads(commands.succeed(stage.repository, words).output)
    [transaction] = value["transactions"]
    assert transaction["changes"][0]["what"] == "published"
    assert transaction["purpose"] == "ingest of local/tool:one"
    none = ["log", "--image", "local/tool:other", "--output", "json", *stage.place]
    assert json.loads(commands.succeed(stage.repository, none).output)["transactions"] == []
