"""The runtime for thin images: how it reads its words, its settings, mounts and recipes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from publisher.runtimes import oci_runtime
from publisher.runtimes.oci_runtime import Call, Mount, ThinRuntimeError
from tests.components import require, require_mounts, run, unmount_below

DOCKER = "--root /run/moby --log /b/log.json --log-format json --systemd-cgroup"
FILE = Path(oci_runtime.__file__)


@pytest.mark.parametrize(
    ("words", "command", "bundle", "passed"),
    [
        (f"{DOCKER} create --bundle /b --pid-file /b/pid c1", "create", "/b", None),
        ("--root=/r create --bundle=/b --no-pivot c1", "create", "/b", None),
        ("-root /r run -b /b c1", "run", "/b", None),
        ("run c1", "run", "", None),
        ("--tree /t --root create --tree=/u create --bundle /b create", "create", "/b",
         "--root create create --bundle /b create"),
        ("--runtime crun --debug delete --force c1", "delete", "", "--debug delete --force c1"),
        ("create --console-socket --bundle --bundle /b c1", "create", "/b", None),
        ("exec c1 create --tree /x", "exec", "", None),
        ("create c1 --bundle /other", "create", "", None),
        ("--version", "", "", None),
        ("", "", "", None),
        ("--root", "", "", None),
    ],
)  # fmt: skip
def test_options_of_this_program_are_taken_out_and_all_else_is_passed_on(
    words: str, command: str, bundle: str, passed: str | None
) -> None:
    call = Call(words.split())
    assert call.command == command and call.options.get("bundle", "") == bundle
    assert call.words == (words if passed is None else passed).split()
    assert call.trees == (["/t", "/u"] if "/t" in words else [])
    assert call.runtime == ("crun" if "crun" in words else "")


AWKWARD = ["a b", "$HOME", "*", "'", '"', "\\", "-", "--", "", "--tree=/x", "\n"]


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        (f"{DOCKER} start c1", None),
        ("--tree /t --root create --tree=/u=v start", "--root create start"),
        ("-tree /t --debug --root=/r delete -f create", "--debug --root=/r delete -f create"),
        ("exec c1 create --tree /x", None),
        ("--version", None),
        ("--cgroup-manager x -log y state --runtime z", None),
        ("", None),
        ("kill", [*AWKWARD]),
    ],
)  # fmt: skip
def test_a_call_that_creates_nothing_is_passed_on_without_starting_python(
    tmp_path: Path, words: str, passed: str | list[str] | None
) -> None:
    given = words.split()
    if isinstance(passed, list):
        given, expected = [*given, *passed], [*given, *passed]
    else:
        expected = (words if passed is None else passed).split()
    for name in ("runc", "other"):
        (tmp_path / name).write_text('#!/bin/sh\necho "${0##*/} $#"; printf "%s\\0" "$@"\n')
        (tmp_path / name).chmod(0o755)
    for options, name in (
        ([], "runc"),
        (["--runtime", "other"], "other"),
        ([f"--runtime={tmp_path}/other"], "other"),
    ):
        done = subprocess.run([FILE, *options, *given], capture_output=True, env={"PATH": tmp_path})
        assert done.stdout.decode().partition("\n") == (
            f"{name} {len(expected)}",
            "\n",
            "".join(f"{word}\0" for word in expected) or "\0",
        )
        assert Call([*options, *given]).words == expected


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("create c1", ""),
        ("--root /r run", ""),
        ("restore", ""),
        ("--root", ""),
        ("--runtime a/b start", ""),
        ("--runtime no-such-runtime start", ""),
        ("start", '{"runtime": "crun"}'),
        ("start", '{"trees": ["/srv/images"],\n"runtime": "crun"}'),
        ("start", '{"\\u0072untime": "crun"}'),
        ("start", '{"trees": ["/srv/images"]}\n'),
    ],
)
def test_python_is_started_to_create_a_container_and_where_the_runtime_is_not_evident(
    tmp_path: Path, options: str, settings: str
) -> None:
    program, file = tmp_path / "program", tmp_path / "settings.json"
    program.write_text(FILE.read_text().replace(oci_runtime.SETTINGS_FILE, str(file)))
    if settings:
        file.write_text(settings)
    for name in ("runc", "python3", "program"):
        path = tmp_path / name
        if name != "program":
            path.write_text('#!/bin/sh\necho "${0##*/} $*"\n')
        path.chmod(0o755)
    done = subprocess.run([program, *options.split()], capture_output=True, env={"PATH": tmp_path})
    expected = f"python3 -IS {program} {options}"
    assert done.stdout.decode() == (f"runc {options}\n" if "]}\n" in settings else f"{expected}\n")


def test_the_mount_of_an_engine_is_read_with_its_options() -> None:
    line = (
        rb"99 22 0:50 / /var/lib/x\040y/ab/merged rw,nodev,relatime shared:7 - overlay overlay "
        rb'rw,context="a:b,c",lowerdir=l/TOP:/abs\040olute/a\:b:l/BOTTOM,upperdir=ab/diff,'
        rb"workdir=ab/work,index=off,uuid=on,nouserxattr"
    )
    mount = Mount(line)
    assert (mount.type, mount.point) == ("overlay", "/var/lib/x y/ab/merged")
    assert mount.flags == ["rw", "nodev", "relatime"]
    assert mount.lower == ["l/TOP", "/abs olute/a:b", "l/BOTTOM"]
    assert [mount.directory(path) for path in (mount.upper, mount.lower[1])] == [
        "/var/lib/x y/ab/diff",
        "/abs olute/a:b",
    ]
    assert mount.kept == ['context="a:b,c"', "index=off", "uuid=on"]
    several = Mount(b"1 2 0:5 / /m rw - overlay o ro,lowerdir+=/a,lowerdir+=/b:c")
    assert several.lower == ["/a", "/b:c"] and several.upper == several.work == ""


def recipe(folder: Path, *urls: object, version: object = "1.0") -> str:
    value = {"min_version": version, "layers": [{"url": url} for url in urls]}
    (folder / "thin.json").write_text(json.dumps(value))
    return str(folder / "thin.json")


def published(folder: Path, name: str) -> Path:
    path = folder / f"tree x/.layers/aa/{name}/layerfs"
    path.mkdir(parents=True)
    return path


def test_the_layers_of_a_recipe_are_returned_from_top_to_bottom(tmp_path: Path) -> None:
    bottom, top = published(tmp_path, "bottom"), published(tmp_path, "top")
    flat = tmp_path / "tree x/.flat/aa/bb"
    flat.mkdir(parents=True)
    tree = str(tmp_path / "tree x")
    urls = [f"file://{path}".replace(" ", "%20") for path in (bottom, top, flat)]
    found = oci_runtime.recipe_layers(recipe(tmp_path, *urls), ["/other", f"{tree}/"])
    assert found == [str(flat), str(top), str(bottom)]


@pytest.mark.parametrize(
    ("version", "accepted"),
    [("1.0", True), ("1.1", True), ("1.2", False), ("2.0", False), ("0.9", False)],
)
def test_a_recipe_is_refused_if_its_version_is_not_known(
    tmp_path: Path, version: str, accepted: bool
) -> None:
    file = recipe(tmp_path, version=version)
    if accepted:
        assert oci_runtime.recipe_layers(file, []) == []
    else:
        with pytest.raises(ThinRuntimeError, match=f"needs version {version}"):
            oci_runtime.recipe_layers(file, [])


def test_the_message_about_an_unknown_version_has_the_supported_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oci_runtime, "SUPPORTED_VERSION", (1, 7))
    with pytest.raises(ThinRuntimeError, match=r"supports 1\.7;"):
        oci_runtime.recipe_layers(recipe(tmp_path, version="1.8"), [])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"min_version": "1.0"}', '{"min_version": 1, "layers": []}',
             '{"min_version": "x", "layers": []}', '{"min_version": "1.0", "layers": [{"url": 3}]}',
             '{"min_version": "1.0", "layers": [3]}', '"' + "x" * (1 << 20)]
)  # fmt: skip
def test_a_malformed_recipe_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "thin.json").write_text(text)
    with pytest.raises(ThinRuntimeError, match="is not a recipe"):
        oci_runtime.recipe_layers(str(tmp_path / "thin.json"), [])


@pytest.mark.parametrize(
    "url",
    ["file:///etc", "file:///t/.layers/aa/b", "file:///t/.layers/aa/../layerfs", "cvmfs:///etc",
     "file:///t/x/.flat/../../etc", "file:///t//.layers/aa/b/layerfs", "cvmfs://../.flat/aa/b",
     "file:///t/.flat/%2e%2e/etc", "cvmfs://a/b/.flat/aa/b", "file:/etc", "/etc", "ftp://a/b"],
)  # fmt: skip
def test_directories_outside_the_published_trees_are_refused(url: str) -> None:
    with pytest.raises(ThinRuntimeError, match="cannot mount"):
        oci_runtime.layer_directory(url, ["/t"])


def test_settings_are_optional_and_must_be_an_object(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    assert oci_runtime.read_settings(str(file)) == {}
    file.write_text('{"trees": ["/srv/images"]}')
    assert oci_runtime.read_settings(str(file)) == {"trees": ["/srv/images"]}
    for text in ("[]", "{"):
        file.write_text(text)
        with pytest.raises(ThinRuntimeError, match="not a JSON object"):
            oci_runtime.read_settings(str(file))


@pytest.mark.parametrize("value", ['"/srv/images"', "[1]", "[null]", "{}", "3"])
def test_trees_in_the_settings_must_be_a_list_of_strings(tmp_path: Path, value: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(f'{{"trees": {value}}}')
    with pytest.raises(ThinRuntimeError, match=f'{file}: "trees" is not a list of strings'):
        oci_runtime.read_settings(str(file))
    file.write_text(f'{{"runtime": [{value}]}}')
    with pytest.raises(ThinRuntimeError, match=f'{file}: "runtime" is not a string'):
        oci_runtime.read_settings(str(file))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"root": 3}', '{"root": ["x"]}', '{"root": {"path": 3}}',
             '{"root": {"path": [1]}}', '{"root": {"path": "a\\u0000b"}}', "\udcff"]
)  # fmt: skip
def test_a_malformed_configuration_of_a_container_is_reported(tmp_path: Path, text: str) -> None:
    log, bundle = tmp_path / "log", tmp_path / "config.json"
    bundle.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ThinRuntimeError, match=f"cannot read {bundle}: it is not a config"):
        oci_runtime.prepare(str(tmp_path), [])
    if text == "{":
        words = ["--log", str(log), "--runtime", "true", "create", "--bundle", str(tmp_path), "c"]
        done = subprocess.run([sys.executable, "-IS", str(FILE), *words], capture_output=True)
        assert done.returncode == 1 and b"Traceback" not in done.stderr
        assert str(bundle) in log.read_text()


def test_a_missing_runtime_is_named() -> None:
    assert os.path.isabs(oci_runtime.find_runtime("sh"))
    with pytest.raises(ThinRuntimeError, match="no-such-runtime"):
        oci_runtime.find_runtime("no-such-runtime")


@pytest.mark.parametrize("form", ["json", "text"])
def test_errors_are_where_engines_look_for_them(tmp_path: Path, form: str) -> None:
    log = tmp_path / "log"
    words = ["--log", str(log), "--log-format", form, "--runtime", "sh"]
    command = [sys.executable, "-IS", str(FILE), *words, "create", "--bundle", str(tmp_path), "c"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "config.json" in done.stderr
    text = log.read_text()
    message = json.loads(text)["msg"] if form == "json" else text
    assert "publisher-oci-runtime: " in message and "config.json" in message
    assert form == "json" or "level=error" in text


def test_it_imports_no_module_of_the_package() -> None:
    command = [sys.executable, "-IS", "-X", "importtime", str(FILE), "--runtime", "true", "create"]
    loaded = subprocess.run(command, capture_output=True, text=True).stderr
    names = {line.rpartition("|")[2].strip() for line in loaded.splitlines()}
    assert "json" in names and not {"publisher", "typing", "pathlib", "subprocess"} & names


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts what an engine has mounted for a container of a thin image; ended with the test."""
    require_mounts()
    for name in ("thin", "upper", "work", "merged", "bundle"):
        (tmp_path / name).mkdir()
    (tmp_path / "bundle/config.json").write_text('{"root": {"path": "../merged"}}')

    def mount(options: str) -> Path:
        words = f"lowerdir=thin,upperdir={tmp_path}/upper,workdir={tmp_path}/work{options}"
        # The kernel shows the paths as they are here.
        words = words.replace("lowerdir=thin", f"lowerdir={tmp_path}/thin")
        run("mount", "-t", "overlay", "engine", "-o", words, tmp_path / "merged")
        return tmp_path / "merged"

    try:
        yield mount
    finally:
        unmount_below(tmp_path)


def layers_of_a_user(tree: Path) -> list[str]:
    """Publish by hand what an ordinary user publishes: three layers, the URLs of their recipe."""
    urls = []
    for name in ("bottom", "middle", "top"):
        files = tree / ".layers/aa" / name / "layerfs"
        (files / "opt").mkdir(parents=True)
        (files / "opt" / name).touch()
        urls.append(f"file://{files}")
    os.setxattr(tree / ".layers/aa/middle/layerfs/opt", "user.overlay.opaque", b"y")
    for path in (tree, *tree.rglob("*")):
        os.chown(path, 1000, 1000)
    return urls


def create(folder: Path, *before: str | Path) -> subprocess.CompletedProcess[str]:
    words = ["--tree", f"{folder}/tree", "--runtime", "true", "create", "--bundle"]
    command = [*before, sys.executable, "-IS", FILE, *words, folder / "bundle", "c"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("options", ["", ",userxattr", ",index=off,ro"])
def test_files_that_a_layer_of_an_ordinary_user_hides_stay_hidden_in_the_mounts_of_root(
    tmp_path: Path, overlay: Callable[[str], Path], options: str
) -> None:
    recipe(tmp_path / "thin", *layers_of_a_user(tmp_path / "tree"))
    merged = overlay(options)
    done = create(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(os.listdir(merged / "opt")) == ["middle", "top"]
    assert len(mounts_below(tmp_path)) == 1 and os.listdir(tmp_path / "bundle") == ["config.json"]
    if "ro" not in options:
        # What the container writes has the marks that its engine reads.
        shutil.rmtree(merged / "opt")
        (merged / "opt").mkdir()
        name = "user.overlay.opaque" if "userxattr" in options else "trusted.overlay.opaque"
        assert os.getxattr(tmp_path / "upper/opt", name) == b"y"
    run("umount", merged)
    assert mounts_below(tmp_path) == []


def test_layers_of_root_and_of_cvmfs_are_mounted_at_once(
    tmp_path: Path, overlay: Callable[[str], Path]
) -> None:
    tree = tmp_path / "tree"
    urls = layers_of_a_user(tree)
    layers = [url.removeprefix("file://") for url in urls]
    assert all(map(oci_runtime.is_of_a_user, layers))
    os.chown(tree / ".layers/aa/top", 0, 0)
    assert [oci_runtime.is_of_a_user(each) for each in layers] == [True, True, False]
    os.setxattr(tree, "user.fqrn", b"images.example.org")
    assert not any(map(oci_runtime.is_of_a_user, layers))


def test_a_runtime_that_is_killed_leaves_at_most_one_mount_where_the_engine_had_its_own(
    tmp_path: Path, overlay: Callable[[str], Path]
) -> None:
    require("strace")
    recipe(tmp_path / "thin", *layers_of_a_user(tmp_path / "tree"))
    steps = ["mkdir:when=1", "umount2:when=1", "mount", "fsopen", "fsconfig:when=1"]
    for step in (*steps, "fsconfig:when=5", "umount2:when=2", "fsmount", "move_mount"):
        merged = overlay("")
        call, _, number = step.partition(":")
        inject = f"inject={call}:signal=KILL{':' if number else ''}{number}"
        done = create(tmp_path, "strace", "-o", tmp_path / "log", "-e", inject)
        assert "killed by SIGKILL" in (tmp_path / "log").read_text(), step
        assert done.returncode != 0 and set(mounts_below(tmp_path)) <= {str(merged)}, step
        unmount_below(tmp_path)
    merged = overlay("")
    assert create(tmp_path).returncode == 0
    assert sorted(os.listdir(merged / "opt")) == ["middle", "top"]


def mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(f"{folder}/")]
