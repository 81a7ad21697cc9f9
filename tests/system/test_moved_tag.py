"""How often a run in which a tag has moved reads records, and waits for the disk, by strace."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.any_repository import AnyRepository, find_repository, make_repository
from tests.command import command, environment
from tests.components import program
from tests.layer_builder import file, image, layer, write_layout

pytestmark = pytest.mark.system

BASE = layer(file("base", b"base"))
TRACED = "trace=open,openat,rename,sync,syncfs,fsync,fdatasync"
_SYNC = re.compile(r"(\w*sync\w*)\(\d*<?([^>)]*)")
_READ = re.compile(r'open(?:at)?\(.*"[^"]*/\.metadata/(?!\.retired)[^"]*?(\w+\.json)", O_RDONLY')


def _move_tag(published: AnyRepository, folder: Path) -> list[str]:
    """Publish two images under one tag; return the calls of the second run."""
    log = folder / "log"
    for content in (b"old", b"new"):
        write_layout(image(BASE, layer(file("own", content))), folder / "app", "1")
        ingest = command("ingest-image", f"oci:{folder}/app:1", "--repository", published.url)
        subprocess.run(
            [program("strace"), "-f", "--seccomp-bpf", "-y", "-e", TRACED, "-o", str(log), *ingest],
            check=True,
            capture_output=True,
            env={**environment(), **published.env},
        )
        published.wait_for_server()
    return log.read_text().splitlines()


def _syncs(calls: list[str], folder: Path) -> Mapping[str, int]:
    found = (match.groups() for call in calls if (match := _SYNC.search(call)))
    return Counter(name for name, path in found if path.startswith(str(folder)))


def test_a_moved_tag_reads_each_record_twice_and_waits_for_the_disk_five_times(
    tmp_path: Path,
) -> None:
    """Formerly 7 reads of publication.json, 3 of each layer's origin.json, and 9 syncs."""
    published = find_repository("directory", tmp_path)
    calls = _move_tag(published, tmp_path)
    reads = Counter(match[1] for call in calls if (match := _READ.search(call)))
    assert reads["publication.json"] == 2  # one before the lock is taken, and one under it
    assert reads["origin.json"] == 2  # of two layers, under the lock
    # The new layer; before the commit point; before the records; before the journal is removed.
    assert _syncs(calls, published.root) == {"syncfs": 4, "fsync": 1}


def test_a_moved_tag_on_cvmfs_reads_each_record_three_times_and_waits_nine_times(
    tmp_path: Path,
) -> None:
    published = make_repository("cvmfs", tmp_path)
    calls = _move_tag(published, tmp_path)
    reads = Counter(match[1] for call in calls if (match := _READ.search(call)))
    # Before the lock is taken, under it, and whether it is visible; origin.json has two layers.
    assert reads["publication.json"] == 3
    assert reads["origin.json"] == 4
    # The layer, and before the server is called: what it is called for, and its process group.
    # Then the mirror, as a directory.
    assert _syncs(calls, published.state.parents[1]) == {"syncfs": 1 + 1 + 3, "fsync": 1 + 2 + 1}
    notes = (re.search(r"(fsync|rename)\(.*server-command\.draft", call) for call in calls)
    assert [note[1] for note in notes if note] == ["fsync", "rename"]
