"""One image for one platform: manifest and config, as exact bytes and parsed."""

from __future__ import annotations

from publisher.lazy import dataclass
from publisher.oci.config import ImageConfig
from publisher.oci.document import Document
from publisher.oci.manifest import Manifest
from publisher.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """One image for one platform, without its layers."""

    platform: Platform
    document: Document
    manifest: Manifest
    config_document: Document
    config: ImageConfig
    index_digest: str | None = None
    """The digest of the index that the reference names, or None if it names the manifest."""

    @property
    def source_digest(self) -> str:
        """The digest that the reference names: that of the index, or of the manifest alone."""
        return self.index_digest or self.document.digest
