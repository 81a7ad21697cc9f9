"""Convert names in archives to paths in trees. Pure: no file system is read.

Source: OCI image layer specification 1.1, sections "Whiteouts" and "Opaque Whiteout"; the
`.wh..wh.` prefix is that of AUFS's internal files.
"""

from __future__ import annotations

from publisher.layers.errors import LimitExceeded, UnsafeName
from publisher.lazy import dataclass

WHITEOUT_PREFIX = ".wh."
OPAQUE_MARKER = ".wh..wh..opq"
AUFS_PREFIX = ".wh..wh."
CVMFS_PREFIX = ".cvmfs"
"""The prefix of names that control the catalogs of CVMFS. Images must not have them."""

MAX_COMPONENT_BYTES = 255

_DROPPED_AUFS = "name:.wh..wh.*"
_DROPPED_CVMFS = "name:.cvmfs*"


def safe_path(
    raw: bytes, where: object, max_bytes: int, max_depth: int, *, stop_at_root: bool = False
) -> str:
    """Return `raw` as a path inside a tree: relative, without `.`, `..` or empty components.

    `..` is resolved lexically. At the root it is refused, or with `stop_at_root` ignored, as in a
    process with that root directory. The root itself is "".

    Raises:
        UnsafeName: The name leads above the root, or is not valid in any file system.
        LimitExceeded: The path has more than `max_bytes` bytes or `max_depth` components.

    The `what` of both is `where`, which describes the entry with the name.
    """
    if _is_plain(raw) and len(raw) <= max_bytes and raw.count(b"/") < max_depth:
        return raw.rstrip(b"/").decode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise UnsafeName(str(where), why="the name contains a zero byte")
    parts: list[bytes] = []
    for part in raw.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if parts:
                parts.pop()
            elif not stop_at_root:
                raise UnsafeName(str(where), why="the name leads above the root of the image")
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
    """The description of an entry in errors, which is composed only if it is needed."""

    __slots__ = ("_layer", "_name")

    def __init__(self, layer: str, name: bytes) -> None:
        self._layer = layer
        self._name = name

    def __str__(self) -> str:
        return f"cannot unpack {self._layer}, entry {shown(self._name)}"


def shown(name: str | bytes) -> str:
    """Return a name for an error message: quoted, escaped and shortened."""
    text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    if len(text) > 200:
        text = f"{text[:100]}…{text[-80:]}"
    return ascii(text) if any(c < " " or "\ud800" <= c <= "\udfff" for c in text) else repr(text)


def is_reserved(component: str) -> bool:
    """Return whether runtimes or CVMFS interpret the name, so that trees may not have it."""
    return component.startswith((WHITEOUT_PREFIX, CVMFS_PREFIX))


@dataclass(frozen=True, slots=True)
class Marker:
    """A whiteout of `hidden` in the directory `parent`; an opaque marker if `hidden` is None."""

    parent: str
    hidden: str | None


def reserved(path: str, where: object) -> Marker | str | None:
    """Return the meaning of a path if it has reserved names in it.

    Args:
        path: A path as `safe_path` returns it.
        where: The description of the entry, for errors.

    Returns:
        A marker; or the kind of a dropped name, as a string; or None for an ordinary path.

    Raises:
        UnsafeName: The name of a whiteout is empty.
    """
    if WHITEOUT_PREFIX not in path and CVMFS_PREFIX not in path:
        return None
    *parents, name = path.split("/")
    if any(part.startswith(CVMFS_PREFIX) for part in (*parents, name)):
        return _DROPPED_CVMFS
    if any(part.startswith(AUFS_PREFIX) for part in parents):
        return _DROPPED_AUFS
    if any(part.startswith(WHITEOUT_PREFIX) for part in parents):
        # containerd and umoci create a directory `.wh.x`. In a published tree, some runtimes would
        # interpret it as a whiteout.
        return "name:.wh.*"
    if name == OPAQUE_MARKER:
        return Marker("/".join(parents), None)
    if name.startswith(AUFS_PREFIX):
        return _DROPPED_AUFS
    if not name.startswith(WHITEOUT_PREFIX):
        return None
    hidden = name.removeprefix(WHITEOUT_PREFIX)
    if hidden in ("", ".", ".."):
        raise UnsafeName(str(where), why="the name of a whiteout is empty")
    if hidden.startswith(CVMFS_PREFIX):  # lower layers cannot have this name
        return _DROPPED_CVMFS
    return Marker("/".join(parents), hidden)
