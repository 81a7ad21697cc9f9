"""Expand wishes to the images that they request now: behind `publisher expand` and `lock`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from publisher.errors import failure_text
from publisher.ingest.wanted import RequestedImage
from publisher.ingest.work import WishWork, for_all_images
from publisher.lazy import dataclass
from publisher.sources.open import Sources
from publisher.wishlist import Places
from publisher.wishlist.model import Request


@dataclass(frozen=True, slots=True)
class ExpandedImage:
    """One image of a wish; `error` is why it is unknown, "" if it is known.

    `name` is its public name, and `digest` what the reference names now, if that was looked up. If
    the tags of a pattern cannot be listed, `reference` is the image repository.
    """

    request: Request
    name: str
    reference: str
    digest: str = ""
    error: str = ""


def expand(
    requests: Sequence[Request],
    sources: Sources,
    now: datetime,
    *,
    resolve: bool = False,
    jobs: int = 4,
) -> list[ExpandedImage]:
    """Return the images that the wishes request at `now`, in their order; none for expired ones.

    Args:
        requests: The wishes, each with its list.
        sources: Where tags are listed: one request for a wish with patterns, none for others.
        now: The moment by which a wish may have expired.
        resolve: Look up the digest of each image as well, by one request.
        jobs: How many images are processed at a time.
    """
    places: defaultdict[str, Places] = defaultdict(Places)  # by wish list
    wishes = (
        _WishExpansion(request, places[request.wish_list], sources, resolve)
        for request in requests
        if not request.wish.has_expired(now)
    )
    images = for_all_images(wishes, sources, jobs=jobs, with_repeated=True).items
    # An image that a list requests twice belongs to the first of the two wishes.
    first = {(image.request.wish_list, image.reference): image for image in reversed(images)}
    return list(dict.fromkeys(first[i.request.wish_list, i.reference] for i in images))


class _WishExpansion(WishWork[ExpandedImage]):
    """Expands one wish."""

    def __init__(self, request: Request, places: Places, sources: Sources, resolve: bool) -> None:
        super().__init__(request, places)
        self._sources = sources
        self._resolve = resolve

    def act(self, image: RequestedImage) -> ExpandedImage:
        digest = self._sources.open(image.reference).resolve() if self._resolve else ""
        return ExpandedImage(self.request, image.name, str(image.reference), digest)

    def failed(self, name: str, reference: str, error: Exception) -> ExpandedImage:
        return ExpandedImage(self.request, name, reference, error=failure_text(error, name))
