"""Paragraphs of fields in a text file, in one streaming pass; the databases of dpkg and apk.

Sources: deb-control(5), dpkg's `lib/dpkg/parse.c`; Alpine's wiki, "Apk spec", "Installed DB".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import BinaryIO

from publisher.packages.model import Package

_LONGEST_LINE = 2**16
_DPKG_FIELDS = frozenset({"package", "status", "version", "architecture", "source"})
_APK_FIELDS = frozenset("PVAo")
_WITHOUT_FILES = frozenset({"not-installed", "config-files"})


def read_dpkg(file: BinaryIO) -> Iterator[Package]:
    """Yield the packages of `var/lib/dpkg/status`, or of a file in its directory `status.d`.

    Packages of which only configuration files are left are not installed.
    """
    for fields in stanzas(file, _DPKG_FIELDS):
        state = fields.get("status", "").split()
        if state and state[-1] in _WITHOUT_FILES:
            continue
        yield Package(
            fields.get("package", ""),
            fields.get("version", ""),
            fields.get("architecture", ""),
            # "Source: glibc (2.36-9)" has the version if it differs.
            fields.get("source", "").partition(" ")[0],
        )


def read_apk(file: BinaryIO) -> Iterator[Package]:
    """Yield the packages of `lib/apk/db/installed`. Its fields are named by one letter."""
    for fields in stanzas(file, _APK_FIELDS, is_exact=True):
        name, origin = fields.get("P", ""), fields.get("o", "")
        yield Package(
            name, fields.get("V", ""), fields.get("A", ""), origin if origin != name else ""
        )


def stanzas(
    file: BinaryIO, wanted: Collection[str], is_exact: bool = False
) -> Iterator[Mapping[str, str]]:
    """Yield the `wanted` fields of each paragraph; names are in lower case unless `is_exact`.

    Continuation lines, which begin with a blank, belong to fields that are not read.
    """
    fields: dict[str, str] = {}
    is_start = True
    while line := file.readline(_LONGEST_LINE):
        is_whole = line.endswith(b"\n")
        if is_start and not line.strip():
            if fields:
                yield fields
                fields = {}
        elif is_start and not line[:1].isspace():
            key, colon, value = line.partition(b":")
            name = key.decode("utf-8", "replace")
            name = name if is_exact else name.lower()
            if colon and name in wanted:
                fields[name] = value.decode("utf-8", "replace").strip()
        is_start = is_whole
    if fields:
        yield fields
