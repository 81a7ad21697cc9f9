"""Docker runs thin images from its containerd image store too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import test_thin_runtime as thin_runtime
from tests.system.test_thin_runtime import (
    World,
    test_a_container_that_is_killed_starts_again_and_leaves_no_mount,
    test_a_layer_that_cannot_be_mounted_is_named_to_the_user_of_docker,
    test_an_image_of_many_layers_runs,
    test_an_ordinary_image_is_the_other_runtimes_alone,
    test_docker_starts_a_thin_image_as_podman_starts_the_original,
    test_exec_stop_and_restart_work_and_files_are_copied_out,
)

__all__ = [
    "test_a_container_that_is_killed_starts_again_and_leaves_no_mount",
    "test_a_layer_that_cannot_be_mounted_is_named_to_the_user_of_docker",
    "test_an_image_of_many_layers_runs",
    "test_an_ordinary_image_is_the_other_runtimes_alone",
    "test_docker_starts_a_thin_image_as_podman_starts_the_original",
    "test_exec_stop_and_restart_work_and_files_are_copied_out",
]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The world of the other tests, but for Docker's storage."""

    def settings(tree: Path) -> str:
        return json.dumps(
            json.loads(thin_runtime.docker_settings(tree))
            | {"features": {"containerd-snapshotter": True}}
        )

    yield from thin_runtime.make_world(settings)


def test_it_is_the_image_store(world: World) -> None:
    assert "driver-type: io.containerd.snapshotter.v1" in world.docker("info")
