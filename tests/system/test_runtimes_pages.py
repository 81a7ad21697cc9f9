"""The commands of every page in docs/runtimes, on a real image, from a read-only mount."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from publisher.browse.run import plan_run
from publisher.repository.directory.repository import DirectoryRepository
from publisher.runtimes import launch
from publisher.tree.layout import RepositoryURL
from tests.command import environment, succeed
from tests.components import (
    Engine,
    containerd,
    docker_registry,
    podman,
    require,
    require_root,
    require_user_namespaces,
    run,
    unmount_below,
)
from tests.opened_files import opened_files
from tests.probe import Report, read_report, run_original, write_probe
from tests.real_image import CHECK_NUMPY, RealImages
from tests.trees import tree_identity

pytestmark = pytest.mark.system

PAGES = Path(__file__).parents[2] / "docs" / "runtimes"
IMAGE = "docker.io/library/debian:stable"
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")


@pytest.fixture(scope="module")
def mounted(real_images: RealImages) -> Iterator[Path]:
    """A tree with Debian, numpy and the probe, mounted read-only and open to ordinary users."""
    require_root()
    # podman reads the path of a layout as an image's name, which may not end with a "_".
    place = Path("/tmp", f"publisher-pages-{secrets.token_hex(8)}")
    place.mkdir()
    try:
        place.chmod(0o755)
        point, tree = place / "srv", place / "tree"
        point.mkdir()
        with docker_registry(place / "registry") as registry:
            registry.push(real_images.source("base"), "library/debian:stable")
            config, wishes = place / "config.yaml", place / "wishes.yaml"
            config.write_text(f"registries: {{docker.io: {{mirror: 'http://{registry.host}'}}}}\n")
            probe = write_probe(place / "layout")
            wishes.write_text(
                "version: 2\ndefaults: {outputs: [flat, layers, podman]}\nimages:\n"
                f"  - {IMAGE}\n  - {{image: '{probe}', name: probe}}\n"
                f"  - {{image: '{real_images.source('numpy')}', name: numpy}}\n"
            )
            succeed("ingest", wishes, "--repository", tree, "--config", config)
        run("mount", "--bind", tree, point)
        run("mount", "-o", "remount,bind,ro", point)
        yield point
    finally:
        unmount_below(place)
        shutil.rmtree(place)


def commands(page: str, point: Path) -> list[str]:
    """The commands in a page's console blocks, for the tree that is mounted at `point`."""
    blocks = re.findall(r"^```console\n(.*?)^```", (PAGES / page).read_text(), re.M | re.S)
    found = [line[2:] for block in blocks for line in block.splitlines() if line[:2] == "$ "]
    assert found
    return [each.replace("/srv/images", str(point)) for each in found]


def shell(command: str, *before: str, **variables: str) -> str:
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    env = {**os.environ, "PATH": path, "USER": "somebody", **variables}
    return run(*before, "sh", "-c", command, env=env)


def engine_environment(engine: Engine, folder: Path, point: Path) -> Mapping[str, str]:
    """Podman's configuration as on its page, but with storage of the test's own."""
    words = list(engine.command)
    text = (PAGES / "podman.md").read_text()
    storage = re.findall(r"^```toml\n(.*?)^```", text, re.M | re.S)[0]
    storage = storage.replace("/srv/images", str(point))
    storage = storage.replace("/var/lib/containers/storage", words[words.index("--root") + 1])
    storage = storage.replace("/run/containers/storage", words[words.index("--runroot") + 1])
    (folder / "storage.conf").write_text(storage)
    (folder / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    return {
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_CONF": str(folder / "containers.conf"),
    }


@pytest.mark.parametrize("page", ["apptainer.md", "bwrap.md", "charliecloud.md"])
def test_the_commands_of_a_page_work_from_a_read_only_mount(page: str, mounted: Path) -> None:
    require("bwrap", "ch-run")
    require_user_namespaces()
    for command in commands(page, mounted):
        assert "Debian" in shell(command), command


@pytest.mark.parametrize("page", ["bwrap.md", "charliecloud.md"])
def test_an_ordinary_user_can_run_all_that_needs_no_root(page: str, mounted: Path) -> None:
    require("bwrap", "ch-run", "setpriv")
    require_user_namespaces()
    ours = (
        "chroot",
        "publisher",
    )  # the first needs root; the second may lie where only root has access
    for command in [each for each in commands(page, mounted) if not each.startswith(ours)]:
        assert "Debian" in shell(command, *NOBODY), command


def test_the_files_that_a_program_opens_are_listed_and_read_in_advance(mounted: Path) -> None:
    require("strace", "bwrap", "jq")
    require_user_namespaces()
    listing, reading = commands("README.md", mounted)
    listed = [line.split()[2] for line in shell(listing).splitlines()[:-2]]
    assert "usr/lib/os-release" in listed and len(listed) > 3
    program = ("--", "cat", "/etc/os-release")
    succeed("trace", IMAGE, "--repository", mounted.parent / "tree", *program)
    with opened_files((mounted / IMAGE).resolve()) as opened:
        shell(reading)
    assert opened == set(listed)


def test_podman_runs_the_image_from_the_store_and_as_a_directory(
    mounted: Path, tmp_path: Path
) -> None:
    with podman(tmp_path / "podman") as engine:
        variables = engine_environment(engine, tmp_path, mounted)
        listing, *others = commands("podman.md", mounted)
        assert "docker.io/library/debian" in shell(listing, "unshare", "--net", **variables)
        for command in others:
            assert "Debian" in shell(command, "unshare", "--net", **variables), command


def test_containerd_runs_a_flat_image_as_a_directory(mounted: Path, tmp_path: Path) -> None:
    with containerd(tmp_path / "containerd") as engine:
        [command] = commands("containerd.md", mounted)
        assert "Debian" in shell(command, CONTAINERD_ADDRESS=engine.socket)


def test_the_layers_lie_where_the_snapshotter_of_cvmfs_looks_for_them(mounted: Path) -> None:
    raw = run("skopeo", "inspect", "--raw", f"oci:{mounted.parent}/layout:1")
    digests = re.findall(r'"digest":"sha256:([0-9a-f]+)"', raw)[1:]
    assert digests
    for digest in digests:
        assert (mounted / ".layers" / digest[:2] / digest / "layerfs").is_dir()


@pytest.fixture
def expected(tmp_path: Path, mounted: Path) -> Iterator[Report]:
    """Return what podman shows of the original."""
    with podman(tmp_path / "original") as engine:
        yield run_original(engine, f"oci:{mounted.parent}/layout:1")


@pytest.mark.parametrize("way", ["bwrap", "chroot", "podman"])
def test_publisher_run_starts_an_image_as_podman_starts_the_original(
    way: str, mounted: Path, expected: Report, tmp_path: Path
) -> None:
    command = f"publisher run --repository {mounted} local/probe:1 --with {way}"
    before = tree_identity(mounted)
    with podman(tmp_path / "podman") as engine:
        variables = engine_environment(engine, tmp_path, mounted)
        assert read_report(shell(command, **variables)) == expected
    assert tree_identity(mounted) == before


def test_an_ordinary_user_sees_through_bwrap_what_podman_shows_of_the_original(
    mounted: Path, expected: Report
) -> None:
    require_user_namespaces()
    repository = DirectoryRepository(RepositoryURL("dir", str(mounted)))
    command = launch.bubblewrap(plan_run(repository, "local/probe:1", ()))
    assert read_report(run(*NOBODY, *command)) == expected


@pytest.mark.parametrize(
    "before",
    [
        "chroot {flat}",
        "bwrap --ro-bind {flat} / --dev /dev --proc /proc --clearenv",
        "ch-run --unset-env='*' {flat} --",
    ],
)
def test_the_script_in_a_flat_image_gives_environment_and_arguments_as_podman(
    before: str, mounted: Path, expected: Report
) -> None:
    require_user_namespaces()
    flat = f"{mounted}/local/probe:1"
    found = read_report(shell(f"exec env -i PATH=$PATH USER=u {before.format(flat=flat)} /.run"))
    assert found.arguments == expected.arguments
    others = {"HOME", "USER", "CH_RUNNING"}  # set by the runtime, not by the image
    wanted = {name: value for name, value in expected.environment if name not in others}
    assert {n: v for n, v in found.environment if n not in others} == wanted


def test_engines_run_a_read_only_flat_image_that_lacks_their_mount_points(
    mounted: Path, expected: Report, tmp_path: Path
) -> None:
    flat = os.path.realpath(mounted / "local/probe:1")
    with podman(tmp_path / "podman") as engine:
        variables = engine_environment(engine, tmp_path, mounted)
        command = f"podman run --rm --network none --rootfs {flat} /.run"
        reports = [read_report(shell(command, "unshare", "--net", **variables))]
    with containerd(tmp_path / "containerd") as engine:
        words = ("--rootfs", "--read-only", flat, "probe", "/.run")
        reports.append(read_report(engine.output_of(*words)))
    assert [report.arguments for report in reports] == [expected.arguments] * 2


def test_numpy_works_in_every_form(mounted: Path) -> None:
    require_user_namespaces()
    for way in ("bwrap", "chroot"):
        command = f"publisher run --repository {mounted} local/numpy:numpy --with {way} -- "
        assert shell(f"{command} python3 -c '{CHECK_NUMPY}'").strip() == "45"
    flat = f"{mounted}/local/numpy:numpy"
    assert shell(f"ch-run {flat} -- python3 -c '{CHECK_NUMPY}'", *NOBODY).strip() == "45"


def test_publisher_run_ends_with_the_exit_code_of_the_program_and_names_missing_ones(
    mounted: Path,
) -> None:
    def code(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "publisher", "run", "--repository", str(mounted), *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment())
        return done.returncode, done.stderr

    assert code(IMAGE, "--", "sh", "-c", "exit 7")[0] == 7
    assert code("docker.io/library/absent:1")[0] == 1
    missing, error = code(IMAGE, "--with", "chroot", "--", "/no/such/program")
    assert missing == 1 and "/no/such/program" in error


def test_wrappers_of_a_module_run_the_images_programs(mounted: Path, tmp_path: Path) -> None:
    require("tclsh")
    arguments = ("local/numpy:numpy", tmp_path / "modules", "--repository", mounted)
    more = ("--runtime", "publisher", "--command", "sort", "--format", "tcl", "--output", "json")
    written = succeed("modulefile", *arguments, *more).json
    assert written["commands"] == ["python3", "sort"]
    loader = tmp_path / "load.tcl"
    # The commands of module files that are used here, as in Environment Modules.
    loader.write_text(
        "proc module-whatis {text} {}\n"
        "proc prepend-path {name value} { puts \"export $name='$value':\\$$name\" }\n"
        "proc setenv {name value} { puts \"export $name='$value'\" }\n"
        "source [lindex $argv 0]\n"
    )
    loaded = run("tclsh", loader, written["file"])
    assert shell(f"{loaded}python3 -c '{CHECK_NUMPY}'").strip() == "45"
    assert shell(f"{loaded}printf 'b\\na\\n' | sort") == "a\nb\n"
    script = Path(written["file"]).parents[2] / ".wrappers/local/numpy/numpy/sort"
    assert stat.S_IMODE(script.stat().st_mode) == 0o755
