"""Assembles archives from trees and tar-split data, as tar-split's own assembler does.

Source: vbatts/tar-split, tar/asm/assemble.go and tar/storage/packer.go.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
from pathlib import Path
from posixpath import normpath

from fastcrc import crc64


def assemble(data: bytes, tree: Path) -> bytes:
    """The archive whose tar-split data is `data`, with the contents of files in `tree`."""
    found = []
    names: set[bytes] = set()
    for position, line in enumerate(gzip.decompress(data).splitlines()):
        entry = json.loads(line)
        assert entry["position"] == position
        payload = base64.b64decode(entry["payload"], validate=True)
        if entry["type"] == 2:
            assert entry.keys() == {"type", "payload", "position"}
            found.append(payload)
            continue
        assert entry["type"] == 1
        assert ("name" in entry) != ("name_raw" in entry)
        name = entry["name"].encode() if "name" in entry else base64.b64decode(entry["name_raw"])
        assert normpath(name) not in names, "names must differ"
        names.add(normpath(name))
        content = (tree / os.fsdecode(name)).read_bytes()
        assert len(content) == entry["size"]
        assert crc64.go_iso(content).to_bytes(8, "big") == payload
        found.append(content)
    return b"".join(found)
