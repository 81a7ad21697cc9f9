"""The paths of pages, relative to the site. Pure.

A path contains nothing but letters, digits, dots and dashes, whatever names images have. Its
digest makes it unique.
"""

from __future__ import annotations

import hashlib
import re

from publisher.oci.digest import digest_hex

INDEX = "index.html"
WISHES = "wishes.html"
REMOVALS = "removals.html"
SPACE = "space.html"

IMAGES = "images"
LAYERS = "layers"
STATIC = "static"

CONTENTS = "contents"
PACKAGES = "packages.html"
COMPARE = "compare"

DIRECTORIES = (IMAGES, LAYERS, CONTENTS, COMPARE, STATIC)
"""The directories of a site. Files in them that no page needs are removed."""

_READABLE = 40


def image_page(name: str) -> str:
    """Return the path of the page about what is published as `name`; it stays when a tag moves."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    last = re.sub(r"[^a-z0-9.]+", "-", name.rpartition("/")[2].lower())[:_READABLE].strip("-.")
    return f"{IMAGES}/{last or 'image'}-{digest}.html"


def layer_page(digest: str) -> str:
    """Return the path of the page about a layer."""
    return f"{LAYERS}/{digest_hex(digest)}.html"


def static_file(name: str) -> str:
    """Return the path of a file that all pages use."""
    return f"{STATIC}/{name}"


def contents(manifest_digest: str) -> str:
    """Return the directory of the pages about the contents of an image, which never change."""
    return f"{CONTENTS}/{digest_hex(manifest_digest)[:32]}"


def files_page(manifest_digest: str) -> str:
    """Return the path of the page about the root directory of an image."""
    return f"{contents(manifest_digest)}/index.html"


def packages_page(manifest_digest: str) -> str:
    """Return the path of the page about the packages of an image."""
    return f"{contents(manifest_digest)}/{PACKAGES}"


def compare_page(old: str, new: str) -> str:
    """Return the path of the page about what differs between two manifests, by their digests."""
    return f"{COMPARE}/{digest_hex(old)[:24]}-{digest_hex(new)[:24]}.html"
