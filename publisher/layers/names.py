"""Turns names in archives into paths in trees. Pure: no file system is read.

Source: OCI image layer specification 1.1, sections "Whiteouts" and "Opaque Whiteout"; the
`.wh..wh.` prefix is what AUFS used for its own files.
"""

from __future__ import annotations

from dataclasses import dataclass

from publisher.layers.errors import LimitExceeded, UnsafeName

WHITEOUT_PREFIX = ".wh."
OPAQUE_MARKER = ".wh..wh..opq"
AUFS_PREFIX = ".wh..wh."
CVMFS_PREFIX = ".cvmfs"
"""Names that control where CVMFS starts catalogs. Images must not have them."""

MAX_COMPONENT_BYTES = 255

_DROPPED_AUFS = "name:.wh..wh.*"
_DROPPED_CVMFS = "name:.cvmfs*"


def safe_path(
    raw: bytes, where: object, max_bytes: int, max_depth: int, *, stop_at_root: bool = False
) -> str:
    """Return the path that `raw` means inside a tree: relative, without `.`, `..` or empty parts.

    `..` is resolved by the text alone. At the root it is refused, or, with `stop_at_root`, stays
    there, as in a process whose root directory that is. The root itself is "".

    Raises:
        UnsafeName: The name climbs above the root, or no file system can hold it.
        LimitExceeded: The path has more than `max_bytes` bytes or `max_depth` components.

    Both begin with `where`, which describes what has the name.
    """
    if _is_plain(raw) and len(raw) <= max_bytes and raw.count(b"/") < max_depth:
        return raw.rstrip(b"/").decode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise UnsafeName(str(where), why="the name holds a zero byte")
    parts: list[bytes] = []
    for part in raw.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if parts:
                parts.pop()
            elif not stop_at_root:
                raise UnsafeName(str(where), why="the name climbs above the root of the image")
            continue
        if len(part) > MAX_COMPONENT_BYTES:
            raise UnsafeName(
                str(where), why=f"{shown(part)} is longer than {MAX_COMPONENT_BYTES} bytes"
            )
        parts.append(part)
    path = b"/".join(parts)
    if len(path) > max_bytes:
        raise LimitExceeded(
            str(where),
            limit="path_bytes",
            allowed=max_bytes,
            found=len(path),
            why=f"the path is longer than {max_bytes} bytes",
        )
    if len(parts) > max_depth:
        raise LimitExceeded(
            str(where),
            limit="depth",
            allowed=max_depth,
            found=len(parts),
            why=f"the path is nested deeper than {max_depth} directories",
        )
    return path.decode("utf-8", "surrogateescape")


def _is_plain(raw: bytes) -> bool:
    # The fast path for most names: those without a component that begins with a dot.
    return (
        len(raw) <= MAX_COMPONENT_BYTES
        and raw[:1] not in (b"", b"/", b".")
        and b"/." not in raw
        and b"//" not in raw
        and b"\0" not in raw
    )


class Where:
    """Names an entry in errors. The text is made only if it is needed, which is rare."""

    __slots__ = ("_layer", "_name")

    def __init__(self, layer: str, name: bytes) -> None:
        self._layer = layer
        self._name = name

    def __str__(self) -> str:
        return f"cannot unpack {self._layer}, entry {shown(self._name)}"


def shown(name: str | bytes) -> str:
    """Return a name as errors show it: quoted, of bounded length, without control characters."""
    text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    if len(text) > 200:
        text = f"{text[:100]}…{text[-80:]}"
    return ascii(text) if any(c < " " or "\ud800" <= c <= "\udfff" for c in text) else repr(text)


def is_reserved(component: str) -> bool:
    """Return whether runtimes or CVMFS give the name a meaning, so that no tree may have it."""
    return component.startswith((WHITEOUT_PREFIX, CVMFS_PREFIX))


@dataclass(frozen=True, slots=True)
class Marker:
    """A whiteout of the name `hidden` in the directory `parent`; without it, an opaque marker."""

    parent: str
    hidden: str | None


def reserved(path: str, where: object) -> Marker | str | None:
    """Return the meaning of a path that may have reserved names in it.

    Args:
        path: A path as `safe_path` returns it.
        where: What has the path, for errors.

    Returns:
        A marker; or, as a string, the kind as which a dropped name is counted; or None if the path
        is an ordinary one.

    Raises:
        UnsafeName: A whiteout names nothing.
    """
    *parents, name = path.split("/")
    if any(part.startswith(CVMFS_PREFIX) for part in (*parents, name)):
        return _DROPPED_CVMFS
    if any(part.startswith(AUFS_PREFIX) for part in parents):
        return _DROPPED_AUFS
    if any(part.startswith(WHITEOUT_PREFIX) for part in parents):
        # containerd and umoci make a directory `.wh.x`. In a published tree, some runtimes would
        # take it for a whiteout.
        return "name:.wh.*"
    if name == OPAQUE_MARKER:
        return Marker("/".join(parents), None)
    if name.startswith(AUFS_PREFIX):
        return _DROPPED_AUFS
    if not name.startswith(WHITEOUT_PREFIX):
        return None
    hidden = name.removeprefix(WHITEOUT_PREFIX)
    if hidden in ("", ".", ".."):
        raise UnsafeName(str(where), why="a whiteout has to name something")
    if hidden.startswith(CVMFS_PREFIX):  # no layer can have it
        return _DROPPED_CVMFS
    return Marker("/".join(parents), hidden)
