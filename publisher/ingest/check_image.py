"""Check one image of a wish, from its manifest and config alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import field

from publisher.errors import PublisherError
from publisher.ingest.admission import Admission
from publisher.ingest.findings import Finding, Level, Rule, of_wish
from publisher.ingest.wanted import RequestedImage, check_size
from publisher.layers.index import read_header
from publisher.layers.policy import Limits
from publisher.lazy import dataclass
from publisher.oci.image import PlatformImage
from publisher.oci.reference import ImageReference, parse_reference
from publisher.repository import Repository
from publisher.repository.records import RecordSet
from publisher.sources.image import fetch_images
from publisher.sources.open import Sources
from publisher.wishlist import Wish, render_output_format
from publisher.wishlist.changes import Change
from publisher.wishlist.overlaps import Overlaps

MUTABLE_TAGS = ("latest", "main", "master", "edge", "nightly", "dev", "devel")
"""Tags that are usually moved from one image to another."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a list is published to: the limits, and the repository if it is readable on this host.

    `problem` is why it is not readable, or "".
    """

    limits: Limits = field(default_factory=Limits)
    repository: Repository | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """The result for one image; `error` is why it cannot be published, "" if it can.

    `name` is its public name, or the text of the wish if it has none. `layers` maps the digests of
    the layers for all requested platforms to their compressed sizes in bytes. `new_layers` are
    those that the repository does not have; None if no repository is readable. `seconds` is the
    time that the registry took. `created` is when the image was built, as its config states.
    `change` is how its wish differs from the earlier version of the list, if there is one.
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
    new_layers: Mapping[str, int] | None = None
    seconds: float = 0.0
    created: str = ""
    owner: str = ""
    change: Change | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def size(self) -> int:
        """The compressed size in bytes of all its layers."""
        return sum(self.layers.values())

    @property
    def new_size(self) -> int | None:
        """The compressed size in bytes of `new_layers`; None if it is unknown."""
        return None if self.new_layers is None else sum(self.new_layers.values())


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """Checks images for one list.

    `overlaps` has the wishes of the list. Without it, overlaps are not reported, and what does not
    prevent an image from being published is not either.
    """

    sources: Sources
    target: Target
    admission: Admission
    overlaps: Overlaps | None = None

    def run(self, image: RequestedImage, change: Change | None) -> CheckedImage:
        """Return the result for an image that can be published.

        Raises:
            PublisherError: It cannot be published.
        """
        began = time.monotonic()
        wish = image.request.wish
        overlap = self._overlap(image)
        source = self.sources.open(image.reference)
        images = fetch_images(source, wish.platforms)
        digest = images[0].source_digest
        layers = {layer.digest: layer.size for each in images for layer in each.manifest.layers}
        new, entries = self._check_sizes(images, layers)
        self.admission.check_images(wish, image.reference, source, images, entries)
        findings = overlap + (self._notes(image) if self.overlaps is not None else [])
        _check_thin_name(wish, image.reference, digest)
        return CheckedImage(
            name=image.name,
            reference=str(image.reference),
            wish_list=image.request.wish_list,
            line=wish.line,
            column=wish.column,
            digest=digest,
            platforms=tuple(str(platform) for platform in wish.platforms),
            layers=layers,
            new_layers=new,
            seconds=time.monotonic() - began,
            created=images[0].config.created,
            owner=wish.owner,
            change=change,
            findings=tuple(findings),
        )

    def _check_sizes(
        self, images: Sequence[PlatformImage], layers: Mapping[str, int]
    ) -> tuple[dict[str, int] | None, int]:
        """Return the layers that the repository does not have, and how many entries are known.

        The entries of layers that are not published are unknown, since no layer is fetched.

        Raises:
            LimitExceeded: An image is larger than the repository allows.
        """
        for each in images:
            check_size(each, self.target.limits)
        repository = self.target.repository
        if repository is None:
            return None, 0
        try:
            new = {d: size for d, size in layers.items() if not repository.has_layer(d)}
        except (PublisherError, OSError):  # a repository that is unreadable here fails no wish
            return None, 0
        most = 0
        for each in images:
            digests = {layer.digest for layer in each.manifest.layers} - new.keys()
            entries = sum(_entries(repository, digest) for digest in digests)
            what = f"cannot publish manifest {each.document.digest}"
            self.target.limits.check_image(what, entries, each.manifest.size)
            most = max(most, entries)
        return new, most

    def _overlap(self, image: RequestedImage) -> list[Finding]:
        """Return a warning if another wish requests the image; raise NameTaken if they differ."""
        request, reference = image.request, image.reference
        other = None if self.overlaps is None else self.overlaps.find(request.wish, reference)
        if other is None:
            return []
        return [
            of_wish(
                Rule.OVERLAP,
                Level.WARNING,
                request.wish_list,
                request.wish,
                f"line {other.line} requests {reference} already",
                "remove one of the two, or exclude the tag from the pattern",
            )
        ]

    def _notes(self, image: RequestedImage) -> list[Finding]:
        request, reference = image.request, image.reference
        notes = []
        if reference.digest is None and reference.tag in MUTABLE_TAGS:
            message = f"the tag {reference.tag!r} moves: the published image changes with it"
            hint = "write the tag of a version, or add @DIGEST"
            notes.append((Rule.MUTABLE_TAG, Level.NOTE, message, hint))
        published = self._published_reference(image.name)
        if published not in (None, str(reference)):
            message = f"{image.name} is published already, from {published}, and is replaced"
            notes.append((Rule.NAME_TAKEN, Level.WARNING, message, "check the scheme and the name"))
        return [
            of_wish(rule, level, request.wish_list, request.wish, message, hint)
            for rule, level, message, hint in notes
        ]

    def _published_reference(self, name: str) -> str | None:
        if self.target.repository is None:
            return None
        try:
            found = RecordSet(self.target.repository).readable_publication(name)
        except (PublisherError, OSError):
            return None
        return None if found is None else found.reference


def _entries(repository: Repository, digest: str) -> int:
    """Return how many entries a published layer has; 0 if its index is unreadable."""
    try:
        with repository.open_index(digest) as file:
            return read_header(file).entries
    except (PublisherError, OSError):
        return 0


def _check_thin_name(wish: Wish, reference: ImageReference, digest: str) -> None:
    """Raise InvalidReference if the thin image of `reference` cannot have its name."""
    if wish.thin is not None:
        parse_reference(render_output_format(wish.thin, reference, digest, wish.name))
