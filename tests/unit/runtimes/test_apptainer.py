"""Files for Apptainer: shells read the exact values of the config; the image's files stay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from publisher.entry import sort_key
from publisher.oci.config import ContainerConfig, parse_config
from publisher.repository.directory.linker import link_tree
from publisher.runtimes.flat_files import insert, runtime_files

NASTY = [
    "",
    " ",
    "a b",
    "'",
    '"',
    "''\"\"",
    "$HOME",
    "${HOME}",
    "$(touch /tmp/never)",
    "`id`",
    "\\",
    "\\n",
    "a\\",
    "two\nlines",
    "\n",
    "\ttab",
    "!x",
    "*",
    "~",
    "# no comment",
    "a;b|c&d>e<f",
    "-n",
    "ä€😀",
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
# Variables that shells set themselves.
OWN = {
    "UID",
    "EUID",
    "PPID",
    "BASHOPTS",
    "SHELLOPTS",
    "OPTIND",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
    "IFS",
}
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in OWN and not name.startswith(("BASH", "LC_", "LANG"))
)
SHELLS = [path for name in ("dash", "bash", "busybox") if (path := shutil.which(name))]


def config(**values: Any) -> ContainerConfig:
    value = {"os": "linux", "architecture": "amd64", "config": values}
    return parse_config(json.dumps(value).encode(), "of the test").container


def write(folder: Path, image: ContainerConfig) -> Path:
    """Write the files of a flat image without layers, with absolute paths below `folder`."""
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    link_tree(root, insert([], runtime_files(image)), [])
    for script in (root / ".singularity.d").rglob("*"):
        if script.is_file() and not script.is_symlink():
            text = script.read_bytes().replace(
                b"/.singularity.d", f"{root}/.singularity.d".encode()
            )
            script.write_bytes(text)
    return root


def call(
    root: Path, action: str, *arguments: str, shell: str = "/bin/sh", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    words = [shell, "sh"] if Path(shell).name == "busybox" else [shell]
    return subprocess.run(
        [*words, f"{root}/.singularity.d/actions/{action}", *arguments],
        capture_output=True,
        env=environment,
        timeout=60,
    )


def environment_of(output: bytes) -> dict[str, str]:
    pairs = (os.fsdecode(item).partition("=") for item in output.split(b"\0") if item)
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("shell", SHELLS)
def test_every_awkward_value_reaches_a_program_unchanged(tmp_path: Path, shell: str) -> None:
    wanted = {f"V{number}": value for number, value in enumerate(NASTY)}
    root = write(tmp_path, config(Env=[f"{name}={value}" for name, value in wanted.items()]))
    done = call(root, "exec", "/usr/bin/env", "-0", shell=shell, PATH="/usr/bin:/bin")
    assert done.stderr == b""
    found = environment_of(done.stdout)
    assert {name: found.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("shell", SHELLS)
def test_every_awkward_word_of_entrypoint_and_command_reaches_a_program(
    tmp_path: Path, shell: str
) -> None:
    program = ["/usr/bin/printf", "%s\\0"]
    for entrypoint, command in (
        (program, NASTY),
        ([], [*program, *NASTY]),
        ([*program, *NASTY], []),
    ):
        root = write(tmp_path, config(Entrypoint=entrypoint, Cmd=command))
        done = call(root, "run", shell=shell)
        assert done.stdout.split(b"\0")[:-1] == [word.encode() for word in NASTY]


@given(variables=st.dictionaries(NAMES, TEXTS, max_size=5), words=st.lists(TEXTS, max_size=5))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
def test_any_value_and_any_word_survives(
    tmp_path: Path, variables: dict[str, str], words: list[str]
) -> None:
    assume("PATH" not in variables)
    env = [f"{name}={value}" for name, value in variables.items()]
    root = write(tmp_path, config(Env=env, Entrypoint=["/usr/bin/env", "-0"]))
    found = environment_of(call(root, "run").stdout)
    assert {name: found.get(name) for name in variables} == variables

    root = write(tmp_path, config(Entrypoint=["/usr/bin/printf", "%s\\0", "first", *words]))
    assert call(root, "run").stdout.split(b"\0")[1:-1] == [word.encode() for word in words]


@pytest.mark.parametrize(
    ("entrypoint", "command", "given_words", "expected"),
    [
        (["/bin/echo", "e"], ["c"], [], "e c"),
        (["/bin/echo", "e"], ["c"], ["g"], "e g"),
        (["/bin/echo", "e"], None, [], "e"),
        (["/bin/echo", "e"], None, ["g"], "e g"),
        (None, ["/bin/echo", "c"], [], "c"),
        (None, ["/bin/echo", "c"], ["/bin/echo", "g"], "g"),
        (None, None, ["/bin/echo", "g"], "g"),
        ("/bin/echo", None, ["g"], "g"),
    ],
)
def test_arguments_replace_the_command_and_follow_the_entrypoint(
    tmp_path: Path, entrypoint: Any, command: Any, given_words: Sequence[str], expected: str
) -> None:
    image = config(Entrypoint=entrypoint, Cmd=command)
    done = call(write(tmp_path, image), "run", *given_words)
    assert done.stdout.decode().strip() == expected
    executed = image.arguments(given_words)
    assert subprocess.run(executed, capture_output=True, text=True).stdout.strip() == expected


def test_an_image_without_a_command_prints_an_error(tmp_path: Path) -> None:
    done = call(write(tmp_path, config()), "run")
    assert done.returncode == 125 and b"name one" in done.stderr


def test_variables_of_the_caller_are_kept_except_the_search_path(tmp_path: Path) -> None:
    root = write(tmp_path, config(Env=["A=image", "B=image", "PATH=/usr/bin:/image"]))
    found = environment_of(
        call(root, "exec", "/usr/bin/env", "-0", A="mine", B="", PATH="/mine").stdout
    )
    assert (found["A"], found["B"], found["PATH"]) == ("mine", "", "/usr/bin:/image")


def test_only_the_variables_of_the_image_are_set(tmp_path: Path) -> None:
    root = write(tmp_path, config(Env=["A=1", "PATH=/bin"]))
    found = environment_of(call(root, "exec", "/usr/bin/env", "-0").stdout)
    assert {name for name in found if name not in ("PWD", "_", "SHLVL", "OLDPWD")} == {"A", "PATH"}


def test_the_hosts_libraries_are_found_in_apptainer_and_where_some_are_mounted(
    tmp_path: Path,
) -> None:
    root = write(tmp_path, config(Env=["LD_LIBRARY_PATH=/opt/lib"]))
    libraries = f"{root}/.singularity.d/libs"

    def found(**variables: str) -> str:
        done = call(root, "exec", "/usr/bin/env", "-0", PATH="/bin", **variables)
        return environment_of(done.stdout)["LD_LIBRARY_PATH"]

    assert found() == "/opt/lib"
    for name in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        assert found(**{name: "/image"}) == f"/opt/lib:{libraries}"
    (root / ".singularity.d/libs/libcuda.so").touch()
    assert found() == f"/opt/lib:{libraries}"


def test_the_labels_of_the_image_are_those_that_apptainer_shows() -> None:
    [labels] = [
        json.loads(each.content)
        for each in runtime_files(config(Labels={"b": 'x"\n', "a": "ä"}))
        if each.entry.path == ".singularity.d/labels.json"
    ]
    assert labels == {"a": "ä", "b": 'x"\n'}


def test_of_two_values_the_last_counts_and_what_no_shell_can_hold_is_left_out(
    tmp_path: Path,
) -> None:
    root = write(tmp_path, config(Env=["A=1", "a.b=x", "=y", "NONE", "A=2", "-x=1", "1=2"]))
    done = call(root, "exec", "/usr/bin/env", "-0", PATH="/bin")
    assert done.returncode == 0 and done.stderr == b""
    assert environment_of(done.stdout)["A"] == "2"


def test_lone_surrogates_in_scripts_are_replaced() -> None:
    files = {g.entry.path: g for g in runtime_files(config(Env=["A=\ud800x"], Cmd=["\udfff"]))}
    assert "�x" in files[".singularity.d/env/10-docker2singularity.sh"].content.decode()


def test_equal_configs_give_equal_files_of_fixed_owner_and_time() -> None:
    one, two = (runtime_files(config(Env=["A=1"])) for _ in range(2))
    assert one == two
    assert {(g.entry.uid, g.entry.gid, g.entry.mtime_ns) for g in one} == {(0, 0, 0)}
    assert [g.entry.path for g in one] == sorted((g.entry.path for g in one), key=sort_key)
