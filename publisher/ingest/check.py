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
    """One image that was looked for: what was found, or in `error` why it cannot be published.

    `name` is its public path, or the wish's own text where it has none. `layers` are the sizes in
    bytes, as downloaded, of the layers for all its requested platforms, by digest.
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
    """The problems of wish lists; `images` is empty unless sources were asked."""

    wishes: int
    problems: tuple[Problem, ...]
    images: tuple[CheckedImage, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The errors in the lists themselves."""
        return tuple(p for p in self.problems if p.severity is Severity.ERROR)

    @property
    def failed(self) -> tuple[CheckedImage, ...]:
        """The images that cannot be published."""
        return tuple(image for image in self.images if image.error)

    @property
    def download_size(self) -> int:
        """Bytes of all layers that were found, each counted once."""
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
        documents: the lists.
        sources: where the images come from; without them, only the lists are checked.
        repository: what replaces the repository that each list names, if anything does.
        untrusted: the lists that may not name what is local.
        today: a wish that has expired by then causes a warning.
        jobs: how many wishes are processed at a time.
        limits_of: returns the limits of a repository, which is None where none is named.
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
