"""A machine with CVMFS as tests need one: the stand-in `cvmfs_server`, and repositories on it."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from publisher.layers.replay import ReadContents
from publisher.repository.cvmfs.guard import Guard
from publisher.repository.cvmfs.kept import DEFAULT_LIMIT as DEFAULT_MEMORY
from publisher.repository.cvmfs.repository import CvmfsRepository
from publisher.tree.layout import RepositoryURL

STANDIN = Path(__file__).parent / "cvmfs_server.py"


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything below `root`: the published trees, the server's own files, the publisher's state.

    Another machine that shares the storage has another `state`. With `overlay` the union mount is a
    real overlayfs, as on a real machine; `unmount` ends what is mounted then.
    """

    root: Path
    state: Path
    overlay: bool = False

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def configuration(self) -> Path:
        return self.root / "etc/cvmfs/repositories.d"

    def mount(self, name: str) -> Path:
        """The union mount, in which changes are made by hand."""
        return self.root / "cvmfs" / name

    def published(self, name: str) -> Path:
        """Where the published tree is read."""
        return self.spool(name) / "rdonly"

    def spool(self, name: str) -> Path:
        return self.root / "var/spool/cvmfs" / name

    @property
    def environment(self) -> dict[str, str]:
        """The variables for the publisher and the stand-in."""
        return {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "CVMFS_STANDIN_ROOT": str(self.root),
            "PUBLISHER_STATE": str(self.state),
            "PUBLISHER_CVMFS_CONFIGURATION": str(self.configuration),
            **({"CVMFS_STANDIN_OVERLAY": "1"} if self.overlay else {}),
        }

    def server(
        self,
        *arguments: str,
        input: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the stand-in as its users would."""
        return subprocess.run(
            [str(self.bin / "cvmfs_server"), *arguments],
            input=input,
            capture_output=True,
            env={**os.environ, **self.environment, **(env or {})},
            cwd=cwd,
            timeout=60,
        )

    def make(self, name: str, *options: str) -> str:
        """Make a repository, and return its name."""
        made = self.server("mkfs", *options, name)
        assert made.returncode == 0, made.stderr
        return name

    def revision(self, name: str) -> int:
        text = (self.root / "srv/cvmfs" / name / ".cvmfspublished").read_text()
        return int(next(line[1:] for line in text.splitlines() if line.startswith("S")))

    def unmount(self) -> None:
        """Unmount everything below `root`."""
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            point = line.split()[4]
            if point.startswith(f"{self.root}/"):
                subprocess.run(["umount", "-l", point], check=True)

    @contextmanager
    def nothing_mounted(self, name: str) -> Iterator[None]:
        """Make both mounts of the repository empty."""
        place = self.published(name).resolve()
        subprocess.run(["umount", "-l", self.mount(name)], check=True) if self.overlay else None
        away = place.rename(place.with_name(f"{place.name}-away"))
        place.mkdir()
        yield
        place.rmdir()
        away.rename(place)

    def calls(self) -> list[list[str]]:
        """Every command that the server was given, in order."""
        lines = (self.root / "standin.log").read_text().splitlines()
        return [ast.literal_eval(line) for line in lines]

    def wait_for_commands(self, note: Path) -> None:
        """Wait for the commands in the `note` of a publisher, which may have been killed."""
        deadline = time.monotonic() + 60
        groups = json.loads(note.read_bytes())["pids"] if note.exists() else []
        while any(map(is_running, groups)):
            assert time.monotonic() < deadline, f"a command of {groups} does not end"
            time.sleep(0.002)

    def open(
        self,
        name: str,
        *,
        writable: bool = True,
        wait: float = 0.0,
        verify: bool = False,
        on_wait: Callable[[str], None] | None = None,
        read_contents: ReadContents | None = None,
        memory: int = DEFAULT_MEMORY,
        stop: threading.Event | None = None,
    ) -> CvmfsRepository:
        """The repository, in this process; `use` has to be called first."""
        return CvmfsRepository(
            RepositoryURL("cvmfs", name),
            writable=writable,
            wait=wait,
            verify=verify,
            on_wait=on_wait,
            state=self.state,
            configuration=self.configuration,
            read_contents=read_contents,
            memory=memory,
            stop=stop,
        )


def is_running(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def die_around_calls(number: int) -> None:
    """Kill this process before (0, 2, …) or after (1, 3, …) one of its server calls."""
    count = 0
    retry = Guard.retry

    def step() -> None:
        nonlocal count
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    def dying(self: Guard, command: Callable[[], object], *, stays_open: bool = False) -> None:
        step()
        retry(self, command, stays_open=stays_open)
        step()

    Guard.retry = dying  # type: ignore[method-assign]


def make_machine(root: Path, *, overlay: bool = False) -> Machine:
    """A machine without repositories."""
    machine = Machine(root, root / "state", overlay)
    machine.bin.mkdir(parents=True)
    command = machine.bin / "cvmfs_server"
    # As a module, which is compiled once, and without looking for packages: it starts sooner so.
    start = (
        f"import sys; sys.path.append('{STANDIN.parent}'); from cvmfs_server import main; main()"
    )
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S -c "{start}" "$@"\n')
    command.chmod(0o755)
    return machine
