"""Wishes, wish lists and their problems, as values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from publisher.lazy import dataclass
from publisher.oci.platform import Platform
from publisher.oci.reference import ImageReference
from publisher.problems import InvalidFile, Problem, Severity
from publisher.tree.schedule import DEFAULT_GRACE

MAX_BYTES = 4 * 1024 * 1024
"""The largest wish list that is read: some forty thousand wishes."""

OUTPUTS = ("flat", "layers", "thin", "podman", "squashfs", "sbom")
"""The forms in which an image can be published."""

DEFAULT_PLATFORMS = (Platform("linux", "amd64"),)
DEFAULT_OUTPUTS = ("flat", "layers")


@dataclass(frozen=True, slots=True)
class Wish:
    """One request for an image, or for the tags of an image repository.

    Either `image` names one image and `tags` is empty, or `image` has neither tag nor digest and
    `tags` holds the patterns (globs and version ranges) that are matched against the tags of the
    image repository, without those that `exclude` matches. The image for the first of `platforms`
    has the plain public name. `name` is the published name of an image without a registry. `grace`
    is how long the image stays usable after no wish requests it any more. `thin` is the output
    format of the thin image's name (see `render_output_format`), or None if none is pushed. `line`
    and `column` are the wish's place in its list, from 1; 0 for a wish outside of any list.
    """

    image: ImageReference
    tags: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = DEFAULT_PLATFORMS
    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    grace: timedelta = DEFAULT_GRACE
    name: str | None = None
    owner: str = ""
    note: str = ""
    expires: date | None = None
    thin: str | None = None
    line: int = 0
    column: int = 0

    def has_expired(self, moment: datetime) -> bool:
        """Return whether `moment` is in the day `expires` (UTC) or later."""
        return self.expires is not None and self.expires <= moment.astimezone(UTC).date()

    def __str__(self) -> str:
        if not self.tags:
            return str(self.image)
        return f"{self.image}:{'|'.join(self.tags)}"


@dataclass(frozen=True, slots=True)
class WishList:
    """A wish list as read from the file `name`.

    `repository` is the URL of the repository that the list names, or None. A wish with an error is
    not among `wishes`; the others can be published nevertheless.
    """

    name: str
    version: int
    user: str
    repository: str | None
    wishes: tuple[Wish, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def unusable(self) -> tuple[Problem, ...]:
        """The errors, each of which makes a wish unusable."""
        return tuple(p for p in self.problems if p.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that do not make any wish unusable."""
        return tuple(p for p in self.problems if p.severity is Severity.WARNING)


class WishListError(InvalidFile):
    """A wish list is unusable as a whole, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Request:
    """A wish and the identity of its wish list: its absolute path or URL, "" for none.

    `locked` has the images of the wish, with their digests, if they come from a lock.
    """

    wish: Wish
    wish_list: str = ""
    locked: Mapping[ImageReference, str] | None = None
