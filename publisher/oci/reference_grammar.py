"""The grammar of the parts of image references: hosts, image repositories, tags, digests.

Sources: OCI distribution specification 1.1 (names, tags), OCI image specification 1.1 (digests),
RFC 1123 (host names). Accepted parts are safe as components of a path: not empty, without a
leading dot, and no longer than a file name may be. `text` is always the whole reference, for the
message.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NoReturn

from publisher.errors import InvalidReference, presentable, shorten
from publisher.lazy import pattern
from publisher.oci.digest import is_digest

MAX_NAME = 255
"""The limit of clients and registries for host and image repository together, in characters."""

MAX_FILE_NAME = 255
"""The limit of all supported file systems for a file name, in bytes; the names are ASCII."""

FORMS = "write HOST/PATH/NAME:TAG, such as docker.io/library/debian:stable"

_MAX_TEXT = 4096
_TAG = pattern(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_COMPONENT = pattern(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_HOST = pattern(rf"(?P<host>{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{{1,9}}))?")
_DIGEST_SUFFIX = pattern(r"(?P<rest>.*)@(?P<digest>sha(?:256|512):[^/@]*)", re.DOTALL)
_OTHER_DIGEST = pattern(r"@[a-z0-9]+([+._-][a-z0-9]+)*:[0-9A-Fa-f]{16,}\Z")


def refuse(text: str, why: str, hint: str) -> NoReturn:
    """Raise InvalidReference about `text`, which is shown without credentials."""
    raise InvalidReference(f"{presentable(text)!r} is not an image reference", why=why, hint=hint)


def check_characters(text: str) -> None:
    """Raise InvalidReference for characters that no form of reference may contain."""
    if not text:
        refuse(text, "it is empty", FORMS)
    if len(text) > _MAX_TEXT:
        refuse(text, f"it is longer than {_MAX_TEXT} characters", FORMS)
    for character in text:
        if character.isspace():
            refuse(
                text, f"it contains white space ({character!r})", "remove it; a tag follows a ':'"
            )
        if not character.isprintable():
            refuse(text, f"it contains a control character ({character!r})", "remove it")


def check_ascii(text: str, name: str) -> None:
    """Raise InvalidReference if the part `name` of `text` has backslashes or is not ASCII."""
    for character in name:
        if not character.isascii():
            refuse(
                text,
                f"it contains {character!r} (U+{ord(character):04X})",
                "use the letters a to z, digits and '.', '_', '-'",
            )
        if character == "\\":
            refuse(text, "it contains a backslash", "separate the parts of a path with '/'")


def split_digest(text: str, rest: str) -> tuple[str, str | None]:
    """Return `rest` without its digest, and the digest; refuse any other '@'."""
    match = _DIGEST_SUFFIX.fullmatch(rest)
    if match is not None:
        rest = match["rest"]
    if "@" in rest:
        if _OTHER_DIGEST.search(rest):
            refuse(text, "its digest algorithm is not supported", "use sha256 or sha512")
        refuse(
            text,
            "'@' is only allowed before a digest (@sha256:…), and credentials are not allowed",
            "remove what precedes the '@'; `publisher login` stores credentials",
        )
    if match is None:
        return rest, None
    check_digest(text, match["digest"])
    return rest, match["digest"]


def split_tag(text: str, path: str) -> tuple[str, str | None, str | None]:
    """Return path, tag, and pattern; at most one of tag and pattern is given."""
    before, slash, last = path.rpartition("/")
    name, colon, tag = last.partition(":")
    if ":" in before:
        refuse(text, "a tag (':') is only allowed at the end", FORMS)
    if "*" in before + name:
        refuse(text, "a pattern is only allowed in the tag", "name each image repository")
    if not colon:
        return path, None, None
    path = before + slash + name
    if "*" in tag:
        return path, None, tag
    check_tag(text, tag)
    return path, tag, None


def is_host(component: str) -> bool:
    """Return whether the first component of a name is a host, as in Docker."""
    return "." in component or ":" in component or component.lower() == "localhost"


def check_host(text: str, host: str) -> str:
    """Return `host`, which may have a port, in lower case; raise InvalidReference if invalid."""
    host = host.lower()
    match = _HOST.fullmatch(host)
    if match is None:
        refuse(
            text,
            f"{shorten(host)!r} is not a host name",
            "a host is letters, digits, '-' and '.', then perhaps :PORT; IPv6 as [::1]:5000",
        )
    port = match["port"]
    if port is not None and (port.startswith("0") or int(port) > 65535):
        refuse(text, f"{port!r} is not a port", "ports are 1 to 65535, without leading zeros")
    if match["host"].startswith("["):
        try:
            ipaddress.IPv6Address(match["host"][1:-1])
        except ValueError:
            refuse(text, f"{match['host']!r} is not an IPv6 address", "write it as [::1]:5000")
    elif any(len(label) > 63 for label in match["host"].split(".")):
        refuse(text, "a part of the host name is longer than 63 characters", "correct the host")
    return host


def check_repository(text: str, path: str) -> None:
    """Raise InvalidReference unless `path` can be an image repository."""
    if not path:
        refuse(text, "the name of the image is missing", FORMS)
    for component in path.split("/"):
        if component == "":
            refuse(
                text, "a part of its path is empty", "remove the '/' that is doubled or at an end"
            )
        if component in (".", ".."):
            refuse(text, f"{component!r} is not allowed in a path", "write the path without it")
        if _COMPONENT.fullmatch(component):
            continue
        if _COMPONENT.fullmatch(component.lower()):
            refuse(
                text,
                f"{shorten(component)!r} has upper-case letters, which only tags may have",
                f"write {presentable(_in_lower_case(text, path))}",
            )
        refuse(
            text,
            f"{shorten(component)!r} cannot be a part of an image's path",
            "parts are lower-case letters and digits, with single '.', '_', '__' or '-' between",
        )


def _in_lower_case(text: str, path: str) -> str:
    path = path.removeprefix("library/")  # it may have been added
    return text.replace(path, path.lower(), 1)


def check_tag(text: str, tag: str) -> None:
    """Raise InvalidReference unless `tag` is a tag."""
    if _TAG.fullmatch(tag):
        return
    if not tag:
        refuse(text, "the tag after ':' is empty", "write a tag, or remove the ':'")
    if len(tag) > 128:
        refuse(text, "the tag is longer than 128 characters", "use a shorter tag")
    if ":" in tag:
        refuse(text, f"{shorten(tag)!r} has another ':'", "one ':' separates name and tag")
    refuse(
        text,
        f"{shorten(tag)!r} cannot be a tag",
        "tags are letters, digits, '_', '.' and '-', and begin with neither '.' nor '-'",
    )


def check_digest(text: str, digest: str) -> None:
    """Raise InvalidReference unless `digest` is a whole sha256 or sha512 digest."""
    if is_digest(digest):
        return
    if is_digest(digest.lower()):
        refuse(text, "its digest has upper-case letters", f"write {digest.lower()}")
    algorithm, _, value = digest.partition(":")
    wanted = 128 if algorithm == "sha512" else 64
    if len(value) != wanted:
        why = f"its {algorithm} digest has {len(value)} characters instead of {wanted}"
    else:
        why = f"its {algorithm} digest has other characters than 0-9 and a-f"
    refuse(text, why, "copy the whole digest, as the registry shows it")


def check_file_name(text: str, repository: str, suffix: str) -> None:
    """Raise InvalidReference if name and tag (or digest) are too long for one file name."""
    if len(repository.rpartition("/")[2]) + 1 + len(suffix) > MAX_FILE_NAME:
        refuse(
            text,
            f"name and tag together are longer than a file name may be ({MAX_FILE_NAME})",
            "use a shorter tag or name",
        )


def check_local_name(name: str) -> None:
    """Raise InvalidReference unless `name` can be the name of an image without a registry."""
    try:
        check_characters(name)
        check_repository(name, name)
    except InvalidReference as error:
        raise InvalidReference(
            f"{presentable(name)!r} cannot be an image's name", why=error.why, hint=error.hint
        ) from error
