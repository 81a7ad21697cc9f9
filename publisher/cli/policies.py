"""The options `--policy` and `--prefix`: what restricts which images may be published."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher.errors import install_hint
from publisher.ingest.admission import Admission, Signatures
from publisher.tree import layout
from publisher.wishlist.model import Request

if TYPE_CHECKING:
    from publisher.ingest.signatures import Identities
    from publisher.policy import PolicyFile

policy_option = click.option(
    "--policy",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    envvar="PUBLISHER_POLICY",
    show_envvar=True,
    help="Rules for wishes and images: registries, sizes, tags, labels, signatures, owners. See "
    "docs/pull-requests.md.",
)


class _Prefix(click.ParamType[str]):
    name = "directory"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        text = str(value).removesuffix("/")
        if text and not layout.is_directory_of_names(text):
            write = f"write it as registry.example.org/astro, or {layout.LOCAL}/astro"
            self.fail(f"{value!r} is not a directory of public names; {write}", param, ctx)
        return text


prefix_option = click.option(
    "--prefix",
    type=_Prefix(),
    metavar="DIRECTORY",
    default="",
    help="Refuse images whose public names are not in this directory, such as "
    "registry.example.org/astro.",
)


def read_policy(path: str | None) -> PolicyFile | None:
    """Return the policy in a file; None without one. Raises InvalidPolicy."""
    if path is None:
        return None
    from publisher.policy import parse_policy  # most runs have no policy file

    return parse_policy(_read(path), path)


def signatures_for(policy: PolicyFile | None) -> Signatures | None:
    """Return what verifies the signatures that a policy requires; None if it requires none."""
    rules = list(policy.signature_rules()) if policy is not None else []
    if not rules:
        return None
    from publisher.ingest.signatures import CosignSignatures  # cryptography is slow to import
    from publisher.policy.keys import parse_public_key

    paths = {path for rule in rules for path in rule.keys}
    roots = {rule.trusted_root for rule in rules if rule.signers}
    return CosignSignatures(
        {path: parse_public_key(_read(path), path) for path in paths},
        {root: _identities(root) for root in roots},
    )


def _identities(trusted_root: str) -> Identities:
    try:
        from publisher.ingest.identities import SigstoreIdentities
    except ModuleNotFoundError as error:
        from publisher.policy import InvalidPolicy

        raise InvalidPolicy(
            "cannot verify the identities of signers",
            why=f"the package {error.name} is not installed",
            hint=install_hint("sigstore"),
        ) from error
    return SigstoreIdentities(trusted_root)


def admission_for(path: str | None, prefix: str, requests: Iterable[Request]) -> Admission:
    """Return what the policy in a file allows of `requests`; all of them without a file.

    Args:
        path: The policy file, or None.
        prefix: The directory in which all public names have to be; "" for any.
        requests: All wishes of the run.
    """
    policy = read_policy(path)
    return Admission(policy, signatures_for(policy), requests, prefix)


def _read(path: str) -> bytes:
    from publisher.policy import MAX_BYTES, InvalidPolicy

    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidPolicy(
            f"cannot read {path}",
            why=error.strerror or str(error),
            hint="correct --policy, or the path of the key in the policy file",
        ) from error
