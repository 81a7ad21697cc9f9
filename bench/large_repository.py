"""`python -m bench.large_repository FOLDER`: write a large repository that has no contents.

It has the records, the layer indexes and the history of many images, but no files of images: what
the commands need that read only these (`list`, `find`, `stats`, `du`, `site`, …). The same numbers
always give the same repository.

Each image has a base that many images share, a runtime that ten images share, and a layer of its
own. Of ten files, three have a content that files of other layers have as well. Bases have the
packages of a distribution, and the other layers those of Python.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.synthetic import write_bytes, write_image
from publisher.entry import sort_key
from publisher.layers.index import IndexHeader, write_index
from publisher.oci.digest import digest_of
from publisher.packages.model import Database, Package, PackageType
from publisher.tree import layout
from publisher.tree.history import Change, Record
from publisher.tree.layer_packages import PackageRecord
from publisher.tree.origin import Origin

IMAGES_OF_A_RUNTIME = 10
_FIRST = datetime(2024, 1, 1, tzinfo=UTC)
_PERIOD = timedelta(days=700)
_FILES_OF_A_DIRECTORY = 50
_COMMON_CONTENTS = 100_000
_PACKAGES = {"base": 300, "runtime": 120, "own": 15}
"""How many packages the layers of each kind have, of which every third image has other versions."""

_OWNERS = ("astro", "bio", "chem", "geo", "physics", "")


@dataclass(frozen=True, slots=True)
class Numbers:
    """The size of the repository: of each image, `base` and `runtime` are shares of `entries`."""

    images: int = 2_000
    entries: int = 20_000
    bases: int = 40
    base: float = 0.6
    runtime: float = 0.25


def write_repository(root: Path, numbers: Numbers) -> None:
    """Write the repository into the empty or missing directory `root`."""
    writer = _Writer(root, numbers)
    for number in range(numbers.images):
        writer.write(number)
    writer.finish()


class _Writer:
    """Writes images one after the other, and at last the records of what they share."""

    def __init__(self, root: Path, numbers: Numbers) -> None:
        self._root = root
        self._numbers = numbers
        self._random = random.Random(0)
        common = self._random
        self._common = [
            (common.randbytes(32).hex(), _size(common)) for _ in range(_COMMON_CONTENTS)
        ]
        self._users: dict[str, set[str]] = {}
        self._history: list[Record] = []

    def write(self, number: int) -> None:
        """Write one image, and those of its layers that do not exist yet."""
        numbers = self._numbers
        base = round(numbers.entries * numbers.base)
        runtime = round(numbers.entries * numbers.runtime)
        at = number // IMAGES_OF_A_RUNTIME
        layers = [
            self._layer(f"base {at % numbers.bases}", "usr/lib", base),
            self._layer(f"runtime {at}", f"opt/runtime-{at}", runtime),
            self._layer(f"own {number}", f"srv/tool-{number}", numbers.entries - base - runtime),
        ]
        published_at = _FIRST + _PERIOD * (number / numbers.images)
        name = f"registry.example.org/{_OWNERS[at % 6] or 'misc'}/tool-{at}:{number % 10}"
        image_id = write_image(
            self._root,
            name,
            layers,
            published_at=published_at.replace(microsecond=0),
            wish_list=f"lists/{_OWNERS[at % 6] or 'misc'}-{at % 3}.yaml",
            owner=_OWNERS[at % 6],
        )
        for digest in layers:
            self._users.setdefault(digest, set()).add(image_id)
        self._history.append(
            Record(
                id=f"{number:08x}",
                time=published_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                user="publisher",
                host="images.example.org",
                pid=1,
                purpose=f"ingest of {name}",
                changes=(Change(name, "published", image_id),),
                paths={"trees": 2, "files": 5},
            )
        )

    def finish(self) -> None:
        """Write the records of the users of layers, and the history."""
        for digest, images in self._users.items():
            record = Origin(frozenset(images)).to_bytes()
            write_bytes(self._root, layout.layer_origin(digest), record)
        lines = [json.dumps(record.to_value()) + "\n" for record in self._history]
        write_bytes(self._root, f"{layout.STATE}/history.jsonl", "".join(lines).encode())

    def _layer(self, name: str, top: str, entries: int) -> str:
        """Return the digest of the layer `name`, with `entries` entries below `top`."""
        digest = digest_of(name.encode())
        if digest in self._users:
            return digest
        (self._root / layout.layer_tree(digest)).mkdir(parents=True)
        path = self._root / layout.layer_index(digest)
        path.parent.mkdir()
        contents = self._contents(random.Random(name))
        databases = tuple(_databases(name, top))
        directories, files = _lines(top, entries, contents, [each.path for each in databases])
        total = sum(size for _, size in files)
        lines = [line for group in directories for line in group]
        header = IndexHeader(
            digest=digest,
            diff_id=digest_of(digest.encode()),
            size=100,  # as in the manifest that `write_image` writes
            archive_size=total + 1024 * entries,
            entries=len(lines),
            content_size=total,
            files=len(files),
        )
        with path.open("wb") as file:
            write_index(file, header, lines)
        record = PackageRecord(digest, databases)
        write_bytes(self._root, layout.layer_packages(digest), record.to_bytes())
        self._users[digest] = set()
        return digest

    def _contents(self, source: random.Random) -> Iterator[tuple[str, int]]:
        """Yield digests and sizes of files without end; every third one is of the common ones."""
        while True:
            data = source.randbytes(32 * 7).hex()
            for at in range(0, len(data), 64):
                yield data[at : at + 64], _size(source)
            for _ in range(3):
                yield source.choice(self._common)


def _databases(name: str, top: str) -> Iterator[Database]:
    """Yield the package databases of the layer `name`: dpkg's for a base, else one per package."""
    kind, _, number = name.partition(" ")
    patch = int(number) % 17
    if kind == "base":
        names = ["openssl", *(f"lib{at:03}" for at in range(1, _PACKAGES[kind]))]
        packages = [Package(each, f"3.0.{patch}-1~deb12u2", "amd64") for each in names]
        yield Database("var/lib/dpkg/status", str(PackageType.DEB), tuple(sorted(packages)))
        return
    for at in range(_PACKAGES[kind]):
        found = Package(f"{kind}-{at:03}", f"1.{at}.{patch if at % 3 == 0 else 0}")
        path = f"{top}/lib/python3.11/site-packages/{found.name}.dist-info/METADATA"
        yield Database(path, str(PackageType.PYTHON), (found,))


def _size(source: random.Random) -> int:
    """Return a file size: most are a few kilobytes, some are megabytes."""
    return int(source.lognormvariate(7.5, 2))


def _lines(
    top: str, entries: int, contents: Iterator[tuple[str, int]], databases: Sequence[str]
) -> tuple[Sequence[Sequence[str]], Sequence[tuple[str, int]]]:
    """Return the encoded entries of a layer, by directory, and digest and size of its files.

    `databases` are further files, with directories of their own.
    """
    parts = top.split("/")
    above = ["/".join(parts[:count]) for count in range(len(parts) + 1)]
    groups = [[_directory(path) for path in above]]
    files: list[tuple[str, int]] = []
    rest = entries - len(above)
    while rest > 0:
        path = f"{top}/part-{len(groups):05}"
        count = min(rest - 1, _FILES_OF_A_DIRECTORY)
        here = [next(contents) for _ in range(count)]
        files += here
        groups.append(
            [
                _directory(path),
                *(
                    f'{{"path":"{path}/file-{at:03}.so","type":"f","mode":"0644","uid":0,"gid":0,'
                    f'"size":{size},"mtime_ns":1700000000000000000,"sha256":"{sha256}"}}'
                    for at, (sha256, size) in enumerate(here)
                ),
            ]
        )
        rest -= 1 + count
    # Below `top` they sort before "part-", and "var" sorts after the other directories at the top.
    place = 1 if databases[0].startswith(top) else len(groups)
    groups.insert(place, _database_lines(databases, above))
    return groups, files


def _database_lines(databases: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the encoded entries of these files, and of the directories above that are missing."""
    lines: dict[str, str] = {}
    for path in databases:
        parts = path.split("/")
        for count in range(1, len(parts)):
            above = "/".join(parts[:count])
            if above not in known:
                lines[above] = _directory(above)
        lines[path] = (
            f'{{"path":"{path}","type":"f","mode":"0644","uid":0,"gid":0,"size":100,'
            f'"mtime_ns":1700000000000000000,"sha256":"{hashlib.sha256(path.encode()).hexdigest()}"}}'
        )
    return [lines[path] for path in sorted(lines, key=sort_key)]


def _directory(path: str) -> str:
    return (
        f'{{"path":"{path}","type":"d","mode":"0755","uid":0,"gid":0,'
        '"mtime_ns":1700000000000000000}'
    )


def main() -> None:
    """Write the repository, and print how long that took."""
    parser = argparse.ArgumentParser(prog="bench.large_repository", description=__doc__)
    parser.add_argument("folder", type=Path, help="a directory that does not exist")
    usual = Numbers()
    parser.add_argument("--images", type=int, default=usual.images)
    parser.add_argument("--entries", type=int, default=usual.entries, help="of each image")
    parser.add_argument("--bases", type=int, default=usual.bases)
    parser.add_argument("--base", type=float, default=usual.base, help="share of the entries")
    parser.add_argument("--runtime", type=float, default=usual.runtime, help="likewise")
    given = parser.parse_args()
    begin = time.monotonic()
    numbers = Numbers(given.images, given.entries, given.bases, given.base, given.runtime)
    write_repository(given.folder, numbers)
    print(f"{given.images:,} images in {time.monotonic() - begin:.1f} s")


if __name__ == "__main__":
    main()
