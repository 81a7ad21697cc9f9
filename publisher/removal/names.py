"""Names of images on the command line: public names, image references, NAME@DIGEST."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from publisher.errors import PublisherError
from publisher.lazy import dataclass, pattern
from publisher.oci.reference import parse_reference
from publisher.repository.published import NotPublished, possible_places
from publisher.repository.records import RecordSet
from publisher.tree import layout

_SHORT_DIGEST = pattern(r"(sha256:|sha512:)?[0-9a-f]{6,128}")
_GLOB = pattern(r"[*?\[]")


class AmbiguousDigest(PublisherError):
    """A shortened digest is the beginning of several manifests' digests.

    `name` is the public name, and `matching` are the full digests.
    """

    def __init__(
        self, what: str, *, name: str, matching: Sequence[str], why: str = "", hint: str = ""
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.name = name
        self.matching = tuple(matching)


@dataclass(frozen=True, slots=True)
class Target:
    """A public name, and the digest of the manifest if one exact manifest is meant."""

    name: str
    digest: str = ""

    def includes(self, name: str, manifest_digest: str) -> bool:
        """Return whether the target includes that manifest under that name.

        A plain name includes the names of the image's platforms.
        """
        if self.digest and self.digest != manifest_digest:
            return False
        return self.name in (name, layout.split_platform(name)[1])


def find_target(records: RecordSet, text: str) -> Target:
    """Return what `text` means: NAME, or NAME@DIGEST for one exact manifest.

    NAME is a public name or an image reference. DIGEST may be shortened, as `publisher schedule`
    prints it.

    Raises:
        InvalidReference: `text` is neither a name nor a reference.
        NotPublished: No such image is published or scheduled.
        AmbiguousDigest: Several manifests of that name begin with the shortened digest.
    """
    if _is_known(records, text):
        return Target(text)
    before, _, digest = text.rpartition("@")
    if _SHORT_DIGEST.fullmatch(digest) and _is_known(records, before):
        return Target(before, _full_digest(records, before, digest))
    if layout.is_never_a_reference(text):
        raise _unknown(text)
    reference = parse_reference(text)
    name = layout.public_name(reference)
    if not _is_known(records, name):
        raise _unknown(name)
    return Target(name, (reference.digest or "") if reference.tag else "")


def expand_pattern(records: RecordSet, text: str) -> list[str]:
    """Return the published names that match the glob `text`; `text` itself if it is not a glob.

    Raises NotPublished if nothing matches.
    """
    if not _GLOB.search(text):
        return [text]
    matches = re.compile(fnmatch.translate(text)).match
    names = [name for name in records.repository.names() if matches(name)]
    if not names:
        raise NotPublished(
            f"no image is published as {text}", name=text, hint=f"publisher list {_quoted(text)}"
        )
    return names


def _full_digest(records: RecordSet, name: str, short: str) -> str:
    """Return the digest of the manifest under `name` that begins with `short`."""
    target = Target(name)
    published = (records.manifest(place) for place in possible_places(records.repository, name))
    digests = {found.digest for found in published if found is not None}
    digests |= {e.manifest_digest for e in records.schedule.all() if target.includes(*e.key)}
    matching = sorted(d for d in digests if d.startswith(short) or _hex(d).startswith(short))
    if len(matching) > 1:
        raise AmbiguousDigest(
            f"{name}@{short} is ambiguous",
            name=name,
            matching=matching,
            why=f"it is the beginning of {' and '.join(matching)}",
            hint="write more digits of the digest",
        )
    if matching:
        return matching[0]
    if ":" in short:
        return short
    raise _unknown(f"{name}@{short}")


def _hex(digest: str) -> str:
    return digest.partition(":")[2]


def _quoted(text: str) -> str:
    return f"'{text}'"


def _unknown(name: str) -> NotPublished:
    return NotPublished(
        f"no image is published, or scheduled for removal, as {name}",
        name=name,
        hint="`publisher list` and `publisher schedule` show what exists",
    )


def _is_known(records: RecordSet, name: str) -> bool:
    return layout.is_public_name(name) and (
        records.repository.exists(layout.manifest_file(name))
        or any(entry.name == name for entry in records.schedule.all())
    )
