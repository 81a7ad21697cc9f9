"""A survey arranged by name, and what several pages have of an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field

from publisher.browse.status import StatusLine
from publisher.errors import InvalidManifest
from publisher.lazy import dataclass
from publisher.repository.published import PublishedImage
from publisher.site import addresses
from publisher.site.pages import ImageRow, Link, Removal
from publisher.site.survey import Survey
from publisher.times import format_time
from publisher.tree import layout
from publisher.tree.schedule import ScheduledRemoval

_ORDER = {"unreadable": 0, "failing": 1, "scheduled": 2}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the survey has about each published name, found once for all pages."""

    survey: Survey
    detailed: frozenset[str]
    comparisons: Mapping[str, Sequence[Link]]
    wishes: Mapping[str, Sequence[StatusLine]]
    removals: Mapping[str, Sequence[ScheduledRemoval]]
    platforms: Mapping[str, Sequence[str]]
    _rows: dict[str, ImageRow] = field(default_factory=dict, init=False)  # not copied by replace

    @classmethod
    def of(
        cls,
        survey: Survey,
        detailed: Iterable[str] = (),
        comparisons: Mapping[str, Sequence[Link]] | None = None,
    ) -> Facts:
        """Arrange the survey by name.

        Args:
            survey: What is published.
            detailed: The manifests that have pages about their contents.
            comparisons: The pages that compare an image with another one, by its name.
        """
        wishes: dict[str, list[StatusLine]] = {}
        removals: dict[str, list[ScheduledRemoval]] = {}
        for line in survey.wishes:
            wishes.setdefault(line.name, []).append(line)
        for entry in survey.scheduled:
            removals.setdefault(entry.name, []).append(entry)
        platforms: dict[str, list[str]] = {}
        for name in survey.images:
            platform, plain = layout.split_platform(name)
            if platform:
                platforms.setdefault(plain, [plain]).append(name)
        return cls(survey, frozenset(detailed), comparisons or {}, wishes, removals, platforms)

    def row(self, image: PublishedImage) -> ImageRow:
        """Return the image's row in the list of images, which its own page has as well."""
        if image.name not in self._rows:
            self._rows[image.name] = self._row(image)
        return self._rows[image.name]

    def _row(self, image: PublishedImage) -> ImageRow:
        survey, record = self.survey, image.publication
        removal = next(
            (e for e in self.removals.get(image.name, ()) if e.key[1] == image.manifest_digest),
            None,
        )
        pin = survey.pins.get((image.name, image.manifest_digest))
        platform, plain = layout.split_platform(image.name)
        place, slash, last = plain.rpartition("/")
        return ImageRow(
            place=place + slash,
            last=last,
            page=addresses.image_page(image.name),
            platform=record.platform if record else platform,
            owner=record.owner if record else "",
            lists=tuple(sorted(record.wish_lists)) if record else (),
            note=record.note if record else "",
            size=survey.stored_size(image.manifest) if image.manifest else None,
            exclusive=(
                survey.stored_size(image.manifest, exclusive=True) if image.manifest else None
            ),
            layers=len(image.manifest.layers) if image.manifest else 0,
            published_at=format_time(record.published_at) if record else "",
            state=self._state(image, removal),
            pinned=pin is not None,
            removable_from=format_time(removal.not_before) if removal else "",
        )

    def other_platforms(self, image: PublishedImage) -> tuple[Link, ...]:
        """Return the images for other platforms that are published with this one."""
        names = self.platforms.get(layout.split_platform(image.name)[1], ())
        others = (self.survey.images[name] for name in names if name in self.survey.images)
        return tuple(
            Link(self.row(each).platform or each.name, addresses.image_page(each.name))
            for each in others
            if each.manifest_digest != image.manifest_digest and not self.is_second(each)
        )

    def _state(self, image: PublishedImage, removal: ScheduledRemoval | None) -> str:
        """Return the condition of the image; of several wishes, the worst one."""
        if image.problem:
            return "unreadable"
        found = [str(line.condition) for line in self.wishes.get(image.name, ())]
        found.append("scheduled" if removal else "published")
        return min(found, key=lambda each: _ORDER.get(each, 3))

    def removal(self, entry: ScheduledRemoval) -> Removal:
        """Return an entry of the remove schedule, with what its removal frees."""
        has_page = entry.name in self.survey.images
        return Removal(
            image=Link(entry.name, addresses.image_page(entry.name) if has_page else ""),
            digest=entry.manifest_digest,
            reason=entry.reason_text,
            scheduled_at=format_time(entry.scheduled_at),
            removable_from=format_time(entry.not_before),
            link_dropped=entry.link_dropped,
            frees=self._freed(entry),
        )

    def _freed(self, entry: ScheduledRemoval) -> int | None:
        try:
            return self.survey.freed(entry.parse_manifest())
        except InvalidManifest:
            return None

    def failure(self, name: str) -> str:
        """Return why the last try to publish the image failed; "" if it did not."""
        failed = [w.tries for w in self.wishes.get(name, ()) if w.tries and w.tries.is_failing]
        return failed[0].error if failed else ""

    def is_second(self, image: PublishedImage) -> bool:
        """Return whether the name is that of a platform, and the plain name has the same image."""
        platform, plain = layout.split_platform(image.name)
        first = self.survey.images.get(plain) if platform else None
        return first is not None and first.manifest_digest == image.manifest_digest


def distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the texts of a choice: sorted, each once, without an empty one."""
    return tuple(sorted(set(texts) - {""}))
