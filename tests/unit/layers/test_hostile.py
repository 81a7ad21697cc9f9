"""Hostile layers: nothing outside changes, and every refusal is a typed error."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from publisher.errors import PublisherError
from publisher.layers import ledger
from publisher.layers.errors import LimitExceeded
from publisher.layers.policy import Limits, Policy
from tests.engine import Published, publish
from tests.hostile import BOMBS, CONTENT, CORPUS, HARD_LINKS, ROOT, SYMLINKS, aimed_at
from tests.layer_builder import Layer, directory, file, hardlink, layer, symlink, whiteout

POLICIES = {
    "default": Policy(limits=Limits(layer_bytes=10_000_000)),
    "everything kept": Policy(setuid="keep", devices="keep", limits=Limits(layer_bytes=10_000_000)),
}
LINKS = layer(  # a lower layer that prepares the way
    symlink("s", "/VICTIM"),
    symlink("d", "../victim"),
    symlink("a", "../../../victim"),
    file("mine", b"mine"),
    directory("real"),
)


def attempt(place: Path, policy: Policy, *layers: Layer) -> Published | None:
    """Publish the layers, or be refused by a typed error."""
    place.mkdir()
    try:
        return publish(place, *layers, policy=policy)
    except PublisherError:
        return None


def check_tree(root: Path, policy: Policy) -> None:
    """Nothing that the policy drops is in a tree."""
    for above, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(above, name)
            status = os.lstat(path)
            device = stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode)
            if policy.devices == "drop":
                assert not device or status.st_rdev == 0, path
            if policy.setuid == "drop" and stat.S_ISREG(status.st_mode):
                assert not status.st_mode & 0o6000, path
            if not stat.S_ISLNK(status.st_mode) and not device:
                names = os.listxattr(path, follow_symlinks=False)
                assert not [n for n in names if "redirect" in n or "metacopy" in n], path
            assert name not in (".cvmfscatalog", "..", "."), path


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("name", CORPUS)
def test_nothing_outside_is_touched(
    name: str, policy: Policy, tmp_path: Path, victim: Path
) -> None:
    place = tmp_path / "trees"
    attack = layer(*aimed_at(CORPUS[name], str(victim)))
    published = attempt(place, policy, attack)
    if published is not None:
        check_tree(published.flat, policy)
        check_tree(published.trees[0], policy)


@pytest.mark.parametrize("name", [*SYMLINKS, *HARD_LINKS, *ROOT])
def test_nothing_outside_is_touched_when_layers_work_together(
    name: str, tmp_path: Path, victim: Path
) -> None:
    policy = POLICIES["default"]
    attack = layer(*aimed_at(CORPUS[name], str(victim)))
    base = layer(symlink("s", str(victim)), symlink("d", str(victim)), symlink("a", UP_TO_VICTIM))
    for number, stack in enumerate(
        [
            [base, attack],
            [attack, base, attack],
            [attack, layer(file("s/canary", b"pwned"), whiteout("d/canary"), file("c/x"))],
            [attack, layer(hardlink("stolen", "s/canary"), hardlink("x", "h"))],
        ]
    ):
        published = attempt(tmp_path / f"layer-stack-{number}", policy, *stack)
        if published is not None:
            check_tree(published.flat, policy)
            stolen = published.flat / "stolen"
            assert not stolen.is_file() or stolen.read_text() != "alive"


UP_TO_VICTIM = "../../../victim"

MUST_BE_REFUSED = [
    *(n for n in CORPUS if n.startswith("climbing") and "global" not in n),
    *(n for n in ROOT if n != "root is a hard link"),
    *(n for n in BOMBS if n not in ("two headers",)),
    "owner that wraps around",
    "symlinks in circles",
    "hard link to the root",
]


@pytest.mark.parametrize("name", MUST_BE_REFUSED)
def test_archives_that_can_only_be_attacks_are_refused(name: str, tmp_path: Path) -> None:
    attack = layer(*aimed_at(CORPUS[name], str(tmp_path / "victim")))
    assert attempt(tmp_path / "trees", POLICIES["default"], attack) is None


def test_content_that_policy_forbids_is_dropped_and_the_rest_unpacked(tmp_path: Path) -> None:
    for number, (name, members) in enumerate(CONTENT.items()):
        if name in ("owner that wraps around", "memory"):
            continue
        assert attempt(tmp_path / str(number), POLICIES["default"], layer(*members)), name


def test_a_layer_of_a_million_bytes_that_expands_a_thousandfold_is_refused_early(
    tmp_path: Path,
) -> None:
    bomb = layer(file("zeros", bytes(200_000_000)))
    with pytest.raises(LimitExceeded):
        publish(tmp_path, bomb, policy=POLICIES["default"])
    written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert written <= 10_000_000


def test_names_of_a_file_with_large_attributes_cannot_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The index repeats the metadata of a file for each of its names.
    monkeypatch.setattr(ledger, "_METADATA_BYTES", 10_000_000)
    links = [hardlink(f"h{n}", "f") for n in range(200)]
    bomb = layer(file("f", xattrs={"user.x": bytes(600_000)}), *links)
    policy = Policy(limits=Limits(layer_entries=1000))
    with pytest.raises(LimitExceeded, match="metadata"):
        publish(tmp_path / "bomb", bomb, policy=policy)
    again = layer(*[file("f", xattrs={"user.x": bytes(600_000)})] * 20)  # replaced is not kept
    publish(tmp_path / "again", again, policy=policy)
