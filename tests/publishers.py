"""Several publishers of one directory, in one process: one acts while another one runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import pytest

from publisher.ingest.report import Report
from publisher.ingest.run import ingest
from publisher.layers.policy import Policy
from publisher.removal.gc import Choice, collect
from publisher.removal.schedule import remove
from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree.layout import RepositoryURL
from publisher.verify.findings import Finding
from publisher.verify.outcome import Repaired
from publisher.verify.repair import repair
from publisher.verify.run import Report as VerifyReport
from publisher.verify.run import verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.layer_builder import Image
from tests.registry import OwnRegistry, Reply
from tests.registry import Request as HTTPRequest
from tests.registry_images import fast_sources


class Publishers:
    """Runs on one repository, each opened for itself as by a process of its own."""

    def __init__(self, root: Path, registry: OwnRegistry) -> None:
        self.url = RepositoryURL.parse(f"dir:{root}")
        self.registry = registry
        self.root = root
        self.name = f"{registry.host}/tool:1"

    def read(self) -> DirectoryRepository:
        return DirectoryRepository(self.url)

    @contextmanager
    def opened(self) -> Iterator[DirectoryRepository]:
        repository = DirectoryRepository(self.url, writable=True, may_be_new=True, wait=60)
        try:
            yield repository
        finally:
            repository.close()

    def run(
        self, wish_list: str = "", outputs: tuple[str, ...] = ("flat",), name: str = "tool"
    ) -> Report:
        wish = replace(wish_for(f"{self.registry.url}/{name}:1"), outputs=outputs)
        with self.opened() as repository, fast_sources() as sources:
            return ingest([Request(wish, wish_list)], repository, sources)

    def collect(self, name: str = "") -> None:
        """Remove an image at once."""
        with self.opened() as repository:
            remove(repository, [name or self.name], _now)
        self.gc()

    def gc(self) -> None:
        with self.opened() as repository:
            collect(repository, Choice(at_once=True), _now)

    def findings(self) -> tuple[Finding, ...]:
        return verify(self.read(), deep=True).findings

    def repair(self) -> tuple[Repaired, VerifyReport]:
        with self.opened() as repository, fast_sources() as sources:
            return repair(repository, verify(repository, deep=True), sources, Policy())

    def tag(self, built: Image, name: str = "tool") -> None:
        self.registry.add(name, "1", built)

    def meanwhile(self, path: str, what: Callable[[], object]) -> None:
        """Do `what` once, when `path` is asked for, before it is answered."""

        def change(_: HTTPRequest, reply: Reply) -> Reply:
            what()
            return reply

        self.registry.misbehave(change, method="GET", path=path, times=1)

    def assert_sound(self) -> None:
        assert not self.findings()


def _now() -> datetime:
    return datetime.now(UTC)


def once(
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    other: Callable[[], object],
    *,
    after: bool = False,
) -> None:
    """Run `other` when `function` is called for the first time, before its work or after it."""
    module, _, name = function.rpartition(".")
    original = getattr(import_module(module), name)
    done: list[bool] = []

    def called(*arguments: object, **named: object) -> object:
        if not done and not after:
            done.append(True)
            other()
        result = original(*arguments, **named)
        if not done:
            done.append(True)
            other()
        return result

    monkeypatch.setattr(import_module(module), name, called)
