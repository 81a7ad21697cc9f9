"""Hostile archives, made by code: one for each known way to escape from tar extraction.

`VICTIM` in a name or target is a placeholder for the absolute path of a directory beside the tree.
Keys describe the attack; comments name vulnerabilities of this kind in other programs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tests.layer_builder import (
    Member,
    block_device,
    character_device,
    directory,
    fifo,
    file,
    hardlink,
    opaque,
    pax_header,
    symlink,
    whiteout,
)

VICTIM = "/VICTIM"
UP = "../" * 12

Members = Sequence[Member | bytes]

# Names that climb or are absolute: tarfile CVE-2007-4559, GNU tar CVE-2016-6321 and CVE-2001-1267.
NAMES: Mapping[str, Members] = {
    "climbing name": [file("../victim/canary", b"pwned")],
    "climbing name after a member": [file("a"), file("a/../../victim/canary", b"pwned")],
    "absolute name": [file(f"{VICTIM}/canary", b"pwned")],
    "double slash": [file(f"/{VICTIM}/canary", b"pwned")],
    "absolute and climbing": [file(f"/..{VICTIM}/canary", b"pwned")],
    "climbing directory": [directory("../victim/new")],
    "climbing in the prefix field": [file("../victim/" + "x/" * 60 + "canary", format="ustar")],
    "climbing in a PAX path": [file("ok", b"pwned", pax={"path": "../victim/canary"})],
    "climbing in a GNU long name": [file("../victim/" + "./" * 80 + "canary", b"p", format="gnu")],
    "climbing in a global PAX path": [
        pax_header({"path": "../victim/canary"}, b"g"),
        file("ok", b"pwned"),
    ],
    "climbing whiteout": [whiteout("../victim/canary")],
    "whiteout of the parent": [file(".wh...")],
    "whiteout of the directory itself": [file("d/.wh..")],
    "opaque marker outside": [file("../victim/.wh..wh..opq")],
    "backslashes": [file("..\\victim\\canary", b"pwned")],
    "a zero byte cuts the name": [file("x", b"p", pax={"path": b"../victim/canary\0.txt"})],
}

# Through symlinks of the same layer: Docker CVE-2014-6407, CVE-2014-9356; tar-rs CVE-2021-38511;
# kubectl cp CVE-2018-1002100, CVE-2019-1002101, CVE-2019-11249; podman CVE-2019-10152.
SYMLINKS: Mapping[str, Members] = {
    "file below an absolute symlink": [symlink("s", VICTIM), file("s/canary", b"pwned")],
    "file below a climbing symlink": [symlink("s", UP + VICTIM), file("s/canary", b"pwned")],
    "file through a symlink of its name": [symlink("s", f"{VICTIM}/canary"), file("s", b"pwned")],
    "directory below a symlink": [symlink("s", VICTIM), directory("s/new", mode=0o777)],
    "metadata of a symlink's target": [
        symlink("s", VICTIM),
        directory("s", mode=0o777, uid=1234),
        directory("s/below", mode=0o777, uid=1234),
    ],
    "chain of symlinks": [
        symlink("a", ".."),
        symlink("b", "a/.."),
        symlink("c", "b/.." + VICTIM),
        file("c/canary", b"pwned"),
    ],
    "symlink in the middle": [
        directory("d"),
        symlink("d/s", VICTIM),
        file("d/s/below/file", b"pwned"),
    ],
    "symlink that becomes one later": [
        directory("s"),
        file("s/canary", b"ours"),
        symlink("s", VICTIM),
        file("s/canary", b"pwned"),
    ],
    # node-tar CVE-2021-32803, CVE-2021-37701, CVE-2021-37712: a remembered directory was replaced.
    "directory that is remembered": [
        directory("d"),
        *(file(f"d/{n}") for n in range(3)),
        symlink("D", VICTIM),
        symlink("d", VICTIM),
        file("d/canary", b"pwned"),
    ],
    "directory deep below is remembered": [
        directory("a/b/c"),
        file("a/b/c/x"),
        symlink("a", VICTIM),
        file("a/below/file", b"pwned"),
        whiteout("a/canary"),
    ],
    "whiteout below a symlink": [symlink("s", VICTIM), whiteout("s/canary"), whiteout("s/below")],
    "opaque marker below a symlink": [symlink("s", VICTIM), opaque("s"), opaque("s/below")],
    "FIFO through a symlink": [symlink("s", f"{VICTIM}/canary"), fifo("s")],
    "symlink through a symlink": [symlink("s", VICTIM), symlink("s/canary", "x")],
    # tarfile CVE-2025-4517 and its kin: links too long for realpath().
    "names too long to be resolved": [
        *(
            step
            for n in range(16)
            for step in (
                directory("/".join(["d" * 247] * n + ["d" * 247])),
                symlink("/".join(["d" * 247] * n + [f"l{n}"]), "d" * 247),
            )
        ),
        symlink("long", "/".join(f"l{n}" for n in range(16)) + "/" + UP * 30 + VICTIM),
        file("long/canary", b"pwned"),
    ],
    "symlinks in circles": [symlink("a", "b/x"), symlink("b", "a/y"), file("a/z", b"pwned")],
    "symlinks that double": [
        *(symlink(f"l{n}", f"l{n + 1}/../l{n + 1}") for n in range(45)),
        file("l0/x", b"pwned"),
    ],
}

# The root itself: umoci CVE-2021-29136.
ROOT: Mapping[str, Members] = {
    "root is a symlink": [symlink(".", VICTIM), file("canary", b"pwned")],
    "root with a slash is a symlink": [symlink("/", VICTIM), file("canary", b"pwned")],
    "root in a roundabout way": [symlink("a/..", VICTIM), file("canary", b"pwned")],
    "root is a file": [file("./", b"pwned")],
    "root is a hard link": [hardlink(".", f"{VICTIM}/canary")],
    "root is whited out": [whiteout(""), file(".wh.", b"")],
}

# Through hard links: bsdtar CVE-2016-5418, containerd CVE-2021-32760 (modes of host files), tarfile
# CVE-2025-4330 and CVE-2025-4138.
HARD_LINKS: Mapping[str, Members] = {
    "hard link outside": [hardlink("h", "../victim/canary"), file("h", b"pwned")],
    "absolute hard link": [hardlink("h", f"{VICTIM}/canary"), file("h", b"pwned")],
    "hard link through a symlink": [symlink("s", VICTIM), hardlink("h", "s/canary")],
    "hard link to a symlink, then a file": [
        symlink("s", f"{VICTIM}/canary"),
        hardlink("h", "s"),
        file("h", b"pwned"),
    ],
    "hard link to a symlink, with a mode": [
        symlink("s", f"{VICTIM}/canary"),
        hardlink("h", "s", mode=0o4777, uid=1234, mtime_ns=1),
        directory("d"),
        hardlink("d/h", "h", mode=0o777),
    ],
    "hard link at a place below a symlink": [
        file("mine", b"pwned"),
        symlink("s", VICTIM),
        hardlink("s/new", "mine"),
        hardlink("s/canary", "mine"),
    ],
    "hard link to a symlinked directory": [
        symlink("s", VICTIM),
        hardlink("d", "s"),
        file("d/canary", b"pwned"),
    ],
    "late hard link": [hardlink("h", "s/canary"), symlink("s", VICTIM)],
    "hard link to the root": [hardlink("h", "/"), hardlink("h/x", ".")],
}

# What may be made: devices, setuid programs, attributes that redirect mounts.
CONTENT: Mapping[str, Members] = {
    "disk": [block_device("disk", 8, 0, mode=0o666), hardlink("again", "disk")],
    "memory": [character_device("mem", 1, 1, mode=0o666), file("mem/x")],
    "forged whiteout": [character_device("x", 0, 0)],
    "setuid root": [file("su", b"\x7fELF", mode=0o6755)],
    "capabilities": [file("c", xattrs={"security.capability": b"\1\0\0\2" + b"\xff" * 16})],
    # The owner -1 and owners that wrap around to root: containerd CVE-2024-40635.
    "owner that wraps around": [file("f", mode=0o6777, uid=2**32, gid=2**32, format="gnu")],
    "owner that means no change": [file("f", uid=2**32 - 1, format="gnu")],
    "redirected directory": [
        directory("d", xattrs={"trusted.overlay.redirect": b"/../victim"}),
        directory(
            "e", xattrs={"user.overlay.redirect": b"/../victim", "user.overlay.opaque": b"y"}
        ),
        file("f", xattrs={"user.overlay.metacopy": b"", "trusted.overlay.metacopy": b""}),
    ],
    "catalog markers": [file(".cvmfscatalog"), file("usr/.cvmfscatalog")],
    "long attribute names": [file("f", xattrs={"user." + "x" * 300: b"1"})],
    "capabilities of a wrong size": [file("c", xattrs={"security.capability": b"\1\0"})],
    "large attributes": [file("f", xattrs={"user.x": b"x" * 70_000})],
    "attribute names of nothing": [file("f", xattrs={"": b"1", "user.": b"2", "user.\0x": b"3"})],
}

# Bombs and nonsense: Go CVE-2022-2879 (endless headers), sizes that lie, endless nesting.
BOMBS: Mapping[str, Members] = {
    "size without end": [file("f", size=2**62, format="gnu")],
    "negative size": [file("f", size=-5, format="gnu")],
    "header without end": [Member("x", b"x", size=2**40, format="gnu")],
    "long name without end": [Member("././@LongLink", b"L", size=2**33, format="gnu")],
    "sparse petabyte": [
        file("f", b"x" * 512, pax={"GNU.sparse.map": "0,512", "GNU.sparse.size": str(2**50)})
    ],
    "sparse map without end": [
        file(
            "f",
            b"9" * 4096,
            pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"},
        )
    ],
    "nesting without end": [file("d/" * 5000 + "f", b"x")],
    "attributes that contradict": [pax_header({"size": "3"}), file("f", b"x" * 600)],
    "header for nothing": [pax_header({"path": "../victim/canary"})],
    "two headers": [pax_header({"path": "a"}), pax_header({"path": "../victim/x"}), file("f")],
    "numbers of thousands of digits": [file("f", pax={"mtime": "9" * 5000})],
    "owner of thousands of digits": [file("f", pax={"uid": "9" * 5000})],
    "truncated": [file("f", b"x" * 5000).encode()[:3000]],
    "unknown type": [Member("f", b"!")],
}

CORPUS: Mapping[str, Members] = {**NAMES, **SYMLINKS, **ROOT, **HARD_LINKS, **CONTENT, **BOMBS}


def aimed_at(members: Members, victim: str) -> list[Member | bytes]:
    """The attack with its placeholder replaced by a real path."""

    def aim(text: str | bytes) -> str | bytes:
        if isinstance(text, bytes):
            return text.replace(VICTIM.encode(), victim.encode())
        return text.replace(VICTIM, victim)

    return [
        m if isinstance(m, bytes) else replace(m, name=aim(m.name), target=aim(m.target))
        for m in members
    ]
