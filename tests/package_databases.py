"""Package databases: made by the package managers themselves, or by their documented formats."""

from __future__ import annotations

import sqlite3
import struct
import subprocess
import textwrap
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.components import program

APK = textwrap.dedent(
    """\
    C:Q1qKcZ+j23xssAXmgQhkOO8dHnbWw=
    P:musl
    V:1.2.4_git20230717-r4
    A:x86_64
    T:the musl c library (libc) implementation
    o:musl
    F:lib
    R:ld-musl-x86_64.so.1
    a:0:0:755

    P:libcrypto3
    V:3.1.4-r5
    A:x86_64
    o:openssl

    """
).encode()
"""`lib/apk/db/installed`, as apk writes it."""


def run(*command: str | Path) -> str:
    """What a program prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def dpkg_database(directory: Path, packages: Sequence[tuple[str, str]]) -> Path:
    """A database of dpkg with packages that dpkg installed, as (name, version); its directory.

    The last one is removed again, so that only its configuration file is left.
    """
    root = directory / "dpkg-root"
    for name in ("info", "updates"):
        (root / "var/lib/dpkg" / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    dpkg = [program("dpkg"), f"--root={root}", "--force-not-root", "--force-bad-path", "--log="]
    for name, version in packages:
        built = directory / name
        (built / "DEBIAN").mkdir(parents=True)
        (built / "etc").mkdir()
        (built / "etc" / f"{name}.conf").touch()
        (built / "DEBIAN/conffiles").write_text(f"/etc/{name}.conf\n")
        (built / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nSource: src-{name} (1.0)\n"
            "Maintainer: M <m@example.org>\nDescription: text\n Package: not-a-package\n"
        )
        run(program("dpkg-deb"), "--build", built, directory / f"{name}.deb")
        run(*dpkg, "--install", directory / f"{name}.deb")
    run(*dpkg, "--remove", packages[-1][0])
    return root / "var/lib/dpkg"


def rpm_database(directory: Path, packages: Sequence[tuple[str, str, str, int | None]]) -> Path:
    """The SQLite file of a database of rpm, with (name, version, release, epoch) installed."""
    database = directory / "rpm"
    for name, version, release, epoch in packages:
        spec = directory / f"{name}.spec"
        spec.write_text(
            f"Name: {name}\nVersion: {version}\nRelease: {release}\nSummary: text\nLicense: MIT\n"
            f"BuildArch: noarch\n{'' if epoch is None else f'Epoch: {epoch}'}\n"
            "%description\ntext\n%files\n"
        )
        define = ["--define", f"_topdir {directory}/top", "--define", f"_rpmdir {directory}/out"]
        run(program("rpmbuild"), "-bb", *define, spec)
    built = sorted((directory / "out").rglob("*.rpm"))
    options = ["--nodeps", "--justdb", "--ignorearch", "--ignoreos"]
    run(program("rpm"), "--dbpath", database, *options, "-i", *built)
    return database / "rpmdb.sqlite"


def rpm_headers(database: Path) -> list[bytes]:
    """The headers in a SQLite file of rpm."""
    with closing(sqlite3.connect(database)) as opened:
        return [blob for (blob,) in opened.execute("SELECT blob FROM Packages")]


def ndb(headers: Sequence[bytes]) -> bytes:
    """`Packages.db` of these headers, by rpm's lib/backend/ndb/rpmpkg.c.

    Debian's rpm is built without this format.
    """
    head = struct.pack("<4sIIII12x", b"RpmP", 0, 1, 1, len(headers) + 1)
    slots, blobs, block = [], b"", 4096 // 16
    for index, header in enumerate(headers, 1):
        blob = struct.pack("<4sIII", b"BlbS", index, 1, len(header)) + header
        blob += bytes(-(len(blob) + 12) % 16) + struct.pack("<II4s", 0, len(header), b"BlbE")
        slots.append(struct.pack("<4sIII", b"Slot", index, block, len(blob) // 16))
        blobs += blob
        block += len(blob) // 16
    free = struct.pack("<4sIII", b"Slot", 0, 0, 0)
    table = b"".join(slots) + free * (256 - 2 - len(slots))
    return head + table + blobs
