"""Find a layer in published trees, by chain ID or by layer digest."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from publisher.entry import Entry, EntryType
from publisher.layers.errors import LayerError
from publisher.layers.index import read_index
from publisher.layers.opaque import is_marked_for_root, lacks_marks_for_root, marks_for_root
from publisher.oci.chain import chain_ids
from publisher.oci.digest import is_digest
from publisher.tree import layout

_LOG = logging.getLogger(__name__)


class PublishedTrees:
    """Trees that are mounted on this machine; a layer is taken from the first that has it."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.sees_marks = marks_for_root()
        """Whether this process sees the marks of opaque directories, which takes CAP_SYS_ADMIN."""
        self._roots = tuple(roots)
        self._reported: set[Path] = set()

    def find(self, chain_id: str, digest: str = "", parent_chain: str = "") -> str | None:
        """Return the absolute path of the layer that completes the stack `chain_id`.

        A layer that is found by its digest is used only if its diff ID gives that chain ID: the
        digest and the chain ID come from different documents of the image, and a snapshot with the
        wrong files would be used for every other image with the chain ID. Nor is it used if the
        layers below it, which may be others here, determine a part of its tree. A layer whose
        opaque directories are not marked for root's mounts is never used.

        Args:
            chain_id: The chain ID of the stack, from the client.
            digest: The digest of the layer's blob, if the client sent it.
            parent_chain: The chain ID of the stack below the layer; "" without one.
        """
        if not is_digest(chain_id):
            return None
        for root in self._roots:
            try:
                found = _by_chain(root, chain_id) or _by_digest(
                    root, chain_id, digest, parent_chain
                )
                if found is not None and (_is_cvmfs(root) or self._is_usable(found)):
                    return str(found)
            except OSError as error:
                _LOG.warning("cannot read %s: %s", root, error.strerror or error)
        return None

    def _is_usable(self, tree: Path) -> bool:
        """Return whether root's mounts show a layer as it is."""
        try:
            with (tree.parent / layout.LAYER_INDEX).open("rb") as file:
                if not lacks_marks_for_root(tree, read_index(file)):
                    return True
        except FileNotFoundError:
            return True  # of DUCC, which does not mark directories for users
        except LayerError as error:
            _LOG.warning("cannot check %s: %s", tree, error)
            return True
        if tree not in self._reported:
            self._reported.add(tree)
            why = (
                "it was published without CAP_SYS_ADMIN, so that root's mounts would show files "
                "that its opaque directories hide"
                if self.sees_marks
                else "this process cannot see the marks of its opaque directories"
            )
            _LOG.warning("%s is not used: %s", tree, why)
        return False

    def missing(self) -> list[Path]:
        """Return the roots that have no layers, such as file systems that are not mounted."""
        return [root for root in self._roots if not _is_directory(root / layout.LAYERS)]


def _is_cvmfs(root: Path) -> bool:
    """Return whether a tree is a CVMFS repository, whose layers have whiteouts alone.

    Reading their indexes would fetch megabytes.
    """
    try:
        return bool(os.getxattr(root, "user.fqrn"))
    except OSError:
        return False


def _by_chain(root: Path, chain_id: str) -> Path | None:
    try:
        text = (root / layout.chain_link(chain_id)).readlink()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _LOG.warning("cannot read %s: %s", error.filename, error.strerror)
        return None
    digest = layout.chained_layer(str(text))
    return _tree(root, digest) if digest else None


def _by_digest(root: Path, chain_id: str, digest: str, parent_chain: str) -> Path | None:
    if not is_digest(digest):
        return None
    tree = root / layout.layer_tree(digest)
    try:
        with (root / layout.layer_index(digest)).open("rb") as file:
            index = read_index(file)
            below = [parent_chain] if parent_chain else []
            if chain_ids([*below, index.header.diff_id])[-1] != chain_id:
                _LOG.warning("layer %s does not complete the stack %s", digest, chain_id)
                return None
            if any(_depends_on_lower(tree, entry) for entry in index.special()):
                _LOG.info("layer %s of %s may be another one on other layers", digest, root)
                return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except LayerError as error:
        _LOG.warning("cannot use layer %s of %s: %s", digest, root, error)
        return None
    return _tree(root, digest)


def _depends_on_lower(tree: Path, entry: Entry) -> bool:
    """Return whether a layer's tree may have something else here on other layers; see `fixups`.

    The metadata of an implied root directory are not considered: few layers have an entry for it.
    """
    if entry.opaque:
        return not entry.path or not is_marked_for_root(f"{tree}/{entry.path}")
    is_device = entry.type is EntryType.WHITEOUT and bool(entry.dropped)
    return is_device or entry.is_unresolved or (entry.implicit and bool(entry.path))


def _tree(root: Path, digest: str) -> Path | None:
    tree = root / layout.layer_tree(digest)
    return tree if _is_directory(tree) else None


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False
