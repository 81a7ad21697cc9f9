"""Builds images as a Dockerfile would: each step changes a root directory by one layer.

The root is an overlay of the layers below, in a mount namespace that ends with the step. umoci puts
the layers together, so that images with the same parent share its blobs.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.results.recipes import Recipe, Step
from bench.results.state import ROOT, progress
from tests.components import program, require_mounts, run
from tests.debian import install_debian

_IN_THE_ROOT = r"""
set -e
mount --make-rprivate /
root=$1 apt=$2 lower=$3 upper=$4 work=$5 script=$6
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$upper,workdir=$work" "$root"
mount -t proc proc "$root/proc"
if [ -e "$root/etc/resolv.conf" ] && [ -e /etc/resolv.conf ]; then
  mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
fi
if [ -d "$root/var/cache/apt" ]; then
  mkdir -p "$apt/lists" "$apt/cache"
  mount --bind "$apt/lists" "$root/var/lib/apt/lists"
  mount --bind "$apt/cache" "$root/var/cache/apt"
fi
unset TMPDIR
chroot "$root" sh -ec "$script"
"""

_APT = """
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
options='-o APT::Sandbox::User=root -o DPkg::Options::=--force-unsafe-io'
mkdir -p /var/cache/apt/archives/partial
apt-get install -qq --yes --no-install-recommends $options {packages} >/dev/null
rm -rf /var/log/apt /var/log/*.log /var/cache/debconf/*-old
"""

_UPDATE = """
ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1 && exit
apt-get -qq -o APT::Sandbox::User=root update
"""

_COMPILE = "python3 -m compileall -q {place} || true"  # some packages have files for other versions


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds into an OCI layout; the layers' directories are kept for the images above them.

    Two must not have the same folder.
    """

    folder: Path

    @property
    def layout(self) -> Path:
        """The OCI layout, which has each image as a tag: its name with "-" for ":"."""
        return self.folder / "layout"

    def source(self, recipe: Recipe) -> str:
        """Return the reference of a built image, for skopeo."""
        return f"oci:{self.layout}:{_tag(recipe.name)}"

    def build(self, recipe: Recipe, parents: Sequence[Recipe]) -> None:
        """Build one image, unless it is built already, above its built parents, lowest first."""
        done = self.folder / "built" / _tag(recipe.name)
        if done.exists():
            return
        require_mounts()
        if not self.layout.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            run(program("umoci"), "init", "--layout", self.layout)
        image = f"{self.layout}:{_tag(recipe.name)}"
        if recipe.parent:
            run(
                *(program("umoci"), "tag", "--image", f"{self.layout}:{_tag(recipe.parent)}"),
                _tag(recipe.name),
            )
        else:
            run(program("umoci"), "new", "--image", image)
        below = [self._layer(p, n) for p in parents for n in range(len(p.steps))]
        for number, step in enumerate(recipe.steps):
            progress(f"  {recipe.name}: {step.kind} {' '.join(step.words)}")
            layer = self._layer(recipe, number)
            self._make(step, layer, below, release_of(recipe, parents))
            archive = self.folder / "layer.tar"
            write_archive(layer, archive)
            created_by = f"{step.kind} {' '.join(step.words)}"
            run(
                *(program("umoci"), "raw", "add-layer", "--image", image),
                *("--history.created_by", created_by, archive),
            )
            archive.unlink()
            below.append(layer)
        config = [word for each in recipe.command for word in ("--config.cmd", each)]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        run(
            *(program("umoci"), "config", "--image", image, "--no-history", "--clear=config.cmd"),
            *("--config.env", path, *config),
        )
        done.parent.mkdir(exist_ok=True)
        done.touch()

    def begin_with(self, other: Builder) -> None:
        """Have what another builder has built, unless this one has built something."""
        if not self.folder.exists():
            new = self.folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            # What is in a layer does not change any more, so that links suffice.
            run("cp", "-a", "--link", other.folder / "layers", "-t", _made(new))
            run(
                "cp", "-a", *(other.folder / name for name in ("layout", "built", "apt")), "-t", new
            )
            new.rename(self.folder)

    def update_lists(self, base: Recipe) -> None:
        """Fetch the lists of packages for the release of a base."""
        layer = self.folder / "layers/lists"
        self._make(Step("script", (_UPDATE,)), layer, [self._layer(base, 0)], release_of(base, []))
        shutil.rmtree(layer)

    def forget(self) -> None:
        """Remove what is needed to build only: the directories of layers, caches, the layout."""
        for name in ("layers", "apt", "layout", "root"):
            if (self.folder / name).exists():
                shutil.rmtree(self.folder / name)

    def _layer(self, recipe: Recipe, number: int) -> Path:
        return self.folder / "layers" / f"{_tag(recipe.name)}-{number}"

    def _make(self, step: Step, layer: Path, below: Sequence[Path], release: str) -> None:
        if layer.exists():
            shutil.rmtree(layer)  # an interrupted run left it
        layer.mkdir(parents=True)
        match step.kind:
            case "debootstrap":
                install_debian(layer, release=step.words[0])
            case "apt":
                packages = shlex.join(step.words)
                self._in_root(_APT.format(packages=packages), layer, below, release)
            case "pip":
                place = _install_wheels(layer, below, step.words)
                self._in_root(_COMPILE.format(place=place), layer, below, release)
            case "npm":
                _npm(layer / "srv/app", step.words)
            case "code":
                _export_code(layer / "opt/analysis", float(step.words[0]))
                place = "/opt/analysis/publisher"
                self._in_root(_COMPILE.format(place=place), layer, below, release)
            case "script":
                self._in_root(step.words[0], layer, below, release)
        os.sync()

    def _in_root(self, script: str, layer: Path, below: Sequence[Path], release: str) -> None:
        """Run a script in the root of `below`, so that what it changes is in `layer`."""
        root, work = self.folder / "root", self.folder / "work"
        if work.exists():
            shutil.rmtree(work)
        for directory in (root, work):
            directory.mkdir(exist_ok=True)
        lower = ":".join(map(str, reversed(below)))
        words = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _IN_THE_ROOT)
        apt = self.folder / "apt" / release
        run(*words, "sh", root, apt, lower, layer, work, script)
        shutil.rmtree(work)


def release_of(recipe: Recipe, parents: Sequence[Recipe]) -> str:
    """Return the Debian release that an image has, or "" if it has none."""
    steps = [step for each in (*parents, recipe) for step in each.steps]
    return next((step.words[0] for step in steps if step.kind == "debootstrap"), "")


def write_archive(layer: Path, archive: Path) -> None:
    """Write the changes in an overlay's upper directory as the archive of a layer.

    What overlayfs marks as removed becomes a whiteout.
    """
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as written:
        for folder, directories, files in os.walk(layer):
            directories.sort()
            relative = Path(folder).relative_to(layer)
            if relative != Path():
                written.add(folder, str(relative), recursive=False)
            if _is_opaque(folder):
                _add_marker(written, relative / ".wh..wh..opq")
            links = [name for name in directories if (Path(folder) / name).is_symlink()]
            for name in sorted((*files, *links)):
                path = Path(folder) / name
                status = path.lstat()
                if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                    _add_marker(written, relative / f".wh.{name}")
                elif not stat.S_ISSOCK(status.st_mode):
                    written.add(path, str(relative / name), recursive=False)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _is_opaque(folder: str) -> bool:
    try:
        return os.getxattr(folder, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def _add_marker(written: tarfile.TarFile, name: Path) -> None:
    member = tarfile.TarInfo(str(name))
    member.mode = 0o644
    written.addfile(member)


def _tag(name: str) -> str:
    return name.replace(":", "-")


def _install_wheels(layer: Path, below: Sequence[Path], wheels: Sequence[str]) -> str:
    """Install wheels for the image's Python where Debian's pip does; return the place."""
    found = sorted(path.name for each in below for path in each.glob("usr/bin/python3.?*"))
    version = next(name.removeprefix("python") for name in found if name[9:].isdigit())
    place = f"/usr/local/lib/python{version}/dist-packages"
    platforms = [
        word
        for tag in ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
        for word in ("--platform", f"{tag}_{platform.machine()}")
    ]
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"),
        *("--target", layer / place[1:], "--only-binary", ":all:", "--python-version", version),
        *(*platforms, *wheels),
    )
    return place


def _npm(place: Path, packages: Sequence[str]) -> None:
    place.mkdir(parents=True)
    (place / "package.json").write_text('{"name": "app", "version": "1.0.0", "private": true}\n')
    run(program("npm"), "install", "--silent", "--ignore-scripts", "--prefix", place, *packages)


def _export_code(place: Path, share: float) -> None:
    """Write the publisher's package as it was after that share of the commits."""
    place.mkdir(parents=True)
    git = ("git", "-C", str(ROOT))
    commits = run(*git, "rev-list", "--first-parent", "--reverse", "HEAD", "--", "publisher")
    listed = commits.split()
    chosen = listed[min(int(len(listed) * share), len(listed) - 1)]
    archive = subprocess.run(
        [*git, "archive", "--format=tar", chosen, "publisher"], stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-xC", place], input=archive.stdout, check=True)
