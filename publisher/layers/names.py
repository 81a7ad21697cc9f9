"""Names in archives -> paths in trees. Nothing here looks at a file system.

Source: OCI image layer specification 1.1, sections "Whiteouts" and "Opaque Whiteout"; the
`.wh..wh.` prefix is what AUFS used for its own bookkeeping.
"""

from __future__ import annotations

from publisher.layers.errors import LimitExceeded, UnsafeName

WHITEOUT_PREFIX = ".wh."
OPAQUE_MARKER = ".wh..wh..opq"
AUFS_PREFIX = ".wh..wh."
CVMFS_PREFIX = ".cvmfs"
"""Names by which CVMFS is told where catalogs start. An image has no say in that."""

MAX_COMPONENT_BYTES = 255


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
        raise LimitExceeded(str(where), why=f"the path is longer than {max_bytes} bytes")
    if len(parts) > max_depth:
        raise LimitExceeded(
            str(where), why=f"the path is nested deeper than {max_depth} directories"
        )
    return path.decode("utf-8", "surrogateescape")


def _is_plain(raw: bytes) -> bool:
    # Most names in most layers; every name with a component that begins with a dot is not plain.
    return (
        len(raw) <= MAX_COMPONENT_BYTES
        and raw[:1] not in (b"", b"/", b".")
        and b"/." not in raw
        and b"//" not in raw
        and b"\0" not in raw
    )


class Where:
    """Says, in errors, which entry is meant. Most never are: the text is made when it is needed."""

    __slots__ = ("_layer", "_name")

    def __init__(self, layer: str, name: bytes) -> None:
        self._layer = layer
        self._name = name

    def __str__(self) -> str:
        return f"cannot unpack {self._layer}, entry {shown(self._name)}"


def shown(name: str | bytes) -> str:
    """A name as errors show it: quoted, without control characters, not endless."""
    text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    if len(text) > 200:
        text = f"{text[:100]}…{text[-80:]}"
    return ascii(text) if any(c < " " or "\ud800" <= c <= "\udfff" for c in text) else repr(text)


def is_reserved(component: str) -> bool:
    """Whether a name would be obeyed by others, overlayfs or CVMFS: no tree may have it."""
    return component.startswith((WHITEOUT_PREFIX, CVMFS_PREFIX))
