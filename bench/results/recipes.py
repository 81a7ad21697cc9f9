"""The images that are measured: what each has above which other image.

An image is made as a Dockerfile would make it: `FROM` its parent, one layer for each step. So
images that have the same parent share its layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["debootstrap", "apt", "pip", "npm", "code", "script"]


@dataclass(frozen=True, slots=True)
class Step:
    """One layer.

    Attributes:
        kind: `debootstrap` installs the release `words[0]`; `apt` and `npm` install packages; `pip`
            installs wheels for the Python of the image; `code` copies the publisher's own package
            as it was after the fraction `words[0]` of its history; `script` runs a shell in the
            image.
    """

    kind: Kind
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """An image: its name and tag, its parent, its layers, and a command that prints "started"."""

    name: str
    parent: str
    steps: tuple[Step, ...]
    command: tuple[str, ...]

    @property
    def family(self) -> str:
        """The name without the tag: its images are versions of one another."""
        return self.name.partition(":")[0]


def _base(tag: str, release: str) -> Recipe:
    return Recipe(
        f"debian:{tag}", "", (Step("debootstrap", (release,)),), ("sh", "-c", "echo started")
    )


def _apt(name: str, parent: str, command: tuple[str, ...], *packages: str) -> Recipe:
    return Recipe(name, parent, (Step("apt", packages),), command)


def _pip(name: str, parent: str, code: str, *wheels: str) -> Recipe:
    return Recipe(name, parent, (Step("pip", wheels),), ("python3", "-c", code))


def _imports(*modules: str) -> str:
    return f"import {', '.join(modules)}; print('started')"


def _sh(command: str) -> tuple[str, ...]:
    return ("sh", "-c", f"{command} >/dev/null 2>&1; echo started")


_SCIENCE = _imports("numpy", "scipy.optimize", "pandas", "sklearn")
_HEP = _imports("uproot", "awkward", "iminuit")
_ANALYSIS = (
    "import sys; sys.path.insert(0, '/opt/analysis'); import publisher.errors, pandas;"
    " print('started')"
)
_PYTHON = ("python3", "-c", "print('started')")
_R = ("Rscript", "-e", "cat('started\\n')")
_TABLES = ("Rscript", "-e", "library(data.table); cat('started\\n')")
_NODE = ("node", "-e", "console.log('started')")
_EXPRESS = (*_NODE[:2], "require('/srv/app/node_modules/express'); console.log('started')")
_JAVA, _ANT = _sh("java -version"), _sh("ant -version")
_GCC = _sh("g++ --version")
_CASACORE, _WSCLEAN = _sh("showtableinfo"), _sh("wsclean -version")
_LIBRARIES = ("libeigen3-dev", "libgsl-dev", "libfftw3-dev", "libcfitsio-dev", "wcslib-dev")
_NUMPY = "numpy==2.2.6"
_MATPLOTLIB = ("matplotlib==3.10.6", _NUMPY)

RECIPES: tuple[Recipe, ...] = (
    _base("12", "bookworm"),
    _base("13", "trixie"),
    _base("sid", "sid"),
    _apt("python:3.11", "debian:12", _PYTHON, "python3"),
    _apt("python:3.13", "debian:13", _PYTHON, "python3"),
    *(
        _pip(f"numpy:{version[:-2]}", "python:3.11", _imports("numpy"), f"numpy=={version}")
        for version in ("1.26.4", "2.1.3", "2.2.6")
    ),
    *(
        _pip(
            f"science:{tag}",
            "python:3.11",
            _SCIENCE,
            *(f"numpy=={numpy}", f"scipy=={scipy}", f"pandas=={pandas}", f"scikit-learn=={learn}"),
        )
        for tag, numpy, scipy, pandas, learn in (
            ("2024", "1.26.4", "1.13.1", "2.2.2", "1.5.2"),
            ("2025a", "2.2.6", "1.15.3", "2.2.3", "1.6.1"),
            ("2025b", "2.2.6", "1.15.3", "2.3.1", "1.7.1"),
        )
    ),
    *(
        Recipe(
            f"analysis:{tag}",
            "science:2025a",
            (Step("code", (share,)),),
            ("python3", "-c", _ANALYSIS),
        )
        for tag, share in (("1.0", "0.50"), ("1.1", "0.75"), ("1.2", "0.95"))
    ),
    *(
        _pip(
            f"hep:{tag}",
            "numpy:2.2",
            _HEP,
            *(f"uproot=={uproot}", f"awkward=={awkward}", f"iminuit=={iminuit}", _NUMPY),
        )
        for tag, uproot, awkward, iminuit in (
            ("1", "5.5.0", "2.7.1", "2.30.1"),
            ("2", "5.6.0", "2.8.1", "2.31.1"),
            ("3", "5.6.3", "2.8.5", "2.31.1"),
        )
    ),
    _pip("fastjet:3.4", "hep:3", _imports("fastjet"), "fastjet==3.4.3.1", _NUMPY),
    *(
        _pip(f"astropy:{tag}", "numpy:2.2", _imports("astropy.table"), f"astropy=={tag}", _NUMPY)
        for tag in ("6.1.7", "7.0.2", "7.1.1")
    ),
    _pip("matplotlib:3.10", "numpy:2.2", _imports("matplotlib.pyplot"), *_MATPLOTLIB),
    _pip("plots:3.10", "python:3.13", _imports("matplotlib.pyplot"), *_MATPLOTLIB),
    _apt("gcc:12", "debian:12", _GCC, "g++", "make"),
    _apt("gcc:14", "debian:13", _GCC, "g++", "make"),
    _apt("libraries:12", "gcc:12", _GCC, *_LIBRARIES),
    _apt("libraries:14", "gcc:14", _GCC, *_LIBRARIES),
    _apt("boost:12", "gcc:12", _GCC, "libboost-dev", "libboost-filesystem-dev"),
    _apt("casacore:12", "debian:12", _CASACORE, "casacore-tools"),
    _apt("casacore:13", "debian:13", _CASACORE, "casacore-tools"),
    _apt("wsclean:12", "casacore:12", _WSCLEAN, "wsclean"),
    _apt("samtools:12", "debian:12", _sh("samtools --version"), "samtools", "bcftools"),
    _apt("r:4.2", "debian:12", _R, "r-base-core"),
    _apt("r:4.5", "debian:13", _R, "r-base-core"),
    _apt("r-tables:4.2", "r:4.2", _TABLES, "r-cran-data.table", "r-cran-ggplot2"),
    _apt("node:18", "debian:12", _NODE, "nodejs"),
    _apt("node:20", "debian:13", _NODE, "nodejs"),
    *(
        Recipe(
            f"web:{version}",
            "node:18",
            (Step("npm", (f"express@{version}", "lodash@4.17.21")),),
            _EXPRESS,
        )
        for version in ("4.18.2", "4.21.2", "5.1.0")
    ),
    _apt("java:17", "debian:12", _JAVA, "default-jre-headless"),
    _apt("java:21", "debian:13", _JAVA, "default-jre-headless"),
    _apt("ant:17", "java:17", _ANT, "ant"),
)
