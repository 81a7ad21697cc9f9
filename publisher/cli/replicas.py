"""Options for the replicas of a CVMFS repository, and what is printed about each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from publisher.cli.failures import UsageError
from publisher.cli.sources import load_settings
from publisher.repository import Repository
from publisher.repository.cvmfs.places import CONFIGURATION
from publisher.repository.cvmfs.revision import NotCvmfs, Revision, present_revision
from publisher.sizes import plural
from publisher.sources.replica_revision import ReplicaError, ReplicaRevision, UnusableKey
from publisher.times import format_time

if TYPE_CHECKING:
    from publisher.sources.replicas import Replicas

_F = TypeVar("_F", bound=Callable[..., Any])


def replica_options(command: _F) -> _F:
    """`--replica` and `--public-key`, as the parameters `addresses` and `public_key`."""
    for option in (
        click.option(
            "--public-key",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="The public master key of the repository, with which the signatures of replicas "
            "are checked. By default, /etc/cvmfs/keys/NAME.pub or those of its domain, if they "
            "exist.",
        ),
        click.option(
            "--replica",
            "addresses",
            multiple=True,
            metavar="URL",
            help="A replica (Stratum 1) of the CVMFS repository, such as "
            "http://stratum1.example.org/cvmfs/images.example.org; may be given several times.",
        ),
    ):
        command = option(command)
    return command


def open_replicas(
    addresses: Sequence[str], public_key: Path | None, repository: Repository
) -> Replicas | None:
    """Return the replicas with these addresses; None if there are none.

    Raises:
        UsageError: `repository` is not a CVMFS repository, or an address or key cannot be used.
    """
    if not addresses:
        return None
    from publisher.sources.replicas import Replicas, read_public_keys

    configuration = os.environ.get("PUBLISHER_CVMFS_CONFIGURATION")
    directory = (Path(configuration) if configuration else CONFIGURATION).parent / "keys"
    try:
        name = present_revision(repository).name
        keys = read_public_keys(name, public_key, directory)
        return Replicas(addresses, name, keys, load_settings({}))
    except (NotCvmfs, UnusableKey, ReplicaError) as error:
        raise UsageError(error.what, why=error.why, hint=error.hint) from error


def describe_replica(found: ReplicaRevision, revision: Revision | None) -> str:
    """Return what a replica serves, compared with `revision`, as the end of a sentence."""
    served = found.manifest
    text = f"revision {served.revision} of {format_time(served.published_at)}"
    if revision is not None and served.revision < revision.number:
        text += f", {plural(revision.number - served.revision, 'revision')} behind"
    return text if found.verified else f"{text} (signature not checked: no public key)"


def replica_value(url: str, found: ReplicaRevision | None, problem: str) -> dict[str, object]:
    """Return what is known of a replica as a JSON value."""
    served = found.manifest if found else None
    return {
        "url": url,
        "revision": served.revision if served else None,
        "rootHash": served.root_hash if served else None,
        "publishedAt": format_time(served.published_at) if served else None,
        "ttlSeconds": int(served.ttl.total_seconds()) if served else None,
        "verified": found is not None and found.verified,
        "problem": problem,
    }
