"""A repository damaged in many ways: each is named, what can be derived or fetched is repaired."""

# ruff: noqa: E501  # one row for each damage

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard

from publisher.errors import PublisherError
from publisher.ingest.run import ingest
from publisher.layers.index import read_header
from publisher.layers.policy import Policy
from publisher.oci.chain import chain_ids
from publisher.oci.digest import digest_hex
from publisher.removal.pins import pin, unpin
from publisher.repository.reading import load_pins
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.verify.findings import Kind, Remedy, Severity
from publisher.verify.repair import repair
from publisher.verify.run import Report, verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.any_repository import KINDS, environment_of
from tests.transactions.scenarios import (
    BASE,
    FIRST,
    SECOND,
    TOP,
    Stage,
    copy,
    differences,
    quick_directory,
    state_of,
)

NAME, OTHER = "local/tool:one", "local/tool:two"
FIRST_FLAT, SECOND_FLAT = (layout.flat_image(each.image_id) for each in (FIRST, SECOND))
BASE_TREE, TOP_TREE = layout.layer_tree(BASE.digest), layout.layer_tree(TOP.digest)


def publish(stage: Stage, *tags: str) -> None:
    repository = stage.published.open()
    with Sources() as sources:
        requests = [
            Request(wish_for(f"oci:{stage.folder}/layout:{tag}", name="tool")) for tag in tags
        ]
        report = ingest(requests, repository, sources, jobs=1)
    assert not report.failed, report.failed
    repository.close()


@pytest.fixture(scope="module", params=KINDS)
def pristine(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Two published images that share a layer, and a third that was replaced by the first."""
    with quick_directory() as folder, ExitStack() as stack:
        stage = Stage(folder / "stage", request.param)
        stage.begin()
        stack.enter_context(environment_of(stage.published))
        stage.put(SECOND, "one")
        stage.put(SECOND, "two")
        publish(stage, "one", "two")
        stage.put(FIRST, "one")
        publish(stage, "one")
        copy(stage.published.whole, folder / "origin")
        yield stage


@pytest.fixture
def stage(pristine: Stage) -> Stage:
    """To be damaged."""
    copy(pristine.folder.parent / "origin", pristine.published.whole)
    return pristine


@pytest.fixture
def root(stage: Stage) -> Path:
    """Where it is damaged."""
    return stage.repository


def look(stage: Stage, *, deep: bool = True) -> Report:
    return verify(stage.published.open(writable=False), deep=deep)


def repaired(stage: Stage, *, refetch: bool, replace_newer: bool = False) -> Report:
    repository = stage.published.open()
    try:
        report = verify(repository, deep=True)
        with Sources() as sources:
            chosen = sources if refetch else None
            return repair(repository, report, chosen, Policy(), replace_newer=replace_newer)[1]
    finally:
        repository.close()


def edit(path: str, change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        value = json.loads((root / path).read_bytes())
        change(value)
        _write(root / path, json.dumps(value).encode())

    return damage


def count_links(path: str) -> Callable[[Path], None]:
    """Let an index count one hard link to lower layers."""

    def damage(root: Path) -> None:
        text = zstandard.ZstdDecompressor().stream_reader((root / path).read_bytes()).read()
        header, _, entries = text.partition(b"\n")
        changed = json.dumps(json.loads(header) | {"unresolved": 1}).encode()
        _write(root / path, zstandard.compress(changed + b"\n" + entries))

    return damage


def write(path: str, content: bytes) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        _write(root / path, content)

    return damage


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def overwrite(path: str, content: bytes) -> Callable[[Path], None]:
    """In place, like a faulty disk or program: all hard links are the same file.

    But in CVMFS, where each name has content of its own.
    """

    def damage(root: Path) -> None:
        status = (root / path).stat()
        if (root / layout.METADATA / ".cvmfscatalog").exists():
            data = (root / path).read_bytes()
            _write(root / path, data)
            (root / path).chmod(status.st_mode & 0o7777)
        with (root / path).open("r+b") as file:
            file.write(content)
        os.utime(root / path, ns=(status.st_atime_ns, status.st_mtime_ns))

    return damage


def remove(path: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        if (root / path).is_dir() and not (root / path).is_symlink():
            shutil.rmtree(root / path)
        else:
            (root / path).unlink()

    return damage


def directory(path: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / path).unlink()
        write(f"{path}/inside", b"1")(root)

    return damage


def link(path: str, text: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / path).unlink(missing_ok=True)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(text)

    return damage


def truncate(path: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        _write(root / path, (root / path).read_bytes()[:-20])

    return damage


@dataclass(frozen=True, slots=True)
class Damage:
    """`heals` is the option that restores the tree: "repair", "refetch", or "" for none."""

    what: str
    do: Callable[[Path], None]
    kind: Kind
    path: str
    heals: str = ""


USERS = layout.image_users(SECOND.image_id)
RETIRED = layout.retired_directory(SECOND.manifest.digest)
STRANGE = "ab" * 32
BASE_CHAIN, TOP_CHAIN = map(layout.chain_link, chain_ids([BASE.diff_id, TOP.diff_id]))

DAMAGES = [
    Damage("manifest cut off", truncate(layout.manifest_file(NAME)), Kind.MANIFEST_DAMAGED, layout.manifest_file(NAME), "refetch"),
    Damage("manifest lost", remove(layout.manifest_file(NAME)), Kind.MANIFEST_MISSING, layout.manifest_file(NAME), "refetch"),
    Damage("manifest of another image", write(layout.manifest_file(NAME), SECOND.manifest.data), Kind.MANIFEST_DAMAGED, layout.manifest_file(NAME), "refetch"),
    Damage("config lost", remove(layout.config_file(NAME)), Kind.CONFIG_MISSING, layout.config_file(NAME), "refetch"),
    Damage("config changed", write(layout.config_file(NAME), b"{}"), Kind.CONFIG_DAMAGED, layout.config_file(NAME), "refetch"),
    Damage("publication lost", remove(layout.publication_file(NAME)), Kind.PUBLICATION_MISSING, layout.publication_file(NAME)),
    Damage("publication cut off", truncate(layout.publication_file(NAME)), Kind.PUBLICATION_DAMAGED, layout.publication_file(NAME)),
    Damage("publication of another name", edit(layout.publication_file(NAME), lambda v: v.update(name=OTHER)), Kind.PUBLICATION_DAMAGED, layout.publication_file(NAME)),
    Damage("publication of the future", edit(layout.publication_file(NAME), lambda v: v.update(version=99)), Kind.FUTURE_VERSION, layout.publication_file(NAME)),
    Damage("schedule cut off", truncate(layout.REMOVE_SCHEDULE), Kind.RECORD_DAMAGED, layout.REMOVE_SCHEDULE),
    Damage("schedule of the future", edit(layout.REMOVE_SCHEDULE, lambda v: v.update(version=7)), Kind.FUTURE_VERSION, layout.REMOVE_SCHEDULE),
    Damage("pins that are not pins", write(layout.PINS, b"[]"), Kind.RECORD_DAMAGED, layout.PINS),
    Damage("retired manifest lost", remove(f"{RETIRED}/manifest.json"), Kind.RETIRED_MISSING, f"{RETIRED}/manifest.json"),
    Damage("link lost", remove(NAME), Kind.LINK_MISSING, NAME, "repair"),
    Damage("link to another image", link(NAME, f"../{SECOND_FLAT}"), Kind.LINK_WRONG, NAME, "repair"),
    Damage("link to nowhere", link(NAME, "../.flat/00/nothing"), Kind.LINK_WRONG, NAME, "repair"),
    Damage("link that is absolute", link(NAME, f"/srv/{FIRST_FLAT}"), Kind.LINK_WRONG, NAME, "repair"),
    Damage("a file in the place of a link", write(NAME, b"mine"), Kind.LINK_WRONG, NAME),
    Damage("flat image lost", remove(FIRST_FLAT), Kind.FLAT_MISSING, FIRST_FLAT, "repair"),
    Damage("file lost from a flat image", remove(f"{SECOND_FLAT}/etc/motd"), Kind.FLAT_DAMAGED, SECOND_FLAT, "repair"),
    Damage("file added to a flat image", write(f"{SECOND_FLAT}/opt/extra", b"x"), Kind.FLAT_DAMAGED, SECOND_FLAT, "repair"),
    Damage("other content in a flat image", write(f"{SECOND_FLAT}/etc/motd", b"other"), Kind.FLAT_DAMAGED, SECOND_FLAT, "repair"),
    Damage("runtime file changed", write(f"{SECOND_FLAT}/.singularity.d/runscript", b"x"), Kind.FLAT_DAMAGED, SECOND_FLAT, "repair"),
    Damage("mount point lost", remove(f"{SECOND_FLAT}/run"), Kind.FLAT_DAMAGED, SECOND_FLAT, "repair"),
    Damage("version of a flat image lost", edit(USERS, lambda v: v.pop("runtimeFiles")), Kind.FLAT_OUTDATED, layout.FLAT, "repair"),
    Damage("layer lost", remove(layout.layer_directory(TOP.digest)), Kind.LAYER_MISSING, TOP_TREE, "refetch"),
    Damage("content changed in place", overwrite(f"{BASE_TREE}/etc/motd", b"HELLO"), Kind.LAYER_DAMAGED, BASE_TREE, "refetch"),
    Damage("file lost from a layer", remove(f"{TOP_TREE}/implied/again"), Kind.LAYER_DAMAGED, TOP_TREE, "refetch"),
    Damage("mode changed in a layer", lambda root: (root / BASE_TREE / "gone").chmod(0o777), Kind.LAYER_DAMAGED, BASE_TREE, "refetch"),
    Damage("whiteout turned into a file", write(f"{TOP_TREE}/gone", b""), Kind.LAYER_DAMAGED, TOP_TREE, "refetch"),
    Damage("symlink bent in a layer", link(f"{BASE_TREE}/link", "/etc/shadow"), Kind.LAYER_DAMAGED, BASE_TREE, "refetch"),
    Damage("index lost", remove(layout.layer_index(BASE.digest)), Kind.INDEX_MISSING, layout.layer_index(BASE.digest)),
    Damage("index cut off", truncate(layout.layer_index(BASE.digest)), Kind.INDEX_DAMAGED, layout.layer_index(BASE.digest)),
    Damage("index with wrong counts", count_links(layout.layer_index(BASE.digest)), Kind.INDEX_DAMAGED, layout.layer_index(BASE.digest)),
    Damage("origin lost", remove(layout.layer_origin(BASE.digest)), Kind.ORIGIN_MISSING, layout.layer_origin(BASE.digest), "repair"),
    Damage("origin emptied", write(layout.layer_origin(BASE.digest), b'{"origin": []}'), Kind.ORIGIN_WRONG, layout.layer_origin(BASE.digest), "repair"),
    Damage("origin with an image too many", edit(layout.layer_origin(TOP.digest), lambda v: v["origin"].append(FIRST.image_id)), Kind.ORIGIN_WRONG, layout.layer_origin(TOP.digest)),  # type: ignore[attr-defined]
    Damage("users lost", remove(USERS), Kind.USERS_MISSING, USERS, "repair"),
    Damage("users emptied", write(USERS, b'{"version": 1, "users": []}'), Kind.USERS_WRONG, USERS, "repair"),
    Damage("chain link lost", remove(TOP_CHAIN), Kind.CHAIN_MISSING, layout.CHAINS, "repair"),
    Damage("all chain links lost", remove(layout.CHAINS), Kind.CHAIN_MISSING, layout.CHAINS, "repair"),
    Damage("chain that the layer does not record", edit(layout.layer_origin(TOP.digest), lambda v: v.pop("chains")), Kind.CHAIN_MISSING, layout.CHAINS, "repair"),
    Damage("chain link to another layer", link(TOP_CHAIN, layout.chain_target(BASE.digest)), Kind.CHAIN_WRONG, TOP_CHAIN, "repair"),
    Damage("chain link to nowhere", link(BASE_CHAIN, "nowhere"), Kind.CHAIN_WRONG, BASE_CHAIN, "repair"),
    Damage("a file in the place of a chain link", lambda root: _write(root / TOP_CHAIN, b"mine"), Kind.CHAIN_WRONG, TOP_CHAIN),
    Damage("orphan chain link", link(layout.chain_link(f"sha256:{STRANGE}"), layout.chain_target(BASE.digest)), Kind.ORPHAN_CHAIN, layout.chain_link(f"sha256:{STRANGE}"), "repair"),
    Damage("users a directory", directory(USERS), Kind.USERS_WRONG, USERS, "repair"),
    Damage("manifest a directory", directory(layout.manifest_file(NAME)), Kind.MANIFEST_DAMAGED, layout.manifest_file(NAME), "refetch"),
    Damage("orphan layer", write(f".layers/ab/{STRANGE}/layerfs/x", b""), Kind.ORPHAN_LAYER, f".layers/ab/{STRANGE}"),
    Damage("orphan flat image", write(f".flat/ab/{STRANGE}/x", b""), Kind.ORPHAN_FLAT, f".flat/ab/{STRANGE}"),
    Damage("orphan retired metadata", write(f".metadata/.retired/ab/{STRANGE}/manifest.json", b"{}"), Kind.ORPHAN_METADATA, f".metadata/.retired/ab/{STRANGE}"),
    Damage("orphan link", link("local/more:1", f"../{FIRST_FLAT}"), Kind.ORPHAN_LINK, "local/more:1"),
    Damage("foreign file among the names", write("local/README", b"hello"), Kind.FOREIGN, "local/README"),
    Damage("foreign file in the metadata", write(".metadata/notes.txt", b"hello"), Kind.FOREIGN, ".metadata/notes.txt"),
    Damage("foreign directory among the layers", write(".layers/tmp/x", b""), Kind.FOREIGN, ".layers/tmp/x"),
]  # fmt: skip


def test_a_newly_published_repository_is_sound(pristine: Stage) -> None:
    report = look(pristine)
    assert report.findings == ()
    assert (report.images, report.layers, report.flat_images) == (2, 2, 2)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.what)
def test_damage_is_named_and_repaired(stage: Stage, root: Path, damage: Damage) -> None:
    before = state_of(root)
    damage.do(root)
    damaged = state_of(root)

    report = look(stage)
    found = [
        each for each in report.findings if (each.kind, each.path) == (damage.kind, damage.path)
    ]
    assert len(found) == 1, report.findings
    harmless = (Kind.FOREIGN, Kind.CHAIN_MISSING, Kind.FLAT_OUTDATED)
    assert report.sound == (damage.kind in harmless)
    assert not differences(state_of(root), damaged), "looking changed something"

    after_repair = repaired(stage, refetch=False)
    if found[0].remedy is not Remedy.DERIVE:
        assert not differences(state_of(root), damaged), "something was changed without need"
        assert found[0] in after_repair.findings
    if damage.heals == "repair":
        assert not differences(state_of(root), before)
        assert after_repair.findings == ()
    if damage.heals == "refetch":
        assert found[0].remedy is Remedy.REFETCH
        after = repaired(stage, refetch=True)
        assert after.findings == ()
        assert not differences(state_of(root), before)


NEWER = [
    layout.publication_file(NAME),
    layout.REMOVE_SCHEDULE,
    USERS,
    f"{RETIRED}/publication.json",
    layout.retired_schedule(SECOND.manifest.digest),
    layout.layer_index(BASE.digest),
]


@pytest.mark.parametrize("path", NEWER)
def test_a_record_of_a_newer_release_is_left_alone_and_rebuilt_on_request(
    stage: Stage, root: Path, path: str
) -> None:
    data = (root / path).read_bytes()
    if path.endswith(".zst"):
        text = zstandard.ZstdDecompressor().stream_reader(data).read()
        newer = zstandard.compress(text.replace(b'"version":1', b'"version":99', 1))
        assert newer != data
    else:
        newer = json.dumps(json.loads(data) | {"version": 99}).encode()
    _write(root / path, newer)
    report = look(stage)
    [finding] = (each for each in report.findings if each.kind is Kind.FUTURE_VERSION)
    assert finding.path == path
    assert finding.how.startswith("publisher verify --repair --replace-newer")
    repaired(stage, refetch=False)
    assert (root / path).read_bytes() == newer
    assert repaired(stage, refetch=False, replace_newer=True).sound
    assert json.loads((root / layout.publication_file(NAME)).read_bytes())["reference"]


def test_flat_images_of_an_earlier_release_are_brought_up_to_date(stage: Stage, root: Path) -> None:
    before = state_of(root)
    for built, flat in ((FIRST, FIRST_FLAT), (SECOND, SECOND_FLAT)):
        edit(layout.image_users(built.image_id), lambda value: value.pop("runtimeFiles"))(root)
        etc = root / flat / "etc"
        time = etc.stat().st_mtime_ns
        for path in ("run", "etc/mtab", "etc/hostname", ".singularity.d/labels.json"):
            remove(f"{flat}/{path}")(root)
        os.utime(etc, ns=(time, time))
    [finding] = look(stage, deep=False).findings
    assert (finding.severity, finding.path) == (Severity.NOTE, layout.FLAT)
    assert finding.what.startswith("2 of the flat images lack")
    deep = [each for each in look(stage).findings if each != finding]
    assert {(each.kind, each.severity, each.path) for each in deep} == {
        (Kind.FLAT_OUTDATED, Severity.WARNING, FIRST_FLAT),
        (Kind.FLAT_OUTDATED, Severity.WARNING, SECOND_FLAT),
    }
    assert repaired(stage, refetch=False).findings == ()
    assert not differences(state_of(root), before)


def test_at_least_thirty_kinds_of_damage_are_known() -> None:
    assert len(DAMAGES) >= 30


def test_an_index_made_from_its_tree_merges_to_the_same_image(stage: Stage, root: Path) -> None:
    before = state_of(root)
    remove(layout.layer_index(BASE.digest))(root)
    remove(FIRST_FLAT)(root)
    report = repaired(stage, refetch=False)
    assert [finding.kind for finding in report.findings] == [Kind.INDEX_DERIVED]
    assert report.sound
    assert differences(state_of(root), before) == [layout.layer_index(BASE.digest)]
    with (root / layout.layer_index(BASE.digest)).open("rb") as file:
        found = list((root / layout.layer_tree(BASE.digest)).rglob("*"))
        files = [path for path in found if path.is_file() and not path.is_symlink()]
        assert read_header(file).files == len(files) > 0


def test_with_an_unreadable_manifest_nothing_is_an_orphan_or_removed_from_a_record(
    stage: Stage, root: Path
) -> None:
    """An unreadable manifest may name anything."""
    before = state_of(root)
    truncate(layout.manifest_file(OTHER))(root)
    truncate(layout.REMOVE_SCHEDULE)(root)
    report = repaired(stage, refetch=False)
    assert {finding.kind for finding in report.findings} == {Kind.MANIFEST_DAMAGED}
    assert differences(state_of(root), before) == [layout.manifest_file(OTHER)]


def test_a_tree_of_another_tool_is_read_and_its_differences_are_reported(
    stage: Stage, root: Path
) -> None:
    """A tree of DUCC: its own form of the manifest, no config, no index, no publication."""
    value = json.loads(FIRST.manifest.data)
    ducc = {
        "SchemaVersion": 2,
        "MediaType": value["mediaType"],
        "Config": {key.title().replace("type", "Type"): v for key, v in value["config"].items()},
        "Layers": [
            {"MediaType": each["mediaType"], "Size": each["size"], "Digest": each["digest"]}
            for each in value["layers"]
        ],
    }
    ducc["Config"] = {
        "MediaType": value["config"]["mediaType"],
        "Size": value["config"]["size"],
        "Digest": value["config"]["digest"],
    }
    write(layout.manifest_file(NAME), json.dumps(ducc).encode())(root)
    for path in (
        layout.config_file(NAME),
        layout.publication_file(NAME),
        layout.layer_index(BASE.digest),
        layout.image_users(FIRST.image_id),
    ):
        remove(path)(root)
    write(layout.REMOVE_SCHEDULE, json.dumps([ducc]).encode())(root)
    remove(layout.METADATA + "/.retired")(root)
    report = look(stage)
    told = {(finding.kind, finding.path) for finding in report.findings}
    assert (Kind.OTHER_TOOL, layout.manifest_file(NAME)) in told
    assert (Kind.OTHER_TOOL, layout.REMOVE_SCHEDULE) in told
    assert (Kind.INDEX_MISSING, layout.layer_index(BASE.digest)) in told
    assert not any(finding.kind is Kind.MANIFEST_DAMAGED for finding in report.findings)
    errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
    assert {finding.kind for finding in errors} <= {Kind.USERS_WRONG}


def test_a_finding_that_a_concurrent_writer_causes_is_not_reported(
    stage: Stage, root: Path
) -> None:
    """A finding of one survey only belongs to a change in progress."""
    repository = stage.published.open(writable=False)
    text = os.readlink(root / NAME)
    (root / NAME).unlink()
    links = repository.link_text

    def late(path: str) -> str | None:
        found = links(path)
        if path == NAME and found is None:
            (root / NAME).symlink_to(text)
        return found

    repository.link_text = late  # type: ignore[method-assign]
    assert verify(repository).findings == ()


def test_names_in_the_table_are_as_the_layout_has_them() -> None:
    assert USERS.endswith(f"{digest_hex(SECOND.image_id)}.json")


def test_a_deleted_file_of_pins_is_reported_and_rebuilt_from_the_history(stage: Stage) -> None:
    repository = stage.published.open()
    now = datetime.now(UTC)
    pin(repository, NAME, lambda: now, reason="a paper")
    pin(repository, OTHER, lambda: now)
    unpin(repository, OTHER, lambda: now)
    repository.close()
    assert look(stage).sound
    (stage.repository / layout.PINS).unlink()
    [finding] = look(stage).findings
    assert (finding.kind, finding.remedy) == (Kind.PINS_MISSING, Remedy.DERIVE)
    assert NAME in finding.what and OTHER not in finding.what
    assert repaired(stage, refetch=False).sound
    [found] = load_pins(stage.published.open(writable=False)).pins
    assert (found.name, found.reason) == (NAME, "a paper")


def test_a_lack_of_descriptors_is_an_error_and_no_damage(stage: Stage) -> None:
    """Otherwise --repair would replace trees with which nothing is wrong."""
    repository = stage.published.open()
    sound = verify(repository, deep=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised = 0
    for more in range(12):
        with Path(os.devnull).open("rb") as free:
            lowest = free.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + more, hard))
        try:
            found = verify(repository, deep=True)
        except (OSError, PublisherError):
            raised += 1
        else:
            assert found.findings == sound.findings, more
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 0 < raised < 12
    repository.close()
