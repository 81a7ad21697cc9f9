"""The log: its levels, its forms on stderr and in files, and what ties its lines together."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from publisher.cli.log_files import LogFile
from publisher.cli.main import publisher as group
from tests.command import command, environment, publisher
from tests.components import require_mounts, run, unmount_below
from tests.layer_builder import file, image, layer
from tests.registry import OwnRegistry, Reply, error_reply
from tests.registry import Request as Received
from tests.registry_images import noisy_layer
from tests.schemas import output_schema, strict

TEXT = re.compile(r"\d{4}-\d\d-\d\dT[\d:]+\.\d{3}Z ([A-Z]+) ([a-z._]+) \[([0-9a-f]{8}) ?(\S*)\] .+")


@pytest.fixture
def registry() -> Iterator[OwnRegistry]:
    with OwnRegistry() as registry:
        registry.add("team/a", "1", image(layer(file("a")), noisy_layer(seed=1)))
        registry.add("team/b", "1", image(noisy_layer(seed=2)))
        yield registry


def once(change: Reply) -> Any:
    """Return a change that gives this reply to the first request only."""
    replies = [change]
    return lambda received, reply: replies.pop() if replies else reply


def evil(received: Received, reply: Reply) -> Reply:
    return error_reply(403, "DENIED", "no\x1b[31m\nfake line \u202e")


@pytest.fixture
def wishes(registry: OwnRegistry, tmp_path: Path) -> Path:
    """A list of two images that are published, after a retry, and one that is refused."""
    registry.misbehave(once(Reply(503)), path="team/b/manifests/1$")
    registry.misbehave(evil, path="team/c/manifests")
    path = tmp_path / "wishes.yaml"
    lines = [f"- image: '{registry.url}/team/{name}:1'" for name in "abc"]
    text = "\n".join(["version: 2", f"repository: dir:{tmp_path}/images", "images:", *lines])
    path.write_text(text + "\n")
    return path


def events(text: str) -> list[dict[str, Any]]:
    values = [json.loads(line) for line in text.splitlines()]
    for value in values:
        strict(output_schema("event/1")).validate(value)
    return values


def test_each_line_on_stderr_is_an_event_that_has_its_run_and_image(
    wishes: Path, registry: OwnRegistry, tmp_path: Path
) -> None:
    log = ("--log-format", "json", "--debug")
    result = publisher("ingest", wishes, *log, home=tmp_path)
    assert result.code == 1
    found = events(result.err)
    assert {value["run"] for value in found} == {found[0]["run"]}
    assert [found[0]["event"], found[-1]["event"]] == ["command-started", "command-ended"]
    assert found[-1]["data"] == {"exitCode": 1}
    host = registry.host
    steps = [v["data"]["step"] for v in found if v["event"] == "image-step" and "/b:" in v["image"]]
    assert steps == ["resolving", "fetching", "publishing"]
    done = {
        v["image"]: (v["data"]["status"], v["level"]) for v in found if v["event"] == "image-done"
    }
    assert done == {
        f"{host}/team/a:1": ("published", "info"),
        f"{host}/team/b:1": ("published", "info"),
        f"{host}/team/c:1": ("failed", "error"),
    }
    asked = [v for v in found if v["event"] == "request" and "/team/" in v["data"]["place"]]
    assert any("/blobs/" in value["data"]["place"] for value in asked)
    for value in asked:
        [name] = re.findall("/team/[abc]", value["data"]["place"])
        assert value["image"] == f"{host}{name}:1" and value["level"] == "debug"
    [retry] = [value for value in found if value["event"] == "retry"]
    assert (retry["level"], retry["image"]) == ("warning", f"{host}/team/b:1")
    assert any(v["event"] == "output" and "failed: " in v["message"] for v in found)
    for value in found:
        assert value["message"].isprintable()


def test_what_a_plan_and_the_guard_of_a_prune_report_are_errors(
    wishes: Path, registry: OwnRegistry, tmp_path: Path
) -> None:
    def errors(*words: str | Path) -> list[tuple[object, object, object]]:
        found = publisher(*words, "--log-format=json", home=tmp_path)
        assert found.code == 1, found.err
        logged = [each for each in events(found.err) if each["level"] == "error"]
        return [(each["event"], each.get("image"), each["message"]) for each in logged]

    [(name, image, text)] = errors("plan", wishes)
    assert (name, image) == ("image-done", f"{registry.host}/team/c:1")
    assert str(text).startswith("failed: ")
    assert publisher("ingest", wishes, home=tmp_path).code == 1
    wishes.write_text("\n".join(re.sub(".*/[ab]:1.*", "", wishes.read_text()).splitlines()))
    [(name, image, text)] = errors("prune", wishes)
    assert (name, image) == ("command-failed", None)
    assert str(text).startswith("nothing was scheduled: ") and "2 of 2" in str(text)
    [record] = tmp_path.glob("images/.metadata/*/team/a:1/publication.json")
    record.write_text("{")
    [(name, image, text)] = errors("prune", wishes)
    assert (name, image) == ("notice", f"{registry.host}/team/a:1")


def test_the_lines_of_text_have_levels_and_repeat_nothing(
    wishes: Path, registry: OwnRegistry, tmp_path: Path
) -> None:
    result = publisher("ingest", wishes, "--log-level", "info", home=tmp_path)
    *lines, failed, end = result.err.splitlines()
    assert failed.startswith(str(wishes)) and "exitCode" not in end
    matches = [TEXT.fullmatch(line) for line in [*lines, end]]
    assert all(matches), result.err
    assert {match[1] for match in matches if match} == {"INFO", "WARNING", "ERROR"}
    assert f"{registry.host}/team/a:1] fetching" in result.err
    assert result.err.count("publishing") == 2, "there is no other progress"
    assert "status 503 (try 1)" in result.err and " 200 (try" not in result.err
    assert "\x1b" not in result.err and "\nfake" not in result.err
    assert "\u202e" not in result.err


def test_without_an_option_no_event_is_printed(
    registry: OwnRegistry, wishes: Path, tmp_path: Path
) -> None:
    lines = wishes.read_text().splitlines()[:-1]
    wishes.write_text("\n".join(lines) + "\n")
    result = publisher("ingest", wishes, "--quiet", home=tmp_path)
    assert (result.code, result.out, result.err) == (0, "", "")
    assert registry.count("", "team/b/manifests/1$") == 2, "after a retry"
    missing = publisher("show", "absent", "--repository", tmp_path / "images", home=tmp_path)
    assert missing.code == 1 and missing.err.count("absent") == 1


def test_in_the_journal_each_line_has_its_priority_and_no_time(
    wishes: Path, tmp_path: Path
) -> None:
    with (tmp_path / "journal").open("wb") as stderr:
        found = os.fstat(stderr.fileno())
        stream = f"{found.st_dev}:{found.st_ino}"
        subprocess.run(
            command("ingest", wishes, "--log-level", "info"),
            env=environment(tmp_path, JOURNAL_STREAM=stream),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            check=False,
        )
    lines = (tmp_path / "journal").read_text().splitlines()
    logged = [line for line in lines if not line.startswith(str(wishes))]
    assert all(re.match(r"<[346]>publisher\.[a-z._]+ \[", line) for line in logged), lines
    assert {line[:3] for line in logged} == {"<3>", "<4>", "<6>"}


def test_a_log_file_has_the_steps_and_stderr_is_as_without_it(wishes: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ("--log-file", log, "--log-format", "json")
    result = publisher("ingest", wishes, "--quiet", *options, home=tmp_path)
    assert result.code == 1
    [failed] = result.err.splitlines()
    assert failed.startswith(str(wishes))
    found = events(log.read_text())
    assert {value["level"] for value in found} == {"info", "warning", "error"}
    errors = publisher(
        "list", "--repository", tmp_path / "images", *options, "--log-level", "error"
    )
    assert errors.code == 0
    [added] = events(log.read_text())[len(found) :]
    assert (added["event"], added["command"]) == ("command-started", "list")
    assert added["run"] != found[0]["run"]


@pytest.mark.parametrize(
    "kind", ["a directory that is missing", "a pipe", "a full disk", "no name"]
)
def test_a_log_file_that_cannot_be_written_is_an_error_before_anything_is_done(
    wishes: Path, registry: OwnRegistry, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "place/log"
    if kind in ("a pipe", "a full disk"):
        path.parent.mkdir()
    if kind == "a pipe":
        os.mkfifo(path)
    try:
        if kind == "a full disk":
            full(path.parent)
        name = "" if kind == "no name" else str(path)
        result = publisher("ingest", wishes, "--log-file", name, home=tmp_path)
    finally:
        unmount_below(tmp_path)
    assert result.code == 2
    what, why, hint = result.err.splitlines()
    assert what == f"publisher: cannot write the log {name}"
    assert why and hint == "  try: choose another file, or free space there"
    assert not registry.count()


def full(point: Path) -> None:
    """Mount a file system that is full."""
    require_mounts()
    run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", point)
    (point / "filler").write_bytes(bytes(60 * 1024))
    with (point / "more").open("wb", buffering=0) as more, pytest.raises(OSError):
        while True:
            more.write(bytes(1024))


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("publisher", logging.INFO, "", 0, "%s", (text,), None)


def test_a_disk_that_becomes_full_loses_lines_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_mounts()
    point = tmp_path / "small"
    point.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", point)
    handler = LogFile(str(point / "log"))
    try:
        for number in range(200):
            handler.handle(record(f"{number} " + "x" * 1000))
        printed = capsys.readouterr().err
        assert printed.count("cannot write the log") == 1 and "No space left" in printed
        os.truncate(point / "log", 0)
        handler.handle(record("again"))
    finally:
        handler.close()
        assert (point / "log").read_text().endswith("again\n")
        unmount_below(point)


def test_a_folder_of_the_log_that_is_replaced_loses_lines_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    handler = LogFile(str(folder / "log"))
    handler.handle(record("one"))
    folder.rename(tmp_path / "old")
    folder.write_text("a file")
    for _ in range(2):
        handler.handle(record("lost"))
    printed = capsys.readouterr().err
    assert printed.count("cannot write the log") == 1 and "Not a directory" in printed
    folder.unlink()
    folder.mkdir()
    handler.handle(record("two"))
    handler.close()
    assert (folder / "log").read_text() == "two\n"


def test_a_log_file_is_rotated_while_several_processes_write_to_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    handlers = [LogFile(str(path), max_bytes=400, kept=15) for _ in range(3)]
    for number in range(600):
        handlers[number % 3].handle(record(f"line {number}"))
    files = list(tmp_path.iterdir())
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert sorted(lines) == sorted(f"line {number}" for number in range(600))
    assert max(file.stat().st_size for file in files) <= 400
    for number in range(2000):
        handlers[number % 3].handle(record("more"))
    assert len(list(tmp_path.iterdir())) == 16
    for handler in handlers:
        handler.close()


def test_every_command_with_debug_has_the_other_options_of_the_log() -> None:
    context = click.Context(group)
    with_log = 0
    for name in group.list_commands(context):
        each = group.get_command(context, name)
        assert each is not None
        names = {option for parameter in each.params for option in parameter.opts}
        options = {"--debug", "--log-level", "--log-format", "--log-file"}
        assert names >= options or not names & options, name
        with_log += "--debug" in names
    assert with_log > 30
