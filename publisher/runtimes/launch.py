"""Commands that run a flat image with bubblewrap, podman or chroot. Pure.

They set the same environment, user, working directory and command as container engines.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence

from publisher.errors import PublisherError, shorten
from publisher.lazy import dataclass
from publisher.oci.config import ContainerConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The PATH that engines set if the image does not."""

_MAX_ID = 2**32 - 2
"""The largest user or group ID: Linux uses 2**32 - 1 for "unchanged"."""


MAX_STRING = 32 * mmap.PAGESIZE - 1
"""The most bytes of an argument, or of a variable with its name. See execve(2)."""

MAX_TOTAL = 6 * 2**20
"""The most bytes of all of them together; the stack limit (ulimit -s) may lower this."""


class CannotRun(PublisherError):
    """An image cannot be run as requested: the image or this machine prevents it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user that a container runs as; `groups` are the supplementary groups."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True, slots=True)
class Start:
    """The parameters for starting a container; `root` is the path of the flat image."""

    root: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    directory: str
    identity: Identity


@dataclass(frozen=True, slots=True)
class _User:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def prepare_start(
    root: str, config: ContainerConfig, given: Sequence[str], passwd: str, group: str
) -> Start:
    """Return how the image is started.

    Args:
        root: The path of the flat image.
        config: The container config of the image.
        given: Replaces the config's command unless it is empty.
        passwd: The content of the image's /etc/passwd, or "".
        group: The content of the image's /etc/group, or "".

    Raises:
        CannotRun: There is nothing to execute, the user does not exist in the image, or a value
            contains a NUL or is too long, so that the kernel cannot pass it to a program.
    """
    arguments = config.arguments(given)
    if not arguments:
        raise CannotRun(
            "cannot run the image",
            why="it has neither entry point nor command",
            hint="publisher run IMAGE -- COMMAND",
        )
    identity = resolve_user(config.user, passwd, group)
    environment = {"PATH": DEFAULT_PATH, "HOME": identity.home, **config.environment}
    _check_strings((*arguments, config.directory), environment)
    return Start(root, arguments, environment, config.directory, identity)


def too_long(start: Start) -> CannotRun:
    """Return the error for a start that the kernel refused because of its size (E2BIG)."""
    size = sum(len(os.fsencode(text)) + 1 for text in _strings(start.arguments, start.environment))
    hint = "ulimit -s unlimited" if size < MAX_TOTAL else "shorten its environment in the image"
    return CannotRun(
        "cannot run the image",
        why=f"its command and environment of {size} bytes are longer than the kernel allows",
        hint=hint,
    )


def _check_strings(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    for text in _strings(arguments, environment):
        if "\0" in text:
            raise CannotRun(
                "cannot run the image",
                why="its command, environment or working directory contains a NUL character",
            )
        size = len(os.fsencode(text))
        if size > MAX_STRING:
            raise CannotRun(
                "cannot run the image",
                why=f"{shorten(text)!r} in its command or environment has {size} bytes; the kernel "
                f"passes at most {MAX_STRING} to a program",
                hint="shorten it in the image: no runtime can pass it on",
            )


def _strings(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return what the kernel copies for a new program."""
    return [*arguments, *(f"{name}={value}" for name, value in environment.items())]


def resolve_user(user: str, passwd: str, group: str) -> Identity:
    """Look up "", "name", "uid", or either with ":group", in the image's files, as runc does.

    An ID need not occur in the files; for a name that does not, CannotRun is raised. If a group is
    given, there are no supplementary groups.
    """
    name, _, group_name = user.partition(":")
    groups = _groups(group)
    found = _find_user(name or "0", user, _users(passwd))
    if group_name:
        return Identity(found.uid, _find_group(group_name, user, groups), (), found.home)
    supplementary = tuple(each.gid for each in groups if found.name in each.members)
    return Identity(found.uid, found.gid, supplementary if found.name else (), found.home)


def bubblewrap(start: Start) -> list[str]:
    """Return the command for bwrap, which needs no privileges; the tree is read-only."""
    command = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc"]
    command += ["--uid", str(start.identity.uid), "--gid", str(start.identity.gid)]
    command += ["--ro-bind", start.root, "/", "--proc", "/proc", "--dev", "/dev"]
    command += ["--tmpfs", "/tmp", "--chdir", start.directory, "--clearenv"]
    for name, value in start.environment.items():
        command += ["--setenv", name, value]
    return [*command, "--", *start.arguments]


def podman(start: Start) -> list[str]:
    """Return the command for podman; changes by the container are discarded."""
    identity = start.identity
    command = ["podman", "run", "--rm", "--network", "host"]
    command += ["--user", f"{identity.uid}:{identity.gid}", "--workdir", start.directory]
    for number in identity.groups:
        command += ["--group-add", str(number)]
    for name, value in start.environment.items():
        command += ["--env", f"{name}={value}"]
    return [*command, "--rootfs", f"{start.root}:O", *start.arguments]


def _find_user(wanted: str, user: str, users: Sequence[_User]) -> _User:
    for each in users:
        if wanted in (each.name, str(each.uid)):
            return each
    uid = _read_id(wanted)
    if uid is None:
        raise _not_found(user, wanted, "/etc/passwd")
    return _User("", uid, 0, "/")


def _find_group(wanted: str, user: str, groups: Sequence[_Group]) -> int:
    for each in groups:
        if wanted in (each.name, str(each.gid)):
            return each.gid
    gid = _read_id(wanted)
    if gid is None:
        raise _not_found(user, wanted, "/etc/group")
    return gid


def _not_found(user: str, wanted: str, file: str) -> CannotRun:
    if wanted.isdecimal():
        return CannotRun(f"cannot run as {user!r}", why=f"{wanted} is larger than {_MAX_ID}")
    return CannotRun(f"cannot run as {user!r}", why=f"the image's {file} has no {wanted!r}")


def _users(passwd: str) -> list[_User]:
    """Return the rows of /etc/passwd that have a user and a group ID; others are ignored."""
    users = []
    for name, _, uid_text, gid_text, _, home, *_ in _rows(passwd, 7):
        uid, gid = _read_id(uid_text), _read_id(gid_text)
        if uid is not None and gid is not None:
            users.append(_User(name, uid, gid, home or "/"))
    return users


def _groups(group: str) -> list[_Group]:
    """Return the rows of /etc/group that have a group ID; others are ignored."""
    groups = []
    for name, _, gid_text, members, *_ in _rows(group, 4):
        gid = _read_id(gid_text)
        if gid is not None:
            groups.append(_Group(name, gid, tuple(members.split(","))))
    return groups


def _read_id(text: str) -> int | None:
    """Return the user or group ID in `text`, or None if it is invalid."""
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(_MAX_ID)):
        return None
    return number if (number := int(text)) <= _MAX_ID else None


def _rows(text: str, columns: int) -> list[list[str]]:
    rows = [line.split(":") for line in text.splitlines()]
    return [row for row in rows if len(row) >= columns]
