"""Check that a directory can be read as a repository, or prepare it for publishing."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.repository import RepositoryError
from publisher.repository.disk import PUBLIC_DIRECTORY_MODE
from publisher.tree import layout

if TYPE_CHECKING:
    from publisher.repository.directory.staging import Staging

_ALWAYS_PRESENT = {"lost+found"}


def is_new(root: Path) -> bool:
    """Return whether `root` is empty or missing, so that publishing creates a tree."""
    try:
        return not set(os.listdir(root)) - _ALWAYS_PRESENT
    except FileNotFoundError:
        return root.parent.is_dir()
    except NotADirectoryError:
        return False


def check_readable(root: Path) -> None:
    """Raise RepositoryError unless `root` holds a published tree."""
    for path, why in (
        (root, "the directory does not exist"),
        (root / layout.METADATA, f"it holds no published tree (no {layout.METADATA})"),
    ):
        try:
            found = stat.S_ISDIR(os.stat(path).st_mode)
        except PermissionError as error:
            raise RepositoryError(
                f"cannot read repository {root}",
                why=f"{path}: permission denied",
                hint="run the command as the user who publishes, or make the directory readable",
            ) from error
        except OSError:
            found = False
        if not found:
            raise RepositoryError(
                f"cannot read repository {root}",
                why=why,
                hint="name another directory with --repository, or begin with `publisher init`",
            )


def prepare(root: Path) -> Staging:
    """Make `root` ready to be published into, and begin a session in its staging space.

    Raises:
        RepositoryError: It has foreign content, lies inside a published tree, or cannot be written
            to.
    """
    # Loaded only to write: most commands only read.
    from publisher.repository.directory.abilities import check_file_system, check_process
    from publisher.repository.directory.staging import Staging

    check_process(root)
    _refuse_nested(root)
    _make_root(root)
    try:
        present = set(os.listdir(root)) - _ALWAYS_PRESENT
        if present and not present & {layout.METADATA, layout.LAYERS, layout.FLAT}:
            raise RepositoryError(
                f"cannot use repository {root}",
                why=f"it holds {sorted(present)[0]!r} but no published tree",
                hint="choose an empty directory, so that published files do not mix with others",
            )
        staging = Staging(root)
        try:
            check_file_system(root, staging.new_path())
        except BaseException:
            staging.close()
            raise
        return staging
    except OSError as error:
        raise _unusable(root, error) from error


def _refuse_nested(root: Path) -> None:
    """Raise RepositoryError where a new repository would lie inside a published tree.

    Readers of the outer tree would see the inner one as an image, and `gc` and `verify` of the
    outer one would find unknown names.
    """
    if _is_published_tree(root):
        return
    for parent in Path(os.path.realpath(root)).parents:
        if _is_published_tree(parent):
            raise RepositoryError(
                f"cannot use repository {root}",
                why=f"it lies inside the published tree {parent}",
                hint=f"use {parent}, or a directory outside of it",
            )


def _is_published_tree(directory: Path) -> bool:
    """Return whether the directory has metadata and another part of a published tree."""
    parts = (layout.LAYERS, layout.FLAT, layout.STATE)
    return os.path.isdir(directory / layout.METADATA) and any(
        os.path.isdir(directory / part) for part in parts
    )


def _make_root(root: Path) -> None:
    """Make `root` unless its parent is missing, readable for all users whatever the umask is."""
    try:
        root.mkdir()
        root.chmod(PUBLIC_DIRECTORY_MODE)
    except FileNotFoundError as error:
        raise RepositoryError(
            f"cannot use repository {root}",
            why=f"{root.parent} does not exist",
            hint=f"create it (mkdir -p {root.parent}), or mount the file system that belongs there",
        ) from error
    except FileExistsError as error:
        if not root.is_dir():
            raise _not_a_directory(root, root) from error
    except OSError as error:
        raise _unusable(root, error) from error


def _unusable(root: Path, error: OSError) -> RepositoryError:
    if isinstance(error, NotADirectoryError | FileExistsError):
        return _not_a_directory(root, error.filename)
    if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
        return RepositoryError(
            f"cannot use repository {root}",
            why="its file system does not support file locks, which exclude a second publisher",
            hint="mount it with locks (for NFS: without `nolock`), or choose another file system",
        )
    return RepositoryError(
        f"cannot write to repository {root}",
        why=f"{error.filename or root}: {error.strerror}",
        hint="publish as its owner, with free space and a read-write mount",
    )


def _not_a_directory(root: Path, path: object) -> RepositoryError:
    return RepositoryError(f"cannot use repository {root}", why=f"{path} is not a directory")
