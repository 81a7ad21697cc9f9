"""The wheel and the source archive: complete, the same from both, and installable."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

from tests.components import require, run

ROOT = Path(__file__).parents[2]


def build(source: Path, target: Path, *kinds: str) -> list[Path]:
    words = [word for kind in kinds for word in ("--target", kind)]
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(target), *words]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return sorted(target.iterdir())


def contents_of(wheel: Path) -> dict[str, list[bytes]]:
    """The files of a wheel as sorted lines: the list of files has the order of the directory."""
    with zipfile.ZipFile(wheel) as opened:
        return {name: sorted(opened.read(name).splitlines()) for name in opened.namelist()}


def test_wheel_and_source_archive_are_complete_and_can_be_installed(tmp_path: Path) -> None:
    require("git")
    archive, wheel = sorted(
        build(ROOT, tmp_path / "dist", "sdist", "wheel"), key=lambda path: path.suffix
    )
    expected = set()
    for path in run("git", "-C", ROOT, "ls-files", "publisher").split():
        place = ROOT / path  # a link to a directory becomes a directory
        expected |= (
            {f"{path}/{each.name}" for each in place.iterdir()} if place.is_dir() else {path}
        )
    contents = contents_of(wheel)
    assert {name for name in contents if name.startswith("publisher/")} == expected
    assert any(name.endswith("licenses/LICENSE") for name in contents)

    with tarfile.open(archive) as sources:
        sources.extractall(tmp_path / "sources", filter="data")
    (unpacked,) = (tmp_path / "sources").iterdir()
    (again,) = build(unpacked, tmp_path / "again", "wheel")
    assert again.name == wheel.name
    assert contents_of(again) == contents

    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin/python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--disable-pip-version-check", wheel)
    library = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(library) / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    printed = run(environment / "bin/publisher", "--version", cwd=tmp_path)
    assert printed.startswith(f"publisher {wheel.name.split('-')[1]} ")
    imported = run(python, "-c", "import publisher; print(publisher.__file__)", cwd=tmp_path)
    assert imported.startswith(library)
    assert (environment / "bin/publisher-oci-runtime").exists()
