"""One kind of repository after the other, for tests that hold for all of them.

def test_something(any_repository: AnyRepository) -> None:
    succeed("ingest-image", …, "--repository", any_repository.url, env=any_repository.env)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from publisher.repository import Repository
from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from tests.cvmfs import Machine, make_machine

KINDS = ("directory", "cvmfs")
NAME = "images.test.org"
WAIT = 120.0


@dataclass(frozen=True, slots=True)
class AnyRepository:
    """A new repository. `root` is where it is read, `url` and `env` what commands are given.

    `machine` is the one with the server, where there is a server.
    """

    root: Path
    url: str
    env: Mapping[str, str] = field(default_factory=dict)
    machine: Machine | None = None

    @property
    def whole(self) -> Path:
        """Everything that a publisher changes: the tree, and its state."""
        return self.root if self.machine is None else self.machine.root

    @property
    def state(self) -> Path:
        """The directory of the publishers' own state."""
        if self.machine is None:
            return self.root / layout.STATE
        return self.machine.state / NAME / layout.STATE

    def wait_for_server(self) -> None:
        """Return when no command of a server runs any more that a publisher has begun."""
        if self.machine is not None:
            self.machine.wait_for_commands(self.state / "server-command.json")

    def open(self, *, writable: bool = True) -> Repository:
        """The repository, in this process; its `env` has to be set here."""
        url = RepositoryURL.parse(self.url)
        if self.machine is not None:
            return self.machine.open(url.location, writable=writable, wait=WAIT)
        return DirectoryRepository(url, writable=writable, may_be_new=writable, wait=WAIT)


def find_repository(kind: str, folder: Path) -> AnyRepository:
    """The repository of one of KINDS that is, or will be, in `folder`."""
    if kind == "directory":
        return AnyRepository(folder / "images", f"dir:{folder}/images")
    machine = Machine(folder / "machine", folder / "machine/state")
    return AnyRepository(machine.mount(NAME), f"cvmfs:{NAME}", machine.environment, machine)


def make_repository(kind: str, folder: Path) -> AnyRepository:
    """A repository of one of KINDS in `folder`; a directory is left to its first publisher."""
    if kind == "cvmfs":
        make_machine(folder / "machine").make(NAME)
    return find_repository(kind, folder)


@contextmanager
def environment_of(repository: AnyRepository) -> Iterator[None]:
    """Let this process see the repository's `env`."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in repository.env.items():
            patch.setenv(key, value)
        yield
