"""The stand-in `cvmfs_server` behaves as a real one was observed to: row after row of the table."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.components import require_mounts
from tests.cvmfs import Machine
from tests.trees import describe_tree

NAME = "images.test.org"


@pytest.fixture
def repository(machine: Machine) -> Path:
    """Where the new repository is read."""
    return machine.published(machine.make(NAME))


def member(
    name: str, content: bytes | None = None, **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mtime = 1_700_000_000
    info.mode = 0o755 if content is None else 0o640
    info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    info.size = len(content or b"")
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content or b""


def archive(*members: tuple[tarfile.TarInfo, bytes], end: bool = True) -> bytes:
    out = io.BytesIO()
    for info, content in members:
        out.write(info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512))
    return out.getvalue() + (bytes(1024) if end else b"")


def ingest(
    machine: Machine, *options: str, stream: bytes = b"", **more: dict[str, str]
) -> subprocess.CompletedProcess[bytes]:
    return machine.server("ingest", *options, NAME, input=stream, **more)  # type: ignore[arg-type]


TAR = ("-t", "-", "-b", "/")


def test_one_stream_with_its_deletions_is_one_revision(machine: Machine, repository: Path) -> None:
    assert ingest(machine, *TAR, stream=archive(member("a"), member("a/f", b"1"))).returncode == 0
    done = ingest(machine, "-d", "a/f", *TAR, stream=archive(member("a/g", b"2")))
    assert done.returncode == 0
    assert sorted(os.listdir(repository / "a")) == ["g"]
    assert machine.revision(NAME) == 3


def test_hard_links_may_refer_to_sent_and_to_published_files(
    machine: Machine, repository: Path
) -> None:
    link = {"type": tarfile.LNKTYPE, "size": 0}
    ingest(
        machine, *TAR, stream=archive(member("a/f", b"1"), member("l", b"", linkname="a/f", **link))
    )
    done = ingest(machine, *TAR, stream=archive(member("m", b"", linkname="a/f", **link)))
    assert done.returncode == 0
    assert (repository / "l").read_bytes() == (repository / "m").read_bytes() == b"1"


def test_a_hard_link_to_a_missing_file_publishes_nothing(
    machine: Machine, repository: Path
) -> None:
    broken = member("l", b"", linkname="gone", type=tarfile.LNKTYPE, size=0)
    done = ingest(machine, *TAR, stream=archive(member("a"), broken))
    assert done.returncode != 0
    assert not (repository / "a").exists()
    assert machine.revision(NAME) == 1
    assert b"in transaction" not in machine.server("list").stdout


def test_existing_files_are_replaced_and_directories_left_as_they_are(
    machine: Machine, repository: Path
) -> None:
    ingest(machine, *TAR, stream=archive(member("d", mode=0o700), member("d/f", b"old")))
    ingest(machine, *TAR, stream=archive(member("d", mode=0o755), member("d/f", b"new")))
    assert (repository / "d/f").read_bytes() == b"new"
    assert (repository / "d").stat().st_mode & 0o777 == 0o700


def test_the_owner_is_the_repositorys_unless_it_is_kept(machine: Machine, repository: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    ingest(machine, *TAR, stream=archive(member("a/f", b"", uid=7, gid=8)))
    ingest(machine, *TAR, "-k", stream=archive(member("b/f", b"", uid=7, gid=8)))
    assert (repository / "a/f").stat().st_uid == (repository / "a").stat().st_uid == 0
    assert (repository / "b/f").stat().st_uid == 7
    assert (repository / "b").stat().st_uid == 65534, "a parent that was implied"


def test_a_directory_after_its_children_loses_its_metadata(
    machine: Machine, repository: Path
) -> None:
    ingest(machine, *TAR, stream=archive(member("d/f", b""), member("d", mode=0o700)))
    assert (repository / "d").stat().st_mtime > 1_700_000_000
    assert (repository / "d").stat().st_mode & 0o777 != 0o700


@pytest.mark.parametrize(
    "members",
    [
        [member("f", b"1"), member("f", b"2")],
        [member("f", b"1"), member("f")],
        [member("d"), member("d", b"1")],
        [member("d/f", b"1"), member("d", b"1")],
        [member("d"), member("d/.cvmfscatalog", b"", type=tarfile.SYMTYPE, linkname="x")],
    ],
)
def test_a_path_that_occurs_twice_aborts_the_server(
    machine: Machine, repository: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    before = describe_tree(repository)
    done = ingest(machine, *TAR, stream=archive(*members))
    assert done.returncode != 0
    assert b"Synchronization failed" in done.stderr
    assert describe_tree(repository) == before
    assert machine.revision(NAME) == 1


def test_markers_are_stored_literally_and_devices_as_such(
    machine: Machine, repository: Path
) -> None:
    device = member("w", b"", type=tarfile.CHRTYPE, devmajor=0, devminor=0)
    ingest(machine, *TAR, stream=archive(member(".wh.x", b""), device))
    assert (repository / ".wh.x").is_file()
    assert describe_tree(repository)["w"].device == (0, 0)


def test_a_stream_cut_between_members_is_taken_for_complete(
    machine: Machine, repository: Path
) -> None:
    whole = archive(member("a", b"1"), member("b", b"2"), end=False)
    assert ingest(machine, *TAR, stream=whole).returncode == 0
    assert (repository / "b").exists()


def test_a_stream_cut_within_a_member_is_not(machine: Machine, repository: Path) -> None:
    whole = archive(member("a", b"1"), member("b", b"2" * 600), end=False)
    for cut in (1, 511, 512, 700):
        assert ingest(machine, *TAR, stream=whole[:-cut]).returncode != 0
    assert not (repository / "a").exists()


def test_a_deleted_path_is_split_at_colons_and_a_missing_one_only_warns(
    machine: Machine, repository: Path
) -> None:
    ingest(machine, *TAR, stream=archive(member("n:1", b""), member("n", b"")))
    done = ingest(machine, "-d", "n:1")
    assert done.returncode == 0
    assert b"does not exist" in done.stderr
    assert sorted(os.listdir(repository)) == ["n:1", "new_repository"]


def test_a_quote_breaks_the_shell(machine: Machine, repository: Path) -> None:
    done = ingest(machine, "-d", "it's")
    assert done.returncode != 0
    assert machine.revision(NAME) == 1


def test_deleting_and_adding_one_path_aborts(machine: Machine, repository: Path) -> None:
    ingest(machine, *TAR, stream=archive(member("f", b"1")))
    assert ingest(machine, "-d", "f", *TAR, stream=archive(member("f", b"2"))).returncode != 0
    assert (repository / "f").read_bytes() == b"1"


def test_a_base_directory_with_a_space_unpacks_elsewhere(
    machine: Machine, repository: Path
) -> None:
    ingest(machine, "-t", "-", "-b", "a b", stream=archive(member("f", b"1")))
    assert (repository / "a/f").exists()


def test_a_second_transaction_ends_with_17_and_an_ingest_with_1(
    machine: Machine, repository: Path
) -> None:
    assert machine.server("transaction", NAME).returncode == 0
    (machine.mount(NAME) / "by-hand").write_text("")
    assert machine.server("transaction", NAME).returncode == 17
    done = ingest(machine, *TAR, stream=archive(member("f", b"1")))
    assert done.returncode == 1
    assert b"in transaction" in machine.server("list").stdout
    assert machine.server("publish", NAME).returncode == 0
    assert (repository / "by-hand").exists() and not (repository / "f").exists()


def test_abort_asks_and_then_restores_everything(machine: Machine, repository: Path) -> None:
    ingest(machine, *TAR, stream=archive(member("d/f", b"1")))
    before = describe_tree(repository)
    machine.server("transaction", NAME)
    (machine.mount(NAME) / "d/f").unlink()
    (machine.mount(NAME) / "new").mkdir()
    assert b"DISCARD" in machine.server("abort", NAME, input=b"n\n").stdout
    assert (machine.mount(NAME) / "new").exists()
    assert machine.server("abort", "-f", NAME).returncode == 0
    assert describe_tree(repository).keys() == before.keys()
    assert machine.revision(NAME) == 2


def test_open_files_and_working_directories_cause_a_question(
    machine: Machine, repository: Path
) -> None:
    user = subprocess.Popen(["sleep", "60"], cwd=machine.mount(NAME))
    try:
        done = ingest(machine, *TAR, stream=archive(member("f", b"1")))
        assert done.returncode == 1
        assert b"(y/N)" in done.stdout
        assert str(user.pid).encode() in done.stdout
        assert not (repository / "f").exists()
    finally:
        user.kill()
        user.wait()
    assert ingest(machine, *TAR, stream=archive(member("f", b"1"))).returncode == 0


def test_a_killed_server_leaves_an_unhealthy_transaction_until_it_is_aborted(
    machine: Machine, repository: Path
) -> None:
    done = ingest(
        machine, *TAR, stream=archive(member("f", b"1")), env={"CVMFS_STANDIN_KILL": "opened"}
    )
    assert done.returncode == -signal.SIGKILL
    assert b"in transaction - unhealthy" in machine.server("list").stdout
    assert ingest(machine, *TAR, stream=archive(member("f", b"1"))).returncode == 1
    assert machine.server("abort", "-f", NAME).returncode == 0
    assert machine.server("list").stdout == b"images.test.org (stratum0 / local)  \n"


def test_other_users_unknown_names_and_expired_whitelists_are_refused(
    machine: Machine, repository: Path
) -> None:
    done = machine.server("ingest", "-d", "x", NAME, env={"CVMFS_STANDIN_USER": "mallory"})
    assert done.returncode == 1 and b"Permission denied" in done.stderr
    assert machine.server("ingest", "-d", "x", "other.test.org").returncode == 1
    (machine.root / "srv/cvmfs" / NAME / "whitelist-expired").touch()
    assert b"expired" in ingest(machine, "-d", "x").stderr


def test_a_gateway_accepts_one_deletion_per_call_without_additions(machine: Machine) -> None:
    machine.make(NAME, "-u", "gw,/srv/cvmfs,http://gateway")
    assert ingest(machine, "-d", "a", "-d", "b").returncode == 1
    assert ingest(machine, "-d", "a", *TAR, stream=archive(member("f", b""))).returncode == 1
    assert ingest(machine, *TAR, stream=archive(member("f", b""))).returncode == 0
    assert ingest(machine, "-d", "f").returncode == 0


def test_overlapping_leases_exclude_each_other(machine: Machine, tmp_path: Path) -> None:
    machine.make(NAME, "-u", "gw,/srv/cvmfs,http://gateway")
    ingest(machine, *TAR, stream=archive(member("a/x", b""), member("b/x", b"")))
    held = subprocess.Popen(
        [machine.bin / "cvmfs_server", "ingest", "-t", "-", "-b", "a", NAME], stdin=subprocess.PIPE
    )
    try:
        leases = machine.root / "srv/cvmfs" / NAME / "leases"
        lock = machine.spool(NAME) / "in_transaction.lock"
        deadline = time.monotonic() + 20
        while not (leases.is_dir() and any(leases.iterdir()) and lock.exists()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        lock.unlink()  # of another machine, which would not see it
        assert ingest(machine, *TAR, stream=archive(member("f", b""))).returncode == 16
        assert ingest(machine, "-d", "missing/parent").returncode != 0
    finally:
        held.kill()
        held.wait()
        assert held.stdin is not None
        held.stdin.close()


def test_check_accepts_a_new_repository(machine: Machine, repository: Path) -> None:
    assert machine.server("check", NAME).returncode == 0


def test_the_union_mount_lists_whiteouts_without_finding_them_and_renames_no_directory(
    machine: Machine, repository: Path
) -> None:
    require_mounts()
    device = member("d/w", b"", type=tarfile.CHRTYPE, devmajor=0, devminor=0)
    ingest(machine, *TAR, stream=archive(member("d"), device))
    union = machine.mount(NAME)
    assert os.listdir(union / "d") == ["w"]
    with pytest.raises(FileNotFoundError):
        (union / "d/w").lstat()
    assert describe_tree(repository)["d/w"].device == (0, 0), "the read-only mount shows it"
    assert machine.server("transaction", NAME).returncode == 0
    with pytest.raises(OSError, match="Invalid cross-device link"):
        (union / "d").rename(union / "e")
    (union / "d").rmdir()
    assert machine.server("publish", NAME).returncode == 0
    assert not (repository / "d").exists()


def test_the_read_only_mount_shows_no_changes_of_an_open_transaction(
    machine: Machine, repository: Path
) -> None:
    require_mounts()
    machine.server("transaction", NAME)
    (machine.mount(NAME) / "new").write_text("")
    assert not (repository / "new").exists()
    machine.server("publish", NAME)
    assert (repository / "new").exists()
    with pytest.raises(OSError, match="Read-only file system"):
        (machine.mount(NAME) / "other").write_text("")
