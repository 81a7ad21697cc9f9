"""Versions are ordered as by their package managers, and searches match by that order."""

from __future__ import annotations

import random
import subprocess

import pytest

from publisher.packages.model import Package, PackageType
from publisher.packages.query import InvalidQuery, PackageQuery
from publisher.packages.versions import compare
from tests.components import program, require
from tests.package_databases import run

DPKG = ["0", "1", "2", "10", "01", "009", "a", "b", "rc1", "~", "~~", ".", "..", "+", "-1", "Z"]
RPM = [*DPKG, "^", "^git1", "_", ":", "é"]
COMPARISONS = 60


def random_pairs(parts: list[str], seed: int) -> list[tuple[str, str]]:
    """Pairs of versions, which often differ in one part only."""
    source = random.Random(seed)
    pairs = []
    for _ in range(COMPARISONS):
        one = ["1", *source.choices(parts, k=source.randint(0, 5))]
        other = list(one)
        other[source.randrange(1, len(one) + 1) :] = source.choices(parts, k=source.randint(0, 3))
        pairs.append(("".join(one), "".join(other)))
    return pairs


def test_dpkg_orders_versions_alike() -> None:
    require("dpkg")
    for one, other in random_pairs(DPKG, 1):
        for first, second in ((one, other), (f"1:{one}", f"1:{other}"), (one, f"1:{other}")):
            order = compare(PackageType.DEB, first, second)
            relation = {-1: "lt", 0: "eq", 1: "gt"}[order]
            command = [program("dpkg"), "--compare-versions", first, relation, second]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, (first, relation, second, done.stderr)


def test_rpm_orders_versions_alike() -> None:
    require("rpm")
    pairs = random_pairs(RPM, 2)
    script = "".join(f"print(rpm.vercmp([[{one}]], [[{other}]])..' ')" for one, other in pairs)
    printed = run(program("rpm"), "--eval", f"%{{lua: {script}}}").split()
    assert [str(compare(PackageType.RPM, *pair)) for pair in pairs] == printed
    assert compare(PackageType.RPM, "1:1-1", "2-1") == 1
    assert compare(PackageType.RPM, "1-2", "1-10") == -1


@pytest.mark.parametrize(
    ("kind", "ascending"),
    [
        # The examples of apk-tools' tests.
        (
            "apk",
            "1_alpha 1_alpha2 1_beta 1_rc1 1 1-r1 1_git1 1_p1 1_p1-r1 1a 1b 1.0 1.01 1.1 1.1.1 2",
        ),
        # The example in the documentation of conda's VersionOrder.
        (
            "conda",
            "0.4 0.4.1.rc 0.4.1 0.5a1 0.5b3 0.5C1 0.5 0.9.6 0.960923 1.0 1.1dev1 1.1_ 1.1a1 "
            "1.1.0dev1 1.1.a1 1.1.0rc1 1.1.0 1.1.0post1 1.1post1 1996.07.12 "
            "1!0.4.1 1!3.1.1.6 2!0.4.1",
        ),
        ("conda", "1.0.1_ 1.0.1a 1.0.1b"),
        ("conda", "1.0 1.0+1 1.0+2.a"),
        ("pypi", "1.dev1 1a1 1rc1 1 1.post1 1!0"),
        # Semantic Versioning 2.0.0, 11.
        (
            "npm",
            "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 "
            "1.0.0-rc.1 1.0.0 1.0.1 1.10 2",
        ),
        ("cran", "1.0 1.0-1 1.0.2 1.2 1.10"),
    ],
)
def test_versions_are_in_the_documented_order(kind: str, ascending: str) -> None:
    versions = ascending.split()
    for number, one in enumerate(versions):
        for other_number, other in enumerate(versions):
            expected = (number > other_number) - (number < other_number)
            assert compare(PackageType(kind), one, other) == expected, (one, other)


def test_versions_that_are_equal_and_versions_that_are_not_valid() -> None:
    for kind, one, other in (
        ("conda", "0.4", "0.4.0"),
        ("conda", "0.5C1", "0.5c1"),
        ("pypi", "1.0", "1.0.0"),
        ("npm", "v1.0.0+a", "1.0.0+b"),
        ("cran", "1.0-1", "1.0.1"),
        ("apk", "1.0~abc", "1.0"),
    ):
        assert compare(PackageType(kind), one, other) == 0, (kind, one, other)
    for kind in PackageType:
        for odd in ("", "²", "a b", "1..!+", "1" * 4000, "._-"):
            assert compare(kind, odd, odd) == 0
            assert compare(kind, odd, "5") == -compare(kind, "5", odd)


def test_queries_match_names_sources_and_versions() -> None:
    openssl = Package("libssl3", "1:3.0.11-1~deb12u2", "amd64", "openssl")
    rpm = Package("openssl-libs", "1:3.0.7-2.el9", "x86_64", "openssl-3.0.7-2.el9.src.rpm")
    for text, kind, package in (
        ("openssl<3.0.15", PackageType.DEB, openssl),
        ("libssl3 = 3.0.11", PackageType.DEB, openssl),
        ("deb:lib*>=1:3.0.11-1~deb12u2,<3.1", PackageType.DEB, openssl),
        ("openssl", PackageType.RPM, rpm),
        ("openssl==3.0.7", PackageType.RPM, rpm),
        ("pypi:Ruamel_Yaml>1", PackageType.PYTHON, Package("ruamel.yaml", "1.1")),
        ("torch=2.1", PackageType.PYTHON, Package("torch", "2.1+cpu")),
        ("musl<=1.2.4", PackageType.APK, Package("musl", "1.2.4-r2")),
        ("@scope/*", PackageType.NPM, Package("@scope/a", "1")),
    ):
        assert PackageQuery.parse(text).matches(kind, package), text
    for text in (
        "openssl<3.0.11",
        "openssl!=3.0.11",
        "openssl>3.0.11",
        "rpm:openssl",
        "ssl",
        "openssl<3.0.11-1~deb12u2",
    ):
        assert not PackageQuery.parse(text).matches(PackageType.DEB, openssl), text
    assert not PackageQuery.parse("debian").matches(PackageType.OS, Package("debian", "12"))
    for text in ("", "<1", "a<", "a<1 2", "a<1,", "a b", "gem:a<", "a" * 5000):
        with pytest.raises(InvalidQuery):
            PackageQuery.parse(text)
    for text, why in (("python:numpy", "deb, apk, rpm, pypi"), ("numpy~=2.2", "there is no ~=")):
        with pytest.raises(InvalidQuery, match=why):
            PackageQuery.parse(text)
