"""Read a wish list of any version, or one image from the command line."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from publisher.errors import InvalidReference
from publisher.oci.platform import Platform
from publisher.oci.reference import parse_reference
from publisher.wishlist.model import (
    DEFAULT_PLATFORMS,
    Wish,
    WishList,
    WishListError,
)
from publisher.wishlist.trust import refuse_local_repository, refuse_local_wishes
from publisher.wishlist.version1 import parse_version1
from publisher.wishlist.version2 import parse_version2
from publisher.wishlist.wishes import check_local_name
from publisher.yaml_nodes import Problems, describe, load, place

MAX_BYTES = 4 * 1024 * 1024
"""The largest wish list that is read: some forty thousand wishes."""

_PARSERS = {"1": parse_version1, "2": parse_version2}


def parse_wish_list(
    data: bytes | str, name: str, *, allow_local: bool = True, repository_counts: bool = True
) -> WishList:
    """Read a wish list of any version.

    Wishes that have errors are left out and named in the result's `problems`, so that the others
    can be published.

    Args:
        data: The content of the file.
        name: The file's name in messages.
        allow_local: Whether the list may name files, engines and directories of this host; False
            for a list that comes over the network.
        repository_counts: Whether the repository that the list names is used; False if another one
            replaces it, so that a local directory is no reason to refuse the list.

    Raises:
        WishListError: The whole list cannot be used: it is not YAML, or a field that applies to
            all images is wrong. The error has all problems.
    """
    problems = Problems(name, "wish list", WishListError)
    root = load(data, problems, MAX_BYTES)
    if root is None:
        raise problems.refuse(1, 1, "the file is empty", "begin with the line 'version: 2'")
    if not isinstance(root, yaml.MappingNode):
        raise problems.refuse(
            *place(root),
            f"a wish list must be a mapping, but this is {describe(root)}",
            "begin with the line 'version: 2', then 'images:' and one '- IMAGE' per line",
        )
    wish_list = _PARSERS[_version(root, problems)](root, problems)
    if allow_local:
        return wish_list
    if repository_counts:
        refuse_local_repository(wish_list, _place_of_repository(root), problems)
    return refuse_local_wishes(wish_list, problems)


def _place_of_repository(root: yaml.MappingNode) -> tuple[int, int]:
    values = [value for key, value in root.value if key.value in ("repository", "cvmfs_repo")]
    return place(values[0] if values else root)


def _version(root: yaml.MappingNode, problems: Problems) -> str:
    for key, value in root.value:
        if key.value != "version":
            continue
        if isinstance(value, yaml.ScalarNode) and value.value in _PARSERS:
            if value.tag == "tag:yaml.org,2002:int":
                return str(value.value)
            raise problems.refuse(
                *place(value),
                f"the version must be a number, but this is {describe(value)}",
                f"write version: {value.value}, without quotes",
            )
        written = f" {value.value!r}" if isinstance(value, yaml.ScalarNode) else ""
        raise problems.refuse(
            *place(value),
            f"wish lists of version{written} are not supported",
            "write version: 2 (or 1); a newer version needs a newer release of this program",
        )
    raise problems.refuse(
        *place(root),
        "the list has no version",
        "begin with the line 'version: 2', or 'version: 1' for a list with cvmfs_repo and input",
    )


def wish_for(image: str, *, platforms: Sequence[str] = (), name: str | None = None) -> Wish:
    """Return a wish for one image, outside of any wish list.

    Args:
        image: An image reference, without patterns.
        platforms: As in a wish list; the default if empty.
        name: The published name of an image without a registry.

    Raises:
        InvalidReference: One of the arguments is malformed.
    """
    reference = parse_reference(image)
    if name is not None:
        check_local_name(name)
    try:
        wanted = tuple(dict.fromkeys(Platform.parse(platform) for platform in platforms))
    except ValueError as error:
        raise InvalidReference(f"cannot fetch {reference}", why=str(error)) from error
    return Wish(reference, platforms=wanted or DEFAULT_PLATFORMS, name=name)
