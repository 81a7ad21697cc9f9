"""Check wish lists, and whether their images can be published: behind `publisher check`.

Nothing is changed: lists are parsed, and the manifests and configs of their images are read from
their sources.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date

from publisher.ingest.wanted import RequestedImage, check_size, for_each_image
from publisher.layers.policy import Limits
from publisher.sources.image import fetch_images
from publisher.sources.open import Sources
from publisher.wishlist import (
    Places,
    Problem,
    Severity,
    Wish,
    WishList,
    WishListError,
    parse_wish_list,
)
from publisher.wishlist.model import Request


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """The result for one image; `error` is why it cannot be published, "" if it can.

    `name` is its public path, or the text of the wish if it has none. `layers` maps the digests of
    the layers for all requested platforms to their compressed sizes in bytes.
    """

    name: str
    reference: str
    wish_list: str
    line: int
    column: int
    digest: str = ""
    platforms: tuple[str, ...] = ()
    layers: Mapping[str, int] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The problems of wish lists; `images` is empty if no sources were given."""

    wishes: int
    problems: tuple[Problem, ...]
    images: tuple[CheckedImage, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The errors in the wish lists."""
        return tuple(p for p in self.problems if p.severity is Severity.ERROR)

    @property
    def failed(self) -> tuple[CheckedImage, ...]:
        """The images that cannot be published."""
        return tuple(image for image in self.images if image.error)

    @property
    def download_size(self) -> int:
        """The compressed size in bytes of all layers, each counted once."""
        return sum({d: s for image in self.images for d, s in image.layers.items()}.values())


def check(
    documents: Sequence[tuple[str, bytes]],
    sources: Sources | None = None,
    *,
    repository: str | None = None,
    untrusted: Collection[str] = (),
    today: date | None = None,
    jobs: int = 8,
    limits_of: Callable[[str | None], Limits] = lambda repository: Limits(),
) -> Report:
    """Check wish lists, given as names and contents, and with `sources` their images too.

    Args:
        documents: The lists.
        sources: Where the images come from; without them, only the lists are checked.
        repository: Replaces the repository that each list names.
        untrusted: The lists that may not name files or the container engine of this host.
        today: A wish that has expired by this day causes a warning.
        jobs: How many wishes are processed at a time.
        limits_of: Returns the limits of a repository, which is None if none is named.
    """
    lists, problems = _parse(documents, repository, untrusted)
    wishes = [(wish, wish_list) for wish_list in lists for wish in wish_list.wishes]
    gone = [(w, each) for w, each in wishes if today and w.expires and w.expires <= today]
    problems += [_expired(wish, wish_list.name) for wish, wish_list in gone]
    images: list[CheckedImage] = []
    if sources is not None:
        pool = ThreadPoolExecutor(jobs, thread_name_prefix="check")
        try:
            places: dict[str | None, Places] = defaultdict(Places)
            targets = {each.name: repository or each.repository for each in lists}
            limits = {target: limits_of(target) for target in targets.values()}
            futures = [
                pool.submit(_check_wish, wish, each.name, sources, places[target], limits[target])
                for wish, each in wishes
                for target in [targets[each.name]]
            ]
            images = [image for future in futures for image in future.result()]
        finally:
            pool.shutdown(cancel_futures=True)
    return Report(len(wishes), tuple(problems), tuple(images))


def _parse(
    documents: Sequence[tuple[str, bytes]], repository: str | None, untrusted: Collection[str]
) -> tuple[list[WishList], list[Problem]]:
    lists: list[WishList] = []
    problems: list[Problem] = []
    for name, data in documents:
        try:
            wish_list = parse_wish_list(
                data, name, allow_local=name not in untrusted, repository_counts=not repository
            )
        except WishListError as error:
            problems += error.problems
        else:
            lists.append(wish_list)
            problems += wish_list.problems
    return lists, problems


def _expired(wish: Wish, name: str) -> Problem:
    return Problem(
        Severity.WARNING,
        name,
        wish.line,
        wish.column,
        f"the wish for {wish} has expired on {wish.expires}",
        "remove it, or set a later date",
    )


def _check_wish(
    wish: Wish, wish_list: str, sources: Sources, places: Places, limits: Limits
) -> list[CheckedImage]:
    """Return all images of one wish: one, or as many as its patterns match."""

    def act(image: RequestedImage) -> CheckedImage:
        source = sources.open(image.reference)
        digest = source.resolve()
        images = fetch_images(source, wish.platforms, digest)
        for each in images:
            check_size(each, limits)
        return CheckedImage(
            image.name,
            str(image.reference),
            wish_list,
            wish.line,
            wish.column,
            digest,
            tuple(str(platform) for platform in wish.platforms),
            {layer.digest: layer.size for each in images for layer in each.manifest.layers},
        )

    def failed(name: str, reference: str, why: str) -> CheckedImage:
        return CheckedImage(name, reference, wish_list, wish.line, wish.column, error=why)

    return for_each_image(
        Request(wish, wish_list), sources, places, act, failed, with_repeated=True
    )
