"""`publisher doctor`, about the machine that it runs on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from publisher.repository.directory.repository import DirectoryRepository
from publisher.sandbox import Measure
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from tests.command import run_here, succeed
from tests.components import require_mounts, require_root, run
from tests.confined import in_a_child, lacking
from tests.layer_builder import file, image, layer, write_layout

MANIFEST = layout.manifest_file("local/one:1")


def checks(repository: str, subject: str, *lacks: Measure) -> list[dict[str, Any]]:
    """The checks of `subject`, on a machine without the measures `lacks`."""
    command = ["doctor", "--repository", repository, "--output", "json"]

    def run(writer: int) -> None:
        for measure in lacks:
            lacking(measure)
        subprocess.run([sys.executable, "-m", "publisher", *command], stdout=writer, check=True)

    found = json.loads(in_a_child(run))["checks"]
    return [each for each in found if each["subject"] == subject]


def test_doctor_names_each_measure_that_this_kernel_cannot_take_and_what_that_means(
    tmp_path: Path,
) -> None:
    require_root()
    repository = f"dir:{tmp_path}/images"
    succeed("init", repository)
    lacks = Measure.LANDLOCK, Measure.SYSTEM_CALLS
    check, other = checks(repository, "worker processes", *lacks)
    assert check["verdict"] == "warning"
    assert check["finding"] == (
        "not confined by Landlock: the kernel lacks it, or a container refuses it: a compromised "
        "worker is kept from other files only by its root directory"
    )
    assert check["cure"] == "use Linux 5.19 or later, with landlock in its parameter lsm="
    assert other["finding"].startswith("not confined by a filter of system calls: the kernel lacks")


def test_doctor_states_that_workers_are_confined(tmp_path: Path) -> None:
    require_root()
    repository = f"dir:{tmp_path}/images"
    succeed("init", repository)
    out = succeed("doctor", "--repository", repository).out
    assert "confined: a root directory, Landlock, a filter of system calls\n" in out


def test_doctor_warns_of_device_nodes_that_a_worker_could_open(tmp_path: Path) -> None:
    require_mounts()
    for folder, options, warnings in (("open", "dev", 1), ("closed", "nodev", 0)):
        mount = tmp_path / folder
        mount.mkdir()
        run("mount", "-t", "tmpfs", "-o", options, "tmpfs", mount)
        try:
            repository = f"dir:{mount}/images"
            succeed("init", repository, "--devices", "keep")
            out = succeed("doctor", "--repository", repository).out
        finally:
            run("umount", mount)
        assert out.count(f"{mount} is mounted without nodev") == warnings
        assert out.count(f"try: mount -o remount,nodev {mount}") == warnings


def test_doctor_names_unreadable_images_and_the_space_that_ingest_can_use(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for name in ("one", "two"):
        write_layout(image(layer(file("name", name.encode()))), tmp_path / name, "1")
        assert run_here("ingest-image", f"oci:{tmp_path}/{name}:1", "--repository", root).code == 0
    repository = DirectoryRepository(RepositoryURL("dir", str(root)))
    result = run_here("doctor", "--repository", root, "--output", "json")
    assert result.code == 0
    found = {each["subject"]: each for each in result.json["checks"]}
    assert found["records"]["verdict"] == "good"
    [free] = re.findall(r"([0-9.]+) GB free", found["space"]["finding"])
    assert abs(float(free) - repository.free_space() / 1e9) < 2

    for damaged, count in ((layout.publication_file("local/two:1"), 1), (MANIFEST, 2)):
        (root / damaged).write_bytes(b"{")
        result = run_here("doctor", "--repository", root, "--output", "json")
        [records] = [each for each in result.json["checks"] if each["subject"] == "records"]
        assert (result.code, records["verdict"]) == (1, "problem")
        assert records["finding"].startswith(f"{count} of 2 images are unreadable; the first is ")
        assert damaged.rpartition("/")[2] in records["finding"]
        assert records["cure"] == "publisher verify"
