"""The contents of the pages about images, from a survey."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field

from publisher.browse.statistics.totals import totals
from publisher.browse.status import StatusLine
from publisher.errors import InvalidManifest, PublisherError
from publisher.lazy import dataclass
from publisher.oci.config import HealthCheck, HistoryStep, ImageConfig, parse_config
from publisher.oci.manifest import Manifest
from publisher.repository import Repository
from publisher.repository.damaged import read_damaged
from publisher.repository.published import PublishedImage
from publisher.repository.reading import load_thin_record
from publisher.runtimes.shell import words
from publisher.site import addresses
from publisher.site.commands import run_commands
from publisher.site.pages import (
    ConfigView,
    Details,
    HistoryLine,
    ImageLayer,
    ImagePage,
    ImageRow,
    Link,
    ListPage,
    Removal,
    Setting,
)
from publisher.site.survey import PastChange, Survey
from publisher.times import format_time
from publisher.tree import layout
from publisher.tree.record import InvalidRecord, Unreadable
from publisher.tree.schedule import ScheduledRemoval

_HISTORY = 50
"""The most changes of one name that its page shows."""

_ORDER = {"unreadable": 0, "failing": 1, "scheduled": 2}


def sharing(images: int) -> str:
    """Return in how many images a layer is, as a range.

    Ranges change rarely, so that a new image changes few pages about others that share its layers.
    """
    if images <= 1:
        return "exclusive"
    for limit in (10, 100, 1000):
        if images < limit:
            return f"{max(2, limit // 10)} to {limit - 1} images"
    return "1,000 or more images"


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
            if each.manifest_digest != image.manifest_digest and not _is_second(self.survey, each)
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


def list_page(facts: Facts) -> ListPage:
    """Return the page with all images."""
    survey = facts.survey
    rows = tuple(
        sorted(
            (facts.row(image) for image in survey.images.values() if not _is_second(survey, image)),
            key=lambda row: (row.place, row.last, row.platform),
        )
    )
    sums = totals(survey.holdings)
    return ListPage(
        rows,
        owners=distinct(row.owner for row in rows),
        lists=distinct(each for row in rows for each in row.lists),
        platforms=distinct(row.platform for row in rows),
        states=distinct(
            each for row in rows for each in (row.state, "pinned" if row.pinned else "")
        ),
        layers=sums.layers,
        size=sums.stored,
        separate=sums.separate,
        largest=max((row.size or 0 for row in rows), default=0),
    )


def _is_second(survey: Survey, image: PublishedImage) -> bool:
    """Return whether the name is that of a platform, and the plain name has the same image."""
    platform, plain = layout.split_platform(image.name)
    first = survey.images.get(plain) if platform else None
    return first is not None and first.manifest_digest == image.manifest_digest


def distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the texts of a choice: sorted, each once, without an empty one."""
    return tuple(sorted(set(texts) - {""}))


def image_inputs(facts: Facts, repository: Repository, image: PublishedImage) -> object:
    """Return what the page of the image depends on, as a value with a deterministic `repr`.

    It is cheaper than the page: configs are not parsed.
    """
    survey = facts.survey
    manifest = image.manifest
    config = read_damaged(repository, layout.config_file(image.name)) if manifest else b""
    return (
        facts.row(image),
        image.manifest_digest,
        image.publication,
        image.linked,
        image.problem,
        image.manifest_digest in facts.detailed,
        facts.comparisons.get(image.name, ()),
        config.why if isinstance(config, Unreadable) else config,
        repository.read(layout.thin_file(image.name)) if _has_thin(image) else b"",
        (survey.url, survey.mount),
        survey.pins.get((image.name, image.manifest_digest)),
        facts.failure(image.name),
        [
            (facts.removal(entry), entry.manifest_digest)
            for entry in facts.removals.get(image.name, ())
        ],
        survey.names.get(manifest.image_id, ()) if manifest else (),
        facts.other_platforms(image),
        [
            (sharing(len(survey.users[layer.digest])), survey.sizes.get(layer.digest))
            for layer in (manifest.layers if manifest else ())
        ],
        list(survey.changes.get(image.name, ()))[:_HISTORY],
    )


def _has_thin(image: PublishedImage) -> bool:
    return image.publication is not None and "thin" in image.publication.outputs


def image_page(facts: Facts, repository: Repository, image: PublishedImage) -> ImagePage:
    """Return the page about one published name. What is unreadable is described in it."""
    survey, record, manifest = facts.survey, image.publication, image.manifest
    config, problem = _read_config(repository, image)
    pin = survey.pins.get((image.name, image.manifest_digest))
    outputs = record.outputs if record else ()
    commands = run_commands(
        image.name,
        survey.mount,
        survey.url,
        outputs,
        has_flat=image.linked,
        has_program=config is None or bool(config.container.arguments()),
        thin=_thin_reference(repository, image),
    )
    image_id = manifest.image_id if manifest else ""
    return ImagePage(
        row=facts.row(image),
        name=image.name,
        reference=record.reference if record else "",
        manifest_digest=image.manifest_digest,
        source_digest=record.source_digest if record else "",
        image_id=image_id,
        outputs=outputs,
        flat_path=f"{survey.mount}/{layout.flat_image(image_id)}" if image.linked else "",
        compressed=manifest.size if manifest else 0,
        pinned_until=str(pin.until) if pin and pin.until else "",
        pin_reason=pin.reason if pin else "",
        problem=image.problem,
        failure=facts.failure(image.name),
        other_names=tuple(
            Link(name, addresses.image_page(name))
            for name in survey.names.get(image_id, ())
            if name != image.name
        )[:_HISTORY],
        other_platforms=facts.other_platforms(image),
        details=_details(facts, image.manifest_digest),
        commands=commands if manifest else (),
        layers=_image_layers(survey, manifest, config) if manifest else (),
        config=_config_view(config) if config else None,
        config_problem=problem,
        history=tuple(map(_history_line, survey.changes.get(image.name, ())))[:_HISTORY],
        removals=tuple(facts.removal(entry) for entry in facts.removals.get(image.name, ())),
        comparisons=tuple(facts.comparisons.get(image.name, ())),
    )


def _details(facts: Facts, digest: str) -> Details:
    if digest not in facts.detailed:
        return Details()
    return Details(addresses.files_page(digest), addresses.packages_page(digest))


def _read_config(repository: Repository, image: PublishedImage) -> tuple[ImageConfig | None, str]:
    """Return the config, or None and the reason."""
    if image.manifest is None:
        return None, ""
    try:
        data = repository.read(layout.config_file(image.name))
        if not data:
            return None, "it is missing"
        return parse_config(data, image.manifest.image_id), ""
    except PublisherError as error:
        return None, error.why


def _thin_reference(repository: Repository, image: PublishedImage) -> str:
    if not _has_thin(image):
        return ""
    try:
        record = load_thin_record(repository, image.name)
    except InvalidRecord:
        return ""  # `publisher verify` reports it
    return record.reference if record else ""


def _image_layers(
    survey: Survey, manifest: Manifest, config: ImageConfig | None
) -> tuple[ImageLayer, ...]:
    steps = _layer_steps(config, len(manifest.layers))
    layers = []
    for layer, step in zip(manifest.layers, steps, strict=True):
        size = survey.sizes.get(layer.digest)
        layers.append(
            ImageLayer(
                digest=layer.digest,
                page=addresses.layer_page(layer.digest),
                compressed=layer.size,
                size=size.stored if size else None,
                entries=size.entries if size else None,
                sharing=sharing(len(survey.users[layer.digest])),
                exclusive=survey.is_exclusive(layer.digest),
                made_by=step,
            )
        )
    return tuple(layers)


def _layer_steps(config: ImageConfig | None, count: int) -> list[str]:
    """Return the build step of each layer; "" for all if the history does not match them."""
    steps: Sequence[HistoryStep] = config.history if config else ()
    texts = [_without_shell(step.created_by) for step in steps if not step.empty_layer]
    return texts if len(texts) == count else [""] * count


def _without_shell(text: str) -> str:
    """Return a build step without the words that every step has."""
    for prefix in ("/bin/sh -c #(nop) ", "/bin/sh -c "):
        text = text.removeprefix(prefix)
    return text.removesuffix(" # buildkit").strip()


def _config_view(config: ImageConfig) -> ConfigView:
    container = config.container
    return ConfigView(
        entrypoint=words(container.entrypoint),
        command=words(container.command),
        user=container.user,
        directory=container.directory,
        created=config.created,
        author=config.author,
        ports=container.ports,
        volumes=container.volumes,
        stop_signal=container.stop_signal,
        health_check=_describe_check(container.health_check),
        environment=tuple(Setting(*item) for item in container.environment.items()),
        labels=tuple(Setting(*item) for item in sorted(container.labels.items())),
    )


def _describe_check(check: HealthCheck | None) -> str:
    if check is None or check.test[:1] == ("NONE",):
        return ""
    return words(check.test[1:])


def _history_line(change: PastChange) -> HistoryLine:
    return HistoryLine(change.time, change.what, change.why)
