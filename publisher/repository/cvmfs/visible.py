"""Whether what was published is there: the server's word is not enough."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from publisher.entry import EntryType
from publisher.repository import RepositoryError
from publisher.repository.cvmfs.changes import Changes
from publisher.repository.cvmfs.pending import Tree
from publisher.tree import layout

if TYPE_CHECKING:
    from publisher.repository.cvmfs.repository import CvmfsRepository


def require_visible(repository: CvmfsRepository, tree: Tree, changes: Changes) -> None:
    """RepositoryError unless what `changes` added is in `tree`, and nothing of what it removed.

    With `repository.verify` the content of new layers is read as well.
    """
    indexes = [layout.layer_index(layer.digest) for layer in changes.layers]
    missing = [
        *(t.path for t in changes.trees if tree.kind(t.path) is not EntryType.DIRECTORY),
        *(path for path in indexes if tree.kind(path) is not EntryType.FILE),
        *(p for p, content in changes.files.items() if tree.read(p) != content),
        *(p for p, text in changes.links.items() if tree.link_text(p) != text),
        *(p for p in changes.removals if tree.kind(p) is not None),
    ]
    if repository.verify:
        missing += [
            f"{layer.digest}: {path}"
            for layer in changes.layers
            for path in _differing(repository, layer.digest)
        ]
    if missing:
        more = f", nor are {len(missing) - 1} others" if len(missing) > 1 else ""
        raise RepositoryError(
            f"cannot find in {repository.url} what was just published",
            why=f"{missing[0]} is not as it should be{more}",
            hint=f"run cvmfs_server check {repository.configuration.name}, and then "
            "publisher verify --repair",
        )


def _differing(repository: CvmfsRepository, digest: str) -> Iterator[str]:
    """The files of a layer whose content, read through the mount, is not what it should be."""
    engine = repository.engine
    tree = repository.configuration.mount / layout.layer_tree(digest)
    with repository.staged(digest).index.open("rb") as index:
        for entry in engine.entries(index):
            if entry.type is not EntryType.FILE:
                continue
            try:
                with (tree / entry.path).open("rb") as file:
                    actual = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                actual = ""
            if actual != entry.sha256:
                yield entry.path
