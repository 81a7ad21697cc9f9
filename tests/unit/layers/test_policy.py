from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.entry import Entry, EntryType
from publisher.layers.errors import LayerError, LimitExceeded
from publisher.layers.policy import Limits, Policy, policy_from_values, policy_values

XATTRS = {"user.a": b"1", "security.capability": b"2", "trusted.b": b"3", "user.overlay.x": b"4"}

kinds = st.sampled_from(
    [
        EntryType.FILE,
        EntryType.DIRECTORY,
        EntryType.SYMLINK,
        EntryType.FIFO,
        EntryType.CHARACTER_DEVICE,
        EntryType.BLOCK_DEVICE,
    ]
)
policies = st.builds(
    Policy,
    setuid=st.sampled_from(["drop", "keep"]),
    owner=st.sampled_from([None, (5, 6)]),
    devices=st.sampled_from(["drop", "keep"]),
    xattrs=st.sampled_from(["drop", "keep"]),
    readable=st.booleans(),
)
some_entries = st.builds(
    Entry,
    path=st.just("x"),
    type=kinds,
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 10),
    gid=st.integers(0, 10),
    xattrs=st.dictionaries(st.sampled_from(sorted(XATTRS)), st.binary(max_size=3)),
)


@given(policies, some_entries)
def test_applying_a_policy_twice_changes_nothing(policy: Policy, entry: Entry) -> None:
    once = policy.apply(entry)
    if once.type is EntryType.WHITEOUT:  # a dropped device has no owner
        return
    assert policy.apply(replace(once, dropped=())) == replace(once, dropped=())


@given(policies, some_entries)
def test_policy_adds_no_privileges(policy: Policy, entry: Entry) -> None:
    result = policy.apply(entry)
    assert result.path == entry.path
    assert result.xattrs.items() <= entry.xattrs.items()
    if result.type is not EntryType.WHITEOUT:
        assert result.type is entry.type
        assert not result.mode & 0o7000 & ~entry.mode
        assert entry.mode & 0o777 & ~result.mode == 0
        assert not result.mode & ~entry.mode & 0o022


@given(some_entries)
def test_the_default_policy_keeps_no_privileges(entry: Entry) -> None:
    result = Policy().apply(entry)
    assert result.type not in (EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE)
    if result.type is not EntryType.SYMLINK:
        assert not result.mode & 0o4000
        assert result.type is EntryType.DIRECTORY or not result.mode & 0o2000
    assert not [name for name in result.xattrs if not name.startswith("user.")]


@given(some_entries)
def test_without_writable_no_bit_lets_group_or_others_write(entry: Entry) -> None:
    result = Policy(writable="drop").apply(entry)
    kept = Policy(writable="keep").apply(entry)
    assert kept == Policy().apply(entry)
    if result.type in (EntryType.SYMLINK, EntryType.WHITEOUT):
        assert result == kept
        return
    assert result.mode == kept.mode & ~0o022
    assert ("writable" in result.dropped) == bool(entry.mode & 0o022)


@given(policies, some_entries)
def test_everything_that_is_dropped_is_named(policy: Policy, entry: Entry) -> None:
    result = policy.apply(entry)
    if result.type is EntryType.WHITEOUT:
        assert result.dropped == ("device",)
        assert result.device == entry.device
        return
    lost_bits = entry.mode & ~result.mode
    assert ("setuid" in result.dropped) == bool(lost_bits & 0o4000)
    assert ("setgid" in result.dropped) == bool(lost_bits & 0o2000)
    lost = {name.removeprefix("xattr:") for name in result.dropped if name.startswith("xattr:")}
    assert lost == entry.xattrs.keys() - result.xattrs.keys()


def test_a_file_without_a_possible_owner_never_runs_as_root() -> None:
    entry = Entry("f", EntryType.FILE, 0o6755, uid=2**32 - 1, gid=5)
    result = Policy(setuid="keep").apply(entry)
    assert (result.mode, result.uid, result.gid) == (0o755, 0, 5)
    assert result.dropped == ("setuid", "setgid", "owner")
    assert Policy(setuid="keep", owner=(7, 8)).apply(entry).mode == 0o6755


def test_limits_of_a_whole_image() -> None:
    limits = Limits(image_entries=10, image_bytes=100)
    limits.check_image("image x", 10, 100)
    with pytest.raises(LimitExceeded, match=r"image x.*11 entries") as caught:
        limits.check_image("image x", 11, 0)
    error = caught.value
    assert (error.limit, error.allowed, error.found) == ("image_entries", 10, 11)
    with pytest.raises(LimitExceeded, match="101 bytes"):
        limits.check_image("image x", 0, 101)


def test_the_default_limits_admit_very_large_images() -> None:
    Limits().check_image("a scientific image", 2_000_000, 60 * 2**30)
    assert Limits().layer_entries >= 2_000_000
    assert Limits().layer_bytes >= 60 * 2**30


@given(policies, st.builds(Limits, layer_entries=st.integers(0, 10**12)))
def test_policy_values_are_read_back(policy: Policy, limits: Limits) -> None:
    policy = replace(policy, limits=limits)
    written = json.loads(json.dumps(policy_values(policy)))
    assert policy_from_values(written) == policy
    assert policy_values(Policy()) == {}


@pytest.mark.parametrize(
    "values",
    [
        {"setuid": "maybe"},
        {"owner": [1]},
        {"owner": [1, -1]},
        {"owner": [0, 2**32 - 1]},
        {"owner": [True, 1]},
        {"readable": 1},
        {"limits": {"layer_entries": "many"}},
        {"limits": {"patience": 1}},
        {"later": "drop"},
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(LayerError, match="policy"):
        policy_from_values(values)
