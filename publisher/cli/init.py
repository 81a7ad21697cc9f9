"""`publisher init`."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import click

from publisher.cli.failures import UsageError
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, wait_option
from publisher.cli.rendering import echo, message, print_json
from publisher.cli.repositories import open_repository
from publisher.layers.policy import NO_OWNER, Limits, Policy, changed_limits, policy_values
from publisher.repository.settings import client_mount
from publisher.runtimes.podman.conversion import outdated as store_outdated
from publisher.tree.settings import is_mount
from publisher.verify.initialize import current_policy, initialize

_LIMITS = {each.name.replace("_", "-"): each.name for each in fields(Limits)}


@click.command()
@click.argument("url", metavar="REPOSITORY")
@click.option(
    "--setuid",
    type=click.Choice(["drop", "keep"]),
    help="Set-user-ID and set-group-ID bits, and file capabilities. Keep them only if every "
    "machine mounts the tree nosuid.  [default: drop]",
)
@click.option(
    "--owner",
    metavar="keep|UID:GID",
    help="The owner of published files: as in each image, or one for all.  [default: keep]",
)
@click.option(
    "--devices", type=click.Choice(["drop", "keep"]), help="Device nodes.  [default: drop]"
)
@click.option(
    "--xattrs",
    type=click.Choice(["drop", "keep"]),
    help="Extended attributes user.*; all others are always dropped.  [default: keep]",
)
@click.option(
    "--writable",
    type=click.Choice(["drop", "keep"]),
    help="Write permission of group and others. Keep it only if no ordinary user can reach the "
    "tree on the publishing host.  [default: drop for directories, keep for CVMFS]",
)
@click.option(
    "--readable/--as-in-image",
    default=None,
    help="Make every file and directory readable to all users.  [default: as in the image]",
)
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=NUMBER",
    help=f"Refuse layers and images beyond the limit: {', '.join(_LIMITS)}. Repeatable.",
)
@click.option(
    "--mount",
    metavar="PATH",
    help="Where clients mount the repository, for the links in the podman store and the paths in "
    'module files; "own" for its own path.  [default: the directory, or /cvmfs/NAME]',
)
@wait_option
@output_option
@log_options
def init(
    url: str,
    setuid: str | None,
    owner: str | None,
    devices: str | None,
    xattrs: str | None,
    writable: str | None,
    readable: bool | None,
    limits: tuple[str, ...],
    mount: str | None,
    wait: float,
    output: str,
) -> None:
    """Prepare REPOSITORY and set its policy: what of images may appear in it, and its mount.

    A repository can be used without this command. Settings whose options are not given do not
    change; damaged settings are replaced by the defaults. A new policy applies to layers that are
    unpacked afterwards.

    \b
    publisher init dir:/srv/images --readable
    publisher init dir:/srv/images --setuid keep --limit layer-bytes=100000000000
    publisher init dir:/export/images --mount /srv/images
    """
    repository = open_repository(url, writable=True, may_be_new=True, wait=wait)
    try:
        given: dict[str, Any] = {
            "setuid": setuid,
            "devices": devices,
            "xattrs": xattrs,
            "writable": writable,
            "readable": readable,
        }
        policy, problem = current_policy(repository)
        policy = replace(policy, **{key: v for key, v in given.items() if v is not None})
        if owner is not None:
            policy = replace(policy, owner=_owner(owner))
        policy = replace(policy, limits=replace(policy.limits, **dict(map(_limit, limits))))
        changed = initialize(repository, policy, None if mount is None else _mount(mount))
        clients, outdated = client_mount(repository), store_outdated(repository)
    finally:
        repository.close()
    if problem:
        message(f"{problem}; the settings of the repository were replaced by the following")
    if output == "json":
        document = {"changed": changed, "policy": policy_values(policy), "mount": clients}
        print_json("init/1", document)
    else:
        echo("initialized" if changed else "nothing to change")
        _print_policy(policy)
        echo(f"  mount:    {clients}")
    if outdated:
        message(
            f"the podman store has to be converted: {outdated}; the next ingest does it, "
            "or publisher verify --repair"
        )


def _mount(text: str) -> str:
    if text == "own":
        return ""
    if not is_mount(text):
        raise UsageError(
            f"cannot use --mount {text}",
            why="it is not an absolute path in normal form",
            hint='write a path like /srv/images, or "own"',
        )
    return text


def _owner(text: str) -> tuple[int, int] | None:
    if text == "keep":
        return None
    user, colon, group = text.partition(":")
    if not (colon and user.isdecimal() and group.isdecimal()):
        raise UsageError(f"cannot use --owner {text}", hint="write keep, or UID:GID in numbers")
    owner = int(user), int(group)
    if max(owner) >= NO_OWNER:
        raise UsageError(
            f"cannot use --owner {text}", why=f"the largest user or group ID is {NO_OWNER - 1}"
        )
    return owner


def _limit(text: str) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if name not in _LIMITS or not equals or not number.isdecimal():
        raise UsageError(
            f"cannot use --limit {text}",
            hint=f"write NAME=NUMBER, NAME one of {', '.join(_LIMITS)}",
        )
    return _LIMITS[name], int(number)


def _print_policy(policy: Policy) -> None:
    owner = "each image's own" if policy.owner is None else "{}:{}".format(*policy.owner)
    echo(f"  setuid:   {policy.setuid}")
    echo(f"  owner:    {owner}")
    echo(f"  devices:  {policy.devices}")
    echo(f"  xattrs:   {policy.xattrs} (user.*)")
    echo(f"  readable: {'for all users' if policy.readable else 'as in the image'}")
    echo(f"  writable: {policy.writable or 'keep for CVMFS, else drop'}")
    for name, value in changed_limits(policy.limits).items():
        echo(f"  limit:    {name.replace('_', '-')}={value}")
