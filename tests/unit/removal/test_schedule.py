"""Images are scheduled by hand, taken back, and listed with when they go and what that frees."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from publisher.ingest.report import Status
from publisher.oci.platform import Platform
from publisher.oci.reference import parse_reference
from publisher.removal import pins
from publisher.removal.names import AmbiguousDigest
from publisher.removal.restore import CannotRestore, NotScheduled, restore
from publisher.removal.schedule import list_schedule, remove
from publisher.repository.published import NotPublished
from publisher.repository.reading import load_schedule
from publisher.tree.record import InvalidRecord
from tests.any_repository import KINDS
from tests.command import error_data
from tests.layer_builder import file, image, image_index, layer, write_layout
from tests.registry import OwnRegistry
from tests.removal_tree import NOON, Tree, new_tree
from tests.trees import tree_identity

BASE = layer(file("base", b"b" * 1000))
FIRST, SECOND = image(BASE, layer(file("one", b"1" * 10))), image(BASE, layer(file("two", b"22")))
X = "local/app:x"


@pytest.fixture(params=KINDS)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    with new_tree(request.param, tmp_path) as made:
        yield made


def test_a_removed_image_is_scheduled_with_the_grace_of_its_wish_or_the_one_given(
    tree: Tree,
) -> None:
    tree.publish("x", FIRST, days=9)
    tree.publish("y", FIRST)
    (one,) = remove(tree.repository, [X], tree.clock)
    (two,) = remove(tree.repository, ["local/app:y"], tree.clock, grace=timedelta(hours=36))
    assert (one.entry.reason, one.entry.not_before) == ("removed", NOON + timedelta(days=9))
    assert two.entry.not_before == NOON + timedelta(hours=36)
    assert tree.links() == ["local/app:x", "local/app:y"]


def test_removing_twice_does_not_renew_the_grace_period(tree: Tree) -> None:
    tree.publish("x", FIRST)
    (first,) = remove(tree.repository, [X], tree.clock)
    tree.now += timedelta(days=5)
    assert remove(tree.repository, [X], tree.clock) == [first]


def test_what_is_removed_and_still_requested_is_restored_by_the_next_ingest(tree: Tree) -> None:
    tree.publish("x", FIRST)
    remove(tree.repository, [X], tree.clock, drop_link=True)
    assert tree.links() == []
    assert tree.publish("x", FIRST).status is Status.RECORDED
    assert not load_schedule(tree.repository).entries and tree.links() == [X]


def test_restoring_creates_the_link_again(tree: Tree) -> None:
    tree.publish("x", FIRST)
    remove(tree.repository, [X], tree.clock, drop_link=True)
    assert restore(tree.repository, X, tree.clock) == [X]
    assert tree.links() == [X] and not load_schedule(tree.repository).entries
    tree.assert_sound()


def test_an_earlier_image_takes_the_place_of_the_one_that_its_tag_moved_to(tree: Tree) -> None:
    tree.publish("x", FIRST)
    tree.publish("x", SECOND)
    earlier = f"{X}@{FIRST.manifest.digest}"
    with pytest.raises(NotScheduled, match=earlier) as raised:
        restore(tree.repository, X, tree.clock)
    assert error_data(raised.value) == {"name": X, "scheduled": [earlier]}
    restore(tree.repository, earlier, tree.clock)
    assert (tree.root / X / "one").exists()
    (entry,) = load_schedule(tree.repository).entries
    assert (entry.reason, entry.manifest_digest) == ("replaced", SECOND.manifest.digest)
    tree.assert_sound()
    restore(tree.repository, f"{X}@{SECOND.manifest.digest}", tree.clock)
    assert (tree.root / X / "two").exists()
    tree.assert_sound()


@pytest.mark.parametrize("file_name", ["manifest.json", "config.json", "publication.json"])
@pytest.mark.parametrize("damage", [None, b"{}"])
def test_an_earlier_image_whose_metadata_is_incomplete_is_not_restored(
    tree: Tree, file_name: str, damage: bytes | None
) -> None:
    tree.publish("x", FIRST)
    tree.publish("x", SECOND)
    (path,) = tree.root.glob(f".metadata/.retired/*/*/{file_name}")
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    before = public_state(tree)
    with pytest.raises((CannotRestore, InvalidRecord), match=file_name) as raised:
        restore(tree.repository, f"{X}@{FIRST.manifest.digest}", tree.clock)
    assert error_data(raised.value)["path"] == str(path.relative_to(tree.root))
    assert public_state(tree) == before


@pytest.mark.parametrize("what", ["flat", "layers"])
def test_an_earlier_image_that_lacks_content_is_not_restored(tree: Tree, what: str) -> None:
    tree.publish("x", FIRST)
    tree.publish("x", SECOND)
    digest = FIRST.image_id if what == "flat" else FIRST.layers[1].digest
    (path,) = tree.root.glob(f".{what}/*/{digest[7:]}")
    shutil.rmtree(path)
    with pytest.raises(CannotRestore, match=f"{path.name} is missing") as raised:
        restore(tree.repository, f"{X}@{FIRST.manifest.digest}", tree.clock)
    assert error_data(raised.value) == {
        "name": X,
        "manifestDigest": FIRST.manifest.digest,
        "path": str(path.relative_to(tree.root)),
    }
    assert (tree.root / X / "two").exists()


def test_an_earlier_image_without_a_flat_image_removes_the_link_of_its_successor(
    tree: Tree,
) -> None:
    write_layout(FIRST, tree.layout, "x")
    tree.ingest(tree.wish("x", outputs=("layers",)))
    tree.publish("x", SECOND)
    assert tree.links() == [X]
    restore(tree.repository, f"{X}@{FIRST.manifest.digest}", tree.clock)
    assert tree.links() == []
    tree.assert_sound()


def test_an_image_that_two_names_had_in_different_forms_keeps_its_link_when_restored(
    tree: Tree,
) -> None:
    for built in (FIRST, SECOND):
        tree.publish("x", built)
        write_layout(built, tree.layout, "y")
        tree.ingest(tree.wish("y", outputs=("layers",)))
    restore(tree.repository, f"{X}@{FIRST.manifest.digest}", tree.clock)
    assert tree.links() == [X] and (tree.root / X / "one").exists()
    restore(tree.repository, f"local/app:y@{FIRST.manifest.digest}", tree.clock)
    assert tree.links() == [X]
    tree.assert_sound()


def test_a_restored_image_has_its_name_in_the_podman_store_again(tree: Tree) -> None:
    def names() -> dict[str, list[str]]:
        data = (tree.root / "podmanStore/overlay-images/images.json").read_bytes()
        return {each["id"]: each["names"] for each in json.loads(data)}

    for built in (FIRST, SECOND):
        write_layout(built, tree.layout, "x")
        tree.ingest(tree.wish("x", outputs=("flat", "layers", "podman")))
    first, second = FIRST.image_id[7:], SECOND.image_id[7:]
    (name,) = names()[second]
    restore(tree.repository, f"{X}@{FIRST.manifest.digest}", tree.clock)
    assert names() == {first: [name], second: []}
    tree.assert_sound()
    tree.collect(at_once=True)
    assert names() == {first: [name]}
    tree.assert_sound()


def public_state(tree: Tree) -> dict[str, object]:
    """Everything but the publisher's own working state."""
    return {p: e for p, e in tree_identity(tree.root).items() if "/.publisher" not in p}


def test_a_restored_image_stays_if_it_is_pinned_and_else_follows_its_tag(tree: Tree) -> None:
    tree.publish("x", FIRST)
    tree.publish("x", SECOND)
    restore(tree.repository, f"{X}@{FIRST.manifest.digest}", tree.clock)
    pins.pin(tree.repository, X, tree.clock)
    assert tree.publish("x", SECOND).status is Status.PINNED
    pins.unpin(tree.repository, X, tree.clock)
    assert tree.publish("x", SECOND).status is Status.UPDATED


@pytest.mark.parametrize("text", ["local/app:none", "quay.io/no/such:1", f"{X}@sha256:{'0' * 64}"])
def test_what_is_not_published_cannot_be_removed(tree: Tree, text: str) -> None:
    tree.publish("x", FIRST)
    with pytest.raises(NotPublished):
        remove(tree.repository, [text], tree.clock)


def test_an_image_is_removed_and_restored_at_the_places_of_all_its_platforms(tree: Tree) -> None:
    platforms = (Platform("linux", "amd64"), Platform("linux", "arm64"))
    index = image_index(
        {
            "linux/amd64": image(BASE),
            "linux/arm64": (arm := image(layer(file("arm")), architecture="arm64")),
        }
    )
    with OwnRegistry() as registry:
        registry.add("tool", None, image(BASE))
        registry.add("tool", None, arm)
        registry.add_document("tool", "1", index)
        wish = tree.wish("x", platforms=platforms)
        tree.ingest(replace(wish, image=parse_reference(f"{registry.url}/tool:1")))
        name = f"{registry.host}/tool:1"
        places = [name, f".multiarch/amd64/{name}", f".multiarch/arm64/{name}"]
        assert [each.entry.name for each in remove(tree.repository, [name], tree.clock)] == places
        assert restore(tree.repository, f"{registry.url}/tool:1", tree.clock) == places
        assert [
            each.entry.name for each in remove(tree.repository, [places[2]], tree.clock)
        ] == places[2:]
        remove(tree.repository, [name], tree.clock)
        assert len(tree.collect(at_once=True, image=name).released) == 3
    tree.assert_sound()
    assert tree.names_in("") == {".metadata"}


def test_the_list_reports_what_each_image_frees_after_those_before_it(tree: Tree) -> None:
    tree.publish("x", FIRST, days=5)
    tree.publish("y", SECOND, days=9)
    tree.publish("z", image(layer(file("other"))), days=7)
    for tag in "xyz":
        remove(tree.repository, [f"local/app:{tag}"], tree.clock)
    pins.pin(tree.repository, "local/app:z", tree.clock, until=date(2026, 12, 24))
    assert tree.publish("z", image(layer(file("moved")))).status is Status.PINNED
    before = tree_identity(tree.root)
    planned = list_schedule(tree.repository, tree.now)
    assert tree_identity(tree.root) == before
    assert [(p.entry.name, p.size, p.layers) for p in planned] == [
        ("local/app:x", 10, 1),
        ("local/app:y", 1002, 2),
    ]


def test_the_list_names_pinned_and_uncertain_images(tree: Tree) -> None:
    tree.publish("x", FIRST)
    tree.publish("x", SECOND)
    pins.pin(tree.repository, f"{X}@{FIRST.manifest.digest}", tree.clock, until=date(2027, 1, 31))
    (planned,) = list_schedule(tree.repository, tree.now)
    assert planned.held_until is not None
    assert planned.held_until.isoformat() == "2027-02-01T00:00:00+00:00"
    pins.unpin(tree.repository, f"{X}@{FIRST.manifest.digest}", tree.clock)
    for record in tree.root.glob(".layers/*/*/.metadata/origin.json"):
        record.write_bytes(b"{")
    (planned,) = list_schedule(tree.repository, tree.now)
    assert "origin.json" in planned.problem


def test_several_images_and_patterns_are_removed_in_one_transaction(tree: Tree) -> None:
    for tag in ("x1", "x2", "y", "z"):
        tree.publish(tag, FIRST)
    before = len(list(tree.repository.history()))
    removed = remove(tree.repository, ["local/app:x*", "local/app:y", "*:x1"], tree.clock)
    names = ["local/app:x1", "local/app:x2", "local/app:y"]
    assert [each.entry.name for each in removed] == names
    assert [entry.name for entry in load_schedule(tree.repository).entries] == names
    assert len(list(tree.repository.history())) == before + 1


def test_a_pattern_that_matches_nothing_removes_nothing(tree: Tree) -> None:
    tree.publish("x", FIRST)
    with pytest.raises(NotPublished, match="no image is published as local/b") as caught:
        remove(tree.repository, [X, "local/b*"], tree.clock)
    assert caught.value.name == "local/b*"
    assert not load_schedule(tree.repository).entries


def test_removing_names_the_lists_that_will_publish_the_image_again(tree: Tree) -> None:
    tree.publish("x", FIRST, "/lists/a")
    tree.publish("x", FIRST, "/lists/b")
    (removed,) = remove(tree.repository, [X], tree.clock)
    assert removed.wish_lists == ("/lists/a", "/lists/b")


@pytest.mark.parametrize("start", [7, 0])
def test_an_earlier_image_is_restored_by_the_digest_that_schedule_prints(
    tree: Tree, start: int
) -> None:
    """`publisher schedule` prints 12 digits, without the algorithm."""
    tree.publish("x", FIRST)
    tree.publish("x", SECOND)
    assert restore(tree.repository, f"{X}@{FIRST.manifest.digest[start:19]}", tree.clock) == [X]
    assert (tree.root / X / "one").exists()


def test_a_shortened_digest_has_to_mean_one_manifest_of_the_name(tree: Tree) -> None:
    tree.publish("x", FIRST)
    tree.publish("x", SECOND)
    with pytest.raises(NotPublished, match="as local/app:x@0123456789ab"):
        restore(tree.repository, f"{X}@0123456789ab", tree.clock)
    digits = {FIRST.manifest.digest: "a" * 6 + "b", SECOND.manifest.digest: "a" * 6 + "c"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("publisher.removal.names._hex", lambda digest: digits[digest])
        with pytest.raises(AmbiguousDigest, match="is the beginning of sha256:") as caught:
            restore(tree.repository, f"{X}@aaaaaa", tree.clock)
    assert caught.value.name == X
    assert caught.value.matching == tuple(sorted(digits))
    assert " and ".join(sorted(digits)) in caught.value.why
