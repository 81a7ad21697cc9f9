"""Images in OCI image layouts: `oci:` folders, and, over the same files, archives of them.

Source: OCI image specification 1.1, image-layout page.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from publisher.oci.descriptor import Descriptor, check_size
from publisher.oci.digest import check_digest, digest_hex, digest_of
from publisher.oci.document import Document, detect_media_type
from publisher.oci.index import parse_index
from publisher.oci.media_types import OCI_INDEX
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.files import Files, open_blob, read_file
from publisher.sources.protocol import read_small_blob

REF_NAME = "org.opencontainers.image.ref.name"
"""The annotation that holds the tag."""
FULL_NAME = "io.containerd.image.name"
"""The annotation in which containerd and docker keep the whole name."""


@dataclass(frozen=True, slots=True)
class LayoutSource:
    """An image in a layout, by its tag or digest; without either, the only one there is."""

    files: Files
    tag: str | None = None
    digest: str | None = None

    def resolve(self) -> str:
        """The digest that the layout's index has for the image now."""
        return self.digest or self._descriptor().digest

    def manifest(self, digest: str | None = None) -> Document:
        """The manifest or index, exactly as it lies there, verified."""
        wanted, declared = digest or self.digest, ""
        if wanted is None:
            chosen = self._descriptor()
            wanted, declared = chosen.digest, chosen.media_type
        document = self._document(wanted, declared)
        for entry in self.entries():
            if entry.digest == wanted:
                check_size(document.data, entry)
        return document

    def fetch(self, descriptor: Descriptor) -> bytes:
        """A small blob, whole and verified."""
        return read_small_blob(self, descriptor, self.files.name)

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """A blob in chunks."""
        return open_blob(self.files, blob_name(descriptor.digest), descriptor)

    def tags(self) -> Iterator[str]:
        """Every tag in the layout."""
        found = (entry.annotations.get(REF_NAME) for entry in self.entries())
        return iter(dict.fromkeys(tag for tag in found if tag))

    def entries(self) -> tuple[Descriptor, ...]:
        """What the layout's index.json lists."""
        data = read_file(self.files, "index.json")
        if data is None:
            raise SourceError(
                f"cannot read {self.files.name}",
                why="it has no index.json",
                hint="is that an OCI image layout?",
            )
        return parse_index(Document(data, OCI_INDEX, digest_of(data))).manifests

    def _descriptor(self) -> Descriptor:
        """The one entry that is meant."""
        entries = self.entries()
        tags = [entry.annotations.get(REF_NAME, "") for entry in entries]
        if self.tag is not None:
            entries = tuple(e for e, tag in zip(entries, tags, strict=True) if tag == self.tag)
        there = ", ".join(tag or "an image without a tag" for tag in tags) or "none"
        if not entries:
            raise ImageNotFound(
                f"no image {self.tag or ''} in {self.files.name}".replace("  ", " "),
                why=f"the images there: {there}",
            )
        if len({entry.digest for entry in entries}) > 1:
            raise SourceError(
                f"{self.files.name} holds several images",
                why=f"the images there: {there}",
                hint="name one by its tag",
            )
        return entries[0]

    def _document(self, digest: str, declared: str) -> Document:
        name = blob_name(digest)
        data = read_file(self.files, name)
        if data is None:
            raise ImageNotFound(
                f"no manifest {digest} of {self.files.name}", why=f"there is no {name}"
            )
        check_digest(data, digest, f"{name} of {self.files.name} is damaged")
        return Document(data, detect_media_type(data, declared), digest)


def blob_name(digest: str) -> str:
    """Where a layout keeps a blob."""
    return f"blobs/{digest.partition(':')[0]}/{digest_hex(digest)}"


def has_layout(files: Files) -> bool:
    """Whether these files are an OCI image layout."""
    return files.size("oci-layout") is not None and files.size("index.json") is not None
