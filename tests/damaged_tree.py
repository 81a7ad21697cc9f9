"""A small tree with a file of every kind, ways to damage one, and the hints that commands print.

The images come from a registry over http, from a layout, and from an archive: the public names
of the last two do not show their source.
"""

from __future__ import annotations

import enum
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher.layers.policy import Policy
from publisher.layers.unpack import unpack
from publisher.repository.directory.repository import DirectoryRepository
from publisher.repository.reading import load_schedule
from publisher.runtimes.podman import format as podman_format
from publisher.times import parse_time
from publisher.tree import layout, podman_store
from publisher.tree.hot_files import HotFile, HotFiles
from publisher.tree.layout import RepositoryURL
from publisher.tree.pins import Pins
from publisher.tree.thin_image import ThinRecord, ThinTerms
from tests.command import Result, run_here
from tests.layer_builder import file, image, layer, opaque, whiteout, write_layout
from tests.registry import OwnRegistry
from tests.transactions.scenarios import copy, quick_directory

BASE = layer(file("etc/os", b"base"), file("gone", b"1"), file("opt/old", b"old"))
TOP = layer(whiteout("gone"), opaque("opt"), file("opt/new", b"new"))
OTHER = layer(file("other", b"other"))
STAGED = layer(file("staged", b"staged"))
PACKED_LAYER = layer(file("packed", b"packed"))
OLD, NEW, WEB, PACKED = image(BASE), image(BASE, TOP), image(BASE, OTHER), image(BASE, PACKED_LAYER)
LATER = image(BASE, STAGED)
"""Not published: an interrupted run has left its layer."""

LOCAL, SECOND, ARCHIVE = "local/tool:one", "local/tool:two", "local/packed:latest"

FILES = (
    "schedule",
    "schedule of the retired",
    "schedule of the published",
    "pins",
    "settings",
    "thin image",
    "hot files",
    "users",
    "users of the scheduled",
    "users of the archive",
    "origin of a shared layer",
    "origin",
    "tar-split data",
    "index of a shared layer",
    "index",
    "file of a layer",
    "runtime file",
    "podman store",
    "podman base",
    "podman images",
    "podman layers",
    "podman manifest",
    "podman lock",
    "podman image lock",
    "podman lower",
    "podman link",
    "history",
    "lock",
    "holder",
    "journal",
    "staged index",
    "staged file",
    *(
        f"{file} from a {place}"
        for file in ("manifest", "config", "publication")
        for place in ("layout", "archive", "registry")
    ),
    "retired manifest.json",
    "retired config.json",
    "retired publication.json",
)
"""The kinds of files that a tree has."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Where everything lies."""

    folder: Path
    registry: OwnRegistry

    @property
    def root(self) -> Path:
        return self.folder / "images"

    @property
    def wishes(self) -> Path:
        return self.folder / "wishes.yaml"

    @property
    def web(self) -> str:
        """The public name of the image from the registry."""
        return f"{self.registry.host}/team/web:1"

    @property
    def names(self) -> list[str]:
        return sorted([LOCAL, SECOND, ARCHIVE, self.web])

    def restore(self) -> None:
        """Make the tree what it was after `begin`."""
        copy(self.folder.parent / "origin", self.root)

    def run(self, *words: str | Path) -> Result:
        """Run a command on the tree, in this process."""
        bare = words[0] in ("init", "check", "inspect")
        place: tuple[str | Path, ...] = () if bare else ("--repository", self.root)
        return run_here(*words, *place, env={"HOME": str(self.folder)})

    def begin(self) -> None:
        """Publish, move a tag, pin, schedule, and leave something staged."""
        for tag, built in (("one", OLD), ("two", NEW)):
            write_layout(built, self.folder / "layout", tag)
        write_layout(LATER, self.folder / "later", "latest")
        archive = self.folder / "packed"
        write_layout(PACKED, archive)
        shutil.make_archive(str(archive), "tar", archive)
        self.registry.add("team/web", "1", WEB)
        wishes = [
            {"image": f"oci:{self.folder}/layout:one", "name": "tool"},
            {
                "image": f"oci:{self.folder}/layout:two",
                "name": "tool",
                "outputs": ["flat", "layers", "podman"],
            },
            {"image": f"{self.registry.url}/team/web:1"},
            {"image": f"oci-archive:{self.folder}/packed.tar:latest"},
        ]
        self.wishes.write_text(json.dumps({"version": 2, "images": wishes}))
        self._succeed("init", self.root, "--limit", "image-bytes=10000000")
        self._succeed("ingest", self.wishes)
        write_layout(NEW, self.folder / "layout", "one")
        # An ingest of the archive would take it off the schedule.
        self.wishes.write_text(json.dumps({"version": 2, "images": wishes[:-1]}))
        self._succeed("ingest", self.wishes)
        self._succeed("pin", SECOND, "--reason", "a paper")
        self._succeed("remove", ARCHIVE)
        terms = ThinTerms(
            "example.org/thin:1", WEB.manifest.digest, ("linux/amd64",), "file:///x", "1.1"
        )
        thin = ThinRecord.of(terms, WEB.manifest.digest, parse_time("2026-01-01T00:00:00Z"))
        (self.root / layout.thin_file(self.web)).write_bytes(thin.to_bytes())
        opened = HotFile("etc/os", len(b"base"))
        traced = HotFiles(NEW.image_id, ("cat",), parse_time("2026-01-01T00:00:00Z"), (opened,))
        hot_files = self.root / layout.hot_files(NEW.image_id)
        hot_files.parent.mkdir(parents=True)
        hot_files.write_bytes(traced.to_bytes())
        repository = DirectoryRepository(
            RepositoryURL.parse(f"dir:{self.root}"), writable=True, may_be_new=True
        )
        with repository.stage_layer(STAGED.digest) as stage:
            with stage.open_files() as files:
                unpack(
                    STAGED.chunks(),
                    STAGED.descriptor,
                    STAGED.diff_id,
                    files.sink,
                    files.index,
                    Policy(),
                )
            stage.finish()
        repository.close()
        assert self.run("verify", "--deep").code == 0

    def _succeed(self, *words: str | Path) -> None:
        result = self.run(*words)
        assert result.code == 0, (words, result)

    def files(self) -> dict[str, Path]:
        """One file of each kind, by a name for it."""
        state = self.root / layout.STATE
        retired = f"{layout.retired_directory(OLD.manifest.digest)}"
        found = {
            "schedule": layout.REMOVE_SCHEDULE,
            "schedule of the retired": layout.retired_schedule(OLD.manifest.digest),
            "schedule of the published": layout.retired_schedule(PACKED.manifest.digest),
            "pins": layout.PINS,
            "settings": layout.REPOSITORY_SETTINGS,
            "thin image": layout.thin_file(self.web),
            "hot files": layout.hot_files(NEW.image_id),
            "users": layout.image_users(NEW.image_id),
            "users of the scheduled": layout.image_users(OLD.image_id),
            "users of the archive": layout.image_users(PACKED.image_id),
            "origin of a shared layer": layout.layer_origin(BASE.digest),
            "origin": layout.layer_origin(TOP.digest),
            "tar-split data": layout.layer_tar_split(BASE.digest),
            "index of a shared layer": layout.layer_index(BASE.digest),
            "index": layout.layer_index(OTHER.digest),
            "file of a layer": f"{layout.layer_tree(BASE.digest)}/etc/os",
            "runtime file": f"{layout.flat_image(NEW.image_id)}/.singularity.d/runscript",
            "podman store": podman_store.PATH,
            "podman base": f"{podman_format.BASE}/diff/run/.containerenv",
            "podman images": f"{layout.PODMAN_STORE}/overlay-images/images.json",
            "podman layers": f"{layout.PODMAN_STORE}/overlay-layers/layers.json",
            "podman manifest": f"{layout.PODMAN_STORE}/overlay-images/{NEW.image_id[7:]}/manifest",
            "podman lock": f"{layout.PODMAN_STORE}/overlay-layers/layers.lock",
            "podman image lock": f"{layout.PODMAN_STORE}/overlay-images/images.lock",
        }
        for what, name in (("layout", LOCAL), ("archive", ARCHIVE), ("registry", self.web)):
            found[f"manifest from a {what}"] = layout.manifest_file(name)
            found[f"config from a {what}"] = layout.config_file(name)
            found[f"publication from a {what}"] = layout.publication_file(name)
        for name in (layout.MANIFEST_FILE, layout.CONFIG_FILE, layout.PUBLICATION_FILE):
            found[f"retired {name}"] = f"{retired}/{name}"
        paths = {what: self.root / path for what, path in found.items()}
        lower = min(self.root.glob(f"{layout.PODMAN_STORE}/overlay/*/lower"))
        paths |= {"podman lower": lower, "podman link": lower.with_name("link")}
        paths |= {"history": state / "history.jsonl", "lock": state / "lock"}
        paths |= {"holder": state / "holder.json", "journal": state / "journal.json"}
        staged = state / "layers" / STAGED.digest[7:]
        paths |= {"staged index": staged / layout.LAYER_INDEX}
        paths |= {"staged file": staged / layout.LAYER_TREE / "staged"}
        return paths


@contextmanager
def prepared_tree() -> Iterator[Tree]:
    """Make a tree, which is damaged and restored any number of times."""
    with quick_directory() as folder, OwnRegistry() as registry:
        tree = Tree(folder / "work", registry)
        tree.folder.mkdir()
        tree.begin()
        copy(tree.root, folder / "origin")
        yield tree


def published(tree: Tree) -> dict[str, bytes]:
    """Everything that must not be lost: manifests and flat images of names, schedule and pins."""
    found = {}
    for name in tree.names:
        found[name] = (tree.root / layout.manifest_file(name)).read_bytes()
        assert (tree.root / name / "etc/os").read_bytes() == b"base"
    repository = DirectoryRepository(RepositoryURL.parse(f"dir:{tree.root}"))
    for entry in load_schedule(repository).entries:
        found[f"scheduled {entry.key}"] = b""
    pins = tree.root / layout.PINS
    for pin in Pins.parse(pins.read_bytes(), "").pins if pins.exists() else ():
        found[f"pinned {pin.name}"] = pin.manifest_digest.encode()
    return found


class Place(enum.StrEnum):
    """What can be in the place of a file."""

    DIRECTORY = "a directory"
    FIFO = "a FIFO"
    DANGLING = "a symbolic link that leads nowhere"

    def make(self, path: Path) -> None:
        """Replace the file at `path`, if there is one."""
        path.unlink(missing_ok=True)
        if self is Place.DIRECTORY:
            path.mkdir()
            (path / "inside").write_bytes(b"1")
        elif self is Place.FIFO:
            os.mkfifo(path)
        else:
            path.symlink_to("nowhere")


Damage = bytes | Place | None
"""The content of a damaged file, or what is in its place; None: it is removed."""


def damages(content: bytes) -> dict[str, Damage]:
    """Return damaged forms of a file with this content, by a name."""
    found: dict[str, Damage] = {
        "cut off": content[: len(content) * 2 // 3],
        "cut off early": content[: len(content) // 5],
        "empty": b"",
        "garbage": b"\x00\xff\xfe garbage \x1b]0;title\x07" * 7,
        "another value": b"5",
        "a list": b"[]",
        "a list of lists": b"[[1, []]]",
        "an empty object": b"{}",
        "deep": b"[" * 100_000,
        "missing": None,
        **{str(place): place for place in Place},
    }
    found |= {name: json.dumps(value).encode() for name, value in _wrong_values(content)}
    return {name: data for name, data in found.items() if data != content}


def _wrong_values(content: bytes) -> Iterator[tuple[str, Any]]:
    try:
        value = json.loads(content)
    except ValueError:
        return
    if isinstance(value, list) and value and isinstance(value[0], dict):
        for key in value[0]:
            yield (
                f"[0].{key} of a wrong type",
                [{**value[0], key: _wrong(value[0][key])}, *value[1:]],
            )
        return
    if not isinstance(value, dict):
        return
    for key in value:
        yield f"{key} of a wrong type", {**value, key: _wrong(value[key])}
        yield f"without {key}", {k: v for k, v in value.items() if k != key}
        inner = value[key]
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            for name in inner[0]:
                entry = {**inner[0], name: _wrong(inner[0][name])}
                yield f"{key}[0].{name} of a wrong type", {**value, key: [entry, *inner[1:]]}
    if "version" in value:
        for version in (99, -1, "1", 1.5, True, None, [1]):
            yield f"version {version!r}", {**value, "version": version}


def _wrong(value: Any) -> Any:
    return {str: 5, int: "five", list: {"a": 1}, dict: [1], bool: "yes"}.get(type(value), [None])


_COMMAND = re.compile(
    r"(?:^|(?<=: )|(?<=&& )|(?<=`))((?:publisher|mv) [^;`()|&]+?)(?= &&|[;`()|]|, |$)"
)


def hints(result: Result) -> list[list[str]]:
    """The commands that a command's `try:` lines name, in their order."""
    found: list[list[str]] = []
    for line in (result.out + "\n" + result.err).splitlines():
        _, colon, text = line.partition("try: ")
        if colon:
            for match in _COMMAND.findall(text):
                words = shlex.split(match)
                if words not in found:
                    found.append(words)
    return found


def follow_hints(tree: Tree, result: Result, *, rounds: int = 6) -> list[list[str]]:
    """Run the hinted commands until `verify --deep` finds nothing; return them, for messages."""
    done: list[list[str]] = []
    for _ in range(rounds):
        commands = hints(result)
        for words in commands:
            done.append(words)
            _follow(tree, words)
        result = tree.run("verify", "--deep", "--quiet")
        if result.code == 0:
            return done
    raise AssertionError(f"after {done}:\n{result.out}\n{result.err}")


def _follow(tree: Tree, words: list[str]) -> None:
    if words[0] == "mv":
        source, target = map(Path, words[1:])
        assert source.is_relative_to(tree.root) and target.is_relative_to(tree.root), words
        source.rename(target)
        return
    words = words[1:]
    if words == ["ingest"]:
        words = ["ingest", str(tree.wishes)]
    result = tree.run(*words)
    assert result.code in (0, 1, 3), (words, result)


Command = Callable[[Tree], tuple[str | Path, ...]]

READING: dict[str, Command] = {
    "verify": lambda t: ("verify",),
    "verify --deep": lambda t: ("verify", "--deep", "--output", "json"),
    "verify --dry-run": lambda t: ("verify", "--deep", "--refetch", "--dry-run"),
    "list": lambda t: ("list",),
    "list --output json": lambda t: ("list", "--output", "json"),
    "show": lambda t: ("show", LOCAL),
    "show --output json": lambda t: ("show", t.web, "--output", "json"),
    "show of the scheduled": lambda t: ("show", ARCHIVE),
    "ls": lambda t: ("ls", LOCAL, "etc"),
    "find": lambda t: ("find", "*o*"),
    "diff": lambda t: ("diff", LOCAL, t.web),
    "plan": lambda t: ("plan", t.wishes),
    "schedule": lambda t: ("schedule",),
    "pins": lambda t: ("pin",),
    "log": lambda t: ("log",),
    "log --output json": lambda t: ("log", "--output", "json", "--image", LOCAL),
    "doctor": lambda t: ("doctor",),
    "gc --dry-run": lambda t: ("gc", "--now", "--dry-run"),
    "gc --orphans --dry-run": lambda t: ("gc", "--orphans", "--dry-run"),
    "prune --dry-run": lambda t: ("prune", t.wishes, "--whole", "--dry-run"),
    "adopt --dry-run": lambda t: ("adopt", "--dry-run"),
    "inspect": lambda t: ("inspect", f"oci:{t.folder}/layout:one"),
    "thin": lambda t: ("thin", SECOND),
    "modulefile": lambda t: ("modulefile", SECOND, t.folder / "modules", "--command", "sh"),
}
"""Commands that change nothing, by a name for each."""

WRITING: dict[str, Command] = {
    "verify --repair": lambda t: ("verify", "--repair"),
    "verify --refetch": lambda t: ("verify", "--deep", "--refetch"),
    "ingest": lambda t: ("ingest", t.wishes),
    "ingest-image": lambda t: ("ingest-image", f"oci:{t.folder}/later:latest"),
    "init": lambda t: ("init", t.root),
    "prune": lambda t: ("prune", t.wishes, "--whole"),
    "gc": lambda t: ("gc", "--now"),
    "gc --orphans": lambda t: ("gc", "--orphans"),
    "remove": lambda t: ("remove", LOCAL),
    "remove --drop-link": lambda t: ("remove", t.web, "--grace", "0d", "--drop-link"),
    "remove --unreadable": lambda t: ("remove", "--unreadable", LOCAL),
    "restore": lambda t: ("restore", ARCHIVE),
    "restore of the retired": lambda t: ("restore", f"{LOCAL}@{OLD.manifest.digest}"),
    "pin": lambda t: ("pin", t.web, "--until", "2030-01-01"),
    "unpin": lambda t: ("unpin", SECOND),
    "adopt": lambda t: ("adopt",),
}
"""Commands that may change the tree."""
