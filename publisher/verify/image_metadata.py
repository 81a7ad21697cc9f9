"""Check the metadata files of one published image: manifest, config, publication, thin image."""

from __future__ import annotations

import json
import shlex

from publisher.errors import InvalidManifest
from publisher.lazy import dataclass
from publisher.oci.config import ImageConfig, parse_config
from publisher.oci.digest import digest_like, digest_of
from publisher.oci.manifest import Manifest, parse_published_manifest
from publisher.repository import Repository
from publisher.tree import layout
from publisher.tree import publication as publication_format
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord
from publisher.tree.thin_image import ThinRecord
from publisher.verify.findings import Kind, Remedy
from publisher.verify.inventory import Inventory, LiveImage, read_record
from publisher.verify.record_versions import add_newer_version, is_newer


@dataclass(frozen=True, slots=True)
class _Publication:
    """The record in publication.json; `unreadable` if the file has no usable record."""

    record: Publication | None
    unreadable: bool = False


def add_image(repository: Repository, inventory: Inventory, name: str) -> None:
    """Add the image published as `name` and the findings about its metadata to the inventory."""
    inventory.names.add(name)
    data = read_record(repository, inventory, layout.manifest_file(name))
    other_tool = data is not None and _is_reserialised(data)
    publication = _read_publication(repository, inventory, name, data, other_tool)
    _check_thin_record(repository, inventory, name)
    found = _read_manifest(inventory, name, data, publication.record)
    if found is None:
        inventory.certain = False
        return
    digest, manifest = found
    record = _matching(publication.record, name, manifest, inventory)
    if record is not None:
        flat, squashfs, sbom = (each in record.outputs for each in ("flat", "squashfs", "sbom"))
    else:  # DUCC's image has one; if it is unreadable, the link is the only evidence
        flat = not publication.unreadable or repository.link_text(name) is not None
        squashfs = repository.link_text(layout.squashfs_link(name)) is not None
        sbom = any(map(repository.exists, layout.sbom_files(name)))
    required = not (other_tool and publication.record is None)
    config = _read_config(repository, inventory, name, manifest, required=required)
    inventory.images.append(
        LiveImage(
            name,
            digest,
            manifest,
            config,
            publication.record.reference if publication.record else "",
            publication.record.platform if publication.record else "",
            flat=flat,
            linked=flat,
            squashfs=squashfs,
            sbom=sbom,
        )
    )


def _read_publication(
    repository: Repository,
    inventory: Inventory,
    name: str,
    manifest_data: bytes | None,
    other_tool: bool,
) -> _Publication:
    path = layout.publication_file(name)
    data = read_record(repository, inventory, path)
    if data is None:
        if other_tool:
            inventory.note(
                Kind.OTHER_TOOL,
                layout.manifest_file(name),
                "the manifest was re-serialised, as DUCC does it: its digest is not the "
                "registry's, and neither config nor publication are recorded; the next ingest of "
                "the image adds them",
                image=name,
            )
        elif manifest_data is not None:
            inventory.warning(
                Kind.PUBLICATION_MISSING,
                path,
                "the record of the image's source is missing",
                Remedy.DERIVE,
                image=name,
            )
        return _Publication(None)
    try:
        return _Publication(Publication.parse(data, path))
    except InvalidRecord as error:
        if is_newer(data, publication_format.VERSION):
            add_newer_version(inventory, path, error, image=name)
        else:
            inventory.error(Kind.PUBLICATION_DAMAGED, path, error.why, Remedy.DERIVE, image=name)
        return _Publication(None, unreadable=True)


def _read_manifest(
    inventory: Inventory, name: str, data: bytes | None, publication: Publication | None
) -> tuple[str, Manifest] | None:
    """Return digest and manifest; None, with a finding, if it is missing or damaged."""
    path = layout.manifest_file(name)
    if data is None:
        inventory.error(
            Kind.MANIFEST_MISSING,
            path,
            "the manifest is missing; other metadata of the image is present",
            Remedy.REFETCH,
            image=name,
        )
        return None
    digest = digest_of(data)
    why = ""
    if publication is not None:
        expected = publication.manifest_digest
        digest = digest_like(data, expected)
        if digest != expected:
            why = f"its digest is {digest}, expected {expected}"
    try:
        if not why:
            return digest, parse_published_manifest(data)
    except InvalidManifest as error:
        why = error.why or str(error)
    inventory.error(Kind.MANIFEST_DAMAGED, path, why, Remedy.REFETCH, image=name)
    return None


def _matching(
    publication: Publication | None, name: str, manifest: Manifest, inventory: Inventory
) -> Publication | None:
    """Return `publication`; add a finding if it is about another name or manifest."""
    if publication is not None and (publication.name, publication.image_id) != (
        name,
        manifest.image_id,
    ):
        inventory.error(
            Kind.PUBLICATION_DAMAGED,
            layout.publication_file(name),
            f"it describes {publication.name} with image ID {publication.image_id}; "
            f"the manifest has image ID {manifest.image_id}",
            Remedy.DERIVE,
            image=name,
        )
    return publication


def _read_config(
    repository: Repository, inventory: Inventory, name: str, manifest: Manifest, *, required: bool
) -> ImageConfig | None:
    path = layout.config_file(name)
    data = read_record(repository, inventory, path)
    if data is None:
        if required:
            inventory.error(
                Kind.CONFIG_MISSING,
                path,
                "the image's config is missing",
                Remedy.REFETCH,
                image=name,
            )
        return None
    digest = digest_like(data, manifest.image_id)
    if digest != manifest.image_id:
        inventory.error(
            Kind.CONFIG_DAMAGED,
            path,
            f"its digest is {digest}, expected {manifest.image_id}",
            Remedy.REFETCH,
            image=name,
        )
        return None
    try:
        return parse_config(data, manifest.image_id)
    except InvalidManifest as error:  # published by a release that did not check it
        # Its source has the same bytes: only another image, or none, helps.
        quoted = shlex.quote(name)
        how = f"publisher remove --grace 0d {quoted} && publisher gc --now --image {quoted}"
        inventory.error(Kind.CONFIG_DAMAGED, path, error.why, how=how, image=name)
        return None


def _check_thin_record(repository: Repository, inventory: Inventory, name: str) -> None:
    path = layout.thin_file(name)
    data = read_record(repository, inventory, path)
    if data is None:
        return
    try:
        ThinRecord.parse(data, path)
    except InvalidRecord as error:
        inventory.warning(
            Kind.RECORD_DAMAGED,
            path,
            f"{error.why}; the next ingest compares the thin image with the registry's",
            Remedy.DERIVE,
            image=name,
        )


def _is_reserialised(data: bytes) -> bool:
    """Return whether a manifest has the capitalized keys that DUCC writes."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "Layers" in value and "layers" not in value
