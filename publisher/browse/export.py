"""The published images as wishes: behind `publisher export`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

from publisher.browse.images import list_images, name_matcher
from publisher.errors import InvalidReference, PublisherError
from publisher.oci.platform import Platform
from publisher.oci.reference import ImageReference, parse_reference
from publisher.repository import Repository
from publisher.repository.reading import load_schedule
from publisher.tree import layout
from publisher.tree.publication import Publication
from publisher.wishlist import OUTPUTS, Wish


def published_wishes(
    repository: Repository,
    pattern: str,
    left_out: Callable[[str, str], None],
    *,
    digests: bool = False,
    thin: bool = False,
) -> Iterator[Wish]:
    """Yield a wish for each published image, by name.

    Images on the remove schedule are not requested any more, and are left out.

    Args:
        repository: Opened for reading.
        pattern: A glob that the names match; "" for all.
        left_out: Called with the name and the reason for each image that has no wish.
        digests: Add the digest that is published to each reference.
        thin: Keep the output "thin".
    """
    scheduled = {entry.key for entry in load_schedule(repository).entries}
    found: dict[str, Publication] = {}
    platforms: dict[str, list[Platform]] = defaultdict(list)
    for image in list_images(repository):
        if image.publication is None:
            left_out(image.name, image.problem or "another program published it")
        elif (image.name, image.manifest_digest) not in scheduled:
            found[image.name] = image.publication
            platforms[layout.split_platform(image.name)[1]].append(
                Platform.parse(image.publication.platform)
            )
    matches = name_matcher(pattern)
    for name, publication in found.items():
        if layout.split_platform(name)[0] or not matches(name):
            continue
        try:
            reference = parse_reference(publication.reference)
            if digests:
                reference = _with_digest(reference, publication.source_digest)
            yield _wish(name, reference, publication, platforms[name], thin)
        except (PublisherError, ValueError) as error:
            left_out(name, str(error))


def _wish(
    name: str,
    reference: ImageReference,
    publication: Publication,
    platforms: list[Platform],
    thin: bool,
) -> Wish:
    first = Platform.parse(publication.platform)
    wish = Wish(
        reference,
        platforms=tuple(dict.fromkeys([first, *platforms])),
        outputs=tuple(o for o in OUTPUTS if o in publication.outputs and (thin or o != "thin")),
        grace=timedelta(seconds=publication.grace_seconds),
        owner=publication.owner,
        note=publication.note,
    )
    if layout.public_name(reference) == name:
        return wish
    # Only an image without a registry may have another name.
    local = name.removeprefix(f"{layout.LOCAL}/").rpartition("@" if "@" in name else ":")[0]
    if layout.public_name(reference, local) != name:
        raise InvalidReference(f"cannot request {reference}", why=f"it is published as {name}")
    return replace(wish, name=local)


def _with_digest(reference: ImageReference, digest: str) -> ImageReference:
    """Return the reference with its digest, or raise InvalidReference if it cannot have one."""
    return parse_reference(str(replace(reference, digest=digest)))
