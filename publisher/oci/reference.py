"""Image references, and the forms of text in which they are written.

`reference_grammar` has the grammar of hosts, image repositories, tags and digests. Transports have
the same names as in skopeo and podman; short names are resolved as in Docker.
"""

from __future__ import annotations

import enum
import re
from dataclasses import replace
from pathlib import PurePosixPath

from publisher.errors import InvalidReference, shorten
from publisher.lazy import dataclass
from publisher.oci import reference_grammar as grammar
from publisher.oci.reference_grammar import refuse
from publisher.oci.web_pages import web_page_of


class Transport(enum.StrEnum):
    """The kind of source of an image, by its prefix in skopeo and podman."""

    REGISTRY = "docker"
    OCI = "oci"
    OCI_ARCHIVE = "oci-archive"
    DOCKER_DAEMON = "docker-daemon"
    DOCKER_ARCHIVE = "docker-archive"


_LAYOUTS = (Transport.OCI, Transport.OCI_ARCHIVE)

HUB = "docker.io"
_HUB_API = "registry-1.docker.io"
_HUB_HOSTS = frozenset(
    {HUB, "index.docker.io", "registry.hub.docker.com", "hub.docker.com", _HUB_API}
)


@dataclass(frozen=True, slots=True)
class ImageReference:
    """The place of one image, or of an image repository.

    `registry` (host, with its port if it has one, as written, in lower case) and `repository` (the
    *image repository*: path and name) belong to the registry transport; `plain_http` is true only
    for `http://`. `location` is the directory or file of the layout and archive transports; for
    `docker-daemon:` and `docker-archive:`, `repository` is the engine's name of the image. `digest`
    is "algorithm:hex" and selects the image; a tag in addition to it only determines the public
    name.
    """

    transport: Transport
    registry: str = ""
    repository: str = ""
    location: str = ""
    tag: str | None = None
    digest: str | None = None
    plain_http: bool = False

    def __str__(self) -> str:
        """Return the canonical text, from which `parse_reference` returns an equal value."""
        if self.transport is Transport.REGISTRY:
            scheme = "http://" if self.plain_http else ""
            if not scheme and not grammar.is_host(self.registry):
                scheme = "https://"  # "registry/x" alone would be a name of Docker Hub
            text = f"{scheme}{self.registry}/{self.repository}"
        else:
            location = self.location
            if self._needs_final_colon():
                location += ":"
            text = ":".join(part for part in (self.transport, location, self.repository) if part)
        if self.tag is not None:
            text += f":{self.tag}"
        return text if self.digest is None else f"{text}@{self.digest}"

    def _needs_final_colon(self) -> bool:
        """Return whether what follows a colon in the location would be read as a name or tag."""
        if self.transport is Transport.DOCKER_ARCHIVE:
            return ":" in self.location
        is_bare = self.transport in _LAYOUTS and self.tag is None
        return is_bare and ":" in self.location.rpartition("/")[2]

    def with_tag(self, tag: str) -> ImageReference:
        """Return the reference with `tag` and without a digest; InvalidReference for a bad tag."""
        changed = replace(self, tag=tag, digest=None)
        grammar.check_tag(str(changed), tag)
        return _checked(changed)


def api_host(registry: str) -> str:
    """Return the host of the API of `registry`: itself, except for the names of Docker Hub."""
    return _HUB_API if registry in _HUB_HOSTS else registry


def canonical_name(registry: str) -> str:
    """Return the one name of a registry: the several hosts of Docker Hub are all docker.io."""
    name = registry.lower()
    return HUB if name in _HUB_HOSTS else name


def parse_reference(text: str) -> ImageReference:
    """Read any form of image reference.

    As in Docker, a name without a host is a name of Docker Hub, and the default tag is `latest`. A
    layout or archive without a tag means its only image.

    Raises:
        InvalidReference: The text is malformed; the hint is a correction.
    """
    reference, pattern = parse_pattern(text)
    if pattern is not None:
        refuse(
            text,
            f"the tag {pattern!r} is a pattern, and one image is expected",
            "write one tag; patterns are for wish lists",
        )
    return reference


def parse_pattern(text: str) -> tuple[ImageReference, str | None]:
    """Read an image reference whose tag may be a pattern (`1.*`), as in wish lists.

    With a pattern, the reference has neither tag nor digest, and the pattern is returned with it.
    """
    reference, pattern = _parse(text)
    named = (pattern, reference.tag, reference.digest) != (None, None, None)
    if reference.repository and not named:
        reference = replace(reference, tag="latest")
    return reference, pattern


def parse_repository(text: str) -> ImageReference:
    """Read an image repository: a reference that must have neither tag nor digest."""
    reference, pattern = _parse(text)
    given = pattern or reference.tag or reference.digest
    if given is not None:
        refuse(text, f"it already names one image: {given!r}", "remove it")
    return reference


def _parse(text: str) -> tuple[ImageReference, str | None]:
    grammar.check_characters(text)
    form, colon, rest = text.partition(":")
    form = form.lower()
    if colon and not rest.startswith("//"):
        if form in (Transport.OCI, Transport.OCI_ARCHIVE):
            return _parse_layout(text, Transport(form), rest), None
        if form == Transport.DOCKER_ARCHIVE:
            return _parse_docker_archive(text, rest), None
        if form == Transport.DOCKER_DAEMON:
            return _parse_engine(text, rest), None
    return _parse_registry(text)


def _parse_registry(text: str) -> tuple[ImageReference, str | None]:
    _refuse_web_page(text)
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    scheme = scheme.lower()
    path_with_scheme = re.match(r"[a-z-]+:/", text) and not separator
    if scheme not in ("", "https", "http", "docker") or path_with_scheme:
        refuse(
            text,
            f"{shorten(text.partition(':')[0])!r} is not a transport",
            "use https://, http://, oci:, oci-archive:, docker-daemon: or docker-archive:",
        )
    grammar.check_ascii(text, rest)
    rest, digest = grammar.split_digest(text, rest)
    first, slash, path = rest.partition("/")
    if scheme not in ("https", "http") and not (slash and grammar.is_host(first)):
        first, path = HUB, rest
    if "?" in rest or "#" in rest:
        refuse(text, "it has a query or fragment ('?', '#')", f"write {re.split('[?#]', rest)[0]}")
    registry = grammar.check_host(text, first)
    path, tag, pattern = grammar.split_tag(text, path)
    if registry in _HUB_HOSTS and path:
        path = path if "/" in path else f"library/{path}"
    grammar.check_repository(text, path)
    if len(registry) + 1 + len(path) > grammar.MAX_NAME:
        refuse(
            text, f"host and name are longer than {grammar.MAX_NAME} characters", "shorten the name"
        )
    if pattern is not None and digest is not None:
        refuse(text, "a digest names one image, and a pattern many", "remove one of the two")
    reference = ImageReference(
        Transport.REGISTRY,
        registry,
        path,
        tag=tag,
        digest=digest,
        plain_http=scheme == "http",
    )
    return _checked(reference), pattern


def _refuse_web_page(text: str) -> None:
    """Raise InvalidReference for the address of a page that shows an image."""
    page = web_page_of(text)
    if page is None:
        return
    try:
        parse_reference(page.reference)
        hint = f"write {page.reference}"
    except InvalidReference:
        hint = "write the address that its button for copying shows"
    refuse(text, f"it is a page of the {page.website} website", hint)


def _parse_layout(text: str, transport: Transport, rest: str) -> ImageReference:
    rest, digest = grammar.split_digest(text, rest)
    # The last colon separates the tag, except one within the path; "oci:a:b:" is the path "a:b".
    location, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        location, tag = rest, ""
    if tag or (colon and ":" not in location):
        grammar.check_tag(text, tag)
    location = _check_location(text, location)
    return ImageReference(transport, location=location, tag=tag or None, digest=digest)


def _parse_docker_archive(text: str, rest: str) -> ImageReference:
    # As for a layout, a final colon ends a path that contains colons: "a:b:", "a:b::name:tag".
    location, colon, name = rest.rpartition("::")
    if rest.endswith(":") and ":" in rest[:-1]:
        location, colon, name = rest[:-1], "", ""
    elif not colon:
        location, colon, name = rest.partition(":")
    location = _check_location(text, location)
    if not colon:
        return ImageReference(Transport.DOCKER_ARCHIVE, location=location)
    return replace(_parse_engine(text, name), transport=Transport.DOCKER_ARCHIVE, location=location)


def _parse_engine(text: str, name: str) -> ImageReference:
    grammar.check_ascii(text, name)
    name, digest = grammar.split_digest(text, name)
    if digest is not None:
        refuse(text, "an engine stores images under its own digests", "name a tag")
    first, slash, path = name.partition("/")
    host = f"{grammar.check_host(text, first)}/" if slash and grammar.is_host(first) else ""
    path, tag, pattern = grammar.split_tag(text, path if host else name)
    if pattern is not None:
        refuse(text, "patterns are matched against registries only", "write one tag")
    grammar.check_repository(text, path)
    name = host + path
    if len(name) > grammar.MAX_NAME:
        refuse(text, f"its name is longer than {grammar.MAX_NAME} characters", "shorten the name")
    return _checked(ImageReference(Transport.DOCKER_DAEMON, repository=name, tag=tag))


def _check_location(text: str, location: str) -> str:
    if not location:
        refuse(
            text, "no directory or file is named", "write oci:DIRECTORY:TAG or oci-archive:FILE:TAG"
        )
    if ".." in location.split("/"):
        refuse(text, "'..' is not allowed in a path", "write the path without it")
    return str(PurePosixPath(location))


def _checked(reference: ImageReference) -> ImageReference:
    suffix = reference.tag or reference.digest or ""
    grammar.check_file_name(str(reference), reference.repository, suffix)
    return reference
