"""The service without containerd: the cases of containerd's suite for snapshotters.

Containerd's own snapshotters have to pass its `testsuite.go`; its cases are here, over the wire,
except CloseTwice: the service has no such method. In Rename, no directory is renamed, as in that
suite for its overlay snapshotter.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.components import require_mounts, run, unmount_below
from tests.snapshotter import Client, Refused, Running, mounted, running
from tests.trees import assert_same_tree

VIEW, ACTIVE, COMMITTED = 1, 2, 3
ROOT = {"containerd.io/gc.root": "2026-11-20T12:00:00Z"}
_NUMBERS = count()

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Client]]:
    folder = tmp_path_factory.mktemp("s")
    with running(folder, folder / "no-tree") as (process, client):
        yield process, client


@pytest.fixture
def client(service: tuple[Running, Client]) -> Client:
    return service[1]


def new(kind: str = "key") -> str:
    """Return a name that no other test has."""
    return f"{kind}-{next(_NUMBERS)}"


def committed(client: Client, parent: str = "") -> str:
    """Return the name of a new committed snapshot without files."""
    key, name = new("active"), new("committed")
    client.prepare(key, parent, ROOT)
    client.commit(name, key, ROOT)
    return name


def refused(code: str, call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(Refused) as caught:
        call(*arguments)
    assert caught.value.code == code, caught.value.details
    return caught.value.details


# Metadata


def test_a_snapshot_is_prepared_committed_viewed_and_removed(client: Client) -> None:
    key, name = new(), new("name")
    (mount,) = client.prepare(key, labels=ROOT)
    assert (mount["type"], mount["options"]) == ("bind", ["rw", "rbind"])
    assert client.stat(key) | {"created_at": 0, "updated_at": 0} == {
        "name": key,
        "parent": "",
        "kind": ACTIVE,
        "labels": ROOT,
        "created_at": 0,
        "updated_at": 0,
    }
    assert client.mounts(key) == [mount]
    client.commit(name, key, ROOT)
    refused("NOT_FOUND", client.stat, key)
    base = client.stat(name)
    assert (base["kind"], base["parent"]) == (COMMITTED, "")
    above = new()
    client.prepare(above, name)
    assert (client.stat(above)["parent"], client.stat(above)["kind"]) == (name, ACTIVE)
    refused("FAILED_PRECONDITION", client.remove, name)
    client.remove(above)
    client.remove(name)
    refused("NOT_FOUND", client.stat, name)


def test_the_parent_of_a_snapshot_is_transitive(client: Client) -> None:
    first = committed(client)
    second = committed(client, first)
    assert client.stat(second)["parent"] == first
    assert client.stat(client.stat(second)["parent"])["parent"] == ""


@pytest.mark.parametrize("first", ["prepare", "view"])
@pytest.mark.parametrize("second", ["prepare", "view"])
def test_a_key_is_used_once(client: Client, first: str, second: str) -> None:
    base, key = committed(client), new()
    getattr(client, first)(key, base)
    refused("ALREADY_EXISTS", getattr(client, second), key, base)


def test_a_snapshot_between_others_is_not_removed(client: Client) -> None:
    base = committed(client)
    middle = committed(client, base)
    top = new()
    client.prepare(top, middle)
    details = refused("FAILED_PRECONDITION", client.remove, middle)
    assert "child" in details
    for name in (top, middle, base):
        client.remove(name)


def test_a_removed_name_is_free_again(client: Client) -> None:
    base, key = committed(client), new("reuse")
    client.prepare(key, base)
    client.remove(key)
    client.view(key, base)
    client.remove(key)
    client.prepare(key)
    client.remove(base)
    client.commit(base, key)
    client.remove(base)


def test_errors_have_the_codes_of_containerd(client: Client) -> None:
    base, active, view = committed(client), new(), new()
    client.prepare(active, base)
    client.view(view, base)
    for call in (client.stat, client.mounts, client.remove, client.usage):
        refused("NOT_FOUND", call, "missing")
    refused("NOT_FOUND", client.prepare, new(), "missing")
    refused("NOT_FOUND", client.commit, new(), "missing")
    refused("NOT_FOUND", client.update, "missing", {})
    refused("INVALID_ARGUMENT", client.prepare, new(), active)
    refused("INVALID_ARGUMENT", client.prepare, "")
    refused("FAILED_PRECONDITION", client.mounts, base)
    refused("FAILED_PRECONDITION", client.commit, new(), view)
    refused("FAILED_PRECONDITION", client.commit, new(), base)
    refused("ALREADY_EXISTS", client.commit, base, active)
    assert client.stat(active)["kind"] == ACTIVE
    refused("INVALID_ARGUMENT", client.list, "name=x")


def test_a_snapshot_without_a_parent_gets_one_when_it_is_committed(client: Client) -> None:
    base, key, name = committed(client), new(), new("name")
    client.prepare(key)
    client.call("Commit", name=name, key=key, parent=base)
    assert client.stat(name)["parent"] == base
    other, above = committed(client), new()
    client.prepare(above, base)
    refused("INVALID_ARGUMENT", lambda: client.call("Commit", name=new(), key=above, parent=other))


def nanoseconds(time_of: dict[str, int]) -> int:
    return int(time_of["seconds"] * 10**9 + time_of["nanos"])


def test_labels_are_updated_and_nothing_else(client: Client) -> None:
    before = time.time_ns()
    first = committed(client)
    second = committed(client, first)
    a1, a2, v1, v2 = (new() for _ in range(4))
    client.prepare(a1, second)
    client.prepare(a2)
    client.view(v1, second)
    client.view(v2)
    for name, kind, parent in (
        (first, COMMITTED, ""),
        (second, COMMITTED, first),
        (a1, ACTIVE, second),
        (a2, ACTIVE, ""),
        (v1, VIEW, second),
        (v2, VIEW, ""),
    ):
        found = client.stat(name)
        assert before <= nanoseconds(found["created_at"]) <= time.time_ns()
        assert found["created_at"] == found["updated_at"]
        labels = {"l1": "v1", "l2": "v2", "l3": "v3"} | ROOT
        updated = client.update(name, labels)
        assert updated == client.stat(name)
        assert (updated["kind"], updated["parent"], updated["labels"]) == (kind, parent, labels)
        assert updated["created_at"] == found["created_at"]
        assert nanoseconds(updated["updated_at"]) > nanoseconds(found["updated_at"])
        updated = client.update(name, {"l1": "updated", "l4": "v4"}, "labels.l1", "labels.l2")
        assert updated["labels"] == {"l1": "updated", "l3": "v3"} | ROOT
        updated = client.update(name, {"l4": "v4"} | ROOT, "labels")
        assert updated["labels"] == {"l4": "v4"} | ROOT
        refused("INVALID_ARGUMENT", client.update, name, {}, "parent")
        assert client.stat(name) == updated


def test_a_commit_replaces_the_labels_and_the_time(client: Client) -> None:
    key, name = new(), new("name")
    client.prepare(key, labels={"a": "1"})
    prepared = client.stat(key)
    client.commit(name, key, {"b": "2"})
    found = client.stat(name)
    assert found["labels"] == {"b": "2"}
    assert nanoseconds(found["created_at"]) > nanoseconds(prepared["created_at"])


def test_a_list_has_what_stat_returns_also_of_more_than_one_answer(client: Client) -> None:
    base = committed(client)
    names = {new("listed") for _ in range(230)}
    for name in names:
        client.prepare(name, base)
    listed = client.list(f'parent=="{base}"')
    assert listed.keys() == names
    assert all(client.stat(name) == listed[name] for name in sorted(names)[:20])
    assert client.list(f'parent=="{base}",name=="x"') == {}
    assert len(client.call("List", filters=[])) > 1
    assert client.list().keys() >= names | {base}


def test_a_list_is_filtered_by_kind_parent_name_and_labels(client: Client) -> None:
    root, mark = 'labels."containerd.io/gc.root"', new("walk")
    p, pl, a, al, v, vl, n, nl = (new() for _ in range(8))
    labels = {number: {"containerd.io/gc.root": mark, "l": number} for number in "123"}
    plain = {"containerd.io/gc.root": mark}
    for name, label in ((p, plain), (pl, labels["1"])):
        client.prepare(f"{name}-active")
        client.commit(name, f"{name}-active", label)
    for name, parent, label in (
        (a, p, plain),
        (al, pl, labels["2"]),
        (n, "", plain),
        (nl, "", labels["2"]),
    ):
        client.prepare(name, parent, label)
    for name, parent, label in ((v, p, plain), (vl, pl, labels["3"])):
        client.view(name, parent, label)
    for filters, expected in (
        ([f"{root}=={mark}"], {p, pl, a, al, v, vl, n, nl}),
        ([f"kind==active,{root}=={mark}"], {a, al, n, nl}),
        ([f"kind==view,{root}=={mark}"], {v, vl}),
        ([f"kind==committed,{root}=={mark}"], {p, pl}),
        ([f"name=={p}", f"name=={nl}"], {p, nl}),
        ([f"name=={al},labels.l"], {al}),
        ([f"parent=={p}"], {a, v}),
        ([f'parent!="",{root}=={mark}'], {a, v, al, vl}),
        ([f"labels.l,{root}=={mark}"], {pl, al, vl, nl}),
        ([f"labels.l==2,{root}=={mark}"], {al, nl}),
    ):
        assert client.list(*filters).keys() == expected, filters


# Files


def check(client: Client, folder: Path, *changes: Change) -> list[str]:
    """Apply the changes in one snapshot above the other; each shows all changes so far."""
    require_mounts()
    plain = folder / "plain"
    plain.mkdir()
    parent = ""
    names = []
    for change in changes:
        key, name, view = new(), new("name"), new("view")
        with mounted(client.prepare(key, parent), folder / "mount") as place:
            change(place)
        client.commit(name, key)
        change(plain)
        with mounted(client.view(view, name), folder / "mount") as place:
            assert_same_tree(place, plain, ignore=("mtime_ns",))
        client.remove(view)
        parent = name
        names.append(name)
    return names


def write(place: Path, path: str, content: str, mode: int = 0o644) -> None:
    (place / path).write_text(content)
    (place / path).chmod(mode)


def directories(place: Path, *paths: str) -> None:
    for path in paths:
        (place / path).mkdir(mode=0o700)


def test_files_of_lower_layers_are_updated(client: Client, tmp_path: Path) -> None:
    def first(place: Path) -> None:
        directories(place, "etc")
        write(place, "etc/hosts", "mydomain 10.0.0.1")
        write(place, "etc/profile", "PATH=/usr/bin")

    def second(place: Path) -> None:
        write(place, "etc/hosts", "mydomain 10.0.0.2")
        write(place, "etc/profile", "PATH=/usr/bin", 0o666)
        directories(place, "root")
        write(place, "root/.bashrc", "PATH=/usr/sbin")

    check(client, tmp_path, first, second)


def test_a_file_is_replaced_and_directories_are_removed(client: Client, tmp_path: Path) -> None:
    def first(place: Path) -> None:
        write(place, "foo", "foo\n", 0o777)
        directories(place, "a", "a/b", "a/b/c")

    def second(place: Path) -> None:
        write(place, "bar", "bar\n", 0o777)
        write(place, "foo", "bar\n", 0o777)
        (place / "a/b/c").rmdir()
        (place / "a/b").rmdir()

    check(client, tmp_path, first, second)


def test_files_of_a_lower_layer_are_renamed(client: Client, tmp_path: Path) -> None:
    def first(place: Path) -> None:
        directories(place, "dir1", "somefiles")
        write(place, "somefiles/f1", "was here first!")
        write(place, "somefiles/f2", "nothing interesting")

    def second(place: Path) -> None:
        write(place, "somefiles/f1-overwrite", "new content 1")
        (place / "somefiles/f1-overwrite").rename(place / "somefiles/f1")
        (place / "somefiles/f2").rename(place / "somefiles/f3")

    check(client, tmp_path, first, second)


def test_owners_of_nested_directories_are_changed(client: Client, tmp_path: Path) -> None:
    def first(place: Path) -> None:
        directories(place, "opt", "opt/a", "opt/a/b")
        write(place, "opt/a/b/file.txt", "hello")

    def second(place: Path) -> None:
        for path in ("opt", "opt/a", "opt/a/b", "opt/a/b/file.txt"):
            os.chown(place / path, 1, 1)

    check(client, tmp_path, first, second)


def test_a_directory_of_a_lower_layer_is_replaced(client: Client, tmp_path: Path) -> None:
    def first(place: Path) -> None:
        directories(place, "lib")
        write(place, "lib/hidden", "")

    def second(place: Path) -> None:
        (place / "lib/hidden").unlink()
        (place / "lib").rmdir()
        directories(place, "lib")
        write(place, "lib/not-hidden", "")

    check(client, tmp_path, first, second, lambda place: write(place, "lib/newfile", ""))


def test_files_of_a_lower_layer_are_deleted_and_moved(client: Client, tmp_path: Path) -> None:
    def first(place: Path) -> None:
        directories(place, "dir1", "dir2")
        write(place, "dir1/f1", "Hello")
        write(place, "dir2/f2", "...")
        write(place, "foobar", "foobar")

    def second(place: Path) -> None:
        directories(place, "dir3")
        write(place, "dir3/f1", "Hello")
        (place / "dir1/f1").unlink()
        (place / "dir1").rmdir()
        os.link(place / "dir2/f2", place / "dir3/f2")
        (place / "dir2/f2").unlink()
        (place / "foobar").unlink()

    check(client, tmp_path, first, second, lambda place: None)


def test_owners_and_permissions_of_directories_are_kept(client: Client, tmp_path: Path) -> None:
    def first(place: Path) -> None:
        directories(place, "dir1", "dir2", "dir3", "dir4", "dir5")
        for path in ("dir4/f1", "dir5/f1"):
            write(place, path, "...")
        for path in ("dir1", "dir2", "dir3", "dir5", "dir5/f1"):
            os.chown(place / path, 1, 1)

    def second(place: Path) -> None:
        os.chown(place / "dir2", 0, 0)
        (place / "dir3").rmdir()
        for path in ("dir4", "dir4/f1"):
            os.chown(place / path, 1, 1)

    def third(place: Path) -> None:
        directories(place, "dir3")
        os.chown(place / "dir3", 1, 1)
        (place / "dir5/f1").unlink()
        (place / "dir5").rmdir()
        directories(place, "dir5")
        os.chown(place / "dir5", 1, 1)

    check(client, tmp_path, first, second, third)


def test_the_root_of_a_snapshot_has_the_owner_of_its_parent(client: Client, tmp_path: Path) -> None:
    require_mounts()
    key, base, above = new(), new("name"), new()
    with mounted(client.prepare(key), tmp_path / "mount") as place:
        assert place.stat().st_mode & 0o777 == 0o755
        os.chown(place, 7, 8)
    client.commit(base, key)
    with mounted(client.prepare(above, base), tmp_path / "mount") as place:
        assert (place.stat().st_uid, place.stat().st_gid) == (7, 8)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_a_view_is_read_only(client: Client, tmp_path: Path, layers: int) -> None:
    require_mounts()
    parent = ""
    for _ in range(layers):
        parent = committed(client, parent)
    view = new("view")
    with mounted(client.view(view, parent), tmp_path / "mount") as place:
        with pytest.raises(OSError, match="Read-only file system"):
            (place / "file").write_text("")


def test_usage_counts_each_file_once_and_only_those_of_the_snapshot(
    client: Client, tmp_path: Path
) -> None:
    def first(place: Path) -> None:
        (place / "file").write_bytes(b"x" * 100_000)
        os.link(place / "file", place / "link")

    (name,) = check(client, tmp_path, first)
    size, inodes = client.usage(name)
    assert 100_000 <= size < 130_000
    assert inodes == 2
    key = new()
    client.prepare(key, name)
    size, inodes = client.usage(key)
    assert size < 30_000
    assert inodes == 1
    view = new("view")
    client.view(view, name)
    assert client.usage(view) == (0, 0)


def test_an_image_of_many_layers_is_mounted(client: Client, tmp_path: Path) -> None:
    require_mounts()
    parent = ""
    for number in range(130):
        key, name = new(), new("committed")
        (mount,) = client.prepare(key, parent)
        found = [o.removeprefix("upperdir=") for o in mount["options"] if o[:9] == "upperdir="]
        upper = Path(found[0] if found else mount["source"])
        write(upper, "overwritten", f"{number}")
        directories(upper, "added", "only")
        write(upper, f"added/{number}", "same")
        write(upper, f"only/{number}", "only")
        if found:  # the directory was removed and made again
            os.setxattr(upper / "only", "trusted.overlay.opaque", b"y")
        client.commit(name, key)
        parent = name
    (mount,) = client.prepare(new(), parent)
    (lower,) = (o.removeprefix("lowerdir=") for o in mount["options"] if o[:9] == "lowerdir=")
    layers = lower.split(":")
    common = os.path.commonpath(layers)
    relative = [os.path.relpath(layer, common) for layer in layers]
    # containerd makes the paths relative to their common directory, if they are more than a page.
    assert len(",".join(mount["options"])) - len(lower) + len(":".join(relative)) < 4096 - 512
    options = [o for o in mount["options"] if o[:9] != "lowerdir="]
    options.append(f"lowerdir={':'.join(relative)}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(common)
        with mounted([{**mount, "options": options}], tmp_path / "mount") as place:
            assert (place / "overwritten").read_text() == "129"
            assert {path.name for path in place.glob("added/*")} == {str(n) for n in range(130)}
            assert [path.name for path in place.glob("only/*")] == ["129"]
            (place / "file").write_text("x")


# Life of the process


def test_nothing_is_left_behind_and_a_restart_loses_nothing(tmp_path: Path) -> None:
    with running(tmp_path, tmp_path / "no-tree") as (process, client):
        base = committed(client)
        client.prepare("active", base)
        before = client.list()
        mounts = client.mounts("active")
        (process.root / "snapshots" / "77").mkdir()
        (process.root / "snapshots" / "new").mkdir()
        client.call("Cleanup")
        assert len(process.directories()) == 2
        (process.root / "snapshots" / "77").mkdir()
        process.kill()
        client = process.start()
        assert client.list() == before
        assert client.mounts("active") == mounts
        assert len(process.directories()) == 2
        client.remove("active")
        client.remove(base)
        assert process.directories() == set()
        assert process.stop() == 0


def test_on_a_full_disk_requests_are_refused_with_the_reason_and_snapshots_can_be_removed(
    tmp_path: Path,
) -> None:
    require_mounts()
    place = tmp_path / "small"
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place)
    try:
        process = Running(place, [tmp_path / "no-tree"])
        process.log = tmp_path / "log"
        client = process.start()
        base = committed(client)
        names = [f"container-{number}" for number in range(5)]
        for name in names:
            client.prepare(name, base)
        # What a container writes fills the disk.
        (upper,) = (o[9:] for o in client.mounts(names[0])[0]["options"] if o[:9] == "upperdir=")
        for restarted in (False, True):
            with pytest.raises(OSError, match="No space left"), open(f"{upper}/f", "ab", 0) as file:
                while True:
                    file.write(b"x" * 4096)
            if restarted:
                client.close()
                process.kill()
                client = process.start()
            with pytest.raises(Refused) as caught:
                for number in range(1000):
                    client.prepare(f"new-{number}", base)
            assert "cannot prepare: " in caught.value.details
            assert "No space left on device" in caught.value.details
            client.remove(names.pop())
            assert set(names) <= set(client.list())
        assert "Traceback" not in process.log.read_text()
        client.remove(names.pop(0))
        client.prepare("again", base)
        assert len(process.directories()) == len(client.list())
        client.close()
        assert process.stop() == 0
    finally:
        unmount_below(tmp_path)


def test_systemd_is_notified_when_it_answers_and_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with running(tmp_path, tmp_path / "no-tree") as (process, client):
            assert client.list() == {}
            assert systemd.recv(100) == b"READY=1"
            assert (process.socket.stat().st_mode & 0o777) == 0o600
            assert process.stop() == 0
            assert systemd.recv(100) == b"STOPPING=1"
    log = process.log.read_text()
    assert log.startswith(f"warning: {tmp_path}/no-tree has no layers now")
    assert "Traceback" not in log


def test_a_second_process_is_refused_the_state(service: tuple[Running, Client]) -> None:
    second = Running(service[0].root.parent, [])
    second._trees = [Path("/no-tree")]
    second.log = second.root.parent / "second-log"
    with pytest.raises(AssertionError, match="another snapshotter uses it"):
        second.start()
    assert second.stop() == 3
    assert service[1].stat(committed(service[1]))["kind"] == COMMITTED


def test_a_state_that_is_damaged_or_newer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    for content, why in ((b"no database" * 100, "not a database"), (None, "its version is 9")):
        state = tmp_path / "root" / "state.db"
        if content is None:
            state.unlink()
            database = sqlite3.connect(state)
            database.execute("CREATE TABLE x (y)")
            database.execute("PRAGMA user_version = 9")
            database.close()
        else:
            state.write_bytes(content)
        process = Running(tmp_path, [tmp_path])
        with pytest.raises(AssertionError, match=why):
            process.start()
        assert process.stop() == 3


def test_what_the_process_does_not_need_is_not_in_its_memory() -> None:
    program = (
        "import sys, publisher.cli.main, publisher.cli.snapshotter, publisher.snapshotter.service\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    unneeded = ("yaml", "rich", "requests", "cryptography", "publisher.repository.directory")
    assert {"grpc", "publisher.repository"} <= loaded
    assert not loaded & set(unneeded)
