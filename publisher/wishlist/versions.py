"""Read a wish list of any version."""

from __future__ import annotations

import yaml

from publisher.wishlist.model import MAX_BYTES, WishList, WishListError
from publisher.wishlist.trust import refuse_local_repository, refuse_local_wishes
from publisher.wishlist.version1 import parse_version1
from publisher.wishlist.version2 import parse_version2
from publisher.yaml_nodes import Problems, describe, load, place

_PARSERS = {"1": parse_version1, "2": parse_version2}


def parse_any_version(
    data: bytes | str, name: str, allow_local: bool, repository_counts: bool
) -> WishList:
    """Read a wish list, as `parse_wish_list` describes."""
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
