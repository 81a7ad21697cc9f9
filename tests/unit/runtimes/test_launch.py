"""How an image is started: user, environment, command; and module files for its programs."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.oci.config import ContainerConfig, parse_config
from publisher.runtimes import launch, modulefile
from publisher.runtimes.launch import DEFAULT_PATH, CannotRun, Identity, resolve_user
from tests.components import require

PASSWD = "root:x:0:0::/root:/bin/sh\napp:x:10:20::/home/app:/bin/sh\nbroken\nbad:x:a:b::/:\n"
GROUP = "root:x:0:\nmain:x:20:\nextra:x:30:other,app\nfive:x:5:\n"
HEX = "a" * 64


def config(**values: Any) -> ContainerConfig:
    value = {"os": "linux", "architecture": "amd64", "config": values}
    return parse_config(json.dumps(value).encode(), "of the test").container


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Identity(0, 0, (), "/root")),
        ("root", Identity(0, 0, (), "/root")),
        ("app", Identity(10, 20, (30,), "/home/app")),
        ("10", Identity(10, 20, (30,), "/home/app")),
        ("app:five", Identity(10, 5, (), "/home/app")),
        ("app:7", Identity(10, 7, (), "/home/app")),
        ("99", Identity(99, 0, (), "/")),
        ("99:main", Identity(99, 20, (), "/")),
        (":five", Identity(0, 5, (), "/root")),
        ("app:", Identity(10, 20, (30,), "/home/app")),
    ],
)
def test_users_are_looked_up_as_engines_do(user: str, expected: Identity) -> None:
    assert resolve_user(user, PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    "user",
    ["nobody", "app:nogroup", "bad", "4294967295", "app:4294967295", "9" * 5000, "٣", "-1", "0:-1"],
)
def test_a_user_that_the_image_does_not_have_is_named(user: str) -> None:
    with pytest.raises(CannotRun) as caught:
        resolve_user(user, PASSWD, GROUP)
    assert user in caught.value.what


@given(st.text(), st.text(), st.text())
def test_any_user_and_any_files_give_ids_or_an_error(user: str, passwd: str, group: str) -> None:
    with contextlib.suppress(CannotRun):
        found = resolve_user(user, passwd, group)
        assert all(0 <= each < 2**32 - 1 for each in (found.uid, found.gid, *found.groups))


@pytest.mark.parametrize(
    "settings",
    [
        {"Cmd": ["a\0b"]},
        {"Cmd": ["a"], "Env": ["A=\0"]},
        {"Cmd": ["a"], "Env": ["A\0=1"]},
        {"Cmd": ["a"], "WorkingDir": "/\0"},
    ],
)
def test_a_nul_character_is_refused_before_the_program_is_started(settings: Any) -> None:
    with pytest.raises(CannotRun, match="NUL"):
        launch.prepare_start("/x", config(**settings), (), PASSWD, GROUP)


def test_an_image_without_a_command_is_refused_with_the_command_to_use() -> None:
    with pytest.raises(CannotRun, match="publisher run IMAGE -- COMMAND"):
        launch.prepare_start("/x", config(), (), "", "")


def test_home_and_path_are_set_only_where_the_image_sets_none() -> None:
    start = launch.prepare_start("/x", config(Cmd=["a"], User="app"), (), PASSWD, GROUP)
    assert start.environment == {"PATH": DEFAULT_PATH, "HOME": "/home/app"}
    own = config(Cmd=["a"], Env=["HOME=/mine", "PATH=/p"])
    start = launch.prepare_start("/x", own, (), PASSWD, GROUP)
    assert start.environment == {"PATH": "/p", "HOME": "/mine"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"Entrypoint": ["/opt/bin/casa", "-x"]}, {"casa": None}),
        ({"Cmd": ["python3"]}, {"python3": "python3"}),
        ({"Cmd": ["/usr/bin/tool", "x"]}, {"tool": "/usr/bin/tool"}),
        ({"Cmd": ["bash"]}, {}),
        ({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["tool"]}, {}),
        ({"Cmd": ["/weird name"]}, {}),
        ({}, {}),
    ],
)
def test_a_module_provides_the_program_that_the_image_runs_unless_it_is_a_shell(
    settings: Any, expected: dict[str, str | None]
) -> None:
    assert modulefile.entry_program(config(**settings)) == expected


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("quay.io/a/b:1", ("quay.io/a/b", "1")),
        ("host:5000/b:1", ("host:5000/b", "1")),
        (f"quay.io/b@sha256:{HEX}", ("quay.io/b", f"sha256-{HEX}")),
    ],
)
def test_modules_are_named_after_images(image: str, expected: tuple[str, str]) -> None:
    assert modulefile.module_name(image) == expected


@pytest.mark.parametrize("runtime", modulefile.RUNTIMES)
@pytest.mark.parametrize("program", [None, "tool"])
def test_a_wrapper_passes_every_argument_on(
    tmp_path: Path, runtime: str, program: str | None
) -> None:
    root = "/srv/it's $HOME/quay.io/a:1"
    script = tmp_path / "wrapper"
    script.write_text(modulefile.wrapper("quay.io/a:1", root, "dir:/srv/x", program, runtime))
    fake = tmp_path / runtime
    fake.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    fake.chmod(0o755)
    words = ["a b", "", "$x", "it's"]
    done = subprocess.run(
        ["/bin/sh", script, *words], capture_output=True, text=True, env={"PATH": str(tmp_path)}
    )
    found = done.stdout.split("\0")[:-1]
    assert found[-4:] == words
    assert (root if runtime == "apptainer" else "quay.io/a:1") in found
    assert ("tool" in found) == (program is not None)


NASTY = 'it\'s "q" $HOME [exec false] {x} \\ back'


def test_a_tcl_module_quotes_every_character(tmp_path: Path) -> None:
    require("tclsh")
    file = tmp_path / "module"
    file.write_text(modulefile.module_file("tcl", "a:1", NASTY, ["x"], NASTY, NASTY))
    loader = tmp_path / "loader.tcl"
    loader.write_text(
        "proc module-whatis {text} { puts $text }\n"
        "proc prepend-path {name value} { puts $value }\n"
        "proc setenv {name value} { puts $value }\n"
        "source [lindex $argv 0]\n"
    )
    done = subprocess.run(["tclsh", loader, file], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{NASTY}: x", NASTY, NASTY]


def test_a_lua_module_escapes_what_ends_a_string() -> None:
    text = modulefile.module_file("lua", "a:1", 'x "y" \\ z\n', ["x"], "/w", "/r")
    assert 'help("x \\"y\\" \\\\ z\\n: x")' in text
    assert 'prepend_path("PATH", "/w")' in text
