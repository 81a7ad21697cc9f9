from __future__ import annotations

import errno
import os

import pytest


@pytest.fixture(scope="session")
def most_links(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The maximum of links of a file here. It is tried: pathconf returns a guess in a chroot."""
    names = tmp_path_factory.mktemp("names")
    (names / "0").touch()
    try:
        for number in range(1, 70_000):
            os.link(names / "0", names / str(number))
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        return number
    finally:
        for name in names.iterdir():
            name.unlink()
        names.rmdir()
    pytest.skip("this file system allows 70000 links, and perhaps far more")
