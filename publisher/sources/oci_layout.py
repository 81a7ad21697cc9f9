"""Images in OCI image layouts: `oci:` directories, and archives of them.

Source: OCI image specification 1.1, image-layout page.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

from publisher.lazy import dataclass
from publisher.oci.descriptor import Descriptor, check_size
from publisher.oci.digest import check_digest, digest_hex, digest_of
from publisher.oci.document import Document, detect_media_type, read_object
from publisher.oci.index import parse_index
from publisher.oci.media_types import OCI_INDEX
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.files import Files, open_blob, read_file
from publisher.sources.names import name_one, nearest
from publisher.sources.protocol import read_small_blob

REF_NAME = "org.opencontainers.image.ref.name"
"""The annotation that contains the tag."""
FULL_NAME = "io.containerd.image.name"
"""The annotation of containerd and docker with the complete name."""


@dataclass(frozen=True, slots=True)
class LayoutSource:
    """An image in a layout, by its tag or digest, or the only image."""

    files: Files
    tag: str | None = None
    digest: str | None = None

    def resolve(self) -> str:
        """Return the digest of the image in the layout's index."""
        return self.digest or self._descriptor().digest

    def manifest(self, digest: str | None = None) -> Document:
        """Return the manifest or index, with the bytes of the layout, verified."""
        if digest is None and self.digest is None:
            chosen = self._descriptor()
            return self._document(chosen.digest, chosen.media_type)
        return self._document(digest or self.digest or "", "")

    def fetch(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, verified."""
        return read_small_blob(self, descriptor, self.files.name)

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Return a blob in chunks."""
        return open_blob(self.files, blob_name(descriptor.digest), descriptor)

    def tags(self) -> Iterator[str]:
        """Yield every tag in the layout."""
        found = (entry.annotations.get(REF_NAME) for entry in self.entries())
        return iter(dict.fromkeys(tag for tag in found if tag))

    def entries(self) -> tuple[Descriptor, ...]:
        """Return the entries of index.json; none if its list is null, as in Docker 25.

        Raises SourceError if index.json is missing, and InvalidManifest if it is malformed.
        """
        data = read_file(self.files, "index.json")
        if data is None:
            raise SourceError(
                f"cannot read {self.files.name}",
                why="it has no index.json",
                hint="name the directory or archive of an OCI image layout",
            )
        if read_object(data, "index.json").get("manifests", ()) is None:
            return ()
        return parse_index(Document(data, OCI_INDEX, digest_of(data))).manifests

    def _descriptor(self) -> Descriptor:
        """Return the one entry that tag and digest select."""
        entries = self.entries()
        tags = [entry.annotations.get(REF_NAME, "") for entry in entries]
        chosen = entries
        if self.tag is not None:
            chosen = tuple(e for e, tag in zip(entries, tags, strict=True) if tag == self.tag)
        if not chosen:
            shown = nearest(self.tag or "", filter(None, tags))
            raise ImageNotFound(
                f"no image {self.tag or ''} in {self.files.name}".replace("  ", " "),
                why=f"its tags: {', '.join(shown) or 'none'}",
                hint=name_one(self.files.name, shown) or self._other_name(entries),
                nearest=shown,
            )
        if len({entry.digest for entry in chosen}) > 1:
            shown = [] if self.tag is not None else nearest("", filter(None, tags))
            raise SourceError(
                f"{self.files.name} has several images" + (f" {self.tag}" if self.tag else ""),
                why=f"its tags: {', '.join(tag or 'an image without a tag' for tag in tags[:5])}",
                hint=self._other_name(chosen) or name_one(self.files.name, shown),
            )
        return chosen[0]

    def _other_name(self, entries: tuple[Descriptor, ...]) -> str:
        """Return the hint to name an image in another way than by its tag."""
        names = [n for n in (e.annotations.get(FULL_NAME, "") for e in entries) if n]
        place = self.files.name.partition(":")[2]
        if names and self.files.size("manifest.json") is not None and self.files.is_archive:
            return name_one(f"docker-archive:{place}", names)
        tags = {entry.annotations.get(REF_NAME, "") for entry in entries}
        if entries and (len(tags) < len(entries) or "" in tags):
            return f"write {self.files.name}@{entries[0].digest}"
        return ""

    def _document(self, digest: str, declared: str) -> Document:
        name = blob_name(digest)
        data = read_file(self.files, name)
        if data is None:
            raise ImageNotFound(
                f"no manifest {digest} in {self.files.name}", why=f"the file {name} is missing"
            )
        check_digest(data, digest, f"{name} of {self.files.name} is damaged")
        for entry in self.entries():
            if entry.digest == digest:
                check_size(data, entry)
        return Document(data, detect_media_type(data, declared), digest)


def blob_name(digest: str) -> str:
    """Return the name of a blob's file in a layout."""
    return f"blobs/{digest.partition(':')[0]}/{digest_hex(digest)}"


def has_layout(files: Files) -> bool:
    """Return whether these files are an OCI image layout."""
    return files.size("oci-layout") is not None and files.size("index.json") is not None
