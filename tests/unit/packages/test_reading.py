"""Package databases are read as their package managers read them, and hostile ones are skipped."""

from __future__ import annotations

import importlib.metadata
import io
import json
import re
import sqlite3
import struct
import sysconfig
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.packages.model import MOST_CHARACTERS, MOST_PACKAGES, Database, Package
from publisher.packages.places import place_of
from publisher.packages.reading import combine, read_database
from tests.components import program, require
from tests.package_databases import APK, dpkg_database, ndb, rpm_database, rpm_headers, run

STATUS = "var/lib/dpkg/status"
RPM = "usr/lib/sysimage/rpm/rpmdb.sqlite"
NDB = "usr/lib/sysimage/rpm/Packages.db"
INSTALLED = "lib/apk/db/installed"


def read(path: str, content: bytes) -> Database | None:
    place = place_of(path)
    assert place is not None, path
    head = content[: place.limit] if place.head else content
    return read_database(path, place, len(content), io.BytesIO(head))


def packages(path: str, content: bytes) -> tuple[Package, ...]:
    found = read(path, content)
    assert found is not None
    assert not found.skipped
    return found.packages


def why(path: str, content: bytes) -> str:
    found = read(path, content)
    assert found is not None
    return found.skipped


def test_dpkg_lists_the_same_packages(tmp_path: Path) -> None:
    require("dpkg", "dpkg-deb", "dpkg-query")
    database = dpkg_database(tmp_path, [("liba", "1:2.0~rc1-1"), ("tool", "3"), ("gone", "1")])
    found = packages(STATUS, (database / "status").read_bytes())
    form = "${db:Status-Status} ${Package} ${Version} ${Architecture} ${source:Package}\n"
    listed = run(program("dpkg-query"), f"--admindir={database}", "-W", f"-f={form}").splitlines()
    assert "config-files gone 1 all src-gone" in listed
    assert [f"installed {p.name} {p.version} {p.architecture} {p.source}" for p in found] == [
        line for line in listed if line.startswith("installed ")
    ]
    # Distroless images have a file for each package, without a status.
    single = b"Package: base-files\nVersion: 11.1\nArchitecture: amd64\n"
    assert packages(f"{STATUS}.d/base", single) == (Package("base-files", "11.1", "amd64"),)
    assert place_of(f"{STATUS}.d/base.md5sums") is None


def test_rpm_lists_the_same_packages_in_both_formats(tmp_path: Path) -> None:
    require("rpm", "rpmbuild")
    database = rpm_database(tmp_path, [("liba", "1.2~rc1", "3", 2), ("tool", "4", "1.el9", None)])
    found = packages(RPM, database.read_bytes())
    form = "%{NAME} %{EVR} %{ARCH} %{SOURCERPM}\n"
    listed = run(program("rpm"), "--dbpath", database.parent, "-qa", "--qf", form).splitlines()
    assert [f"{p.name} {p.version} {p.architecture} {p.source}" for p in found] == sorted(listed)
    headers = rpm_headers(database)
    assert packages(NDB, ndb(headers)) == found
    assert "Berkeley DB" in why("var/lib/rpm/Packages", b"x")
    assert "may be missing" in why(f"{RPM}-wal", b"x")
    assert read(f"{RPM}-wal", b"") is None

    refused = {
        "it is not a database of SQLite": headers[0],
        "it has no table Packages": _sqlite("CREATE VIEW Packages AS SELECT x'00' AS blob"),
        "a header is not a blob": _sqlite(
            "CREATE TABLE Packages (hnum, blob); INSERT INTO Packages VALUES (1, 'text')"
        ),
        "a header is too short": _sqlite(
            "CREATE TABLE Packages (hnum, blob); INSERT INTO Packages VALUES (1, x'00')"
        ),
        "a column of the table Packages is computed": _sqlite(
            "CREATE TABLE Packages (n, blob GENERATED ALWAYS AS (zeroblob(9)) VIRTUAL);"
            "INSERT INTO Packages VALUES (1)"
        ),
    }
    for reason, content in refused.items():
        assert reason in why(RPM, content)
    # A changed, a truncated, and a lying database end with a reason, or with what is left of it.
    whole = database.read_bytes()
    for broken in (whole[:9000], whole[:200] + bytes(8000) + whole[8200:]):
        assert why(RPM, broken)
    assert "damaged" in why(NDB, ndb(headers).replace(b"Slot", b"Slut", 1))
    assert "not in its place" in why(NDB, ndb(headers).replace(b"BlbS", b"BlbX", 1))
    assert "too many slots" in why(NDB, struct.pack("<4sIIII", b"RpmP", 0, 1, 2**31, 1))
    # All slots name one header.
    shared = ndb(headers)
    slots = [shared[at : at + 16] for at in range(32, 4096, 16)]
    again = shared[:32] + slots[0] * len(slots) + shared[4096:]
    assert "more bytes than the file" in why(NDB, again)
    assert "larger than its place" in why(NDB, ndb([struct.pack(">II", 2**30, 2**30)]))


def _sqlite(script: str) -> bytes:
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(script)
        database.commit()
        return bytes(database.serialize())


def test_apk_lists_the_same_packages_as_its_documented_format() -> None:
    assert packages(INSTALLED, APK) == (
        Package("libcrypto3", "3.1.4-r5", "x86_64", "openssl"),
        Package("musl", "1.2.4_git20230717-r4", "x86_64"),
    )
    assert packages(f"usr/{INSTALLED}", APK) == packages(INSTALLED, APK)


def test_python_distributions_are_those_that_python_lists() -> None:
    site = Path(sysconfig.get_path("purelib"))
    found = set()
    for file in site.glob("*.dist-info/METADATA"):
        relative = f"usr/lib/python3/site-packages/{file.relative_to(site)}"
        found |= set(packages(relative, file.read_bytes()))
    listed = importlib.metadata.distributions(path=[str(site)])
    assert found == {Package(each.metadata["Name"], each.version) for each in listed}
    assert len(found) > 20


def test_conda_r_npm_and_the_distribution() -> None:
    conda = {"name": "numpy", "version": "1.2", "build": "py_0", "subdir": "linux-64"}
    conda["channel"] = "https://user:secret@conda.example.org/t/token/conda-forge/linux-64"
    (package,) = packages("opt/conda/conda-meta/numpy.json", json.dumps(conda).encode())
    assert package == Package("numpy", "1.2", "linux-64", "", "py_0", "conda-forge")
    assert read("opt/conda/envs/a/conda-meta/numpy.json", b'{"name": 1}') is not None
    description = b"Package: jsonlite\nVersion: 1.8-7\nBuilt: R 4.2; ; unix\n"
    assert packages("usr/lib/R/library/jsonlite/DESCRIPTION", description) == (
        Package("jsonlite", "1.8-7"),
    )
    assert read("usr/lib/R/library/jsonlite/DESCRIPTION", b"Package: a\nVersion: 1\n") is None
    npm = b'{"name": "@scope/tool", "version": "2.0.0"}'
    path = "usr/local/lib/node_modules/@scope/tool/package.json"
    assert packages(path, npm) == (Package("@scope/tool", "2.0.0"),)
    release = b'# c\nID=debian\nVERSION_ID="12"\nBAD=\'x\n'
    assert packages("usr/lib/os-release", release) == (Package("debian", "12"),)
    assert packages("etc/os-release", b"ID=arch\n") == (Package("arch", "rolling"),)


def test_only_installed_packages_are_databases() -> None:
    for path in (
        "opt/conda/pkgs/numpy-1.2/lib/python3.9/site-packages/numpy-1.2.dist-info/METADATA",
        "usr/local/lib/node_modules/a/node_modules/b/package.json",
        "srv/app/package.json",
        "usr/lib/python3/site-packages/setuptools/_vendor/a.dist-info/METADATA",
        "srv/lib/apk/db/installed",
        "srv/var/lib/dpkg/status",
        "home/DESCRIPTION",
        "etc/Packages",
    ):
        assert place_of(path) is None, path
    for path in ("usr/lib/python3/dist-packages/six-1.16.0.egg-info", "site-packages/a.egg-info"):
        assert place_of(path) is not None, path


def test_databases_that_are_malformed_or_too_large_are_skipped_with_a_reason() -> None:
    conda = "opt/conda/conda-meta/a.json"
    assert "not JSON" in why(conda, b"[" * 100_000)
    assert "not a JSON object" in why(conda, b"[1]")
    assert "not JSON" in why(conda, b"\xff\xfe")
    place = place_of(conda)
    assert place is not None
    large = read_database(conda, place, place.limit + 1, io.BytesIO())
    assert large is not None
    assert large.skipped == f"it has more than {place.limit} bytes"
    many = b"Package: a\nVersion: 1\n\n" * (MOST_PACKAGES + 1)
    assert why(STATUS, many) == f"it has more than {MOST_PACKAGES} packages"
    mixed = read(STATUS, b"Package: a\nVersion: 1\n\nPackage: b\n\nVersion: 1\n\n" + b"P" * 70_000)
    assert mixed is not None
    assert mixed.packages == (Package("a", "1"),)
    assert mixed.skipped.startswith("2 packages without a name and version")
    long = read(STATUS, b"Package: a\nVersion: " + b"1" * 5000)
    assert long is not None
    assert long.packages == ()
    assert long.skipped.startswith("1 packages")
    each = Database("a", "deb", (Package("a", "1"),) * (MOST_PACKAGES - 1))
    combined = combine([each, Database("c", "deb", (Package("a", "1"),) * 2), each])
    assert [database.path for database in combined.databases] == ["a"]
    assert re.search("more than .* packages", combined.skipped)


def test_databases_of_a_layer_beyond_its_limits_are_not_read() -> None:
    text = "x" * 4096
    package = Package(text, text, text, text, text, text)
    large = Database("a", "deb", (package,) * (MOST_CHARACTERS // len(text) // 6))
    databases = iter([large] * 3)
    combined = combine(databases)
    assert combined.databases == (large,)
    assert combined.skipped.startswith("the texts of its packages have more than")
    assert list(databases) == [large]


@pytest.mark.parametrize("path", [STATUS, INSTALLED, RPM, NDB, "etc/os-release"])
@given(data=st.binary(max_size=200))
def test_no_bytes_end_in_an_error(path: str, data: bytes) -> None:
    for content in (data, b"SQLite format 3\0" + data, b"RpmP" + bytes(8) + b"\1" + data):
        found = read(path, content)
        assert found is None or isinstance(found.packages, tuple)
