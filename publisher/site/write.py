"""Write a static site about a repository: the use case behind `publisher site`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from publisher.errors import PublisherError
from publisher.repository import Repository
from publisher.repository.published import PublishedImage, find_name, load_image
from publisher.site import addresses
from publisher.site.compare import Pair, compare_page, moved_tags
from publisher.site.compose import image_inputs, image_page
from publisher.site.details import detailed_images, image_files, image_packages
from publisher.site.directory import Changes, NotASite, SiteDirectory, open_site
from publisher.site.facts import Facts
from publisher.site.overview import layer_page, list_page, removals_page, wishes_page
from publisher.site.pages import Link
from publisher.site.rendering import Renderer, fingerprint, static_files
from publisher.site.space import space_page
from publisher.site.survey import Remembered, survey_repository


def write_site(
    repository: Repository,
    directory: Path,
    title: str,
    remembered: Remembered,
    now: datetime,
    unreadable: Callable[[PublisherError], None],
    *,
    entries: int,
    pairs: Sequence[tuple[str, str]] = (),
) -> Changes:
    """Write the pages about what is published; those that are up to date stay as they are.

    Args:
        repository: Opened for reading.
        directory: The site; it must be missing, empty, or the site of an earlier run.
        title: The title of the site.
        remembered: The state of wishes and runs.
        now: The present time.
        unreadable: Called with the error if a record is unreadable, which counts as empty.
        entries: How many entries the images have together whose contents are shown.
        pairs: Names or references of images that are compared, beside those whose tag moved.

    Raises:
        NotASite: The directory has something else, or is in the published tree.
        SiteBusy: Another process is writing the site.
        NotPublished: An image of `pairs` is not published.
    """
    _refuse_tree(repository, directory)
    with open_site(directory) as site:
        survey = survey_repository(repository, remembered, now, site.layers, unreadable)
        detailed = detailed_images(survey, entries)
        compared = [*moved_tags(survey, detailed), *_named_pairs(repository, pairs)]
        facts = Facts.of(survey, detailed, _links(compared))
        writer = _Writer(site, Renderer(title), repository, facts, title)
        writer.write_static_files()
        for pair in compared:
            writer.write_comparison(pair)
        for image in detailed.values():
            writer.write_contents(image)
        for image in survey.images.values():
            writer.write_image(image)
        for digest in survey.users:
            writer.write_layer(digest)
        writer.write_overview()
        site.finish(survey.sizes)
        return site.changes


def _named_pairs(repository: Repository, pairs: Iterable[tuple[str, str]]) -> Iterator[Pair]:
    for names in pairs:
        old, new = (load_image(repository, find_name(repository, name)) for name in names)
        yield Pair(old, new)


def _links(pairs: Iterable[Pair]) -> dict[str, list[Link]]:
    """Return the links to comparisons by the names of images, each once."""
    links: dict[str, list[Link]] = {}
    for pair in pairs:
        for image, other in ((pair.new, pair.old), (pair.old, pair.new)):
            label = other.manifest_digest if other.name == image.name else other.name
            link = Link(label, pair.page)
            known = links.setdefault(image.name, [])
            if all(each.page != pair.page for each in known):
                known.append(link)
    return links


def _refuse_tree(repository: Repository, directory: Path) -> None:
    root = repository.local_root
    if root is not None and directory.resolve().is_relative_to(root.resolve()):
        raise NotASite(
            f"cannot write a site to {directory}",
            why="it is in the published tree, where names belong to images",
            hint="name a directory beside the tree",
        )


class _Writer:
    """Puts the pages of one survey into a site."""

    def __init__(
        self,
        site: SiteDirectory,
        renderer: Renderer,
        repository: Repository,
        facts: Facts,
        title: str,
    ) -> None:
        self._site = site
        self._renderer = renderer
        self._repository = repository
        self._facts = facts
        self._common = (fingerprint(), title)

    def write_static_files(self) -> None:
        """Write the style sheet and the script."""
        files = [(addresses.static_file(name), data) for name, data in static_files().items()]
        self._site.put("static", self._common, lambda: files)

    def write_image(self, image: PublishedImage) -> None:
        """Write the page about one published name."""
        path = addresses.image_page(image.name)

        def make() -> Iterable[tuple[str, bytes]]:
            page = image_page(self._facts, self._repository, image)
            yield path, self._renderer.render("image", path, page=page)

        inputs = image_inputs(self._facts, self._repository, image)
        self._site.put(path, (self._common, inputs), make)

    def write_contents(self, image: PublishedImage) -> None:
        """Write the pages about the files and the packages of an image."""
        directory = addresses.contents(image.manifest_digest)
        known = Link(image.name, addresses.image_page(image.name))

        def make() -> Iterable[tuple[str, bytes]]:
            path = addresses.packages_page(image.manifest_digest)
            packages = image_packages(self._repository, image)
            yield path, self._renderer.render("packages", path, page=packages, image=known)
            for path, page in image_files(self._repository, image):
                yield path, self._renderer.render("files", path, page=page, image=known)

        self._site.put(directory, (self._common, image.name), make)

    def write_comparison(self, pair: Pair) -> None:
        """Write the page about what differs between two images."""
        names = (pair.old.name, pair.new.name)

        def make() -> Iterable[tuple[str, bytes]]:
            page = compare_page(self._repository, pair)
            yield pair.page, self._renderer.render("compare", pair.page, page=page)

        self._site.put(pair.page, (self._common, names, pair.digests), make)

    def write_layer(self, digest: str) -> None:
        """Write the page about a layer."""
        path = addresses.layer_page(digest)
        self._write("layer", path, layer_page(self._facts.survey, digest))

    def write_overview(self) -> None:
        """Write the pages about all images, which link those about single ones."""
        self._write("images", addresses.INDEX, list_page(self._facts))
        self._write("wishes", addresses.WISHES, wishes_page(self._facts.survey))
        self._write("removals", addresses.REMOVALS, removals_page(self._facts))
        self._write("space", addresses.SPACE, space_page(self._facts.survey))

    def _write(self, template: str, path: str, page: object) -> None:
        self._site.put(
            path,
            (self._common, page),
            lambda: [(path, self._renderer.render(template, path, page=page))],
        )
