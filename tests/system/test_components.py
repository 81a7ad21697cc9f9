"""The components that other tests rely on start, work, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.components import (
    Engine,
    containerd,
    docker_registry,
    dockerd,
    overlay_mount,
    podman,
    program,
    require,
    require_mounts,
    run,
    unmount_below,
)
from tests.layer_builder import (
    Compression,
    Member,
    directory,
    file,
    hardlink,
    image,
    layer,
    opaque,
    symlink,
    whiteout,
    write_layout,
)
from tests.processes import processes_naming, running
from tests.token_service import token_service
from tests.trees import assert_same_tree, describe_tree, owned, tree_identity

pytestmark = pytest.mark.system

BASE = (
    directory("etc"),
    file("etc/kept", b"kept"),
    file("etc/gone", b"gone"),
    directory("var"),
    file("var/hidden", b"hidden"),
)
TOP = (
    whiteout("etc/gone"),
    directory("var"),
    opaque("var"),
    file("var/seen", b"seen", mode=0o600, uid=7, gid=8),
    hardlink("var/same", "var/seen"),
    symlink("latest", "etc/kept"),
)


def write_image(folder: Path, *more: Member, compression: Compression = "gzip") -> tuple[str, str]:
    """An OCI layout with one image; its name for skopeo, and its manifest's digest."""
    layers = [layer(*members, compression=compression) for members in ((*BASE, *more), TOP)]
    built = image(*layers, config={"Cmd": ["/bin/sh"]})
    return f"oci:{write_layout(built, folder, 'x')}:x", built.manifest.digest


def write_busybox(folder: Path, compression: Compression = "gzip") -> str:
    """An image that can run, with a static busybox; its name for skopeo."""
    shell = file("bin/busybox", Path(program("busybox")).read_bytes(), mode=0o755)
    more = (directory("bin"), shell, symlink("bin/sh", "busybox"))
    return write_image(folder, *more, compression=compression)[0]


SCRIPT = "/bin/busybox cat /etc/kept /var/seen; [ ! -e /etc/gone ] && [ ! -e /var/hidden ]"


def test_a_missing_program_skips_here_and_fails_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs the programs no-such-program"):
        require("no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        require("no-such-program")


def test_a_registry_serves_what_skopeo_pushed_and_goes_away(tmp_path: Path) -> None:
    source, digest = write_image(tmp_path / "layout")
    with docker_registry(tmp_path / "registry") as registry:
        registry.push(source, "some/path:tag")
        answer = requests.get(
            f"{registry.url}/v2/some/path/manifests/tag",
            headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
            timeout=10,
        )
        assert answer.headers["Docker-Content-Digest"] == digest
        assert registry.blob_path(digest).read_bytes() == answer.content
    assert processes_naming(str(tmp_path)) == []
    with pytest.raises(requests.ConnectionError):
        requests.get(registry.url, timeout=10)


def test_a_registry_with_passwords_refuses_clients_without_one(tmp_path: Path) -> None:
    with docker_registry(tmp_path, htpasswd={"mary": "s3cret"}) as registry:
        url = f"{registry.url}/v2/"
        assert requests.get(url, timeout=10).status_code == 401
        assert requests.get(url, auth=("mary", "wrong"), timeout=10).status_code == 401
        assert requests.get(url, auth=("mary", "s3cret"), timeout=10).status_code == 200


def test_a_registry_accepts_the_tokens_of_its_service_only(tmp_path: Path) -> None:
    source, digest = write_image(tmp_path / "layout")
    with (
        token_service(tmp_path / "service", {"mary": "s3cret"}) as service,
        token_service(tmp_path / "other", {}) as other,
        docker_registry(tmp_path / "registry", token=service) as registry,
    ):
        with pytest.raises(AssertionError, match=r"(?i)unauthorized|denied"):
            registry.push(source, "x:1")
        with pytest.raises(AssertionError, match=r"(?i)unauthorized|denied|password"):
            registry.push(source, "x:1", "--dest-creds", "mary:wrong")
        registry.push(source, "x:1", "--dest-creds", "mary:s3cret")

        manifest = f"{registry.url}/v2/x/manifests/1"
        refused = requests.get(manifest, timeout=10)
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"].startswith(f'Bearer realm="{service.realm}"')
        query = {"service": service.service, "scope": "repository:x:pull"}
        for realm, status in ((service.realm, 200), (other.realm, 401)):
            token = requests.get(realm, query, timeout=10).json()["token"]
            headers = {
                "Authorization": f"Bearer {token}",
                "Accept": "application/vnd.oci.image.manifest.v1+json",
            }
            answer = requests.get(manifest, headers=headers, timeout=10)
            assert answer.status_code == status
            assert (answer.headers.get("Docker-Content-Digest") == digest) == (status == 200)


def test_a_process_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo cannot work >&2; exit 3"]
    with (
        pytest.raises(RuntimeError, match=r"ended with 3:\ncannot work"),
        running(command, log=tmp_path / "log", ready=lambda: False),
    ):
        pass


def test_a_process_that_ignores_its_end_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.processes.SHUTDOWN_SECONDS", 0.5)
    marker = tmp_path / "ready"
    script = f"trap '' TERM; sh -c 'trap \"\" TERM; touch {marker}; sleep 600' & wait; wait"
    with running(["sh", "-c", script], log=tmp_path / "log", ready=marker.exists):
        assert processes_naming(str(marker))
    assert processes_naming(str(marker)) == []


def test_a_daemon_ends_when_the_tests_are_killed(tmp_path: Path) -> None:
    marker = tmp_path / "ready"
    program = (
        "import sys, time; from pathlib import Path; from tests.processes import running\n"
        f"marker = Path({str(marker)!r})\n"
        f"command = ['sh', '-c', 'touch {marker}; sleep 600; true']\n"
        f"with running(command, log=Path({str(tmp_path / 'log')!r}), ready=marker.exists):\n"
        "    print('started', flush=True); time.sleep(600)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=root, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        parent.kill()
    deadline = 100
    while any(
        b"touch" in Path(f"/proc/{pid}/cmdline").read_bytes()
        for pid in processes_naming(str(marker))
    ):
        deadline -= 1
        assert deadline, "the daemon outlives its parent"
        subprocess.run(["sleep", "0.05"], check=True)


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_an_image_made_by_code_is_what_umoci_unpacks(
    tmp_path: Path, compression: Compression
) -> None:
    require("umoci")
    source, _ = write_image(tmp_path / "layout", compression=compression)
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    run("umoci", "unpack", *rootless, "--image", source.removeprefix("oci:"), tmp_path / "bundle")
    tree = describe_tree(tmp_path / "bundle" / "rootfs")
    assert sorted(tree) == [*("", "etc", "etc/kept", "latest", "var", "var/same", "var/seen")]
    assert tree["var/seen"].links == ("var/same", "var/seen")
    assert tree["var/seen"].mode == 0o600
    assert (tree["var/seen"].uid, tree["var/seen"].gid) == owned(7, 8)


def test_overlayfs_merges_many_layers(tmp_path: Path) -> None:
    layers = []
    for number in range(200):
        layer = tmp_path / f"a layer, with a long name: {number}"
        (layer / "shared").mkdir(parents=True)
        (layer / "shared" / str(number)).write_text(str(number))
        (layer / "top").write_text(str(number))
        layers.append(layer)
    os.mknod(layers[-1] / "shared" / "0", 0o20000, os.makedev(0, 0))
    with overlay_mount(layers) as merged:
        assert (merged / "top").read_text() == "199"
        names = {path.name for path in (merged / "shared").iterdir()}
    assert names == {str(number) for number in range(1, 200)}
    with overlay_mount(layers[:1]) as merged:
        assert_same_tree(merged, layers[0])


def test_tree_comparison_names_every_kind_of_difference(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "d").mkdir(parents=True)
        (tmp_path / name / "same").write_text("same")
        (tmp_path / name / "content").write_text(name)
        (tmp_path / name / "link").symlink_to(name)
        (tmp_path / name / "moved").write_text("")
        os.utime(tmp_path / name / "moved", ns=(0, ord(name)))
        (tmp_path / name / f"only-{name}").write_text("")
        os.utime(tmp_path / name / "same", ns=(5, 5))
        os.utime(tmp_path / name / "content", ns=(5, 5))
        os.utime(tmp_path / name / "link", ns=(5, 5), follow_symlinks=False)
    (tmp_path / "a" / "d").chmod(0o700)
    (tmp_path / "a" / "hard").hardlink_to(tmp_path / "a" / "same")
    (tmp_path / "b" / "hard").write_text("same")
    os.utime(tmp_path / "b" / "hard", ns=(5, 5))
    with pytest.raises(AssertionError) as failure:
        assert_same_tree(tmp_path / "a", tmp_path / "b")
    lines = str(failure.value).splitlines()
    assert lines[0] == "8 differences:"
    assert "'d': mode is '0700', expected '0755'" in lines
    assert "'link': target is 'a', expected 'b'" in lines
    assert "'moved': mtime_ns is 97, expected 98" in lines
    assert "'hard': links is ('hard', 'same'), expected ()" in lines
    assert any(line.startswith("'content': sha256 is ") for line in lines)
    assert any(line.startswith("'only-a' is unexpected: f 0644") for line in lines)
    assert any(line.startswith("'only-b' is missing: expected f 0644") for line in lines)
    assert_same_tree(
        tmp_path / "a",
        tmp_path / "b",
        ignore=["mode", "links", "mtime_ns"],
        ignore_paths=["only-*", "content", "link"],
    )


def test_tree_identity_sees_a_rewrite_with_the_same_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("same")
    before = tree_identity(tmp_path)
    assert tree_identity(tmp_path) == before
    status = (tmp_path / "file").stat()
    (tmp_path / "file").write_text("same")
    os.utime(tmp_path / "file", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert tree_identity(tmp_path) != before


def test_a_deep_tree_can_be_described(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    directory = os.open(top, os.O_RDONLY)
    for _ in range(1900):
        os.mkdir("d", dir_fd=directory)
        below = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)
    try:
        assert len(describe_tree(top)) == 1901
    finally:
        run("rm", "-rf", top)  # too deep for shutil.rmtree, which pytest would use


def test_docker_runs_an_image_from_a_registry(tmp_path: Path) -> None:
    source = write_busybox(tmp_path / "layout")
    with docker_registry(tmp_path / "registry") as registry:
        reference = registry.push(source, "busybox:1")
        with dockerd(tmp_path / "docker", insecure_registries=[registry.host]) as docker:
            docker("pull", reference)
            assert docker.run(reference, "/bin/sh", "-c", SCRIPT) == "keptseen"
    assert_nothing_left(tmp_path, docker)


def test_containerd_runs_an_image_with_zstd_layers(tmp_path: Path) -> None:
    source = write_busybox(tmp_path / "layout", "zstd")
    with docker_registry(tmp_path / "registry") as registry:
        reference = registry.push(source, "busybox:1")
        with containerd(tmp_path / "containerd") as ctr:
            ctr("images", "pull", "--plain-http", reference)
            output = ctr.output_of(reference, "one", "/bin/sh", "-c", SCRIPT)
            assert output == "keptseen"
    assert_nothing_left(tmp_path, ctr)


def test_podman_runs_an_image_from_a_registry(tmp_path: Path) -> None:
    source = write_busybox(tmp_path / "layout")
    with (
        docker_registry(tmp_path / "registry") as registry,
        podman(tmp_path / "podman") as engine,
    ):
        reference = registry.push(source, "busybox:1")
        engine("pull", "--quiet", "--tls-verify=false", reference)
        assert engine.run(reference, "/bin/sh", "-c", SCRIPT) == "keptseen"
    assert_nothing_left(tmp_path, engine)


def assert_nothing_left(directory: Path, engine: Engine) -> None:
    """Fail if a process or mount of this test remains."""
    short = next((w for w in engine.command if "/pt-" in w), "").partition("/pt-")[2][:8]
    assert short
    assert processes_naming(f"/pt-{short}") == []
    assert processes_naming(str(directory)) == []
    mounts = Path("/proc/self/mountinfo").read_text()
    assert f"/pt-{short}" not in mounts
    assert str(directory) not in mounts


def test_mounts_below_a_directory_are_all_unmounted(tmp_path: Path) -> None:
    require_mounts()
    for name in ("with space", "with space/inner"):
        (tmp_path / name).mkdir()
        run("mount", "-t", "tmpfs", "tmpfs", tmp_path / name)
    unmount_below(tmp_path)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
