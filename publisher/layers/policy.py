"""Decide which properties of an image's entries are published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field, fields, replace
from typing import Any, Literal

from publisher.entry import Entry, EntryType
from publisher.layers.errors import LayerError, LimitExceeded
from publisher.lazy import dataclass

_SETUID = 0o4000
_SETGID = 0o2000
_WRITABLE = 0o022
_DEVICES = (EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE)
_MAJOR_NUMBERS, _MINOR_NUMBERS = 2**12, 2**20
"""The limits of Linux; larger numbers would be truncated to those of another device."""
_CAPABILITY = "security.capability"
_LONGEST_XATTR_NAME = 255
NO_OWNER = 2**32 - 1
"""The ID that chown(2) interprets as "do not change"; valid IDs are smaller."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a layer and of a whole image, against decompression bombs.

    The defaults admit images of hundreds of gigabytes. `layer_bytes` and `image_bytes` count the
    bytes of unpacked archives. `layer_apparent_bytes` counts the sizes of files, with the holes of
    sparse files, which take no space but have to be hashed (about a second for each gigabyte).
    """

    layer_entries: int = 10_000_000
    layer_bytes: int = 500 * 2**30
    layer_apparent_bytes: int = 500 * 2**30
    image_entries: int = 20_000_000
    image_bytes: int = 2**40
    path_bytes: int = 4095
    depth: int = 2047
    header_bytes: int = 2**20

    def check_image(self, what: str, entries: int, size: int) -> None:
        """Raise LimitExceeded if the layers of the image `what` together exceed its bounds."""
        if entries > self.image_entries:
            raise LimitExceeded(
                what,
                limit="image_entries",
                allowed=self.image_entries,
                found=entries,
                why=f"{entries} entries are more than {self.image_entries}",
            )
        if size > self.image_bytes:
            raise LimitExceeded(
                what,
                limit="image_bytes",
                allowed=self.image_bytes,
                found=size,
                why=f"{size} bytes are more than {self.image_bytes}",
            )


@dataclass(frozen=True, slots=True)
class Policy:
    """Which properties of entries are published; all others are dropped.

    The defaults are for a tree that many machines mount.

    `setuid`: set-user-ID and set-group-ID bits of files, and file capabilities. A vulnerable
    program with them could make a user of any machine root. Directories keep their set-group-ID
    bit, which only determines the group of files that are created in them. `owner`: None keeps each
    entry's owner; (uid, gid) replaces them all. `devices`: device nodes. A dropped one still hides
    the entry of lower layers at its path. The character device 0:0 is always dropped, since
    overlayfs interprets it as a whiteout; so are device numbers that Linux does not support.
    `xattrs`: whether `user.*` is kept. `security.capability` is kept with `setuid`; all others are
    dropped, also those of overlayfs, with which an image could redirect mounts. `writable`: whether
    group and others keep write permission. "drop" suits a directory whose host has ordinary users:
    one of them could replace a program that an image makes writable. None is the default of the
    repository: "drop" for a directory, and "keep" for CVMFS, which is mounted read-only.
    `readable`: adds read permission to all files, and search permission to all directories.
    """

    setuid: Literal["drop", "keep"] = "drop"
    owner: tuple[int, int] | None = None
    devices: Literal["drop", "keep"] = "drop"
    xattrs: Literal["drop", "keep"] = "keep"
    readable: bool = False
    writable: Literal["drop", "keep"] | None = None
    limits: Limits = field(default_factory=Limits)

    def apply(self, entry: Entry) -> Entry:
        """Return `entry` with the permitted properties; its `dropped` names the removed ones."""
        kind = entry.type
        if (
            kind is EntryType.FILE
            and entry.mode & 0o6600 == 0o600
            and not (entry.xattrs or self.owner or self.readable)
            and not (entry.mode & _WRITABLE and self.writable == "drop")
            and entry.uid != NO_OWNER != entry.gid
        ):
            return entry  # most entries of most layers
        if kind in _DEVICES and (self.devices == "drop" or not _is_real_device(entry)):
            return Entry(
                entry.path,
                EntryType.WHITEOUT,
                mode=0,
                device=entry.device,
                dropped=("device",),
            )
        uid, gid, lost_owner = self._owner(entry)
        mode, lost_bits = self._mode(entry, keeps_setuid=self.setuid == "keep" and not lost_owner)
        xattrs, lost_xattrs = self._xattrs(entry)
        dropped = (*entry.dropped, *lost_bits, *lost_owner, *lost_xattrs)
        if (mode, uid, gid, dropped) == (entry.mode, entry.uid, entry.gid, entry.dropped):
            return entry
        return replace(entry, mode=mode, uid=uid, gid=gid, xattrs=xattrs, dropped=dropped)

    def _mode(self, entry: Entry, keeps_setuid: bool) -> tuple[int, tuple[str, ...]]:
        mode, kind = entry.mode, entry.type
        is_directory = kind is EntryType.DIRECTORY
        dropped: tuple[str, ...] = ()
        if kind is EntryType.SYMLINK:
            return mode, dropped
        if not keeps_setuid:
            if mode & _SETUID:
                dropped = ("setuid",)
            if mode & _SETGID and not is_directory:
                dropped = (*dropped, "setgid")
            mode &= ~_SETUID if is_directory else ~(_SETUID | _SETGID)
        if mode & _WRITABLE and self.writable == "drop":
            mode &= ~_WRITABLE
            dropped = (*dropped, "writable")
        if is_directory:
            mode |= 0o755 if self.readable else 0o700
        elif kind is EntryType.FILE:
            mode |= 0o600
            if self.readable:
                mode |= 0o555 if mode & 0o111 else 0o444
        return mode, dropped

    def _owner(self, entry: Entry) -> tuple[int, int, tuple[str, ...]]:
        if self.owner is not None:
            return *self.owner, ()
        if NO_OWNER not in (entry.uid, entry.gid):
            return entry.uid, entry.gid, ()
        # chown(2) as root with this ID leaves the file to root. Since the archive does not request
        # that owner, such a file is not set-user-ID.
        uid, gid = (0 if each == NO_OWNER else each for each in (entry.uid, entry.gid))
        return uid, gid, ("owner",)

    def _xattrs(self, entry: Entry) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
        if not entry.xattrs:
            return entry.xattrs, ()
        kept = {k: v for k, v in entry.xattrs.items() if self._keeps_xattr(k, entry.type)}
        gone = sorted(entry.xattrs.keys() - kept.keys())
        return kept, tuple(f"xattr:{name}" for name in gone)

    def _keeps_xattr(self, name: str, kind: EntryType) -> bool:
        if name == _CAPABILITY:
            return self.setuid == "keep" and kind is EntryType.FILE
        return (
            self.xattrs == "keep"
            and kind in (EntryType.FILE, EntryType.DIRECTORY)  # the kernel permits it on these only
            and name.startswith("user.")
            and not name.startswith("user.overlay.")
            and name != "user."
            and "\0" not in name
            and len(name.encode("utf-8", "surrogateescape")) <= _LONGEST_XATTR_NAME
        )


def _is_real_device(entry: Entry) -> bool:
    major, minor = entry.device or (0, 0)
    if entry.type is EntryType.CHARACTER_DEVICE and (major, minor) == (0, 0):
        return False
    return 0 <= major < _MAJOR_NUMBERS and 0 <= minor < _MINOR_NUMBERS


def policy_values(policy: Policy) -> dict[str, object]:
    """Return the options of `policy` that differ from the defaults, as JSON values."""
    usual, chosen = asdict(Policy()), asdict(policy)
    values = {key: value for key, value in chosen.items() if value != usual[key]}
    return values | ({"limits": changed_limits(policy.limits)} if "limits" in values else {})


def changed_limits(limits: Limits) -> dict[str, int]:
    """Return the limits that differ from the defaults, by name."""
    usual: dict[str, int] = asdict(Limits())
    return {name: value for name, value in asdict(limits).items() if value != usual[name]}


def policy_from_values(values: Mapping[str, object]) -> Policy:
    """Return the policy of `policy_values`; raise LayerError for an unknown option or value."""
    what = "cannot use the repository's policy"
    for name, value in values.items():
        if not _is_valid(name, value):
            raise LayerError(
                what,
                why=f"{name}: {value!r} is not known",
                hint="use the newer publisher that wrote it, or set it again by `publisher init`",
            )
    chosen: dict[str, Any] = dict(values)  # of the types that `_is_valid` has checked
    if chosen.get("owner") is not None:
        chosen["owner"] = tuple(chosen["owner"])
    chosen["limits"] = Limits(**chosen.get("limits", {}))
    return Policy(**chosen)


def _is_valid(name: str, value: object) -> bool:
    match name:
        case "setuid" | "devices" | "xattrs" | "writable":
            return value in ("drop", "keep")
        case "owner":
            ids = value if isinstance(value, list | tuple) else ()
            return value is None or (
                len(ids) == 2 and all(_is_count(each) and each < NO_OWNER for each in ids)
            )
        case "readable":
            return isinstance(value, bool)
        case "limits":
            known = {each.name for each in fields(Limits)}
            return isinstance(value, dict) and all(
                key in known and _is_count(count) for key, count in value.items()
            )
    return False


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
