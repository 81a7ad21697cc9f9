"""Podman's additional image store: names, paths and directories of the overlay driver. Pure.

Source: containers/storage, docs/containers-storage.conf.5.md ("additionalimagestores"), and its
overlay driver, which requires that the `diff` of a layer, if it is a link, is an absolute one. The
store holds no data: each layer's `diff` is a link to a published tree. Images and layers have the
IDs that containers/image gives them when it pulls the image: what was pulled and what is in the
store are recognised as the same.

Below all layers, every image has the base: empty mount points and files that podman otherwise makes
in each container. In a user namespace it cannot, where directories of the image belong to the real
root. The base is not a layer of the image, and hides nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence

from publisher.entry import Entry, EntryType, Generated
from publisher.lazy import dataclass
from publisher.oci.digest import digest_hex, digest_of
from publisher.oci.document import Document
from publisher.oci.reference import ImageReference, Transport, canonical_name
from publisher.tree.layout import LAYER_TAR_SPLIT, LAYER_TREE, PODMAN_STORE

LAYERS_FILE = f"{PODMAN_STORE}/overlay-layers/layers.json"
IMAGES_FILE = f"{PODMAN_STORE}/overlay-images/images.json"
LOCK_FILES = (
    f"{PODMAN_STORE}/overlay-layers/layers.lock",
    f"{PODMAN_STORE}/overlay-images/images.lock",
)

BASE = f"{PODMAN_STORE}/overlay/base"

_BASE_ID = "base"

EPOCH = "1970-01-01T00:00:00Z"
"""The creation time of an image without one in its config."""


@dataclass(frozen=True, slots=True)
class StoreLayer:
    """One layer: `tree` is the path of its files in the repository, `parent` the ID below it.

    `diff_size` and `compressed_size` are in bytes; the latter and its digest are only given for a
    layer that was downloaded in this form. `tar_split` is the path of its tar-split data in the
    repository; "" for a layer without any.
    """

    id: str
    parent: str
    tree: str
    diff_id: str
    diff_size: int
    compressed_digest: str = ""
    compressed_size: int = 0
    tar_split: str = ""


@dataclass(frozen=True, slots=True)
class StoreImage:
    """One image under one name; `layers` from bottom to top, without those listed twice."""

    name: str
    manifest: Document
    config: Document
    created: str
    layers: tuple[StoreLayer, ...]

    @property
    def id(self) -> str:
        """The ID that podman gives the image."""
        return entry_id(self.config.digest)

    def trees(self, mount: str) -> Iterator[tuple[str, list[Generated]]]:
        """Yield path and entries of the directories of the image and of its layers.

        `mount` is the absolute path at which clients mount the repository.
        """
        below = [_BASE_ID]
        yield BASE, _base()
        for layer in self.layers:
            files = {"link": _short(layer.id)}
            files["lower"] = ":".join(f"l/{_short(each)}" for each in reversed(below))
            diff = Entry("diff", EntryType.SYMLINK, 0o777, target=f"{mount}/{layer.tree}")
            entries = [
                _directory(),
                Generated(diff),
                *(_file(name, text.encode()) for name, text in files.items()),
            ]
            yield layer_paths(layer.id)[0], entries
            below.append(layer.id)
        data = sorted((data_file_name(key), each.data) for key, each in self._big_data().items())
        entries = [_directory(), *(_file(name, content) for name, content in data)]
        yield image_directory(self.config.digest), entries

    def links(self) -> Iterator[tuple[str, str]]:
        """Yield path and text of the links beside the layers' directories.

        Short links keep the options of a mount short; others lead to tar-split data.
        """
        yield base_link()
        for layer in self.layers:
            yield layer_paths(layer.id)[1], f"../{layer.id}/diff"
            if layer.tar_split:
                yield tar_split_link(layer.id), tar_split_target(layer.tar_split)

    def _big_data(self) -> Mapping[str, Document]:
        return {
            self.config.digest: self.config,
            f"manifest-{self.manifest.digest}": self.manifest,
            "manifest": self.manifest,
        }

    def to_entry(self) -> dict[str, object]:
        """Return the image's entry in images.json."""
        data = self._big_data()
        return {
            "id": self.id,
            "digest": self.manifest.digest,
            "names": [self.name],
            **({"layer": self.layers[-1].id} if self.layers else {}),
            "metadata": "{}",
            "big-data-names": list(data),
            "big-data-sizes": {key: len(each.data) for key, each in data.items()},
            "big-data-digests": {key: each.digest for key, each in data.items()},
            "created": self.created,
        }


def layer_ids(diff_ids: Sequence[str]) -> list[str]:
    """Return the IDs that containers/image gives layers with these diff IDs, from bottom to top.

    Source: its storage destination, which looks a layer up by this ID before it stores one. The
    bottom layer has the hex digits of its diff ID, another one those of the digest of the text
    "ID of the layer below+hex digits of its diff ID".
    """
    found: list[str] = []
    for diff_id in diff_ids:
        own = entry_id(diff_id)
        found.append(digest_hex(digest_of(f"{found[-1]}+{own}".encode())) if found else own)
    return found


def flat_layer(image_id: str, tree: str, size: int) -> StoreLayer:
    """Return the only layer of an image that is stored as its flat image.

    Podman requires a digest of the layer's archive. A flat image has no archive, so the digest is
    that of its name, which no other layer can have.
    """
    digest = digest_of(f"flat image {image_id}".encode())
    return StoreLayer(digest_hex(digest), "", tree, digest, size)


def store_name(reference: ImageReference, public_name: str) -> str:
    """Return the full name of the image, as podman completes a short one."""
    if reference.transport is not Transport.REGISTRY:
        return f"localhost/{public_name.partition('/')[2]}"
    name = f"{canonical_name(reference.registry)}/{reference.repository}"
    if reference.tag is None and reference.digest is not None:
        return f"{name}@{reference.digest}"
    return f"{name}:{reference.tag or 'latest'}"


def base_link() -> tuple[str, str]:
    """Return path and text of the short link to the base."""
    return f"{PODMAN_STORE}/overlay/l/{_short(_BASE_ID)}", f"../{_BASE_ID}/diff"


def with_base(lower: str) -> str:
    """Return the text of a layer's `lower`, to which the base is added where it is missing."""
    base = f"l/{_short(_BASE_ID)}"
    below = [each for each in lower.split(":") if each and each != base]
    return ":".join([*below, base])


def layer_paths(layer_id: str) -> tuple[str, str]:
    """Return a layer's directory, and the short link to its files."""
    return f"{PODMAN_STORE}/overlay/{layer_id}", f"{PODMAN_STORE}/overlay/l/{_short(layer_id)}"


def tar_split_link(layer_id: str) -> str:
    """Return the path at which podman looks for a layer's tar-split data."""
    return f"{PODMAN_STORE}/overlay-layers/{layer_id}.tar-split.gz"


def tar_split_of(tree: str) -> str:
    """Return where the tar-split data of the layer with this tree is, if it has any."""
    return f"{tree.removesuffix(LAYER_TREE)}{LAYER_TAR_SPLIT}"


def tar_split_target(path: str) -> str:
    """Return the text of a link to tar-split data at `path` in the repository."""
    return f"../../{path}"


def image_directory(image_id: str) -> str:
    """Return the directory of the image whose config has this digest."""
    return f"{PODMAN_STORE}/overlay-images/{entry_id(image_id)}"


def entry_id(digest: str) -> str:
    """Return the 64 hex digits that the store accepts as an ID."""
    found = digest_hex(digest)
    return found if len(found) == 64 else digest_hex(digest_of(digest.encode()))


def _short(layer_id: str) -> str:
    """Return 26 capital letters and digits, as long as the driver's own short names."""
    return base64.b32encode(bytes.fromhex(digest_hex(digest_of(layer_id.encode()))))[:26].decode()


def data_file_name(key: str) -> str:
    """Return the name of the file for a key of an image's data; unusual characters are encoded."""
    if re.fullmatch(r"[a-z0-9.]+", key):
        return key
    return f"={base64.b64encode(key.encode()).decode()}"


def _base() -> list[Generated]:
    entries = [_directory(), _directory("diff"), _directory("diff/dev"), _directory("diff/etc")]
    entries += [_file(f"diff/etc/{name}", b"") for name in ("hostname", "hosts")]
    mtab = Entry("diff/etc/mtab", EntryType.SYMLINK, 0o777, target="/proc/mounts")
    entries += [Generated(mtab), _file("diff/etc/resolv.conf", b""), _directory("diff/proc")]
    return [
        *entries,
        *(_directory("diff/run"), _file("diff/run/.containerenv", b""), _directory("diff/sys")),
    ]


def _directory(path: str = "") -> Generated:
    return Generated(Entry(path, EntryType.DIRECTORY, 0o755))


def _file(name: str, content: bytes) -> Generated:
    return Generated(Entry(name, EntryType.FILE, 0o644, size=len(content)), content)
