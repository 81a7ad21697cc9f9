"""Options that several commands share, and what they are turned into."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from publisher.cli.failures import UsageError
from publisher.errors import PublisherError
from publisher.layers import replay
from publisher.oci.platform import Platform
from publisher.repository import Repository
from publisher.repository.cvmfs.configuration import CONFIGURATION
from publisher.repository.cvmfs.repository import STATE, CvmfsRepository
from publisher.repository.cvmfs.spool import DEFAULT_LIMIT
from publisher.repository.directory.repository import DEFAULT_WAIT, DirectoryRepository
from publisher.tree.layout import RepositoryURL

_F = TypeVar("_F", bound=Callable[..., Any])

output_option = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print the result. JSON has a documented, versioned form: see docs/output.md.",
)
repository_option = click.option(
    "--repository",
    metavar="URL",
    envvar="PUBLISHER_REPOSITORY",
    show_envvar=True,
    help="The published filesystem: dir:PATH (or just a path), or cvmfs:NAME.",
)
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="How many images, and how many layers, to work on at a time.",
)
wait_option = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=DEFAULT_WAIT,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait while another publisher changes the repository.",
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print failures only.")


def platform_option(default: tuple[str, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--platform`, as the parameter `platforms`."""
    return click.option(
        "--platform",
        "platforms",
        multiple=True,
        metavar="OS/ARCH[/VARIANT]",
        default=default,
        show_default=bool(default),
        help="A platform, such as linux/arm64; may be given several times.",
    )


def read_platforms(texts: Sequence[str]) -> tuple[Platform, ...]:
    """The platforms that the options name; UsageError for what is none."""
    try:
        return tuple(Platform.parse(text) for text in texts)
    except ValueError as error:
        raise UsageError("cannot use --platform", why=str(error)) from error


def debug_option(command: _F) -> _F:
    """`--debug`: log what is asked of registries, and with what result, to stderr."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_set_up_logging,
        help="Log every request and step to stderr. Never shows a secret.",
    )(command)


def _set_up_logging(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if value:
        logging.getLogger("publisher").setLevel(logging.DEBUG)


def open_repository(
    text: str | None,
    *,
    writable: bool = False,
    may_be_new: bool = False,
    wait: float = DEFAULT_WAIT,
    verify: bool = False,
) -> Repository:
    """The repository that a URL names; UsageError if none was given.

    `may_be_new`: for reading, accept a directory that publishing would begin.
    `verify` asks a CVMFS repository to read back what it publishes.
    """
    if not text:
        raise UsageError(
            "no repository was given",
            hint="use --repository dir:/srv/images, or set PUBLISHER_REPOSITORY",
        )
    try:
        url = RepositoryURL.parse(text)
    except PublisherError as error:
        raise UsageError(error.what, why=error.why, hint=error.hint) from error
    if url.kind == "cvmfs":
        return CvmfsRepository(
            url,
            replay,
            writable=writable,
            wait=wait,
            on_wait=_say,
            verify=verify,
            spool=_spool_limit(),
            state=Path(os.environ.get("PUBLISHER_STATE", STATE)),
            configuration=Path(os.environ.get("PUBLISHER_CVMFS_CONFIGURATION", CONFIGURATION)),
        )
    return DirectoryRepository(
        url, writable=writable, may_be_new=may_be_new, wait=wait, on_wait=_say
    )


def _spool_limit() -> int:
    """How much may wait to be published, in bytes, from PUBLISHER_SPOOL_LIMIT."""
    text = os.environ.get("PUBLISHER_SPOOL_LIMIT", "").strip()
    if not text:
        return DEFAULT_LIMIT
    found = re.fullmatch(r"(\d+)([kMGT]?)B?", text)
    if found is None:
        raise UsageError(
            "cannot use PUBLISHER_SPOOL_LIMIT",
            why=f"{text!r} is not a size",
            hint="write bytes, or 500M, 20G, 1T (powers of 1000)",
        )
    return int(found[1]) * int(1000 ** " kMGT".index(found[2] or " "))


def _say(text: str) -> None:
    click.echo(f"publisher: {text}", err=True)


def print_json(kind: str, value: dict[str, Any]) -> None:
    """Print a result document; `kind` names its schema and version, such as "list/1"."""
    click.echo(json.dumps({"schema": f"publisher/{kind}", **value}, indent=1))


def human_size(count: float) -> str:
    """Bytes for people: "999 B", "48.2 MB" (powers of 1000, as disks and networks are sold)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def plural(count: int, noun: str) -> str:
    """ "1 layer", "2 layers"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
