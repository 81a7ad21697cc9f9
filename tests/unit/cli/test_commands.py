"""Shared by all commands: names, versions, errors, and wish lists that are remote."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from publisher.errors import PublisherError
from tests.certificates import Authority, server_context
from tests.command import environment, publisher, succeed
from tests.layer_builder import file, image, layer, write_layout
from tests.registry import OwnRegistry, Reply
from tests.schemas import ROOT, output_schema

BROKEN = """
import publisher.cli.images as images

def open_repository(*arguments):
    raise {error}

images.open_repository = open_repository
from publisher.cli.main import main
main()
"""


DEFECT = r'KeyError("no such \x1b[2J key")'


def list_with(error: str, tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `publisher list` on an empty tree with a use case that raises `error`."""
    (tree / ".metadata").mkdir()
    return subprocess.run(
        [
            sys.executable,
            "-c",
            BROKEN.format(error=error),
            "list",
            "--repository",
            tree,
            *arguments,
        ],
        env={**environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_an_unexpected_exception_is_explained_without_a_traceback(tmp_path: Path) -> None:
    ended = list_with(DEFECT, tmp_path)
    assert ended.returncode == 70
    assert "Traceback" not in ended.stderr
    what, why, hint = ended.stderr.splitlines()
    assert what == "publisher: cannot complete the command"
    assert why.startswith("  why: unexpected error: KeyError: ") and "\x1b" not in why
    assert hint.startswith("  try: run the command again with --debug")


def test_debug_adds_the_traceback_of_an_unexpected_exception(tmp_path: Path) -> None:
    ended = list_with(DEFECT, tmp_path, "--debug")
    assert ended.returncode == 70
    assert "Traceback (most recent call last)" in ended.stderr
    assert "in open_repository" in ended.stderr


def test_an_unexpected_exception_has_a_result_document(tmp_path: Path) -> None:
    value = json.loads(list_with(DEFECT, tmp_path, "--output", "json").stdout)
    output_schema("error/1").validate(value)
    assert "KeyError" in value["error"]["why"]


def test_system_errors_are_shown_in_words(tmp_path: Path) -> None:
    ended = list_with("OSError(5, 'Input/output error')", tmp_path)
    assert ended.returncode == 3
    assert "why: the disk reports an error" in ended.stderr and "Errno" not in ended.stderr


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_an_option_as_well(option: str) -> None:
    known = re.escape(version("publisher"))
    assert re.fullmatch(rf"publisher {known} \(Python 3\.\d+\.\d+\S*\)\n", succeed(option).out)
    assert succeed(option).out == succeed("version").out


@pytest.mark.parametrize(
    ("typed", "meant"), [("lst", "list"), ("ingset", "ingest"), ("shcedule", "schedule")]
)
def test_an_unknown_command_is_answered_with_similar_ones(typed: str, meant: str) -> None:
    result = publisher(typed)
    assert result.code == 2
    assert f"No such command '{typed}'. Did you mean {meant}" in result.err


def test_an_unknown_command_without_similar_ones_is_only_named() -> None:
    assert "No such command 'xyzzy'.\n" in publisher("xyzzy").err


def test_the_list_of_commands_has_whole_sentences() -> None:
    text = " ".join(succeed("--help").out.partition("\nCommands:\n")[2].split())
    assert "ingest Publish the images that the wish lists WISHLIST... request (" in text
    assert "version Print the version of the publisher and of its Python, as --version does" in text


@pytest.fixture
def wishes(tmp_path: Path) -> Path:
    layout = write_layout(image(layer(file("motd"))), tmp_path / "layout", "1")
    path = tmp_path / "wishes.yaml"
    path.write_text(f"version: 2\nrepository: dir:{tmp_path}/images\nimages: ['oci:{layout}:1']\n")
    return path


def test_the_exit_code_of_plan_shows_whether_an_ingest_would_change_something(
    wishes: Path,
) -> None:
    assert publisher("plan", wishes).code == 0
    assert publisher("plan", wishes, "--detailed-exitcode").code == 4
    succeed("ingest", wishes)
    assert publisher("plan", wishes, "--detailed-exitcode").code == 0
    wishes.write_text(wishes.read_text().replace("layout:1", "layout:absent"))
    assert publisher("plan", wishes, "--detailed-exitcode").code == 1


def test_a_dry_run_of_ingest_leads_to_the_command_that_shows_one(wishes: Path) -> None:
    result = publisher("ingest", wishes, "--dry-run", "--repository", wishes.parent / "images")
    assert result.code == 2
    assert not (wishes.parent / "images").exists()
    (hint,) = re.findall(r"try: publisher (.*)", result.err)
    assert "new: local/layout:1" in succeed(*hint.split()).out
    result = publisher("ingest-image", f"oci:{wishes.parent}/layout:1", "--dry-run")
    (hint,) = re.findall(r"try: publisher (.*)", result.err)
    assert "1 layer" in succeed(*hint.split()).out


def test_a_run_without_progress_prints_one_line_if_nothing_changed(wishes: Path) -> None:
    first = succeed("ingest", wishes, "--no-progress")
    assert first.err == ""
    assert len(first.out.splitlines()) == 2
    second = succeed("ingest", wishes, "--no-progress")
    assert re.fullmatch(r"1 unchanged in \d+\.\d s\n", second.out + second.err)


@pytest.mark.parametrize("verb", ["check", "plan", "ingest", "prune"])
def test_the_configuration_also_holds_for_the_download_of_a_wish_list(
    wishes: Path, tmp_path: Path, verb: str
) -> None:
    authority = Authority.create(tmp_path)
    with OwnRegistry(tls=server_context(authority.issue("server"))) as server:
        text = wishes.read_bytes()
        server.misbehave(lambda request, reply: Reply(200, body=text))
        config = tmp_path / "config.yaml"
        config.write_text(f"registries:\n  {server.host}:\n    ca: {authority.own.certificate}\n")
        (tmp_path / "images/.metadata").mkdir(parents=True)
        arguments = [verb, f"{server.url}/wishes.yaml", "--allow-local"]
        refused = publisher(*arguments)
        assert refused.code == 2 and "certificate" in refused.err
        result = publisher(*arguments, "--config", config)
        assert result.code == 0, result.err


@pytest.mark.parametrize(
    "words",
    [
        ("gc",),
        ("gc", "--orphans"),
        ("remove", "local/a:1"),
        ("restore", "local/a:1"),
        ("pin", "local/a:1"),
        ("unpin", "local/a:1"),
        ("trace", "local/a:1", "--remove"),
        ("verify", "--repair"),
        ("adopt",),
        ("prune", "w.yaml"),
    ],
    ids=" ".join,
)
def test_a_mistyped_repository_is_an_error_and_not_made(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "w.yaml").write_text("version: 2\nimages: ['oci:nowhere:1']\n")
    (tmp_path / "empty").mkdir()
    for name, why in (("typo", "does not exist"), ("empty", "holds no published tree")):
        result = publisher(*words, "--repository", tmp_path / name, cwd=tmp_path)
        assert result.code == 3 and why in result.err, result
    assert {each.name for each in tmp_path.iterdir()} == {"w.yaml", "empty"}
    assert not list((tmp_path / "empty").iterdir())


def test_the_exit_codes_of_errors_name_classes_that_exist() -> None:
    from publisher.cli import failures

    for name in failures._CODES:
        module, _, kind = name.rpartition(".")
        error = getattr(importlib.import_module(module), kind)
        assert issubclass(error, PublisherError)
        assert (error.__module__, error.__qualname__) == (module, kind)
