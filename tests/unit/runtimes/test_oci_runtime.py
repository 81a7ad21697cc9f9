"""The runtime for thin images: how it reads its words, its settings, mounts and recipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from publisher.runtimes import oci_runtime
from publisher.runtimes.oci_runtime import Call, Mount, ThinRuntimeError

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
