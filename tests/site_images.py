"""A repository like that of a site, with about 30 images, for the pages about it.

Most images share layers with others; sizes are in proportion to those of real images. One tag has
moved, one image is scheduled, one is pinned, one cannot be published, and some have names, labels
and files that are dangerous in HTML or on a terminal.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.command import publisher, succeed
from tests.layer_builder import (
    Image,
    Layer,
    Member,
    digest_of,
    file,
    image,
    image_index,
    layer,
    symlink,
    whiteout,
    write_layout,
)
from tests.oci_documents import document
from tests.registry import OwnRegistry

SCRIPT = "<script>document.title='executed'</script>"
MARKUP = "\"'><img src=x onerror=\"document.title='executed'\">"
CONTROLS = "a\x1b[31mb\u202ec\u200fd\x07e\nf"
LONG = "long-" * 800
"""4,000 characters."""

HOSTILE = f"local/{MARKUP.replace('/', '|')}/{'n' * 200}/\x1b[31m\u202e<b>:1"
"""A name that no image gets from the publisher, but that other tools could write."""

NAMED = "local/" + "/".join(["hostile"] * 25) + ":1"
"""The longest name of the image with hostile contents."""

_STEPS = {
    "debian": "# debian.sh --arch 'amd64' out/ 'bookworm' '@1759190400'",
    "python": 'RUN /bin/sh -c set -eux; wget -O python.tar.xz "https://www.python.org/ftp/python/'
    '$PYTHON_VERSION/Python-$PYTHON_VERSION.tar.xz"; ./configure; make -j "$(nproc)" # buildkit',
}
_BYTES = random.Random(1).randbytes(400_000)


def tree(top: str, files: int, size: int) -> list[Member]:
    """Files in some directories; `size` is about that of all of them, in kB."""
    each = size * 1000 // files
    return [
        file(f"{top}/{name}/{number}.so", _BYTES[: each + number])
        for number in range(files)
        for name in [("lib", "bin", "share/doc", "share/locale/de")[number % 4]]
    ]


def built(parts: Mapping[str, Layer], *, architecture: str = "amd64", **config: Any) -> Image:
    """An image of layers, by the build steps that made them."""
    plain = image(*parts.values(), config=config, architecture=architecture)
    steps = [{"created": "2026-10-01T08:30:00Z", "created_by": step} for step in parts]
    value = json.loads(plain.config) | {"created": "2026-10-01T08:30:00Z", "history": steps}
    data = json.dumps(value).encode()
    manifest = json.loads(plain.manifest.data)
    manifest["config"] |= {"digest": digest_of(data), "size": len(data)}
    return Image(document(manifest), data, plain.layers)


def hostile_image() -> Image:
    """An image in which every text is dangerous."""
    members = [
        file(f"usr/{SCRIPT.replace('/', '|')}", b"x"),
        file(f"usr/{MARKUP}/file", b"x"),
        file("usr/a\x1b[31mb\u202ec\nd", b"x"),
        file(b"usr/\xff\xfe", b"x"),
        file("long/" + "/".join(["d" * 200] * 18) + "/file", b"x"),
        symlink("usr/link", MARKUP),
    ]
    return built(
        {SCRIPT: layer(*members), MARKUP + CONTROLS: layer(file("other", b"y"))},
        Env=[f"MARKUP={MARKUP}", f"CONTROLS={CONTROLS}", f"LONG={LONG}", f"{SCRIPT}=1"],
        Entrypoint=[SCRIPT, MARKUP, CONTROLS, LONG],
        User=MARKUP,
        WorkingDir=f"/{SCRIPT}",
        Labels={
            "org.opencontainers.image.url": "javascript:document.title='executed'",
            "org.opencontainers.image.source": f"https://example.org/{MARKUP}",
            "org.opencontainers.image.documentation": "https://example.org/docs",
            SCRIPT: MARKUP,
            CONTROLS: LONG,
        },
        ExposedPorts={MARKUP: {}},
        Volumes={SCRIPT: {}},
        StopSignal=MARKUP,
    )


def _images() -> dict[str, Image]:
    """The images by reference."""
    debian = {
        _STEPS["debian"]: layer(
            *tree("usr", 160, 7000),
            file("etc/os-release", b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'),
            symlink("bin", "usr/bin"),
        )
    }
    alpine = {"ADD alpine-minirootfs-3.20.tar.gz / # buildkit": layer(*tree("lib", 30, 700))}
    updates = {
        "RUN apt-get update && apt-get install -y ca-certificates": layer(*tree("etc/ssl", 60, 900))
    }
    images = {
        "docker.io/library/debian:stable": built(debian, Cmd=["bash"]),
        "docker.io/library/debian:bookworm": built(debian, Cmd=["bash"]),
        "docker.io/library/alpine:3.20": built(alpine, Cmd=["/bin/sh"]),
        "docker.io/library/busybox:1.36": built(
            {"ADD busybox.tar.gz /": layer(*tree("bin", 4, 400))}
        ),
    }
    for minor in range(10, 14):
        step = _STEPS["python"].replace("$PYTHON_VERSION", f"3.{minor}.1")
        python = debian | updates | {step: layer(*tree(f"usr/local/python3.{minor}", 90, 2600))}
        images[f"docker.io/library/python:3.{minor}"] = built(
            python,
            Cmd=["python3"],
            Env=[
                "PATH=/usr/local/bin:/usr/bin:/bin",
                f"PYTHON_VERSION=3.{minor}.1",
                "LANG=C.UTF-8",
            ],
            Labels={
                "org.opencontainers.image.source": "https://github.com/docker-library/python",
                "org.opencontainers.image.version": f"3.{minor}.1",
            },
        )
        science = python | {
            f"RUN pip install numpy==2.{minor}.0 scipy pandas": layer(
                *tree("opt/science", 120, 5200 + minor)
            ),
            "COPY entry.sh /": layer(
                file("entry.sh", b"#!/bin/sh\n"), whiteout("etc/ssl/bin/1.so")
            ),
        }
        images[f"quay.io/physics/analysis:2026.{minor}"] = built(
            science,
            Entrypoint=["/entry.sh"],
            Cmd=["--help"],
            User="1000:1000",
            WorkingDir="/work",
            Env=["PATH=/opt/science/bin:/usr/bin:/bin", "OMP_NUM_THREADS=1"],
            ExposedPorts={"8888/tcp": {}},
            Labels={"org.opencontainers.image.title": "Analysis environment"},
        )
    for name, size in (("casa", 9800), ("wsclean", 3100), ("cubical", 2700), ("meqtrees", 4100)):
        for version in ("1.7.0", "1.8.1"):
            radio = debian | {
                f"RUN apt-get install -y {name}": layer(
                    *tree(f"opt/{name}", 80, size + len(version))
                ),
                f"COPY {name}-{version} /opt": layer(
                    *tree(f"opt/{name}/{version}", 20, 350 + int(version[2]))
                ),
            }
            images[f"quay.io/stimela/{name}:{version}"] = built(
                radio, Entrypoint=[f"/opt/{name}/bin/0.so"]
            )
    for name, size in (("fastqc", 1900), ("samtools", 640), ("bwa", 480)):
        images[f"quay.io/biocontainers/{name}:0.12.1--hdfd78af_0"] = built(
            alpine | {f"RUN conda install {name}": layer(*tree("opt/conda", 60, size))}
        )
    images["registry.example.org/teaching/notebook:autumn"] = built(
        debian | {"COPY course /course": layer(*tree("course", 30, 1500))}, Cmd=["jupyter", "lab"]
    )
    return images


_OWNERS = {
    "stimela": "astro",
    "physics": "physics",
    "biocontainers": "genomics",
    "teaching": "teaching",
}


def publish_images(root: Path) -> Path:
    """Publish the images in `root`/images; return that directory."""
    images, tree_of_images = _images(), root / "images"
    with OwnRegistry() as registry, tempfile.TemporaryDirectory() as folder:
        hosts = dict.fromkeys(name.partition("/")[0] for name in images)
        settings = {host: {"mirror": f"http://{registry.host}/{host}"} for host in hosts}
        config = Path(folder, "config.yaml")
        config.write_text(yaml.safe_dump({"registries": settings}))
        for name, each in images.items():
            repository, _, tag = name.rpartition(":")
            registry.add(repository, tag, each)
        arm = built({"ADD rootfs /": layer(*tree("usr", 20, 800))}, architecture="arm64")
        busybox = images["docker.io/library/busybox:1.36"]
        registry.add("docker.io/library/busybox", None, busybox)
        registry.add("docker.io/library/busybox", None, arm)
        several = image_index({"linux/amd64": busybox, "linux/arm64": arm})
        registry.add_document("docker.io/library/busybox", "1.36", several)
        write_layout(hostile_image(), Path(folder, "hostile"), "1")
        lists = _wish_lists(Path(folder), images)
        options = ("--repository", str(tree_of_images), "--config", str(config))
        publisher("ingest", *map(str, lists), *options)
        registry.add("quay.io/stimela/casa", "1.8.1", images["quay.io/stimela/wsclean:1.8.1"])
        publisher("ingest", str(lists[1]), *options)
    metadata = tree_of_images / ".metadata"
    shutil.copytree(metadata / NAMED, metadata / HOSTILE)
    at = ("--repository", str(tree_of_images))
    succeed("pin", "docker.io/library/python:3.11", "--reason", "course of this term", *at)
    succeed("remove", "quay.io/stimela/meqtrees:1.7.0", *at)
    return tree_of_images


def _wish_lists(folder: Path, images: Mapping[str, Image]) -> list[Path]:
    wishes: dict[str, list[dict[str, object]]] = {"base": [], "groups": []}
    for name in images:
        owner = _OWNERS.get(name.split("/")[1], "")
        wish: dict[str, object] = {"image": name}
        if owner:
            wish |= {"owner": owner}
        if "analysis" in name:
            wish |= {"note": "Analysis environment of the physics department, with GPU libraries"}
        if "busybox" in name:
            wish |= {"platforms": ["linux/amd64", "linux/arm64"]}
        if name.endswith("debian:stable"):
            wish |= {"outputs": ["flat", "layers", "podman", "squashfs"]}
        wishes["groups" if owner else "base"].append(wish)
    wishes["groups"] += [
        {"image": f"oci:{folder}/missing:1", "name": "teaching/missing", "owner": "teaching"},
        {"image": f"oci:{folder}/{MARKUP}:1", "name": "teaching/markup", "owner": MARKUP},
        {
            "image": f"oci:{folder}/hostile:1",
            "name": NAMED.removeprefix("local/").rpartition(":")[0],
            "owner": MARKUP,
            "note": SCRIPT + MARKUP + LONG,
        },
    ]
    paths = []
    for title, each in wishes.items():
        paths.append(folder / f"{title}.yaml")
        paths[-1].write_text(yaml.safe_dump({"version": 2, "images": each}))
    return paths
