"""`verify --repair` and `--refetch` on a CVMFS repository, through the server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.tree import layout
from tests.command import publisher, succeed
from tests.cvmfs import Machine
from tests.layer_builder import directory, file, image, layer, write_layout

NAME = "images.test.org"
BASE = layer(directory("etc"), file("etc/motd", b"hello"))
BUILT = image(BASE, layer(file("tool", b"tool" * 1000)))


@pytest.fixture
def published(machine: Machine, tmp_path: Path) -> Machine:
    machine.make(NAME)
    reference = f"oci:{write_layout(BUILT, tmp_path / 'layout', '1')}:1"
    succeed("ingest-image", reference, "--name", "tool", *url(), env=machine.environment)
    return machine


def url() -> tuple[str, str]:
    return "--repository", f"cvmfs:{NAME}"


def damage(machine: Machine, *paths: str) -> None:
    """Take something out of the repository, as a user with a shell would."""
    assert machine.server("transaction", NAME).returncode == 0
    for path in paths:
        (machine.mount(NAME) / path).unlink()
    assert machine.server("publish", NAME).returncode == 0


def test_lost_links_and_records_are_created_again(published: Machine) -> None:
    env = published.environment
    origin = layout.layer_origin(BASE.descriptor.digest)
    damage(published, "local/tool:1", origin, layout.image_users(BUILT.image_id))
    assert publisher("verify", *url(), env=env).code == 1
    succeed("verify", "--repair", *url(), env=env)
    succeed("verify", "--deep", *url(), env=env)
    mount = published.published(NAME)
    assert (mount / "local/tool:1/etc/motd").read_bytes() == b"hello"
    assert json.loads((mount / origin).read_bytes())["origin"] == [BUILT.image_id]


def test_a_layer_that_lost_a_file_is_fetched_again_and_replaced(published: Machine) -> None:
    env = published.environment
    mount = published.published(NAME)
    lost = f"{layout.layer_tree(BUILT.layers[1].descriptor.digest)}/tool"
    damage(published, lost)
    assert publisher("verify", "--deep", *url(), env=env).code == 1
    before = published.revision(NAME)
    succeed("verify", "--deep", "--repair", "--refetch", *url(), env=env)
    assert (mount / lost).read_bytes() == b"tool" * 1000
    succeed("verify", "--deep", *url(), env=env)
    assert published.revision(NAME) - before <= 4


def test_a_flat_image_that_lost_a_file_is_linked_again(published: Machine) -> None:
    env = published.environment
    lost = f"{layout.flat_image(BUILT.image_id)}/etc/motd"
    damage(published, lost)
    succeed("verify", "--deep", "--repair", *url(), env=env)
    assert (published.published(NAME) / lost).read_bytes() == b"hello"
    succeed("verify", "--deep", *url(), env=env)
