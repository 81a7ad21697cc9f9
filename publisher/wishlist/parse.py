"""Read a wish list of any version, or one image from the command line."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.errors import InvalidReference
from publisher.oci.platform import Platform
from publisher.oci.reference import parse_reference
from publisher.oci.reference_grammar import check_local_name
from publisher.wishlist.model import DEFAULT_PLATFORMS, Wish, WishList


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
    # PyYAML is long to load, and many commands read no list.
    from publisher.wishlist.versions import parse_any_version

    return parse_any_version(data, name, allow_local, repository_counts)


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
