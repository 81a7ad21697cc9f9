"""Hypothesis strategies: members, layers and layer stacks as images might have them, and worse.

Names come from a small pool, so that the layers of a stack meet: they replace, hide, link and
delete each other's entries in every combination.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.layer_builder import (
    Compression,
    Layer,
    Member,
    character_device,
    directory,
    fifo,
    file,
    hardlink,
    layer,
    opaque,
    symlink,
    whiteout,
)

COMPONENTS = ["a", "b", "c", ".d", "..e", "f g"]
LINK_TEXTS = ["a", "../b", "/a/b", "../../../..", "/", ".", "a/./b/../c", "nowhere", "/etc/passwd"]

components = st.sampled_from(COMPONENTS)
paths = st.lists(components, min_size=1, max_size=3).map("/".join)
modes = st.sampled_from([0o755, 0o644, 0o700, 0o600, 0o000, 0o444, 0o555, 0o4755, 0o2711, 0o1777])
owners = st.sampled_from([0, 1, 1000, 65534, 2**31])
times = st.sampled_from([0, 1, -1_500_000_000, 10**18 + 123_456_789, 4 * 10**18])
contents = st.sampled_from([b"", b"x", b"content", b"long " * 5000])
xattrs = st.sampled_from([{}, {}, {}, {"user.a": b"1"}, {"user.b": b"\0\xff", "trusted.x": b"y"}])
compressions: st.SearchStrategy[Compression] = st.sampled_from(("gzip", "zstd", "none"))


@dataclass
class _Drawn:
    """Where in the stack there might be files, so that hard links find some."""

    files: list[str] = field(default_factory=list)


@st.composite
def members(draw: st.DrawFn, drawn: _Drawn | None = None) -> Member:
    """One member: usually sensible, sometimes in an odd spelling."""
    drawn = drawn or _Drawn()
    kind = draw(
        st.sampled_from(
            ["file"] * 4
            + ["directory", "directory", "symlink", "hardlink", "whiteout", "whiteout"]
            + ["opaque", "fifo", "device"]
        )
    )
    path = draw(paths)
    spelled = draw(st.sampled_from(["", "", "", "./", "/"])) + path
    metadata = {
        "uid": draw(owners),
        "gid": draw(owners),
        "mtime_ns": draw(times),
    }
    if kind == "file" or (kind == "hardlink" and not drawn.files):
        drawn.files.append(path)
        return file(spelled, draw(contents), mode=draw(modes), xattrs=draw(xattrs), **metadata)
    if kind == "directory":
        slash = draw(st.sampled_from(["", "/"]))
        return directory(spelled + slash, mode=draw(modes), xattrs=draw(xattrs), **metadata)
    if kind == "symlink":
        return symlink(spelled, draw(st.sampled_from(LINK_TEXTS)), **metadata)
    if kind == "hardlink":
        target = draw(st.sampled_from(drawn.files))
        drawn.files.append(path)
        return hardlink(spelled, target, **metadata)
    if kind == "whiteout":
        return whiteout(path)
    if kind == "opaque":
        return opaque(draw(st.sampled_from(["", path, path, path])))
    if kind == "fifo":
        return fifo(spelled, mode=draw(modes), **metadata)
    return character_device(spelled)


@dataclass(frozen=True, slots=True)
class Draft:
    """A layer yet to be built: what hypothesis can print when a test fails."""

    members: tuple[Member, ...]
    compression: Compression
    parts: int

    def build(self) -> Layer:
        return layer(*self.members, compression=self.compression, parts=self.parts)


@st.composite
def drafts(draw: st.DrawFn, drawn: _Drawn | None = None) -> Draft:
    """One layer of up to ten members."""
    drawn = drawn or _Drawn()
    count = draw(st.integers(0, 10))
    return Draft(
        tuple(draw(members(drawn)) for _ in range(count)),
        draw(compressions),
        draw(st.integers(1, 3)),
    )


@st.composite
def stacks(draw: st.DrawFn) -> list[Draft]:
    """Up to four layers from bottom to top; sometimes one of them twice."""
    drawn = _Drawn()
    stack = [draw(drafts(drawn)) for _ in range(draw(st.integers(1, 4)))]
    if draw(st.integers(0, 9)) == 0:
        stack.append(draw(st.sampled_from(stack)))
    return stack
