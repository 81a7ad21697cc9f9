"""Files in git repositories, over HTTPS, over SSH, or in a local clone.

    git+https://git.example.org/astro/wishes.git//lists/astro.yaml@main
    git+ssh://git@git.example.org/astro/wishes.git//lists/astro.yaml
    git+file:///srv/wishes//lists/astro.yaml@v2

The program git fetches the file with its configured credentials and keys, without prompts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from publisher.lazy import dataclass, pattern
from publisher.wishlist import MAX_BYTES, WishListError

if TYPE_CHECKING:
    import subprocess

GIT_SECONDS = 120.0
"""The time-out of a git command in seconds."""

_LOCATION = pattern(
    r"git\+(?P<url>(?P<scheme>https?|ssh|file)://(?P<host>[^/]*)(?:/[^/]+)+)//(?P<rest>.+)"
)
_REF = pattern(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_OF_REPOSITORY = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"),
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_SHALLOW_FILE"),
)
_USER = pattern(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HOST = pattern(r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class GitFile:
    """A file at a branch, tag or commit of a git repository."""

    location: str
    scheme: str
    url: str
    path: str
    ref: str

    @property
    def identity(self) -> str:
        """The file's location without the revision."""
        return f"git+{self.url}//{self.path}"


def parse_git_location(location: str) -> GitFile:
    """Parse git+SCHEME://HOST/REPOSITORY//PATH[@REF]; raise WishListError if malformed."""
    match = _LOCATION.fullmatch(location)
    if match is None or not _is_host(match["scheme"], match["host"]):
        raise WishListError(
            f"cannot read wish list {_without_password(location)}",
            why="it is not the location of a file in a git repository",
            hint="write git+https://HOST/REPOSITORY.git//PATH@BRANCH, "
            "git+ssh://git@HOST/REPOSITORY.git//PATH, or git+file:///DIRECTORY//PATH",
        )
    path, at, ref = match["rest"].rpartition("@")
    if not at:
        path, ref = match["rest"], "HEAD"
    if not _REF.fullmatch(ref) or ".." in path.split("/"):
        why = f"its path {path!r} has '..'"
        if not _REF.fullmatch(ref):
            why = f"{ref!r} is not a branch, tag or commit"
        raise WishListError(f"cannot read wish list {location}", why=why)
    return GitFile(location, match["scheme"], match["url"], path, ref)


def _is_host(scheme: str, host: str) -> bool:
    """Return whether the host is valid. Only ssh may have a user name; passwords are refused."""
    if scheme == "file":
        return not host
    user, at, host = host.rpartition("@")
    if (at and ":" in user) or (at and scheme != "ssh"):
        raise WishListError(
            f"cannot read a wish list from {host}",
            why="its address has a user name or password, which would end up in records and logs",
            hint="store the password with git's credential helper",
        )
    # A host that begins with "-" would be an option of the ssh program.
    return bool(_HOST.fullmatch(host)) and (not at or bool(_USER.fullmatch(user)))


def _without_password(location: str) -> str:
    head, separator, rest = location.partition("://")
    return (
        f"{head}{separator}{rest.rpartition('@')[2]}"
        if ":" in rest.rpartition("@")[0]
        else location
    )


def read_git_file(file: GitFile) -> bytes:
    """Return the content of the file; raise WishListError if it is unreadable or too large."""
    import tempfile  # loaded for git only: most lists are files

    with tempfile.TemporaryDirectory(prefix="publisher-git-") as directory:
        _git(directory, file, "init", "--quiet", "--bare")
        _git(
            directory,
            file,
            *("fetch", "--quiet", "--depth=1", "--no-tags", "--", file.url, file.ref),
        )
        content = f"FETCH_HEAD:{file.path}"
        size = int(_git(directory, file, "cat-file", "-s", content))
        if size > MAX_BYTES:
            raise _unreadable(file, f"it has {size} bytes, more than {MAX_BYTES}")
        return _git(directory, file, "cat-file", "blob", content)


def _git(directory: str, file: GitFile, *arguments: str) -> bytes:
    settings = {
        "protocol.allow": "never",
        f"protocol.{file.scheme}.allow": "always",
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": "30",
    }
    what = f"cannot read wish list {file.location}"
    done = run_git(directory, what, *arguments, settings=settings)
    if done.returncode:
        cause = error_of_git(done)
        if "dubious ownership" in cause:
            hint = hint_for_ownership(file.url.removeprefix("file://"))
            raise WishListError(what, why=cause, hint=hint)
        raise _unreadable(file, cause)
    return done.stdout


def run_git(
    directory: str, what: str, *arguments: str, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run git in `directory` to its end, without prompts and hooks, whatever its exit status is.

    Args:
        directory: The directory in which git runs.
        what: The `what` of errors ("cannot read …").
        arguments: The command of git and its arguments.
        settings: Values of git's configuration, by name.

    Raises:
        WishListError: git is not installed, or did not end within GIT_SECONDS.
    """
    import subprocess

    pairs = {"core.hooksPath": os.devnull, "core.fsmonitor": "false"} | dict(settings or {})
    options = [word for key, value in pairs.items() for word in ("-c", f"{key}={value}")]
    # `env` changes the environment, which only publisher.cli reads. git sets the removed variables
    # for its hooks, and they would name another repository than that of `directory`.
    environment = (
        "env",
        *(word for name in _OF_REPOSITORY for word in ("-u", name)),
        *("GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=false", "LC_ALL=C"),
        *("SSH_ASKPASS=false", "SSH_ASKPASS_REQUIRE=never"),
    )
    command = [*environment, "git", *options, "-C", directory, *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS,
            check=False,
            start_new_session=True,  # without a terminal, so that ssh does not prompt
        )
    except subprocess.TimeoutExpired as error:
        raise WishListError(what, why=f"git did not end within {GIT_SECONDS:.0f} s") from error
    if done.returncode == 127:
        raise WishListError(what, why="git is not installed", hint="install git")
    return done


def error_of_git(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return why git failed: its first message that is not a warning, or its exit status."""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return _cause(lines) or f"git exited with status {done.returncode}"


def hint_for_ownership(directory: str) -> str:
    """Return the command that lets this user read the repository of another one."""
    return f"git config --global --add safe.directory {directory}"


def _cause(lines: list[str]) -> str:
    """Return git's first message that is not a warning; later ones are advice."""
    return next((line for line in lines if not line.lower().startswith(("warning:", "hint:"))), "")


def _unreadable(file: GitFile, why: str) -> WishListError:
    return WishListError(f"cannot read wish list {file.location}", why=why)
