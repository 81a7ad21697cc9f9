"""The option `--policy`, and the policy file that it names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from publisher.ingest.admission import Admission, Signatures
from publisher.policy import MAX_BYTES, InvalidPolicy, PolicyFile, parse_policy
from publisher.wishlist.model import Request

policy_option = click.option(
    "--policy",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    envvar="PUBLISHER_POLICY",
    show_envvar=True,
    help="Rules for wishes and images: registries, sizes, tags, labels, signatures, owners. See "
    "docs/pull-requests.md.",
)


def read_policy(path: str | None) -> PolicyFile | None:
    """Return the policy in a file; None without one. Raises InvalidPolicy."""
    return None if path is None else parse_policy(_read(path), path)


def signatures_for(policy: PolicyFile | None) -> Signatures | None:
    """Return what verifies the signatures that a policy requires; None if it requires none."""
    paths = list(policy.key_files()) if policy is not None else []
    if not paths:
        return None
    from publisher.ingest.signatures import CosignSignatures  # cryptography is slow to import
    from publisher.policy.keys import parse_public_key

    return CosignSignatures({path: parse_public_key(_read(path), path) for path in set(paths)})


def admission_for(path: str | None, requests: Iterable[Request]) -> Admission:
    """Return what the policy in a file allows of `requests`; all of them without a file."""
    policy = read_policy(path)
    return Admission(policy, signatures_for(policy), requests)


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidPolicy(
            f"cannot read {path}",
            why=error.strerror or str(error),
            hint="correct --policy, or the path of the key in the policy file",
        ) from error
