"""Write the lock of a wish list: behind `publisher lock`. Only digests are looked up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from publisher.ingest.expand import ExpandedImage, expand
from publisher.lazy import dataclass
from publisher.sources.open import Sources
from publisher.wishlist.lock import Lock, LockedImages, pattern_text
from publisher.wishlist.model import Request


@dataclass(frozen=True, slots=True)
class LockedImage:
    """One image of a lock: its digest, and the one that the earlier lock had, "" for none."""

    reference: str
    digest: str
    earlier: str


@dataclass(frozen=True, slots=True)
class LockUpdate:
    """A new lock; `failed` are the images that could not be resolved."""

    lock: Lock
    earlier: Lock
    failed: tuple[ExpandedImage, ...]

    @property
    def changes(self) -> list[LockedImage]:
        """The images whose digest is another than before, or that only one lock has."""
        before, after = self.earlier.digests, self.lock.digests
        names = sorted({*before, *after})
        images = [LockedImage(name, after.get(name, ""), before.get(name, "")) for name in names]
        return [image for image in images if image.digest != image.earlier]


def update_lock(
    requests: Sequence[Request],
    earlier: Lock,
    sources: Sources,
    now: datetime,
    *,
    only_new: bool = False,
    jobs: int = 4,
) -> LockUpdate:
    """Return the lock of a list at `now`.

    An image that cannot be resolved keeps the digest of the earlier lock; if it has none, the lock
    has the image without a digest.

    Args:
        requests: The wishes of one list.
        earlier: The lock that is replaced; an empty one if it does not exist.
        sources: Where tags and digests are looked up.
        now: The moment by which a wish may have expired.
        only_new: Look up only the wishes that the earlier lock does not have.
        jobs: How many images are processed at a time.
    """
    before = LockedImages(earlier)
    wanted = [request for request in requests if not request.wish.has_expired(now)]
    digests: dict[str, str] = {}
    unknown = []
    for request in wanted:
        kept = before.of(request.wish) if only_new else None
        if kept:
            digests |= {str(reference): digest for reference, digest in kept.items()}
        else:
            unknown.append(request)
    images = expand(unknown, sources, now, resolve=True, jobs=jobs)
    for image in images:
        wish = image.request.wish
        if not image.error:
            digests[image.reference] = image.digest
        elif wish.tags and image.reference == str(wish.image):
            for reference, digest in (before.of(wish) or {}).items():
                digests.setdefault(str(reference), digest)
        else:
            digests.setdefault(image.reference, earlier.digests.get(image.reference, ""))
    patterns = frozenset(pattern_text(request.wish) for request in wanted if request.wish.tags)
    failed = tuple(image for image in images if image.error)
    return LockUpdate(Lock(digests, patterns), earlier, failed)
