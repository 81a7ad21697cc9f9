"""Run a published flat image on this machine: the use case behind `publisher run`."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from publisher.oci.config import ImageConfig, parse_config
from publisher.repository import Repository
from publisher.repository.damaged import read_damaged
from publisher.repository.descriptors import Directories
from publisher.repository.published import find_name, load_image
from publisher.repository.settings import mount_point
from publisher.runtimes import launch
from publisher.runtimes.launch import CannotRun, Start
from publisher.tree import layout
from publisher.tree.record import Unreadable

WAYS = ("bwrap", "podman", "chroot")


def plan_run(
    repository: Repository,
    text: str,
    given: Sequence[str],
    *,
    entrypoint: bool = True,
    tree: Path | None = None,
) -> Start:
    """Return how the image `text` is started.

    Args:
        repository: Contains the image.
        text: A published name, or an image reference.
        given: Replaces the image's command; may be empty.
        entrypoint: False to let `given` replace the image's entry point as well.
        tree: The directory with the published tree; by default, where clients mount it.

    Raises:
        CannotRun: The image has no flat image, no usable config, or nothing to execute.
        NotPublished: There is no such image.
    """
    name, config = published_config(repository, text)
    found = load_image(repository, name)
    assert found.manifest is not None  # its config was read by it
    root = (tree or mount_point(repository.url)) / layout.flat_image(found.manifest.image_id)
    if not root.is_dir():
        raise CannotRun(
            f"cannot run {name}",
            why="it is published without a flat image",
            hint="add flat to the outputs of its wish, and ingest it",
        )
    with Directories(root) as directories:
        passwd, group = (_read_inside(directories, file) for file in ("passwd", "group"))
    container = config.container
    if not entrypoint:
        container = replace(container, entrypoint=())
    return launch.prepare_start(str(root), container, given, passwd, group)


def published_config(repository: Repository, text: str) -> tuple[str, ImageConfig]:
    """Return the name under which `text` is published, and the image's config."""
    name = find_name(repository, text)
    found = load_image(repository, name)
    data = read_damaged(repository, layout.config_file(name))
    if found.manifest is None or not data:
        why = f"its config: {data.why}" if isinstance(data, Unreadable) else "its config is missing"
        raise CannotRun(
            f"cannot use {name}",
            why=found.problem or why,
            hint="publish it again",
        )
    return name, parse_config(data, found.manifest.image_id)


def choose_way(wanted: str, available: Collection[str]) -> str:
    """Return the first of WAYS that this machine has, or `wanted` if it has that."""
    ways = [way for way in WAYS if wanted in ("auto", way)]
    for way in ways:
        if way in available or (way == "chroot" and os.geteuid() == 0):
            return way
    tools = ", ".join(way for way in ways if way != "chroot")
    raise CannotRun(
        "cannot run the image here",
        why=f"not installed: {tools}" if tools else "chroot requires root",
        hint="apt-get install bubblewrap, or run as root",
    )


def start_by(way: str, start: Start) -> NoReturn:
    """Replace this process by the container.

    Raises:
        CannotRun: The kernel, or a missing program, prevents it.
    """
    command = [start.arguments[0]]
    try:
        if way == "chroot":
            _enter(start)
        command = launch.bubblewrap(start) if way == "bwrap" else launch.podman(start)
        os.execvp(command[0], command)
    except OSError as error:
        if error.errno == errno.E2BIG:
            raise launch.too_long(start) from error
        raise CannotRun(f"cannot start {command[0]!r}", why=error.strerror or str(error)) from error


def _enter(start: Start) -> NoReturn:
    os.chroot(start.root)
    os.chdir(start.directory)
    os.setgroups(start.identity.groups)
    os.setgid(start.identity.gid)
    os.setuid(start.identity.uid)
    os.execvpe(start.arguments[0], start.arguments, start.environment)


def _read_inside(directories: Directories, name: str) -> str:
    """Return the content of a file of the image's /etc; "" if it is missing, or not a file."""
    try:
        file = directories.open_file(f"etc/{name}")
    except OSError:
        return ""  # users are then looked up by number only
    with io.TextIOWrapper(file, errors="surrogateescape") as text:
        return text.read()
