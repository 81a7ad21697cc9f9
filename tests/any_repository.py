"""One kind of repository after the other, for tests that hold for all of them.

def test_something(any_repository: AnyRepository) -> None:
    succeed("ingest-image", …, "--repository", any_repository.url, env=any_repository.env)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from publisher.layout import RepositoryURL
from publisher.repository import Repository
from publisher.repository.directory import DirectoryRepository
from tests.cvmfs import Machine, make_machine

KINDS = ("directory", "cvmfs")


@dataclass(frozen=True, slots=True)
class AnyRepository:
    """A new repository. `root` is where it is read, `url` and `env` what commands are given.

    `machine` is the one with the server, where there is a server.
    """

    root: Path
    url: str
    env: Mapping[str, str] = field(default_factory=dict)
    machine: Machine | None = None

    def open(self, *, writable: bool = True) -> Repository:
        """The repository, in this process; its `env` has to be set here."""
        url = RepositoryURL.parse(self.url)
        if self.machine is not None:
            return self.machine.open(url.location, writable=writable)
        return DirectoryRepository(url, writable=writable)


def make_repository(kind: str, folder: Path) -> AnyRepository:
    """A repository of one of KINDS in `folder`."""
    if kind == "directory":
        return AnyRepository(folder / "images", f"dir:{folder}/images")
    machine = make_machine(folder / "machine")
    name = machine.make("images.test.org")
    return AnyRepository(machine.mount(name), f"cvmfs:{name}", machine.environment, machine)
