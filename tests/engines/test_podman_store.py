"""Podman 5 uses the additional image store as Podman 4 does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.components import Engine
from tests.podman_store import publish, rootless, with_store
from tests.probe import read_report, write_probe
from tests.system.test_runtimes_podman import (
    engine,
    open_folder,
    original,
    test_a_collected_image_leaves_the_store_and_those_that_share_its_layers_stay,
    test_a_container_from_the_store_starts_like_one_from_the_original,
    test_a_layer_of_the_store_is_used_on_top_of_another_one,
    test_a_moved_tag_moves_its_name_and_the_old_image_stays_under_its_id,
    test_an_image_that_lists_a_layer_twice_shows_what_the_original_shows,
    test_images_of_the_store_are_built_on_compared_and_committed,
    test_images_of_the_store_are_saved_and_pushed_with_their_own_digests,
    test_layers_have_the_ids_that_podman_gives_those_that_it_pulls,
    test_of_an_image_on_top_of_a_published_one_only_its_own_layers_are_fetched,
    test_ordinary_users_pull_build_and_save_with_images_of_the_store,
    test_ordinary_users_run_images_of_the_store_that_root_has_published,
)

__all__ = [
    "engine",
    "open_folder",
    "original",
    "test_a_collected_image_leaves_the_store_and_those_that_share_its_layers_stay",
    "test_a_container_from_the_store_starts_like_one_from_the_original",
    "test_a_layer_of_the_store_is_used_on_top_of_another_one",
    "test_a_moved_tag_moves_its_name_and_the_old_image_stays_under_its_id",
    "test_an_image_that_lists_a_layer_twice_shows_what_the_original_shows",
    "test_images_of_the_store_are_built_on_compared_and_committed",
    "test_images_of_the_store_are_saved_and_pushed_with_their_own_digests",
    "test_layers_have_the_ids_that_podman_gives_those_that_it_pulls",
    "test_of_an_image_on_top_of_a_published_one_only_its_own_layers_are_fetched",
    "test_ordinary_users_pull_build_and_save_with_images_of_the_store",
    "test_ordinary_users_run_images_of_the_store_that_root_has_published",
]


def test_an_image_that_podman_also_has_itself_is_found_by_a_tag(
    tmp_path: Path, engine: Engine
) -> None:
    """Podman then ignores the names in additional stores, also in those that it made itself."""
    tree, source = tmp_path / "images", write_probe(tmp_path / "layout")
    publish(tmp_path, tree, f"{{image: '{source}', name: probe}}", outputs="layers, podman")
    stored = with_store(engine, tmp_path, tree)
    assert read_report(stored.run("localhost/probe:1")).id == "1234:3456"
    image_id = engine("pull", "--quiet", source).strip()
    with pytest.raises(AssertionError, match="image not known"):
        stored.run("localhost/probe:1", options=("--pull", "never"))
    stored("tag", image_id, "localhost/probe:1")
    assert read_report(stored.run("localhost/probe:1")).id == "1234:3456"


def test_a_container_of_an_ordinary_user_is_committed(open_folder: Path) -> None:
    tree, source = open_folder / "images", write_probe(open_folder / "layout")
    publish(open_folder, tree, f"{{image: '{source}', name: probe}}", outputs="layers, podman")
    user = rootless(open_folder, tree)
    words = ("--entrypoint", "/bin/cat", "localhost/probe:1", "/etc/passwd")
    user("create", *user.run_options, "--name", "one", *words)
    user("start", "--attach", "one")
    user("commit", "--change", 'ENTRYPOINT ["/probe"]', "one", "localhost/committed:1")
    assert read_report(user.run("localhost/committed:1")).id == "1234:3456"
