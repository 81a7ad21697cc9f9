"""A real image: Debian, then Python, then numpy, with what upper layers delete and replace."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from publisher.oci.descriptor import Descriptor
from tests.components import program, require, require_mounts, run, skopeo_copy, unmount_below
from tests.debian import MACHINE_FILES, cached, install_debian
from tests.layer_builder import Layer

RECIPE = 2  # count up with every change below: images built by an older recipe are built again

BULK = ("usr/share/info", "usr/share/locale", "usr/share/man")
"""A third of the files of Debian, which are all alike: each test of the images is quicker so."""

PACKAGES = "/usr/lib/python3/dist-packages"
CHECK_NUMPY = "import numpy; print(numpy.arange(10).reshape(2, 5).sum())"
"""A Python program that only works, and prints 45, if numpy and all its libraries are whole."""

_PYTHON = """
FROM base
RUN apt-get update && apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/*
"""

# Deletes files and directories, puts each of file, directory and link in the place of another,
# changes a lower directory's mode, and empties and refills a directory (an opaque one).
_NUMPY = f"""
FROM python
COPY site {PACKAGES}
RUN rm -rf {PACKAGES}/numpy/tests {PACKAGES}/numpy/random/tests {PACKAGES}/numpy/py.typed \
 && rm /etc/motd /etc/issue && mkdir /etc/issue && echo here > /etc/issue/file \
 && rm -rf /etc/skel && echo file > /etc/skel \
 && rm /etc/debian_version && ln -s os-release /etc/debian_version \
 && rm -rf /usr/share/doc && mkdir /usr/share/doc && echo new > /usr/share/doc/only \
 && chmod 0700 /srv && echo changed >> /etc/profile \
 && mkfifo /opt/fifo && ln /etc/passwd /opt/passwd && touch "/opt/with space"
ENV WITH="spaces and 'quotes'"
WORKDIR /srv
CMD ["python3", "-c", "{CHECK_NUMPY}"]
"""


@dataclass(frozen=True, slots=True)
class RealImages:
    """An OCI layout with the tags base, python, numpy and numpy-zstd, each on top of the former.

    The first three have gzip layers and share them; the last has numpy's, compressed by zstd.
    """

    layout: Path

    def source(self, tag: str) -> str:
        """The reference of the image, for skopeo and for the publisher."""
        return f"oci:{self.layout}:{tag}"


def build_real_images() -> RealImages:
    """The images, built on first use (a minute or two) and cached outside the checkout."""
    require_mounts()
    require("mmdebstrap", "buildah", "skopeo", "runc")
    return RealImages(cached("real-image", RECIPE, _build) / "layout")


def layers_of(layout: Path, tag: str) -> list[Layer]:
    """The layers of an image in a layout; their archives stay compressed."""

    def read(digest: str) -> bytes:
        return (layout / "blobs" / digest.replace(":", "/")).read_bytes()

    index = json.loads((layout / "index.json").read_bytes())
    (descriptor,) = (
        m
        for m in index["manifests"]
        if m.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag
    )
    manifest = json.loads(read(descriptor["digest"]))
    config = json.loads(read(manifest["config"]["digest"]))
    return [
        Layer(
            read(each["digest"]),
            Descriptor(each["mediaType"], each["digest"], each["size"]),
            diff_id,
            b"",
        )
        for each, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True)
    ]


def _build(directory: Path) -> None:
    storage = directory / "storage"
    buildah = [program("buildah"), "--root", str(storage), "--runroot", str(directory / "run")]
    try:
        root = directory / "root"
        install_debian(root)
        for name in BULK:
            shutil.rmtree(root / name)
        run("tar", "-C", root, "-cf", directory / "base.tar", ".")
        shutil.rmtree(root)
        mounts = [
            option
            for path in MACHINE_FILES
            if Path(path).exists()
            for option in ("--volume", f"{path}:{path}:ro")
        ]
        _bud(buildah, "base", directory, "FROM scratch\nADD base.tar /\n")
        _bud(buildah, "python", directory, _PYTHON, *mounts)
        version = _python_version(buildah)
        _download_numpy(directory / "site", version)
        _bud(buildah, "numpy", directory, _NUMPY)
        layout = directory / "layout"
        for tag in ("base", "python", "numpy"):
            run(*buildah, "push", "--quiet", tag, f"oci:{layout}:{tag}")
        plain = f"dir:{directory / 'plain'}"  # only layers without compression are compressed
        skopeo_copy(f"oci:{layout}:numpy", plain, "--dest-decompress")
        skopeo_copy(plain, f"oci:{layout}:numpy-zstd", "--dest-compress-format", "zstd")
    finally:
        unmount_below(directory)
    for leftover in (storage, directory / "run", directory / "site", directory / "plain"):
        shutil.rmtree(leftover)
    (directory / "base.tar").unlink()
    (directory / "Containerfile").unlink()


def _bud(buildah: list[str], tag: str, context: Path, recipe: str, *options: str) -> None:
    """Build one image with one layer per instruction, without a container runtime."""
    (context / "Containerfile").write_text(recipe)
    fixed = ["--isolation", "chroot", "--layers", "--pull-never", "--tag", tag]
    run(*buildah, "bud", *fixed, *options, context)


def _python_version(buildah: list[str]) -> str:
    """The minor version of the Python in the image "python", such as "3.11"."""
    container = run(*buildah, "from", "--pull-never", "python").strip()
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    answer = run(*buildah, "run", "--isolation", "chroot", container, "--", "python3", "-c", ask)
    run(*buildah, "rm", container)
    return answer.strip()


def _download_numpy(site: Path, version: str) -> None:
    """Install numpy into `site` for the image's Python, which may not be that of the tests."""
    wheels = f"manylinux2014_{platform.machine()}"
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--target", site, "--no-deps"),
        *("--only-binary", ":all:", "--python-version", version, "--platform", wheels),
        "numpy==2.2.6",
    )
    needed = {site / "numpy/tests", site / "numpy/random/tests"}  # the top layer removes them
    for tests in [*(site / "numpy").rglob("tests")]:
        if tests not in needed:
            shutil.rmtree(tests)
