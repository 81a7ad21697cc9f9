"""A new wish for a list: the lines to add, and where to add them. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, urlsplit

import yaml

from publisher.errors import InvalidReference, PublisherError
from publisher.lazy import dataclass
from publisher.oci.platform import Platform
from publisher.oci.reference import ImageReference, Transport, canonical_name, parse_reference
from publisher.oci.tag_patterns import TagPatterns
from publisher.wishlist.model import Wish

LONGEST_NOTE = 200


class InvalidWish(PublisherError):
    """The fields of a new wish have a mistake; `field` is its name."""

    def __init__(self, field: str, why: str, hint: str) -> None:
        super().__init__("cannot add the wish", why=why, hint=hint)
        self.field = field


@dataclass(frozen=True, slots=True)
class NewWish:
    """A wish as its form has it. `platforms` is empty for those that the list has as defaults."""

    image: ImageReference
    platforms: tuple[str, ...] = ()
    note: str = ""

    @property
    def lines(self) -> str:
        """The lines to add to the images of a list."""
        entry: object = str(self.image)
        if self.platforms or self.note:
            fields: dict[str, object] = {"image": str(self.image)}
            if self.platforms:
                fields["platforms"] = list(self.platforms)
            if self.note:
                fields["note"] = self.note
            entry = fields
        text = yaml.safe_dump([entry], sort_keys=False, allow_unicode=True, width=1000)
        return textwrap.indent(text, "  ")

    @property
    def document(self) -> str:
        """A list with this wish alone."""
        return f"version: 2\nimages:\n{self.lines}"


def read_wish(fields: Mapping[str, str]) -> NewWish:
    """Return the wish of a form with the fields image, platforms and note; raise InvalidWish."""
    text = fields.get("image", "").strip()
    try:
        image = parse_reference(text)
    except InvalidReference as error:
        raise InvalidWish("image", f"{error.what}: {error.why}", error.hint) from error
    if image.transport is not Transport.REGISTRY:
        why = f"{image.transport}: names something on the host of the service"
        raise InvalidWish("image", why, "name an image in a registry")
    platforms = tuple(dict.fromkeys(fields.get("platforms", "").replace(",", " ").split()))
    for each in platforms:
        try:
            Platform.parse(each)
        except ValueError as error:
            raise InvalidWish("platforms", str(error), "such as linux/amd64") from error
    note = fields.get("note", "").strip()
    if len(note) > LONGEST_NOTE or not note.isprintable():
        why = f"the note is not a line of at most {LONGEST_NOTE} characters"
        raise InvalidWish("note", why, "shorten it")
    return NewWish(image, platforms, note)


def is_permitted(image: ImageReference, wishes: Iterable[Wish]) -> bool:
    """Return whether a list names the registry of an image already, so that it may be asked.

    Otherwise a form could make the service send requests to any host that it reaches.
    """
    place = canonical_name(image.registry), image.plain_http
    return any(
        (canonical_name(each.image.registry), each.image.plain_http) == place
        for each in wishes
        if each.image.transport is Transport.REGISTRY
    )


def same_wish(image: ImageReference, wishes: Sequence[Wish]) -> Wish | None:
    """Return the wish of a list that requests the image already, or None."""
    place = canonical_name(image.registry), image.repository
    for wish in wishes:
        other = wish.image
        if (canonical_name(other.registry), other.repository) != place:
            continue
        if not wish.tags and (other.tag, other.digest) == (image.tag, image.digest):
            return wish
        is_matched = image.tag is not None and image.digest is None and wish.tags
        if is_matched and TagPatterns(wish.tags, wish.exclude).among([image.tag or ""]):
            return wish
    return None


def edit_address(url: str, path: str, revision: str) -> str:
    """Return the page of a forge that edits a file of a git repository; "" if it is not known.

    Args:
        url: The address of the repository, such as https://github.com/astro/wishes.git.
        path: The path of the file in it.
        revision: A branch, or HEAD for the default one.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if parts.scheme != "https" or not host:
        return ""
    place = f"{host}:{parts.port}" if parts.port else host
    base = f"https://{place}{quote(parts.path.removesuffix('.git').rstrip('/'))}"
    file = f"{quote(revision)}/{quote(path)}"
    if _is_of(host, "github"):
        return f"{base}/edit/{file}"
    if _is_of(host, "gitlab"):
        return f"{base}/-/edit/{file}"
    if _is_of(host, "gitea") or _is_of(host, "forgejo") or _is_of(host, "codeberg"):
        return f"{base}/_edit/{file}"
    return ""


def _is_of(host: str, forge: str) -> bool:
    return forge in host.split(".")
