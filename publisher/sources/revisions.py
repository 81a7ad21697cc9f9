"""The earlier version of a wish list that a change is compared with: from git, or a file.

A revision means the commit at which the current branch left it, as in `git diff REVISION...`: what
was merged there in the meantime is not part of the change.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from publisher.lazy import dataclass
from publisher.sources.git import error_of_git, hint_for_ownership, run_git
from publisher.sources.wish_lists import is_remote, read_list_file
from publisher.wishlist import MAX_BYTES, WishListError

_SHORT = 12

_PATHS = ("/", "./", "../")

_SETTINGS = {"safe.bareRepository": "explicit"}
"""A change may add files that make the list's directory a bare repository with its own settings."""


class UnknownBase(WishListError):
    """The version to compare `list` with cannot be found; `base` is the revision or file."""

    def __init__(self, location: str, base: str, *, why: str, hint: str) -> None:
        super().__init__(f"cannot compare {location} with {base}", why=why, hint=hint)
        self.list = location
        self.base = base


@dataclass(frozen=True, slots=True)
class EarlierList:
    """An earlier version of a list; `data` is None if the list did not exist.

    `name` is what it was compared with, for messages. `note` is what a user should know of that, or
    "". `is_file`: it was read from a file, not from git.
    """

    name: str
    data: bytes | None
    note: str = ""
    is_file: bool = False


def earlier_list(location: str, base: str) -> EarlierList:
    """Return the version of the wish list at `location` in `base`.

    Args:
        location: The path of the list.
        base: A revision of the git repository that contains the list, or else a file. A path that
            begins with "/", "./" or "../" is always a file.

    Raises:
        UnknownBase: There is no such file or revision, or the list is not in a git repository.
        WishListError: git is not installed, or does not end.
    """
    is_in_git = not (location == "-" or is_remote(location) or base.startswith(_PATHS))
    # A change may add a file that has the name of the revision: the revision has precedence.
    checkout = _Checkout.of(location, base) if is_in_git else None
    if Path(base).is_file() and not (checkout and checkout.has_base()):
        return EarlierList(f"the file {base}", read_list_file(base), is_file=True)
    if checkout is not None:
        return checkout.earlier_list()
    why = "the list is not a file of a git repository"
    if base.startswith(_PATHS):
        why = f"there is no file {base}"
    elif not (location == "-" or is_remote(location)):
        why = f"{Path(location).resolve().parent} is not in a git repository, and "
        why += f"there is no file {base}"
    hint = "give the earlier version as a file: --base FILE"
    raise UnknownBase(location, base, why=why, hint=hint)


def _passes_symlink(location: str, top: Path) -> bool:
    """Return whether a path leads through a symlink inside of the checkout at `top`.

    A change could otherwise replace one list by a link to another, unnoticed.
    """
    written = Path(os.path.abspath(location))
    for parent in reversed(written.parents):
        if parent.resolve() == top:
            return written.relative_to(parent) != written.resolve().relative_to(top)
    return False


@dataclass(frozen=True, slots=True)
class _Checkout:
    """A wish list in the checkout of a git repository, and the revision to compare it with."""

    location: str
    base: str
    directory: str
    path: str
    """The list, relative to the top of the checkout."""
    is_shallow: bool

    @classmethod
    def of(cls, location: str, base: str) -> _Checkout | None:
        """Return the checkout of the list; None if it is not in a git repository."""
        real = Path(location).resolve()
        directory = str(real.parent)
        what = f"cannot compare {location} with {base}"
        words = ("rev-parse", "--is-shallow-repository", "--show-prefix", "--show-toplevel")
        done = run_git(directory, what, *words, settings=_SETTINGS)
        if done.returncode:
            why, hint = error_of_git(done), "give the earlier version as a file: --base ./FILE"
            if "dubious ownership" in why:
                hint = hint_for_ownership(directory)
            elif "cannot use bare repository" in why:
                hint = "remove the files HEAD, config, objects and refs beside the list"
            elif "not a git repository" in why:
                return None
            raise UnknownBase(location, base, why=why, hint=hint)
        shallow, prefix, top = done.stdout.decode(errors="surrogateescape").split("\n")[:3]
        if _passes_symlink(location, Path(top)):
            why = f"{location} is or passes a symlink, and the earlier version is that of {real}"
            raise UnknownBase(location, base, why=why, hint=f"check {real}")
        return cls(location, base, directory, prefix + real.name, shallow == "true")

    def earlier_list(self) -> EarlierList:
        commit, note = self._commit()
        path = self.path
        name = f"{self.base} ({commit[:_SHORT]})"
        if not self._exists(commit, path):
            path = self._former_path(commit)
            if not path:
                return EarlierList(name, None, note)
            renamed = f"it was {path} there"
            note = f"{note}; {renamed}" if note else renamed
        done = self._git("cat-file", "blob", f"{commit}:{path}")
        if done.returncode:
            raise UnknownBase(
                self.location, self.base, why=error_of_git(done), hint="compare with a file"
            )
        return EarlierList(name, done.stdout[: MAX_BYTES + 1], note)

    def has_base(self) -> bool:
        """Return whether git knows the revision."""
        return bool(self._wanted())

    def _wanted(self) -> str:
        """Return the commit of the revision, or ""."""
        return self._line(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{self.base}^{{commit}}"
        )

    def _commit(self) -> tuple[str, str]:
        """Return the commit to compare with, and a note if it is the revision itself."""
        wanted = self._wanted()
        if not wanted:
            raise self._unknown()
        common = self._line("merge-base", wanted, "HEAD")
        if common:
            return common, ""
        why = "the clone is shallow" if self.is_shallow else "it has no commit in common with HEAD"
        return wanted, f"compared with {self.base} itself, since {why}"

    def _unknown(self) -> UnknownBase:
        why = f"{self.base!r} is neither a file nor a revision that git knows here"
        hint = "`git branch --all` lists the branches; `git fetch --all` fetches new ones"
        if self.is_shallow:
            why += ": the clone is shallow"
            hint = "git fetch --unshallow, or fetch-depth: 0 in the checkout of the workflow"
        return UnknownBase(self.location, self.base, why=why, hint=hint)

    def _exists(self, commit: str, path: str) -> bool:
        return self._git("cat-file", "-e", f"{commit}:{path}").returncode == 0

    def _former_path(self, commit: str) -> str:
        """Return the path from which the list was renamed since `commit`, or ""."""
        # With the index, since git would run the programs of filters on the files of the checkout.
        done = self._git(
            *("diff", "--cached", "--no-ext-diff", "--no-textconv", "--no-relative"),
            *("--name-status", "-z", "--find-renames", "--diff-filter=R", commit),
        )
        words = done.stdout.decode(errors="surrogateescape").split("\0")
        renames = dict(zip(words[2::3], words[1::3], strict=False))
        return renames.get(self.path, "")

    def _line(self, *arguments: str) -> str:
        done = self._git(*arguments)
        return "" if done.returncode else done.stdout.decode().strip()

    def _git(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        what = f"cannot compare {self.location} with {self.base}"
        return run_git(self.directory, what, *arguments, settings=_SETTINGS)
