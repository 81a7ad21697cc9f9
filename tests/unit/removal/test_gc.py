"""Collection removes due images, and what only they used; uncertainty keeps images."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.codec import JsonObject
from publisher.ingest.publish import publish
from publisher.oci.manifest import Manifest, parse_manifest
from publisher.removal import schedule
from publisher.removal.gc import Choice, Report, choose, collect
from publisher.removal.reference_counts import ReferenceCounts, UncertainState
from publisher.removal.release import Facts, decide
from publisher.repository import RepositoryChanged
from publisher.repository.reading import count_usage, load_schedule
from publisher.repository.records import RecordSet
from publisher.tree import layout
from publisher.tree.history import Record
from publisher.tree.origin import Origin
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import ScheduledRemoval
from publisher.tree.users import ImageUsers
from tests.any_repository import KINDS
from tests.command import error_data
from tests.layer_builder import Image, file, image, layer, layer_of_tar
from tests.removal_tree import NOON, Tree, chains, digests, new_tree
from tests.trees import tree_identity

BASE, TOOL, DATA = (layer(file(name, name.encode())) for name in ("base", "tool", "data"))
FIRST, SECOND = image(BASE, TOOL), image(BASE, DATA)


@pytest.fixture(params=KINDS)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    with new_tree(request.param, tmp_path) as made:
        yield made


def test_an_image_is_collected_when_its_grace_period_is_over_and_not_a_second_before(
    tree: Tree,
) -> None:
    tree.publish("x", FIRST, days=10)
    tree.publish("x", SECOND, days=10)
    tree.now = NOON + timedelta(days=10) - timedelta(seconds=1)
    assert tree.collected() == []
    assert tree.layers() == digests(FIRST, SECOND)
    tree.now = NOON + timedelta(days=10)
    assert tree.collected() == ["local/app:x"]
    assert tree.layers() == digests(SECOND)
    assert tree.flat_images() == {SECOND.image_id}
    assert tree.links() == ["local/app:x"]
    tree.assert_sound()


def test_a_grace_period_counts_from_a_time_that_no_clock_set_back_can_shorten(tree: Tree) -> None:
    tree.publish("x", FIRST, days=10)
    tree.now = NOON - timedelta(days=300)
    tree.publish("x", SECOND, days=10)
    (entry,) = load_schedule(tree.repository).entries
    assert entry.not_before == NOON + timedelta(days=10)
    tree.now = NOON + timedelta(days=9)
    assert tree.collected() == []


def test_a_clock_set_back_after_scheduling_delays_the_collection(tree: Tree) -> None:
    tree.publish("x", FIRST, days=10)
    tree.publish("x", SECOND, days=10)
    tree.now = NOON - timedelta(days=5)
    assert tree.collected() == []


def test_collecting_the_last_image_removes_everything_but_the_repository_itself(tree: Tree) -> None:
    tree.publish("x", FIRST)
    tree.publish("y", SECOND)
    for tag in "xy":
        schedule.remove(tree.repository, [f"local/app:{tag}"], tree.clock)
    assert sorted(tree.collected(at_once=True)) == ["local/app:x", "local/app:y"]
    assert tree.names_in("") == {".metadata"}
    assert tree.names_in(".metadata") <= {
        ".publisher",
        "remove-schedule.json",
        "repository.json",
    }
    tree.assert_sound()


def test_two_manifests_of_one_image_id_each_keep_their_own_layers(tree: Tree) -> None:
    zstd = layer_of_tar(TOOL.tar, compression="zstd")
    other = image(BASE, zstd)
    assert other.image_id == FIRST.image_id
    tree.publish("x", FIRST)
    tree.publish("y", other)
    schedule.remove(tree.repository, ["local/app:x"], tree.clock)
    report = tree.collect(at_once=True)
    assert (report.layers, report.flat_images) == (1, 0)
    assert tree.layers() == digests(other)
    assert tree.links() == ["local/app:y"]
    tree.assert_sound()


def test_the_links_of_a_layer_by_chain_id_are_removed_with_it(tree: Tree) -> None:
    tree.publish("x", FIRST)
    tree.publish("y", image(DATA, TOOL))
    tree.publish("z", image(DATA))
    assert tree.chains() == chains(FIRST, image(DATA, TOOL))
    schedule.remove(tree.repository, ["local/app:x"], tree.clock)
    tree.collect(at_once=True)
    # The layer is still published: its link by the first image's chain ID is still correct.
    kept = {BASE.diff_id}
    assert tree.chains().keys() == chains(FIRST, image(DATA, TOOL)).keys() - kept
    tree.assert_sound()
    schedule.remove(tree.repository, ["local/app:y"], tree.clock)
    tree.collect(at_once=True)
    assert tree.chains() == {DATA.diff_id: DATA.digest}
    tree.assert_sound()


@pytest.mark.parametrize("first", [0, 1])
def test_a_link_by_chain_id_leads_to_another_compression_of_a_collected_layer(
    tree: Tree, first: int
) -> None:
    zstd = layer_of_tar(TOOL.tar, compression="zstd")
    images = (FIRST, image(BASE, zstd))
    assert chains(FIRST).keys() == chains(images[1]).keys()
    tree.publish("0", images[0])
    tree.publish("1", images[1])
    assert tree.chains() == chains(FIRST)
    schedule.remove(tree.repository, [f"local/app:{first}"], tree.clock)
    tree.collect(at_once=True)
    assert tree.chains() == chains(images[1 - first])
    tree.assert_sound()
    schedule.remove(tree.repository, [f"local/app:{1 - first}"], tree.clock)
    tree.collect(at_once=True)
    assert tree.chains() == {}
    tree.assert_sound()


def test_both_compressions_of_a_layer_are_collected_at_once_with_their_link(tree: Tree) -> None:
    tree.publish("0", FIRST)
    tree.publish("1", image(BASE, layer_of_tar(TOOL.tar, compression="zstd")))
    schedule.remove(tree.repository, ["local/app:0", "local/app:1"], tree.clock)
    tree.collect(at_once=True)
    assert tree.chains() == {}
    tree.assert_sound()


def test_an_image_under_two_names_stays_as_long_as_one_has_it(tree: Tree) -> None:
    tree.publish("x", FIRST)
    tree.publish("y", FIRST)
    schedule.remove(tree.repository, ["local/app:x"], tree.clock)
    assert tree.collected(at_once=True) == ["local/app:x"]
    assert (tree.layers(), tree.links()) == (digests(FIRST), ["local/app:y"])
    tree.assert_sound()


def test_a_dry_run_changes_nothing_and_reports_what_the_run_then_does(tree: Tree) -> None:
    for number in range(6):
        tree.publish(f"x{number}", image(BASE, layer(file(str(number), b"x" * number))))
        schedule.remove(tree.repository, [f"local/app:x{number}"], tree.clock)
    before = tree_identity(tree.root)
    foreseen = tree.collect(at_once=True, dry_run=True)
    assert tree_identity(tree.root) == before
    assert tree.collect(at_once=True) == foreseen
    assert foreseen.size == len(b"base") + sum(range(6))


def test_a_dry_run_works_without_write_permission(tree: Tree) -> None:
    tree.publish("x", FIRST)
    schedule.remove(tree.repository, ["local/app:x"], tree.clock)
    reader = tree.place.open(writable=False)
    report = collect(reader, Choice(at_once=True), tree.clock, dry_run=True)
    assert len(report.released) == 1


def test_a_large_collection_takes_several_transactions_of_bounded_size(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.removal.gc._TRANSACTION_RECORDS", 4)
    for number in range(5):
        tree.publish(f"x{number}", image(BASE, layer(file(str(number)))))
        schedule.remove(tree.repository, [f"local/app:x{number}"], tree.clock)
    foreseen = tree.collect(at_once=True, dry_run=True)
    commits = len(history(tree))
    assert tree.collect(at_once=True) == foreseen
    assert len(foreseen.released) == 5
    assert len(history(tree)) - commits == 5
    tree.assert_sound()


def history(tree: Tree) -> list[Record]:
    return list(tree.repository.history())


def test_a_limit_takes_the_longest_due_first(tree: Tree) -> None:
    for number, days in enumerate((5, 1, 3)):
        tree.publish(f"x{number}", image(layer(file(str(number)))), days=days)
        schedule.remove(tree.repository, [f"local/app:x{number}"], tree.clock)
    choice = choose(tree.repository, at_once=True, limit=2)
    report = collect(tree.repository, choice, tree.clock)
    assert [r.entry.name for r in report.released] == ["local/app:x1", "local/app:x2"]
    assert report.waiting == 1


def test_another_grace_period_can_be_given(tree: Tree) -> None:
    tree.publish("x", FIRST, days=90)
    schedule.remove(tree.repository, ["local/app:x"], tree.clock)
    tree.now += timedelta(days=2)
    for grace, expected in ((timedelta(days=3), 0), (timedelta(days=2), 1)):
        choice = choose(tree.repository, grace=grace)
        assert len(collect(tree.repository, choice, tree.clock, dry_run=True).released) == expected


DAMAGE = [b"", b"{", b'{"origin": "x"}', b'{"origin": []}', b"[]", b"\xff\xfe", None]


@pytest.mark.parametrize("content", DAMAGE)
def test_a_layer_with_an_uncertain_record_keeps_its_image_and_no_other(
    tree: Tree, content: bytes | None
) -> None:
    tree.publish("x", FIRST)
    tree.publish("y", image(DATA))
    for tag in "xy":
        schedule.remove(tree.repository, [f"local/app:{tag}"], tree.clock)
    (record,) = tree.root.glob(f".layers/*/{TOOL.digest[7:]}/.metadata/origin.json")
    damage(record, content)
    report = tree.collect(at_once=True)
    assert [each.entry.name for each in report.released] == ["local/app:y"]
    (kept,) = report.kept
    assert kept.entry.name == "local/app:x"
    assert "origin.json" in kept.why
    assert tree.layers() == digests(FIRST)
    assert tree.links() == ["local/app:x"]


def test_an_uncertain_state_has_the_image_and_the_record_that_is_not_up_to_date(
    tree: Tree,
) -> None:
    tree.publish("x", FIRST)
    schedule.remove(tree.repository, ["local/app:x"], tree.clock)
    (record,) = tree.root.glob(f".layers/*/{TOOL.digest[7:]}/.metadata/origin.json")
    record.unlink()
    (entry,) = load_schedule(tree.repository).entries
    with pytest.raises(UncertainState) as raised:
        ReferenceCounts(RecordSet(tree.repository)).release(entry)
    assert error_data(raised.value) == {
        "name": "local/app:x",
        "manifestDigest": FIRST.manifest.digest,
        "path": layout.layer_origin(TOOL.digest),
    }


def damage(record: Path, content: bytes | None) -> None:
    record.unlink()
    if content is not None:
        record.write_bytes(content)


@pytest.mark.parametrize("file_name", ["remove-schedule.json", "pins.json"])
def test_nothing_is_collected_while_schedule_or_pins_are_unreadable(
    tree: Tree, file_name: str
) -> None:
    tree.publish("x", FIRST)
    schedule.remove(tree.repository, ["local/app:x"], tree.clock)
    (tree.root / ".metadata" / file_name).write_bytes(b'{"version": 99}')
    with pytest.raises(InvalidRecord, match=file_name):
        collect(tree.repository, Choice(at_once=True), tree.clock)
    assert tree.layers() == digests(FIRST)


@pytest.mark.parametrize("name", ["../../outside", "/etc", "docker.io", ".publisher/x:1", "a/.."])
def test_a_name_that_no_image_can_have_is_never_deleted(tree: Tree, name: str) -> None:
    tree.publish("x", FIRST)
    schedule.remove(tree.repository, ["local/app:x"], tree.clock)
    path = tree.root / layout.retired_schedule(FIRST.manifest.digest)
    value = json.loads(path.read_bytes())
    value["entries"][0]["name"] = name
    path.write_text(json.dumps(value))
    report = tree.collect(at_once=True)
    assert not report.released
    assert "an image cannot have that name" in report.kept[0].why


def test_an_image_that_another_tool_published_is_counted_before_it_is_removed(tree: Tree) -> None:
    tree.publish("x", FIRST)
    tree.publish("y", FIRST)
    for record in tree.root.glob(".metadata/.images/*/*.json"):
        record.unlink()  # such tools write none
    (tree.root / ".metadata/local/app:y/publication.json").unlink()
    schedule.remove(tree.repository, ["local/app:x"], tree.clock)
    assert tree.collected(at_once=True) == ["local/app:x"]
    assert tree.layers() == digests(FIRST)
    assert tree.flat_images() == {FIRST.image_id}


def test_what_cannot_be_counted_because_a_manifest_is_unreadable_stays(tree: Tree) -> None:
    tree.publish("x", FIRST)
    tree.publish("y", SECOND)
    for record in tree.root.glob(".metadata/.images/*/*.json"):
        record.unlink()
    schedule.remove(tree.repository, ["local/app:x"], tree.clock)
    (tree.root / ".metadata/local/app:y/manifest.json").write_bytes(b"{")
    report = tree.collect(at_once=True)
    assert not report.released and len(report.kept) == 1


@pytest.mark.parametrize("tree", ["directory"], indirect=True)  # CVMFS keeps what is open itself
def test_a_process_can_still_read_an_open_file_of_an_image_that_is_collected(tree: Tree) -> None:
    content = b"y" * 300_000
    tree.publish("x", image(layer(file("large", content))))
    with (tree.root / "local/app:x/large").open("rb", buffering=0) as opened:
        first = opened.read(1000)
        schedule.remove(tree.repository, ["local/app:x"], tree.clock)
        assert tree.collected(at_once=True) == ["local/app:x"]
        assert not tree.links() and not tree.flat_images()
        rest = b"".join(iter(lambda: opened.read(65536), b""))
    assert first + rest == content


def test_an_ingest_that_reuses_a_layer_that_is_collected_fetches_it_again(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collection happens between preparing the new image and its commit: it is fetched anew."""
    tree.publish("x", FIRST)
    schedule.remove(tree.repository, ["local/app:x"], tree.clock)
    collections: list[Report] = []

    def publish_late(*arguments: object) -> object:
        if not collections:
            collections.append(tree.collect(at_once=True))
            assert tree.layers() == set()
        return publish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("publisher.ingest.new_image.publish", publish_late)
    tree.publish("z", SECOND)
    assert len(collections) == 1
    assert tree.layers() == digests(SECOND)
    assert (tree.root / "local/app:z/base").read_bytes() == b"base"
    tree.assert_sound()


def test_collections_and_ingests_at_the_same_time_leave_a_sound_tree(tree: Tree) -> None:
    made = [image(BASE, TOOL, layer(file(str(n)))) for n in range(6)]
    ended = threading.Event()
    failures: list[BaseException] = []

    def collect_all_the_time() -> None:
        repository = tree.place.open()
        try:
            while not ended.is_set():
                collect(repository, Choice(at_once=True), tree.clock)
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            repository.close()

    collector = threading.Thread(target=collect_all_the_time)
    collector.start()
    try:
        for turn in range(30):
            tree.publish("x", made[turn % len(made)], days=0)
    except RepositoryChanged:
        pass  # collected three times in a row while it was prepared: the next run tries again
    finally:
        ended.set()
        collector.join()
    assert not failures
    tree.collect(at_once=True)
    tree.assert_sound()
    usage = count_usage(tree.repository)
    assert usage.layers.keys() == tree.layers()


# The decision alone

DIGITS = st.integers(0, 5)
IMAGES_OF_LAYERS = st.lists(DIGITS, min_size=1, max_size=4)


@given(st.lists(st.tuples(DIGITS, IMAGES_OF_LAYERS, st.integers(0, 2)), min_size=1, max_size=6))
def test_a_layer_is_removed_exactly_when_no_other_live_manifest_lists_it(
    live: list[tuple[int, list[int], int]],
) -> None:
    """Compared with a full count: `live` is (name, layers, config) of all images."""
    built = [
        (f"local/x:{name}-{number}", manifest_of(layers, config))
        for number, (name, layers, config) in enumerate(live)
    ]
    name, going = built[0]
    entry = ScheduledRemoval(
        name,
        name,
        going.manifest.digest,
        going.image_id,
        JsonObject("{}"),
        "removed",
        NOON,
        NOON,
    )
    users = ImageUsers(
        frozenset((n, i.manifest.digest) for n, i in built if i.image_id == going.image_id)
    )
    siblings = [
        parsed(i)
        for n, i in built[1:]
        if i.image_id == going.image_id and i.manifest.digest != going.manifest.digest
    ]
    origins = {
        each.digest: Origin(frozenset(i.image_id for _, i in built if each.digest in digests(i)))
        for each in going.layers
    }
    release = decide(Facts(entry, parsed(going), users, tuple(siblings), origins))
    rest = [i for _, i in built[1:]]
    assert set(release.layers) == digests(going) - digests(*rest)
    assert release.flat == (going.image_id not in {i.image_id for i in rest})
    for digest, origin in release.origins.items():
        assert origin.images == {i.image_id for i in rest if digest in digests(i)}


def manifest_of(numbers: list[int], config: int) -> Image:
    layers = [layer(file(str(number))) for number in numbers]
    return image(*layers, config={"Env": [f"N={config}"]})


def parsed(of: Image) -> Manifest:
    return parse_manifest(of.manifest)
