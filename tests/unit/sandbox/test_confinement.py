"""A process that is confined as a worker is, and what it tries if it is compromised."""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from publisher.sandbox import Measure, SandboxError, abilities, confine, landlock
from publisher.sandbox.landlock import landlock_abi
from tests.attacked import attacked_by, listening, metadata
from tests.components import require_root, require_user_namespaces
from tests.compromised import ATTEMPTS, HARMFUL, Target, permitted, results
from tests.confined import (
    ORDINARY_USER,
    as_a_worker,
    become_an_ordinary_user,
    confined,
    in_a_child,
    lacking,
)


@dataclass(frozen=True, slots=True)
class Machine:
    """A staging area, and what is attacked from it, all of one owner."""

    staging: Path
    target: Target

    def results(self, *lacks: Measure, ordinary: bool = False) -> Mapping[str, str]:
        """The results of all attempts in a process that is confined by all measures but `lacks`."""

        def attempt_all(writer: int) -> None:
            os.write(writer, json.dumps(results(self.target)).encode())

        answer = confined(attempt_all, self.staging, lacks=lacks, ordinary=ordinary)
        assert answer.endswith("}"), answer
        found: dict[str, str] = json.loads(answer)
        return found

    def successes(self, *lacks: Measure, ordinary: bool = False) -> set[str]:
        """The attempts that succeed in a process that is confined by all measures but `lacks`."""
        return permitted(self.results(*lacks, ordinary=ordinary))


MakeMachine = Callable[[int], Machine]


@pytest.fixture(scope="module")
def machine_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeMachine]:
    """Makes a machine with files of the user with this number."""
    temporary = Path(tempfile.gettempdir())

    def make(owner: int) -> Machine:
        top = tmp_path_factory.mktemp("machine")
        for each in (top, *top.parents):
            if temporary in each.parents:  # pytest's own directories are private
                each.chmod(0o755)
        staging = top / "staging"
        staging.mkdir()
        os.chown(staging, owner, owner)
        return Machine(staging, attacked_by(owner, top / "outside", sockets))

    with listening(tmp_path_factory.mktemp("sockets")) as sockets:
        yield make


@pytest.fixture(scope="module")
def results_of_root(machine_of: MakeMachine) -> Mapping[str, str]:
    require_root()
    machine = machine_of(0)
    before = metadata(machine.target)
    found = machine.results()
    assert metadata(machine.target) == before
    return found


@pytest.fixture(scope="module")
def results_of_a_user(machine_of: MakeMachine) -> Mapping[str, str]:
    require_user_namespaces()
    machine = machine_of(ORDINARY_USER if os.geteuid() == 0 else os.geteuid())
    before = metadata(machine.target)
    found = machine.results(ordinary=True)
    assert metadata(machine.target) == before
    return found


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_compromised_worker_cannot(attempt: str, results_of_root: Mapping[str, str]) -> None:
    assert attempt not in permitted(results_of_root)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_compromised_worker_of_an_ordinary_user_cannot(
    attempt: str, results_of_a_user: Mapping[str, str]
) -> None:
    assert attempt not in permitted(results_of_a_user)


@pytest.fixture(scope="module")
def unconfined_machine(machine_of: MakeMachine) -> Machine:
    require_root()
    return machine_of(0)


@pytest.mark.parametrize("attempt", [name for name in ATTEMPTS if name not in HARMFUL])
def test_without_confinement_root_can(attempt: str, unconfined_machine: Machine) -> None:
    def attempt_it(writer: int) -> None:
        os.chdir(unconfined_machine.staging)
        ATTEMPTS[attempt](unconfined_machine.target)

    assert in_a_child(attempt_it) == ""


ON_METADATA_OUTSIDE = {
    "make a file outside readable",
    "set an attribute of a file outside",
    "set the time of a file outside",
}
BY_SYSTEM_CALLS = {
    *("add a key", "use a keyring", "ask the kernel by netlink", "queue operations for the kernel"),
    *("let the kernel send signals to the parent", "make a pair of sockets", "send by udp"),
    *("make memory executable", "start a process", "trace itself again"),
    "make a file in the staging area set user id",
    "make a set user id file in the staging area",
}
NETWORK = {"connect by tcp", "listen by tcp"}
SCOPES = {
    "connect to an abstract unix socket",
    "send a signal to the parent",
    "send a signal by a descriptor of the parent",
}


@pytest.mark.parametrize("ordinary", [False, True], ids=["root", "ordinary user"])
@pytest.mark.parametrize("lacks", Measure)
def test_if_a_measure_is_missing_the_others_refuse_most_attempts(
    lacks: Measure, ordinary: bool, machine_of: MakeMachine
) -> None:
    require_root()
    require_user_namespaces()
    known = {
        Measure.ROOT: ON_METADATA_OUTSIDE | (set() if ordinary else {"give a file outside away"}),
        Measure.LANDLOCK: {"make a socket in the staging area"},
        Measure.SYSTEM_CALLS: BY_SYSTEM_CALLS,
    }[lacks]
    if lacks is Measure.SYSTEM_CALLS:
        abi = landlock_abi()
        known |= HARMFUL | (NETWORK if abi < 4 else set()) | (SCOPES if abi < 6 else set())
    successes = machine_of(ORDINARY_USER * ordinary).successes(lacks, ordinary=ordinary)
    assert successes <= known
    assert successes


@pytest.mark.parametrize("abi", [2, 3, 4, 5, 6])
def test_each_version_of_landlock_refuses_the_attempts(
    abi: int, machine_of: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel restricts no more than an older one could, since it is not asked for more."""
    require_root()
    if landlock_abi() < abi:
        return  # it cannot be asked for that
    monkeypatch.setattr(landlock, "landlock_abi", lambda: abi)
    assert machine_of(0).successes() == set()


def test_a_version_of_landlock_without_links_between_directories_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_root()
    monkeypatch.setattr(landlock, "landlock_abi", lambda: 1)

    def confine_without(writer: int) -> None:
        assert confine(as_a_worker(tmp_path, (writer,))) == (Measure.LANDLOCK,)
        for directory in ("a", "b"):
            os.mkdir(directory)
        Path("a/file").write_bytes(b"x")
        os.link("a/file", "b/file")

    assert in_a_child(confine_without) == ""


def test_a_process_with_several_threads_is_not_confined(tmp_path: Path) -> None:
    def confine_beside_a_thread(writer: int) -> None:
        wait = threading.Event()
        threading.Thread(target=wait.wait, daemon=True).start()
        with pytest.raises(SandboxError, match="it has several threads"):
            confine(as_a_worker(tmp_path, (writer,)))

    assert in_a_child(confine_beside_a_thread) == ""


def test_no_open_directory_is_taken_along(tmp_path: Path) -> None:
    def confine_with_a_directory(writer: int) -> None:
        directory = os.open("/", os.O_RDONLY)
        with pytest.raises(SandboxError, match="is an open directory"):
            confine(as_a_worker(tmp_path, (writer, directory)))

    assert in_a_child(confine_with_a_directory) == ""


def test_descriptors_that_are_not_named_are_closed(tmp_path: Path) -> None:
    inherited = os.open("/", os.O_RDONLY)

    def write_descriptors(writer: int) -> None:
        open_ones = []
        for descriptor in range(1024):
            with suppress(OSError):
                status = os.fstat(descriptor)
                open_ones.append((descriptor, status.st_rdev))
        kept = [descriptor for descriptor, _ in open_ones]
        assert kept == [0, 1, 2, writer], kept
        assert {device for _, device in open_ones[:3]} == {os.makedev(1, 3)}  # /dev/null

    try:
        assert confined(write_descriptors, tmp_path) == ""
    finally:
        os.close(inherited)


def test_a_confined_process_ends_with_its_parent(tmp_path: Path) -> None:
    """Its end closes the pipe, whose reader waits for that."""
    reader, writer = os.pipe()

    def leave_a_confined_child(answers: int) -> None:
        if os.fork() == 0:
            os.close(reader)
            confine(as_a_worker(tmp_path, (writer,)))
            os.write(writer, b"confined")
            signal.pause()
        os.close(writer)
        os.write(answers, os.read(reader, 100))

    assert in_a_child(leave_a_confined_child) == "confined"
    os.close(writer)
    with os.fdopen(reader, "rb") as end:
        assert end.read() == b""


def test_a_confined_process_unpacks(tmp_path: Path) -> None:
    """It makes everything that a layer has, in threads, with a database larger than its cache."""
    require_root()

    def unpack(writer: int) -> None:
        os.mkdir("a", 0o700)
        Path("a/file").write_bytes(b"x")
        os.chown("a/file", 5, 6)
        os.chmod("a", 0o2755)
        os.link("a/file", "link")
        os.rename("link", "a/link")
        os.symlink("file", "a/symlink")
        os.chown("a/symlink", 7, 8, follow_symlinks=False)
        os.utime("a/symlink", (1, 1), follow_symlinks=False)
        os.mkfifo("a/fifo")
        os.mknod("a/whiteout", stat.S_IFCHR, os.makedev(0, 0))
        database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        database.executescript("PRAGMA journal_mode = OFF; PRAGMA cache_size = 10;")
        database.executescript("CREATE TABLE t (x); BEGIN;")

        def fill() -> None:
            database.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 900)

        thread = threading.Thread(target=fill)
        thread.start()
        thread.join()
        assert database.execute("SELECT count(*) FROM t").fetchone() == (900,)
        os.write(writer, b"done")

    assert confined(unpack, tmp_path) == "done"
    names = {path.name: path.lstat() for path in (tmp_path / "a").iterdir()}
    assert sorted(names) == ["fifo", "file", "link", "symlink", "whiteout"]
    assert (names["file"].st_uid, names["file"].st_gid, names["file"].st_nlink) == (5, 6, 2)
    assert (names["symlink"].st_uid, names["symlink"].st_mtime) == (7, 1)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o2755


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_kernel_without_landlock_is_recognized(code: int) -> None:
    """ENOSYS: it is not compiled in. EOPNOTSUPP: it is not in the parameter lsm=."""
    require_root()

    def ask(writer: int) -> None:
        lacking(Measure.LANDLOCK, code)
        found = {each.measure: each for each in abilities()}
        assert not found[Measure.LANDLOCK].present
        assert found[Measure.ROOT].present
        assert found[Measure.SYSTEM_CALLS].present
        os.write(writer, found[Measure.LANDLOCK].meaning.encode())

    assert in_a_child(ask) == (
        "the kernel lacks it, or a container refuses it: a compromised worker is kept from other "
        "files only by its root directory"
    )


@pytest.mark.parametrize("ordinary", [False, True], ids=["root", "ordinary user"])
def test_each_missing_measure_has_its_meaning_and_remedy(ordinary: bool) -> None:
    require_root()

    def ask(writer: int) -> None:
        if ordinary:
            become_an_ordinary_user()
        for measure in Measure:
            lacking(measure)
        for each in abilities():
            assert not each.present
            os.write(writer, f"{each.measure}: {each.meaning}\n".encode())
            assert each.remedy

    text = in_a_child(ask)
    assert (
        "Landlock: the kernel lacks it, or a container refuses it: a compromised worker could"
        in text
    )
    assert "a filter of system calls: the kernel lacks it, a container refuses it" in text
    assert ("this user may not create user namespaces" in text) == ordinary
    assert ("root lacks CAP_SYS_CHROOT" in text) != ordinary
