from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.file_systems import LinkLimit, file_system


@pytest.fixture(scope="session")
def _limited_file_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LinkLimit]:
    """That of the other tests, or an ext4 if that has no limit, as one in memory."""
    folder = tmp_path_factory.mktemp("links")
    most = _most_links(folder)
    if most is not None:
        yield LinkLimit(folder, most)
        return
    with file_system("ext4", folder) as mounted:
        most = _most_links(mounted)
        assert most is not None
        yield LinkLimit(mounted, most)


@pytest.fixture
def link_limit(_limited_file_system: LinkLimit) -> Iterator[LinkLimit]:
    """A directory for one test."""
    folder = Path(tempfile.mkdtemp(dir=_limited_file_system.folder))
    yield LinkLimit(folder, _limited_file_system.most)
    shutil.rmtree(folder)


def _most_links(folder: Path) -> int | None:
    """The maximum of links of a file in `folder`; None if there are 70,000 or more.

    It is tried: pathconf returns a guess in a chroot.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        names = Path(name)
        (names / "0").touch()
        try:
            for number in range(1, 70_000):
                os.link(names / "0", names / str(number))
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            return number
    return None
