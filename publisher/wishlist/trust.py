"""Refuse wishes for files and engines of the publishing host in lists from the network.

The editors of such a list need not have access to the host. Without this check they could publish
files of the host (`oci:`, `docker-archive:`), images of its container
engine (`docker-daemon:`), or write below a directory of their choice (`repository: dir:…`).
"""

from __future__ import annotations

from dataclasses import replace

from publisher.oci.reference import Transport, parse_reference
from publisher.tree.layout import RepositoryURL
from publisher.wishlist.model import Wish, WishList
from publisher.wishlist.wishes import thin_names
from publisher.yaml_nodes import Problems

_HINT = "--allow-local, if all editors of the list may use this host's files"


def refuse_local_repository(
    wish_list: WishList, place: tuple[int, int], problems: Problems
) -> None:
    """Raise WishListError if the list publishes to a directory of the host.

    Args:
        wish_list: The list as read.
        place: Line and column of the repository that it names.
        problems: Those of the list, which the error holds.
    """
    if wish_list.repository and RepositoryURL.parse(wish_list.repository).kind != "cvmfs":
        raise problems.refuse(
            *place,
            f"{wish_list.repository} is a directory of the publishing host, and the list comes "
            "over the network",
            f"remove it and give the directory with --repository; or {_HINT}",
        )


def refuse_local_wishes(wish_list: WishList, problems: Problems) -> WishList:
    """Return the list without the wishes that name something of the publishing host.

    Args:
        wish_list: The list as read.
        problems: Those of the list, to which each refused wish is added.
    """
    kept = []
    for wish in wish_list.wishes:
        local = _local_part(wish)
        if local:
            problems.error_at(
                wish.line,
                wish.column,
                f"{local} belongs to the publishing host, and the list comes over the network",
                f"name an image in a registry; or {_HINT}",
                str(wish),
            )
        else:
            kept.append(wish)
    return replace(wish_list, wishes=tuple(kept), problems=problems.sorted())


def _local_part(wish: Wish) -> str:
    """Return the name in a wish that is local to the publishing host, or ""."""
    if wish.image.transport is not Transport.REGISTRY:
        return str(wish.image)
    names = (parse_reference(name) for name in thin_names(wish))
    return next((str(name) for name in names if name.transport is not Transport.REGISTRY), "")
