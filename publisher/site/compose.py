"""The contents of the pages about single images."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.errors import PublisherError
from publisher.oci.config import HealthCheck, HistoryStep, ImageConfig, parse_config
from publisher.oci.manifest import Manifest
from publisher.repository import Repository
from publisher.repository.damaged import read_damaged
from publisher.repository.published import PublishedImage
from publisher.repository.reading import load_thin_record
from publisher.runtimes.shell import words
from publisher.site import addresses
from publisher.site.commands import run_commands
from publisher.site.facts import Facts
from publisher.site.pages import (
    ConfigView,
    Details,
    HistoryLine,
    ImageLayer,
    ImagePage,
    Link,
    Setting,
)
from publisher.site.survey import PastChange, Survey
from publisher.tree import layout
from publisher.tree.record import InvalidRecord, Unreadable

_HISTORY = 50
"""The most changes of one name that its page shows."""


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
