"""Read wish lists of version 1, the format of earlier tools."""

from __future__ import annotations

import re

import yaml

from publisher.oci.reference import ImageReference
from publisher.wishlist import wishes as shared
from publisher.wishlist.model import DEFAULT_OUTPUTS, Wish, WishList
from publisher.yaml_nodes import Problems, place, read_mapping, read_text, read_texts

KEYS = ("version", "user", "cvmfs_repo", "output_format", "input", "ignoreErrors")
_VERSION_2 = {
    key: f"{key!r} is a key of version 2: write version: 2, and see docs/wishlist.md"
    for key in ("thin", "defaults")
} | {
    "repository": "version 1 calls it 'cvmfs_repo'",
    "images": "version 1 calls it 'input'",
}


def parse_version1(root: yaml.MappingNode, problems: Problems) -> WishList:
    """Read the mapping of a version 1 wish list."""
    fields = read_mapping(root, problems, "in a wish list of version 1", KEYS, _VERSION_2)
    user = repository = thin = None
    if "user" in fields:
        user = read_text(fields["user"], problems, "user")
    if "cvmfs_repo" in fields:
        repository = _read_cvmfs_repo(fields["cvmfs_repo"], problems)
    if "output_format" in fields:
        thin = shared.check_thin(fields["output_format"], problems)
        if thin is not None:
            shared.warn_of_constant_thin(fields["output_format"], thin, problems)
    if "ignoreErrors" in fields:
        read_texts(fields["ignoreErrors"], problems, "ignoreErrors")
        problems.warning(
            fields["ignoreErrors"],
            "ignoreErrors has no effect: every image that fails is reported",
            "remove it",
        )
    wishes = []
    for node in shared.read_entries(fields, "input", root, problems):
        image = _read_image(node, problems)
        if image is not None:
            line, column = place(node)
            outputs = DEFAULT_OUTPUTS if thin is None else (*DEFAULT_OUTPUTS, "thin")
            reference, tags = image
            wish = Wish(reference, tags, outputs=outputs, thin=thin, line=line, column=column)
            wishes.append((wish, node))
    return shared.finish(1, user or "", repository, wishes, problems)


def _read_image(
    node: yaml.Node, problems: Problems
) -> tuple[ImageReference, tuple[str, ...]] | None:
    if isinstance(node, yaml.ScalarNode):
        return shared.read_image(node, problems, 1)
    if not shared.explain_broken_text(node, problems, ("image",)):
        shared.wrong_kind(node, problems, 1)
    return None


def _read_cvmfs_repo(node: yaml.Node, problems: Problems) -> str | None:
    """Read the name of a CVMFS repository, as in earlier tools, or a repository URL."""
    text = read_text(node, problems, "cvmfs_repo")
    if text is None:
        return None
    if ":" in text or "/" in text:
        return shared.read_repository_url(node, text, problems)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        return f"cvmfs:{text}"
    problems.error(
        node, f"{text!r} is not the name of a CVMFS repository", "such as images.cern.ch"
    )
    return None
