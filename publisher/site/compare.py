"""The comparisons of images: which pairs have a page, and what it contains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from publisher.browse.contents import Difference, diff_manifests, manifest_of
from publisher.browse.packages import package_changes, packages_of
from publisher.entry import Entry, EntryType
from publisher.errors import InvalidManifest, PublisherError
from publisher.lazy import dataclass
from publisher.repository import Repository
from publisher.repository.published import PublishedImage
from publisher.site import addresses
from publisher.site.pages import Compared, ComparePage, FileChange, Link, VersionChange
from publisher.site.survey import Survey

_MOST_PAIRS = 20
"""How many moved tags have a comparison; the cost of one is that of reading both images."""

_MOST_FILES = 2000
_MOST_PACKAGES = 5000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images to compare. The older one may be retired: it then has the name of the new one."""

    old: PublishedImage
    new: PublishedImage

    @property
    def page(self) -> str:
        """The path of the page."""
        return addresses.compare_page(self.old.manifest_digest, self.new.manifest_digest)

    @property
    def digests(self) -> tuple[str, str]:
        """The digests of both manifests."""
        return self.old.manifest_digest, self.new.manifest_digest


def moved_tags(survey: Survey, detailed: Collection[str]) -> Iterator[Pair]:
    """Yield the names that had another image before, which still exists, with both images.

    Args:
        survey: What is published.
        detailed: The manifests whose contents are shown; others are left out.
    """
    found = 0
    for entry in sorted(survey.scheduled, key=lambda each: each.scheduled_at, reverse=True):
        image = survey.images.get(entry.name)
        if image is None or image.manifest is None or image.manifest_digest not in detailed:
            continue
        if entry.manifest_digest == image.manifest_digest or found == _MOST_PAIRS:
            continue
        try:
            manifest = entry.parse_manifest()
        except InvalidManifest:
            continue  # the survey reported it
        found += 1
        yield Pair(PublishedImage(entry.name, entry.manifest_digest, manifest), image)


def compare_page(repository: Repository, pair: Pair) -> ComparePage:
    """Return the page about what differs between two images."""
    problems: list[str] = []
    differences: Sequence[Difference] = ()
    packages: tuple[VersionChange, ...] = ()
    counts: Counter[str] = Counter()
    grown = 0
    try:
        found = diff_manifests(repository, manifest_of(pair.old), manifest_of(pair.new))
        differences = tuple(islice(_counted(found, counts), _MOST_FILES))
        for each in _counted(found, counts):
            grown += _growth(each)
    except (PublisherError, OSError) as error:
        problems.append(str(error))
    try:
        packages = tuple(_package_changes(repository, pair))
    except (PublisherError, OSError) as error:
        problems.append(str(error))
    return ComparePage(
        old=_compared(pair.old),
        new=_compared(pair.new),
        counts=tuple((word, counts[word]) for word in ("added", "removed", "changed")),
        grown=grown + sum(map(_growth, differences)),
        files=tuple(map(_file_change, differences)),
        more=counts.total() - len(differences),
        packages=packages,
        problem="; ".join(problems),
    )


def _counted(found: Iterable[Difference], counts: Counter[str]) -> Iterator[Difference]:
    for each in found:
        counts[str(each.change)] += 1
        yield each


def _size(entry: Entry | None) -> int | None:
    return entry.size if entry is not None and entry.type is EntryType.FILE else None


def _growth(difference: Difference) -> int:
    return (_size(difference.new) or 0) - (_size(difference.old) or 0)


def _file_change(found: Difference) -> FileChange:
    return FileChange(
        found.path, str(found.change), found.fields, _size(found.old), _size(found.new)
    )


def _package_changes(repository: Repository, pair: Pair) -> Iterator[VersionChange]:
    changes = package_changes(packages_of(repository, pair.old), packages_of(repository, pair.new))
    for each in changes[:_MOST_PACKAGES]:
        yield VersionChange(
            str(each.type), each.name, str(each.kind), ", ".join(each.old), ", ".join(each.new)
        )


def _compared(image: PublishedImage) -> Compared:
    return Compared(Link(image.name, addresses.image_page(image.name)), image.manifest_digest)
