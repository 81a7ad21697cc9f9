"""Small repositories and the commands that change them, for tests that interrupt those commands."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from publisher.runtimes.squashfs_file import PROGRAM
from publisher.tree import layout
from tests.any_repository import AnyRepository, find_repository, make_repository
from tests.components import require
from tests.gathering import GATHER
from tests.layer_builder import (
    Image,
    directory,
    file,
    hardlink,
    image,
    layer,
    opaque,
    symlink,
    whiteout,
    write_layout,
)
from tests.transactions.client import Ended, FaultyCommands
from tests.trees import Node, describe_tree

BASE = layer(
    directory("etc", mtime_ns=10**18),
    file("etc/motd", b"hello", mtime_ns=10**18),
    file("gone", b"x", mode=0o600),
    symlink("link", "etc/motd"),
)
TOP = layer(
    whiteout("gone"),
    opaque("opt"),
    file("implied/new", b"new" * 1000, uid=5, gid=6),
    hardlink("implied/again", "implied/new"),
    hardlink("from-below", "etc/motd"),
)
FIRST, SECOND = image(BASE), image(BASE, TOP)

_OF_THE_SERVER = (".cvmfscatalog", "new_repository")
_TIMES = re.compile(
    rb'"(publishedAt|scheduledAt|notBefore|pinnedAt|latest)": "[^"]*"|^T\d+$', re.MULTILINE
)
_CONTENT = re.compile(rf"/{layout.LAYER_TREE}|(^|/){layout.FLAT}/../")
_LOGS = re.compile(rf"(^|/){layout.STATE}/(holder|history)|^standin\.log$")


@contextmanager
def quick_directory() -> Iterator[Path]:
    """A temporary directory in memory, where syncing is cheap and does not disturb other tests."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path)


@dataclass(frozen=True, slots=True)
class Stage:
    """The place of a scenario: images in a layout, a repository, and the number of workers."""

    folder: Path
    kind: str = "directory"
    workers: int = 0

    @property
    def published(self) -> AnyRepository:
        return find_repository(self.kind, self.folder)

    @property
    def repository(self) -> Path:
        """The directory at which the repository is read."""
        return self.published.root

    def begin(self) -> None:
        """Create the folder with the files that a publisher needs."""
        self.folder.mkdir()
        make_repository(self.kind, self.folder)

    def run(
        self,
        commands: FaultyCommands,
        *words: Sequence[str | Path],
        mode: str = "count",
        at: int = 0,
        code: int = 0,
        copies: Collection[int] = (),
    ) -> Ended:
        """Run commands in this place, and wait for server processes that outlive them."""
        published = self.published
        ended = commands.run(
            published.whole,
            *words,
            mode=mode,
            at=at,
            code=code,
            copies=copies,
            env={**published.env, "PUBLISHER_WORKERS": str(self.workers)},
        )
        published.wait_for_server()
        return ended

    def succeed(self, commands: FaultyCommands, *words: Sequence[str | Path]) -> Ended:
        """Run commands that must all end with 0."""
        ended = self.run(commands, *words)
        assert ended.code == 0, ended.output
        return ended

    def put(self, built: Image, tag: str) -> None:
        """Let `tag` be this image."""
        write_layout(built, self.folder / "layout", tag)

    def ingest(
        self,
        *tags: str,
        bare: Sequence[str] = (),
        squashed: Sequence[str] = (),
        billed: Sequence[str] = (),
        together: bool = False,
    ) -> list[str]:
        """The command that publishes these tags by a wish list.

        Those in `bare` are published as layers only, those in `squashed` also as squashfs files,
        those in `billed` with bills of materials; `together` all by one commit.
        """
        if squashed:
            require(PROGRAM)
        wishes = self.folder / f"{'-'.join(tags)}.yaml"
        wished = [
            {
                "image": f"oci:{self.folder}/layout:{tag}",
                "name": "tool",
                "grace": "0d",
                "outputs": [
                    *([] if tag in bare else ["flat"]),
                    "layers",
                    *(["squashfs"] if tag in squashed else []),
                    *(["sbom"] if tag in billed else []),
                ],
            }
            for tag in tags
        ]
        wishes.write_text(json.dumps({"version": 2, "images": wished}))
        if together:
            jobs = str(len(tags))
            return [GATHER, jobs, "ingest", str(wishes), "--jobs", jobs, *self.place]
        return ["ingest", str(wishes), "--jobs", "1", *self.place]

    def publish(self, built: Image) -> list[str]:
        """The command that publishes an image under a name that all images have in common."""
        source = write_layout(built, self.folder / built.image_id[-8:], "1")
        wishes = source / "wishes.yaml"
        wished = {"image": f"oci:{source}:1", "name": "tool", "grace": "0d"}
        wishes.write_text(json.dumps({"version": 2, "images": [wished]}))
        return ["ingest", str(wishes), "--jobs", "1", "--quiet", *self.place]

    def verify(self, *options: str) -> list[str]:
        return ["verify", "--deep", "--quiet", *options, *self.place]

    @property
    def place(self) -> list[str]:
        return ["--repository", self.published.url]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A change of a repository: its initial state, and the command that changes it."""

    name: str
    prepare: Callable[[Stage, FaultyCommands], None]
    command: Callable[[Stage], list[str]]


def _two_new_images(stage: Stage, commands: FaultyCommands) -> None:
    stage.put(FIRST, "one")
    stage.put(SECOND, "two")


def _one_of_two_images(stage: Stage, commands: FaultyCommands) -> None:
    stage.put(image(BASE, layer(file("old"))), "one")
    stage.succeed(commands, stage.ingest("one", billed=["one"]))
    stage.put(FIRST, "one")
    stage.put(SECOND, "two")


def _moved_tag(stage: Stage, commands: FaultyCommands) -> None:
    stage.put(FIRST, "one")
    stage.succeed(commands, stage.ingest("one", squashed=["one"], billed=["one"]))
    stage.put(SECOND, "one")


def published(stage: Stage, commands: FaultyCommands) -> None:
    """Two images that share a layer."""
    _two_new_images(stage, commands)
    stage.succeed(commands, stage.ingest("one", "two", billed=["two"]))


def _repairable(stage: Stage, commands: FaultyCommands) -> None:
    published(stage, commands)
    root = stage.repository
    (root / layout.flat_image(SECOND.image_id) / "gone").write_text("should not be here")
    (root / layout.layer_index(BASE.digest)).unlink()
    (root / layout.layer_origin(TOP.digest)).write_text("{}")
    (root / "local/tool:two").unlink()
    (root / layout.sbom_files("local/tool:two")[0]).unlink()


def _refetchable(stage: Stage, commands: FaultyCommands) -> None:
    published(stage, commands)
    root = stage.repository
    (root / layout.layer_tree(TOP.digest) / "implied/new").write_bytes(b"bad" * 1000)
    (root / layout.config_file("local/tool:one")).unlink()


def _unwished(stage: Stage, commands: FaultyCommands) -> None:
    """A wish list that no longer has one of its two images."""
    published(stage, commands)
    both = stage.folder / "one-two.yaml"
    wishes = json.loads(both.read_text())
    wishes["images"].pop()
    both.write_text(json.dumps(wishes))


def _due(stage: Stage, commands: FaultyCommands) -> None:
    """Something to collect: an image whose tag has moved, another that is no longer requested."""
    _two_new_images(stage, commands)
    stage.succeed(commands, stage.ingest("one", "two", squashed=["one"], billed=["one", "two"]))
    stage.put(SECOND, "one")
    stage.succeed(commands, stage.ingest("one", squashed=["one"]), _prune(stage))


def _prune(stage: Stage) -> list[str]:
    return ["prune", str(stage.folder / "one.yaml"), "--whole", "--yes-really", *stage.place]


SCENARIOS = [
    Scenario(
        "two new images", _two_new_images, lambda stage: stage.ingest("one", "two", bare=["one"])
    ),
    Scenario(
        "a moved tag and a new image together",
        _one_of_two_images,
        lambda stage: stage.ingest("one", "two", billed=["one", "two"], together=True),
    ),
    Scenario(
        "moved tag", _moved_tag, lambda stage: stage.ingest("one", squashed=["one"], billed=["one"])
    ),
    Scenario("repair", _repairable, lambda stage: stage.verify("--repair")),
    Scenario(
        "prune",
        _unwished,
        lambda stage: ["prune", f"{stage.folder}/one-two.yaml", "--yes-really", *stage.place],
    ),
    Scenario("gc", _due, lambda stage: ["gc", "--now", *stage.place]),
    Scenario("refetch", _refetchable, lambda stage: stage.verify("--refetch")),
]


def copy(source: Path, target: Path) -> None:
    """`target` becomes a copy of the repository `source`, which may not exist."""
    subprocess.run(["rm", "-rf", str(target)], check=True)
    if source.exists():
        subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def replace_by(source: Path, target: Path) -> None:
    """Move the repository `source`, which may not exist, to `target`."""
    subprocess.run(["rm", "-rf", str(target)], check=True)
    if source.exists():
        source.rename(target)


State = dict[str, Node | bytes]


def state_of(root: Path) -> State:
    """Everything that readers can see, except the time of publication."""
    if not root.exists():
        return {}
    state: State = {}
    # In CVMFS a hard link is a name with the same content only.
    has_links = not (root / layout.METADATA / ".cvmfscatalog").exists()
    for path, node in describe_tree(root).items():
        if path.startswith(layout.STATE) or path.rpartition("/")[2] in _OF_THE_SERVER:
            continue
        if node.type == "d" and not path.startswith((f"{layout.LAYERS}/", f"{layout.FLAT}/")):
            continue  # an empty directory of the publisher has no meaning
        seen = tuple(p for p in node.links if has_links and not p.startswith(layout.STATE))
        node = replace(node, links=seen if len(seen) > 1 else ())
        is_content = "/layerfs" in path or path.startswith(layout.FLAT)
        if not is_content and path.endswith(".json"):
            state[path] = _TIMES.sub(rb"", (root / path).read_bytes())
        else:
            state[path] = node if is_content else replace(node, mtime_ns=0)
    return {path: node for path, node in state.items() if not _is_shard(path)}


def fingerprint(root: Path) -> bytes:
    """A hash of all files of a repository, also its own and its server's, except times and logs.

    A repository that does not exist yet has the hash of no files.
    """
    found = hashlib.sha256()
    nodes = describe_tree(root) if root.exists() else {}
    for path, node in sorted(nodes.items()):
        node = node if _CONTENT.search(path) else replace(node, mtime_ns=0)
        if _LOGS.search(path):
            node = replace(node, size=0, sha256="")
        elif path.endswith((".json", ".cvmfspublished")):
            content = _TIMES.sub(rb"", (root / path).read_bytes())
            node = replace(node, size=0, sha256=content.decode())
        found.update(f"{path!r} {node!r}\n".encode())
    return found.digest()


def _is_shard(path: str) -> bool:
    return path.count("/") <= 1 and path.startswith((layout.LAYERS, layout.FLAT))


def differences(
    actual: Mapping[str, Node | bytes], expected: Mapping[str, Node | bytes]
) -> list[str]:
    """The paths that differ."""
    paths = actual.keys() | expected.keys()
    return sorted(path for path in paths if actual.get(path) != expected.get(path))


def assert_nothing_is_left(published: AnyRepository) -> None:
    """No journal, no abandoned session, no trash: a finished command leaves no work."""
    state = published.state
    for name in ("journal.json", "pending.json", "server-command.json"):
        assert not (state / name).exists()
    for name in ("sessions", "trash", "layers", "blobs"):
        assert not list(state.glob(f"{name}/*")), f"{name} is not empty"
    if published.machine is not None:
        assert b"transaction" not in published.machine.server("list").stdout


def assert_readers_are_served(root: Path) -> None:
    """No public link is dangling, and the content of every manifest exists."""
    for folder, directories, files in os.walk(root):
        here = Path(folder)
        if here == root:
            directories[:] = [name for name in directories if not name.startswith(".")]
        for name in (*directories, *files):
            path = here / name
            assert not path.is_symlink() or path.exists(), f"{path} is dangling"
    for manifest in (root / layout.METADATA).glob("local/*/manifest.json"):
        value = json.loads(manifest.read_bytes())
        for entry in value["layers"]:
            assert (root / layout.layer_tree(entry["digest"])).is_dir(), f"{manifest} lacks content"


def warm_up(commands: FaultyCommands, folder: Path) -> None:
    """Run each scenario once, so that the server has loaded everything."""
    stage = Stage(folder)
    stage.begin()
    stage.put(SECOND, "warm")
    commands.run(stage.repository, stage.ingest("warm"), stage.verify(), mode="warm up")
