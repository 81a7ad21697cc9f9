"""The names and paths of the published tree, without input or output.

Paths are relative to the root of the repository, with "/" between components. The structure is that
of chapter 4 of the thesis, with the details that existing readers depend on. `layout/README.md`
specifies it.
"""

from __future__ import annotations

from posixpath import basename

from publisher.errors import InvalidReference, PublisherError, presentable
from publisher.lazy import dataclass
from publisher.oci.digest import digest_hex, is_digest
from publisher.oci.platform import Platform
from publisher.oci.reference import ImageReference, Transport, parse_reference
from publisher.oci.reference_grammar import MAX_FILE_NAME

FLAT = ".flat"
LAYERS = ".layers"
METADATA = ".metadata"
MULTIARCH = ".multiarch"
LOCAL = "local"
"""The first component of the names of images without a registry, in place of its host."""

PODMAN_STORE = "podmanStore"
"""The additional image store for Podman, with the images that have the output `podman`."""

SQUASHFS = ".squashfs"
"""The images as single files, by image ID."""

SQUASHFS_NAMES = "squashfs"
"""The directory of links to these files, with the public names of the images."""

STATE = f"{METADATA}/.publisher"
"""The working state of the publisher: staged trees, journal, lock. It is not published."""

RETIRED = f"{METADATA}/.retired"
"""The entries of the remove schedule, and the metadata of retired images, by manifest."""

REMOVE_SCHEDULE = f"{METADATA}/remove-schedule.json"
"""The file with the properties of the whole remove schedule."""

PINS = f"{METADATA}/pins.json"

IMAGES = f"{METADATA}/.images"
"""The records of the names that use each image, which correspond to origin.json of layers."""

CHAINS = f"{METADATA}/.chains"
"""Links by chain ID to the layers: a client that has no layer digest finds a layer by them."""

HOT_FILES = f"{METADATA}/.hot-files"
"""The lists of files that programs of each image open, which `publisher trace` records."""

PUBLISHERS = f"{METADATA}/.publishers"
"""The latest transaction of each publisher at a gateway of CVMFS."""

REPOSITORY_SETTINGS = f"{METADATA}/repository.json"
"""The settings of the whole repository, such as the policy for the contents of images."""

MANIFEST_FILE = "manifest.json"
CONFIG_FILE = "config.json"
PUBLICATION_FILE = "publication.json"
THIN_FILE = "thin-image.json"
SBOM_FILES = ("sbom.cdx.json", "sbom.spdx.json")
"""The bills of materials of an image: CycloneDX and SPDX."""

SCHEDULE_FILE = "schedule.json"
BUNDLE_PREFIX = ".cvmfsbundle-"
"""Begins the name of a file bundle of CVMFS; the name of the file that triggers it follows."""

LAYER_TREE = "layerfs"
LAYER_INDEX = ".metadata/index.zst"
LAYER_ORIGIN = ".metadata/origin.json"
LAYER_TAR_SPLIT = ".metadata/tar-split.gz"
LAYER_PACKAGES = ".metadata/packages.json"


def _sharded(top: str, digest: str) -> str:
    # 256 directories above, so that no directory (and no CVMFS catalog) becomes too large.
    hexadecimal = digest_hex(digest)
    return f"{top}/{hexadecimal[:2]}/{hexadecimal}"


def is_own_file(path: str) -> bool:
    """Return whether only a file of the publisher's own can be at `path`: metadata, or a store."""
    inside = path.startswith(f"{LAYERS}/") and f"/{METADATA}/" in path
    return inside or path.startswith((f"{METADATA}/", f"{PODMAN_STORE}/"))


def flat_image(image_id: str) -> str:
    """Return the path of the flat image whose config has the digest `image_id`."""
    return _sharded(FLAT, image_id)


def squashfs_file(image_id: str) -> str:
    """Return the path of the image as a single file, whose config has the digest `image_id`."""
    return _sharded(SQUASHFS, image_id)


def squashfs_link(name: str) -> str:
    """Return the path of the link to the single file of the image published as `name`."""
    return f"{SQUASHFS_NAMES}/{name}"


def squashfs_target(name: str, image_id: str) -> str:
    """Return the text of that link: relative, so that any mount point works."""
    return "../" * squashfs_link(name).count("/") + squashfs_file(image_id)


def layer_directory(digest: str) -> str:
    """Return the directory of one layer, with its tree and its metadata."""
    return _sharded(LAYERS, digest)


def layer_tree(digest: str) -> str:
    """Return the path of the unpacked layer."""
    return f"{layer_directory(digest)}/{LAYER_TREE}"


def layer_index(digest: str) -> str:
    """Return the path of the layer index."""
    return f"{layer_directory(digest)}/{LAYER_INDEX}"


def layer_origin(digest: str) -> str:
    """Return the path of the record of the images that use the layer."""
    return f"{layer_directory(digest)}/{LAYER_ORIGIN}"


def layer_tar_split(digest: str) -> str:
    """Return the path of the layer's tar-split data, which not every layer has."""
    return f"{layer_directory(digest)}/{LAYER_TAR_SPLIT}"


def layer_packages(digest: str) -> str:
    """Return the path of the record of the layer's package databases, which not every layer has."""
    return f"{layer_directory(digest)}/{LAYER_PACKAGES}"


def image_users(image_id: str) -> str:
    """Return the path of the record of the names that use the image with that config."""
    return f"{_sharded(IMAGES, image_id)}.json"


def chain_link(chain_id: str) -> str:
    """Return the path of the link to the top layer of the stack with that chain ID."""
    return _sharded(CHAINS, chain_id)


def chain_target(digest: str) -> str:
    """Return the text of a chain link to the layer `digest`: relative, as public links are."""
    return "../" * chain_link(digest).count("/") + layer_directory(digest)


def chained_layer(text: str) -> str | None:
    """Return the digest of the layer that a chain link with this text leads to.

    Returns None for a text that no chain link has.
    """
    name = basename(text)
    digest = f"{'sha256' if len(name) == 64 else 'sha512'}:{name}"
    return digest if is_digest(digest) and text == chain_target(digest) else None


def hot_files(image_id: str) -> str:
    """Return the path of the list of files that a program of the image opens."""
    return f"{_sharded(HOT_FILES, image_id)}.json"


def bundle_file(image_id: str, trigger: str) -> str:
    """Return the path of the bundle that CVMFS clients read when they open the file `trigger`.

    `trigger` is relative to the root of the image.
    """
    directory, slash, name = trigger.rpartition("/")
    return f"{flat_image(image_id)}/{directory}{slash}{BUNDLE_PREFIX}{name}"


def is_bundle(path: str) -> bool:
    """Return whether `path` is that of a file bundle in a flat image."""
    return path.startswith(f"{FLAT}/") and basename(path).startswith(BUNDLE_PREFIX)


def retired_directory(manifest_digest: str) -> str:
    """Return the directory of a retired manifest: its schedule entries and its metadata."""
    return _sharded(RETIRED, manifest_digest)


def retired_schedule(manifest_digest: str) -> str:
    """Return the path of the schedule entries that retire the manifest."""
    return f"{retired_directory(manifest_digest)}/{SCHEDULE_FILE}"


def image_metadata(name: str) -> str:
    """Return the metadata directory of the image published as `name`."""
    return f"{METADATA}/{name}"


def manifest_file(name: str) -> str:
    """Return the path of the exact bytes of the manifest published as `name`."""
    return f"{image_metadata(name)}/{MANIFEST_FILE}"


def config_file(name: str) -> str:
    """Return the path of the exact bytes of the image's config."""
    return f"{image_metadata(name)}/{CONFIG_FILE}"


def publication_file(name: str) -> str:
    """Return the path of the record of the publication: reference, source digest, time, …"""
    return f"{image_metadata(name)}/{PUBLICATION_FILE}"


def thin_file(name: str) -> str:
    """Return the path of the record of the thin image that was pushed for `name`."""
    return f"{image_metadata(name)}/{THIN_FILE}"


def sbom_files(name: str) -> tuple[str, ...]:
    """Return the paths of the bills of materials of the image published as `name`."""
    return tuple(f"{image_metadata(name)}/{file}" for file in SBOM_FILES)


def link_target(name: str, image_id: str) -> str:
    """Return the text of the public symlink `name`: relative, so that any mount point works."""
    return "../" * name.count("/") + flat_image(image_id)


def public_name(
    reference: ImageReference, name: str | None = None, platform: Platform | None = None
) -> str:
    """Return the public name of an image: its path in the published tree.

    `name` replaces the default name of an image without a registry. With `platform`, return the
    second name, below `.multiarch/`, of an image that is published for several platforms. A
    reference with a tag is named by the tag, also if it has a digest.
    """
    if reference.transport is Transport.REGISTRY:
        # Names of the publisher's own, also of files at the top of .metadata.
        is_own = reference.registry in (LOCAL, SQUASHFS_NAMES)
        if is_own or reference.registry.endswith(".json"):
            raise InvalidReference(
                f"cannot publish {reference}",
                why=f"{reference.registry!r} is a reserved name in the published tree",
                hint="use another name of the registry's host",
            )
        path = f"{reference.registry}/{reference.repository}"
    else:
        path = f"{LOCAL}/{_local_name(reference, name)}"
    if reference.tag is None and reference.digest is not None:
        path += f"@{reference.digest}"
    else:
        path += f":{reference.tag or 'latest'}"
    for part in path.split("/"):
        if len(part.encode("utf-8", "surrogateescape")) > MAX_FILE_NAME:
            raise _unnameable(reference, f"{part!r} is longer than a file name may be")
    return path if platform is None else platform_name(path, platform)


def platform_name(name: str, platform: Platform | str) -> str:
    """Return the second name, for `platform`, of the image published as `name`.

    `platform` may be given as it is written in the path, such as "arm64" or "arm:v7".
    """
    if isinstance(platform, Platform):
        variant = f":{platform.variant}" if platform.variant else ""
        platform = f"{platform.architecture}{variant}"
    return f"{MULTIARCH}/{platform}/{name}"


def without_tag(name: str) -> str:
    """Return a public name without its tag or digest, if it has one."""
    parent, slash, last = name.rpartition("/")
    return parent + slash + last.partition("@")[0].partition(":")[0]


def is_directory_of_names(text: str) -> bool:
    """Return whether an image could be published directly in this directory of public names."""
    top, slash, rest = text.partition("/")
    image, name = f"{text}/image", None
    if top == LOCAL:
        image, name = f"{Transport.OCI}:/layout", f"{rest}{slash}image"
    try:
        found = public_name(parse_reference(image), name)
    except InvalidReference:
        return False
    return without_tag(found) == f"{text}/image"


def split_platform(name: str) -> tuple[str, str]:
    """Split a public name into its platform ("arm64", "arm:v7") and its plain name.

    The platform is "" for a plain name.
    """
    top, _, rest = name.partition("/")
    if top != MULTIARCH:
        return "", name
    platform, _, plain = rest.partition("/")
    return platform, plain


def is_hidden(name: str) -> bool:
    """Return whether no public name begins with the part `name`.

    Such a name at the top of the repository, or of its metadata, is that of the publisher's own
    directory or file.
    """
    return name.startswith(".") and name != MULTIARCH


def is_never_a_reference(name: str) -> bool:
    """Return whether `name` begins with a part that cannot be a registry, only that of a name."""
    return name.partition("/")[0] in (LOCAL, MULTIARCH)


def is_public_name(name: str) -> bool:
    """Return whether `name`, which may come from a file, is a valid public name."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        return False
    if parts[0] == MULTIARCH:
        parts = parts[2:]
    return len(parts) > 1 and not parts[0].startswith(".") and any(c in parts[-1] for c in ":@")


def _local_name(reference: ImageReference, name: str | None) -> str:
    if name is None:
        if reference.repository:
            return reference.repository
        name = basename(reference.location.rstrip("/"))
        if reference.transport is not Transport.OCI:
            for suffix in (".tar.gz", ".tgz", ".tar"):
                name = name.removesuffix(suffix)
    # A part that begins with a dot could be "..", or a directory that is not public.
    if not all(part and not part.startswith(".") for part in name.split("/")):
        raise _unnameable(reference, f"{name!r} has a part that is empty or begins with a dot")
    if any(character in ":@" or not character.isprintable() for character in name) or " " in name:
        raise _unnameable(reference, f"{name!r} has a character that is not allowed in names")
    return name


def _unnameable(reference: ImageReference, why: str) -> InvalidReference:
    return InvalidReference(
        f"cannot name {reference}", why=why, hint="give the wish a name, such as 'tool'"
    )


@dataclass(frozen=True, slots=True)
class RepositoryURL:
    """Which published file system: `dir:PATH` (a bare path is one too) or `cvmfs:NAME`."""

    kind: str
    location: str

    @classmethod
    def parse(cls, text: str) -> RepositoryURL:
        """Read a repository URL; raise PublisherError for any other text."""
        kind, colon, location = text.partition(":")
        if kind in ("dir", "cvmfs") and colon:
            if not location:
                raise PublisherError(
                    f"cannot use repository {presentable(text)!r}",
                    why=f"nothing follows {kind}:",
                    hint="write dir:/srv/images or cvmfs:images.example.org",
                )
            if kind == "cvmfs" and "/" in location:
                raise PublisherError(
                    f"cannot use repository {presentable(text)!r}",
                    why="a CVMFS repository is given by its name, not by a path",
                    hint=f"write cvmfs:{location.rstrip('/').rpartition('/')[2]}",
                )
            return cls(kind, location)
        if text and (not colon or "/" in kind):
            return cls("dir", text)
        raise PublisherError(
            f"cannot use repository {presentable(text)!r}",
            why="not a repository URL",
            hint="write dir:/srv/images or cvmfs:images.example.org",
        )

    def __str__(self) -> str:
        return f"{self.kind}:{self.location}"
