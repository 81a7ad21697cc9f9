"""Check that exactly the content exists that the images need, without reading it."""

from __future__ import annotations

from publisher.repository import Repository
from publisher.verify.expected import Expected
from publisher.verify.hot_files import check_hot_files
from publisher.verify.inventory import Inventory
from publisher.verify.leftovers import check_leftovers
from publisher.verify.packages import check_packages
from publisher.verify.podman_store import check_podman_store
from publisher.verify.published_images import check_images
from publisher.verify.published_layers import check_layers
from publisher.verify.sbom import check_sbom
from publisher.verify.squashfs import check_squashfs


def check_structure(repository: Repository, inventory: Inventory) -> Expected:
    """Add a finding for each difference from what the images require; return the requirements."""
    expected = Expected.of(inventory)
    check_layers(repository, inventory, expected)
    check_packages(repository, inventory, expected)
    check_images(repository, inventory, expected)
    check_hot_files(repository, inventory, expected)
    check_squashfs(repository, inventory)
    check_sbom(repository, inventory)
    check_leftovers(repository, inventory, expected)
    check_podman_store(repository, inventory)
    return expected
