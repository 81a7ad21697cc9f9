"""A wish list of any version becomes a `WishList`; one image from a command line, a `Wish`."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from publisher.errors import InvalidReference
from publisher.oci.platform import Platform
from publisher.oci.reference import parse_reference
from publisher.wishlist.document import Problems, describe, load, place
from publisher.wishlist.model import (
    DEFAULT_PLATFORMS,
    Wish,
    WishList,
)
from publisher.wishlist.version1 import parse_version1
from publisher.wishlist.version2 import parse_version2
from publisher.wishlist.wishes import check_local_name

_PARSERS = {"1": parse_version1, "2": parse_version2}


def parse_wish_list(data: bytes | str, name: str) -> WishList:
    """Read a wish list of any version; `name` stands for the file in messages.

    Wishes that have errors are left out and named in the result's `problems`, so that the others
    can be granted. WishListError, with all problems, where the list as a whole cannot be used: it
    is not YAML, or what is said about all images is wrong.
    """
    problems = Problems(name)
    root = load(data, problems)
    if not isinstance(root, yaml.MappingNode):
        raise problems.refuse(
            *place(root),
            f"a wish list must be a mapping, but this is {describe(root)}",
            "begin with the line 'version: 2', then 'images:' and one '- IMAGE' per line",
        )
    return _PARSERS[_version(root, problems)](root, problems)


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
            f"wish lists of version{written} are not known",
            "write version: 2 (or 1); a newer version needs a newer release of this program",
        )
    raise problems.refuse(
        *place(root),
        "the list does not say its version",
        "begin with the line 'version: 2', or 'version: 1' for a list with cvmfs_repo and input",
    )


def wish_for(image: str, *, platforms: Sequence[str] = (), name: str | None = None) -> Wish:
    """A wish for one image that stands in no wish list; InvalidReference if it cannot be one.

    `platforms` are spelled as in a wish list; without any, the default is meant.
    """
    reference = parse_reference(image)
    if name is not None:
        check_local_name(name)
    try:
        wanted = tuple(dict.fromkeys(Platform.parse(platform) for platform in platforms))
    except ValueError as error:
        raise InvalidReference(f"cannot fetch {reference}", why=str(error)) from error
    return Wish(reference, platforms=wanted or DEFAULT_PLATFORMS, name=name)
