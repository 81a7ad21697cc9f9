"""Files that are added to flat images: what the image has stays, and mount points exist."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from publisher.entry import Entry, EntryType, Generated, Merged, sort_key
from publisher.oci.config import ContainerConfig
from publisher.repository.directory.linker import link_tree
from publisher.runtimes.flat_files import VERSION, insert, runtime_files
from tests.trees import describe_tree

FILES = runtime_files(ContainerConfig(labels={"a": "b"}, command=("/bin/a",)))


def merged(path: str, kind: EntryType = EntryType.FILE, target: str = "") -> Merged:
    return Merged(Entry(path, kind, target=target), 0, path)


def added_to(*links: tuple[str, str]) -> dict[str, EntryType]:
    """What an image with these links, and the directories above them, gets in addition."""
    above = {path.rpartition("/")[0] for path, _ in links} | {""}
    plan = [merged(path, EntryType.DIRECTORY) for path in above]
    plan += [merged(path, EntryType.SYMLINK, target) for path, target in links]
    plan.sort(key=lambda each: sort_key(each.entry.path))
    result = insert(plan, FILES)
    return {each.entry.path: each.entry.type for each in result if isinstance(each, Generated)}


def test_entries_of_the_image_stay_and_nothing_is_added_behind_its_links() -> None:
    directory, link = EntryType.DIRECTORY, EntryType.SYMLINK
    plan = [
        merged("", directory),
        merged(".run", link),
        merged(".singularity.d", directory),
        merged(".singularity.d/env", link),
        merged(".singularity.d/runscript"),
        merged("etc", directory),
        merged("etc/hosts", link),
        merged("sys"),
        merged("var", link),
    ]
    result = list(insert(plan, FILES))
    kept = [each for each in result if isinstance(each, Merged)]
    added = {each.entry.path for each in result if isinstance(each, Generated)}
    assert kept == plan
    assert not {"", ".run", ".singularity.d", ".singularity.d/runscript", "etc/hosts"} & added
    assert not any(path.startswith((".singularity.d/env", "var", "sys")) for path in added)
    assert {".singularity.d/actions/run", "etc/resolv.conf", ".exec", "tmp"} <= added


def test_what_engines_mount_on_exists() -> None:
    added = {each.entry.path: each.entry for each in FILES}
    directories = {"dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "var/tmp"}
    assert {added[path].type for path in directories} == {EntryType.DIRECTORY}
    for path in ("etc/hostname", "etc/hosts", "etc/resolv.conf", "run/.containerenv"):
        assert (added[path].type, added[path].size, added[path].mode) == (EntryType.FILE, 0, 0o644)
    assert (added["etc/mtab"].type, added["etc/mtab"].target) == (EntryType.SYMLINK, "/proc/mounts")


def test_mount_points_are_added_where_the_links_of_the_image_lead_to() -> None:
    added = added_to(
        ("run", "/var/./run//"), ("home", "var/home"), ("etc/resolv.conf", "../run/a/b/resolv.conf")
    )
    here = {path for path in added if path.startswith(("run", "home", "var", "etc/res"))}
    assert here == {
        *("var", "var/home", "var/run", "var/run/.containerenv", "var/tmp"),
        *("var/run/a", "var/run/a/b", "var/run/a/b/resolv.conf"),
    }
    assert added["var/run"] is EntryType.DIRECTORY
    assert added["var/run/a/b/resolv.conf"] is EntryType.FILE

    added = added_to(("etc", "usr/etc"))
    assert {"usr/etc", "usr/etc/hosts", "usr/etc/mtab"} <= added.keys()
    assert not any(path.startswith("etc") for path in added)

    for path, target in (
        ("etc/mtab", "../proc/self/mounts"),
        ("run", "run"),
        ("run", "run/inside"),
        ("run", "etc"),
        ("run", "x" * 256),
        ("run", "var/.cvmfscatalog"),
        ("run", "z\0"),
        (".singularity.d", "var/tmp"),
    ):
        added = added_to((path, target))
        expected = {each.entry.path for each in FILES} - {"", "etc"}
        expected = {each for each in expected if not f"{each}/".startswith(f"{path}/")}
        assert set(added) - {"etc"} == expected, (path, target)


def test_a_change_of_the_added_files_has_a_new_version() -> None:
    entries = [(each.entry, each.content) for each in FILES]
    text = [(e.path, str(e.type), e.mode, e.target, content) for e, content in entries]
    digest = hashlib.sha256(repr(text).encode()).hexdigest()
    assert (VERSION, digest[:16]) == (2, "05db5714ea1a781a"), (
        "increase VERSION if the files have changed"
    )


PATHS = st.lists(
    st.sampled_from(
        [".singularity.d", "env", "actions", "run", "var", "tmp", "etc", "a", "sys", "z"]
    ),
    min_size=1,
    max_size=3,
).map("/".join)


TARGETS = st.one_of(PATHS, st.tuples(st.sampled_from(["/", "../", "./.."]), PATHS).map("".join))


@given(st.dictionaries(PATHS, st.none() | TARGETS, max_size=8))
def test_the_result_is_a_sorted_tree_that_contains_the_image(
    targets: dict[str, str | None],
) -> None:
    entries = {"": EntryType.DIRECTORY}
    for path, target in targets.items():
        kind = EntryType.FILE if target is None else EntryType.SYMLINK
        parents = [path[:at] for at, letter in enumerate(path) if letter == "/"]
        if any(
            entries.get(parent, EntryType.DIRECTORY) is not EntryType.DIRECTORY
            for parent in parents
        ):
            continue
        entries |= dict.fromkeys(parents, EntryType.DIRECTORY)
        entries.setdefault(path, kind)
    plan = [
        merged(path, entries[path], targets.get(path) or "")
        for path in sorted(entries, key=sort_key)
    ]

    result = list(insert(plan, FILES))

    assert [each for each in result if isinstance(each, Merged)] == plan
    paths = [each.entry.path for each in result]
    assert paths == sorted(set(paths), key=sort_key), "sorted, and each once"
    by_path = {each.entry.path: each.entry.type for each in result}
    for path in paths[1:]:
        assert by_path[path.rpartition("/")[0]] is EntryType.DIRECTORY


def test_a_tree_is_built_with_modes_times_and_links(tmp_path: Path) -> None:
    link_tree(tmp_path / "root", insert([], FILES), [])
    nodes = describe_tree(tmp_path / "root")
    assert nodes[""].mode == 0o755
    assert nodes["tmp"].mode == 0o1777 and nodes["root"].mode == 0o700
    assert nodes[".singularity.d/runscript"].mode == 0o755
    assert nodes["singularity"].target == ".singularity.d/runscript"
    assert {node.mtime_ns for node in nodes.values()} == {0}
