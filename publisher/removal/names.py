"""Which image an administrator means: a name as listed, an image reference, one exact manifest."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.oci.digest import is_digest
from publisher.oci.reference import parse_reference
from publisher.repository import Repository
from publisher.repository.published import NotPublished
from publisher.tree import layout
from publisher.tree.schedule import RemoveSchedule


@dataclass(frozen=True, slots=True)
class Target:
    """A public name, and the digest of the manifest where one was named."""

    name: str
    digest: str = ""

    def includes(self, name: str, manifest_digest: str) -> bool:
        """Whether that manifest under that name is meant; a name means its other places too."""
        if self.digest and self.digest != manifest_digest:
            return False
        return name == self.name or (
            name.startswith(f"{layout.MULTIARCH}/") and name.split("/", 2)[2] == self.name
        )


def find_target(repository: Repository, schedule: RemoveSchedule, text: str) -> Target:
    """What `text` means: NAME, or NAME@DIGEST for one exact manifest.

    NAME is a public name, or any reference of the image. Raises InvalidReference for a text that is
    neither, and NotPublished where nothing of that name is published or scheduled.
    """
    if _is_known(repository, schedule, text):
        return Target(text)
    before, _, digest = text.rpartition("@")
    if is_digest(digest) and _is_known(repository, schedule, before):
        return Target(before, digest)
    if text.partition("/")[0] in (layout.LOCAL, layout.MULTIARCH):
        raise _unknown(text)  # a name, and no reference
    reference = parse_reference(text)
    name = layout.public_name(reference)
    if not _is_known(repository, schedule, name):
        raise _unknown(name)
    return Target(name, (reference.digest or "") if reference.tag else "")


def published_places(repository: Repository, target: Target) -> list[str]:
    """The names at which the image is published: the one that is meant, and its platforms' own."""
    names = [target.name]
    if not target.name.startswith(f"{layout.MULTIARCH}/"):
        platforms = repository.children(layout.image_metadata(layout.MULTIARCH))
        names += [f"{layout.MULTIARCH}/{platform}/{target.name}" for platform in platforms]
    return [name for name in names if repository.exists(layout.manifest_file(name))]


def _unknown(name: str) -> NotPublished:
    return NotPublished(
        f"no image is published, or scheduled for removal, as {name}",
        hint="`publisher list` and `publisher schedule` show what there is",
    )


def _is_known(repository: Repository, schedule: RemoveSchedule, name: str) -> bool:
    return layout.is_public_name(name) and (
        repository.exists(layout.manifest_file(name))
        or any(entry.name == name for entry in schedule.entries)
    )
