"""How a flat image is run by what most machines have: bubblewrap, podman, chroot. Pure.

Each gets environment, user, working directory and command as an engine would give them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from publisher.errors import PublisherError
from publisher.oci.config import ContainerConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What engines search where an image sets no PATH."""


class CannotRun(PublisherError):
    """An image cannot be run as asked, for a reason that lies in it or in this machine."""


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom a container runs; `groups` are the supplementary ones."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True, slots=True)
class Start:
    """Everything that a container is started with, resolved; `root` is the flat image's path."""

    root: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    directory: str
    identity: Identity


def prepare_start(
    root: str, config: ContainerConfig, given: Sequence[str], passwd: str, group: str
) -> Start:
    """How to start the image; `passwd` and `group` are its /etc/passwd and /etc/group."""
    arguments = config.arguments(given)
    if not arguments:
        raise CannotRun(
            "the image says neither entry point nor command",
            hint="name a command: publisher run IMAGE -- COMMAND",
        )
    identity = resolve_user(config.user, passwd, group)
    environment = {"PATH": DEFAULT_PATH, "HOME": identity.home, **config.environment}
    return Start(root, arguments, environment, config.directory, identity)


def resolve_user(user: str, passwd: str, group: str) -> Identity:
    """Who "", "name", "uid" or either with ":group" is by the image's own files, as for runc."""
    name, colon, group_name = user.partition(":")
    rows = [row for row in _rows(passwd, 7) if row[2].isdecimal() and row[3].isdecimal()]
    wanted = name or "0"
    found = next((row for row in rows if wanted in (row[0], row[2])), None)
    if found is None and not wanted.isdecimal():
        raise CannotRun(f"cannot run as {user!r}", why=f"the image's /etc/passwd has no {name!r}")
    uid = int(found[2]) if found else int(wanted)
    gid = int(found[3]) if found else 0
    home = (found[5] if found else "") or "/"
    groups = [row for row in _rows(group, 4) if row[2].isdecimal()]
    if colon and group_name:
        match = next((row for row in groups if group_name in (row[0], row[2])), None)
        if match is None and not group_name.isdecimal():
            raise CannotRun(
                f"cannot run as {user!r}", why=f"the image's /etc/group has no {group_name!r}"
            )
        return Identity(uid, int(match[2]) if match else int(group_name), (), home)
    member = found[0] if found else ""
    more = tuple(int(row[2]) for row in groups if member and member in row[3].split(","))
    return Identity(uid, gid, more, home)


def bubblewrap(start: Start) -> list[str]:
    """The command for bwrap: needs no privilege; the tree is read-only, /tmp is empty."""
    command = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc"]
    command += ["--uid", str(start.identity.uid), "--gid", str(start.identity.gid)]
    command += ["--ro-bind", start.root, "/", "--proc", "/proc", "--dev", "/dev"]
    command += ["--tmpfs", "/tmp", "--chdir", start.directory, "--clearenv"]
    for name, value in start.environment.items():
        command += ["--setenv", name, value]
    return [*command, "--", *start.arguments]


def podman(start: Start) -> list[str]:
    """The command for podman: what the container writes goes to an overlay, and is dropped."""
    identity = start.identity
    command = ["podman", "run", "--rm", "--network", "host"]
    command += ["--user", f"{identity.uid}:{identity.gid}", "--workdir", start.directory]
    for number in identity.groups:
        command += ["--group-add", str(number)]
    for name, value in start.environment.items():
        command += ["--env", f"{name}={value}"]
    return [*command, "--rootfs", f"{start.root}:O", *start.arguments]


def _rows(text: str, columns: int) -> list[list[str]]:
    rows = [line.split(":") for line in text.splitlines()]
    return [row for row in rows if len(row) >= columns]
