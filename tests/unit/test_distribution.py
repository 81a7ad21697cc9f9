"""The wheel and the source archive: complete, reproducible, installable, with their version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from docs.handbook.share import COMPLETIONS, write_share
from tests.components import require, run

ROOT = Path(__file__).parents[2]


VERSION = {"SETUPTOOLS_SCM_PRETEND_VERSION": "1.2.3"}
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")


def build(source: Path, target: Path, *kinds: str, version: Mapping[str, str] = VERSION) -> Path:
    """Build into `target`; returns the only file there if it has one."""
    words = [word for kind in kinds for word in ("--target", kind)]
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(target), *words]
    environment = {**os.environ, **version}
    subprocess.run(command, cwd=source, check=True, capture_output=True, env=environment)
    return next(iter(target.iterdir()))


def copied(target: Path) -> Path:
    """A copy of the files that git has, made in another order."""
    for name in reversed(run("git", "-C", ROOT, "ls-files", "-z").split("\0")[:-1]):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name, follow_symlinks=False)
    return target


def test_wheel_and_source_archive_are_complete_and_can_be_installed(tmp_path: Path) -> None:
    require("git")
    source = copied(tmp_path / "copy")
    archive = build(source, tmp_path / "sdist", "sdist")
    wheel = build(source, tmp_path / "wheel", "wheel")
    expected = set()
    for path in run("git", "-C", ROOT, "ls-files", "publisher").split():
        place = ROOT / path  # a link to a directory becomes a directory
        expected |= (
            {f"{path}/{each.name}" for each in place.iterdir()} if place.is_dir() else {path}
        )
    with zipfile.ZipFile(wheel) as opened:
        contents = opened.namelist()
    assert {name for name in contents if name.startswith("publisher/")} == expected
    assert any(name.endswith("licenses/LICENSE") for name in contents)

    with tarfile.open(archive) as sources:
        sources.extractall(tmp_path / "sources", filter="data")
    (unpacked,) = (tmp_path / "sources").iterdir()
    for kind, first in (("wheel", wheel), ("sdist", archive)):
        again = build(unpacked, tmp_path / f"again-{kind}", kind, version={})  # that of PKG-INFO
        assert again.name == first.name
        assert again.read_bytes() == first.read_bytes()

    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin/python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--disable-pip-version-check", wheel)
    library = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(library) / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    printed = run(environment / "bin/publisher", "--version", cwd=tmp_path)
    assert printed.startswith("publisher 1.2.3 ")
    imported = run(python, "-c", "import publisher; print(publisher.__file__)", cwd=tmp_path)
    assert imported.startswith(library)
    assert (environment / "bin/publisher-oci-runtime").exists()


def version_of(source: Path) -> str:
    return str(ProjectMetadata(str(source), PluginManager()).version)


def test_the_version_is_that_of_the_tag_or_of_the_commit_after_it(tmp_path: Path) -> None:
    require("git", "tar")
    source, unpacked = tmp_path / "source", tmp_path / "unpacked"
    source.mkdir()
    for name in ("pyproject.toml", ".git_archival.txt", ".gitattributes"):
        shutil.copy(ROOT / name, source / name)
    assert version_of(source) == "0.0"
    run(*GIT, "init", "--quiet", cwd=source)
    run(*GIT, "add", ".", cwd=source)
    run(*GIT, "commit", "--quiet", "--message=1", cwd=source)
    assert re.fullmatch(r"0\.1\.dev1\+g[0-9a-f]+", version_of(source))
    run(*GIT, "tag", "v1.2.3", cwd=source)
    assert version_of(source) == "1.2.3"
    unpacked.mkdir()
    run(*GIT, "archive", "--output", tmp_path / "archive.tar", "HEAD", cwd=source)
    run("tar", "-xf", tmp_path / "archive.tar", "-C", unpacked)
    assert version_of(unpacked) == "1.2.3"
    run(*GIT, "commit", "--quiet", "--allow-empty", "--message=2", cwd=source)
    assert re.fullmatch(r"1\.2\.4\.dev1\+g[0-9a-f]+", version_of(source))


def test_man_pages_and_completion_scripts_become_files_of_the_wheel(tmp_path: Path) -> None:
    (tmp_path / "man").mkdir()
    (tmp_path / "man/publisher.1").write_text("page")
    source = copied(tmp_path / "copy")
    write_share(tmp_path / "man", source / "build/share")
    wheel = build(source, tmp_path / "wheel", "wheel")
    with zipfile.ZipFile(wheel) as opened:
        data = {name.partition(".data/data/share/")[2] for name in opened.namelist()} - {""}
        script = opened.read("publisher-1.2.3.data/data/share/" + COMPLETIONS["bash"])
    assert data == {"man/man1/publisher.1", *COMPLETIONS.values()}
    assert b"complete" in script and b"publisher" in script
