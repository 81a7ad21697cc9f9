"""A store for Podman as releases before the format's version 2 wrote it.

`tests/podman_store_1.json` has every path of one, with the text of a file or of a link. It was
written by the release at commit 5d22c9d, from the repository's root:

    git worktree add /tmp/old 5d22c9d && cp tests/old_podman_store.py /tmp/old/tests
    cd /tmp/old && PYTHON -m tests.old_podman_store > NEW/tests/podman_store_1.json
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from publisher.ingest.run import ingest
from publisher.oci.reference import parse_reference
from publisher.repository.directory.repository import DirectoryRepository
from publisher.sources.open import Sources
from publisher.tree.layout import PODMAN_STORE, RepositoryURL
from publisher.wishlist import Wish
from publisher.wishlist.model import Request
from tests.layer_builder import Image, file, image, layer, whiteout, write_layout

STORE = Path(__file__).with_name("podman_store_1.json")

_BASE = layer(file("base", b"base"), file("gone", b"gone"), compression="none")
_MIDDLE = layer(whiteout("gone"), file("middle", b"middle"), compression="none")

BEFORE = image(_BASE, _MIDDLE, layer(file("top", b"before"), compression="none"))
"""The first image under the name `layered`, which has left it: the store has it without a name."""

LAYERED = image(_BASE, _MIDDLE, layer(file("top", b"after"), compression="none"))
FLAT = image(_BASE, layer(file("flat", b"flat"), compression="none"))
IMAGES: Sequence[tuple[str, Image, tuple[str, ...]]] = (
    ("layered", BEFORE, ("flat", "layers", "podman")),
    ("layered", LAYERED, ("flat", "layers", "podman")),
    ("flat", FLAT, ("flat", "podman")),
)
"""What was published, in this order: name, image, outputs."""


def publish_images(folder: Path, tree: Path) -> None:
    """Publish `IMAGES` in `tree`; `folder` is for their layouts."""
    repository = DirectoryRepository(
        RepositoryURL("dir", str(tree)), writable=True, may_be_new=True
    )
    try:
        with Sources() as sources:
            for name, built, outputs in IMAGES:
                layout = folder / name
                shutil.rmtree(layout, ignore_errors=True)
                reference = parse_reference(f"oci:{write_layout(built, layout, '1')}:1")
                wish = Wish(reference, outputs=outputs, name=name)
                report = ingest([Request(wish)], repository, sources)
                assert not report.failed, report.failed[0].error
    finally:
        repository.close()


def restore(tree: Path) -> None:
    """Replace the store in `tree`, which has `IMAGES`, by the old one."""
    store = tree / PODMAN_STORE
    shutil.rmtree(store)
    for path, (kind, text) in json.loads(STORE.read_bytes()).items():
        place = store / path
        if kind == "directory":
            place.mkdir(parents=True)
        elif kind == "link":
            place.symlink_to(text)
        else:
            place.write_text(text)


def describe(store: Path) -> dict[str, tuple[str, str]]:
    """Return every path in `store`: its kind, and the text of a file or of a link."""
    found = {"": ("directory", "")}
    for folder, names, files in os.walk(store):
        for name in sorted([*names, *files]):
            place = Path(folder, name)
            path = place.relative_to(store).as_posix()
            if place.is_symlink():
                found[path] = ("link", os.readlink(place))
            elif place.is_dir():
                found[path] = ("directory", "")
            else:
                found[path] = ("file", place.read_text())
    return dict(sorted(found.items()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        publish_images(Path(work), Path(work, "tree"))
        described = describe(Path(work, "tree", PODMAN_STORE))
        lines = [f"{json.dumps(path)}: {json.dumps(value)}" for path, value in described.items()]
        print("{\n" + ",\n".join(lines) + "\n}")
