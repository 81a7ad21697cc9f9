"""The output of a command as events, of bounded number and size."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from publisher.service.jobs import output as output_module
from publisher.service.jobs.output import MAX_LINE, Output, Value
from tests.schemas import output_schema


def read(text: bytes, allowed: int = 100) -> list[Value]:
    output = Output("ingest", allowed)
    output.read(io.BytesIO(text))
    output.end()
    taken = [*output.take(2), *output.take(1000)]
    for value in taken:
        output_schema("event/1").validate(dict(value))
    return taken


def line(event: str, level: str) -> bytes:
    value = {
        "schema": "publisher/event/1",
        "time": "2026-11-26T10:15:00.123Z",
        "level": level,
        "event": event,
        "message": event,
        "command": "ingest",
        "run": "0123abcd",
        "logger": "publisher",
    }
    return json.dumps(value).encode() + b"\n"


def test_lines_become_events_and_those_that_only_debugging_needs_are_left_out() -> None:
    text = line("image-step", "info") + line("request", "debug") + line("layer-done", "debug")
    found = read(text + b"\x1b[31m red \xff\n{not json\n" + b"[" * 1000 + b"\n{}")
    names = [each["event"] for each in found]
    assert names == ["image-step", "layer-done", "output", "output", "output", "output"]
    assert found[2]["message"] == "\\x1b[31m red \ufffd"


def test_long_lines_are_cut_and_do_not_hide_the_next_one() -> None:
    found = read(b"x" * (3 * MAX_LINE) + b"\n" + b"y" * (MAX_LINE - 1) + b"\nz\n")
    assert [len(str(each["message"])) for each in found] == [MAX_LINE + 1, MAX_LINE - 1, 1]


def test_of_too_many_lines_errors_and_the_end_are_kept_and_the_others_counted() -> None:
    text = b"line\n" * 500 + line("image-done", "error") + line("command-ended", "info")
    found = read(text, allowed=3)
    assert [each["event"] for each in found[3:]] == ["image-done", "command-ended", "notice"]
    assert found[-1]["message"] == "497 further lines of the output were not kept"
    assert len(read(line("image-done", "error") * 1000, allowed=0)) == 101


def test_why_a_job_failed_comes_last_also_after_too_many_lines_and_errors() -> None:
    output = Output("ingest", 3)
    output.read(io.BytesIO(line("image-done", "error") * 1000))
    output.end("no disk")
    *_, dropped, failed = output.take(1000)
    assert dropped["message"] == "897 further lines of the output were not kept"
    assert (failed["event"], failed["level"], failed["message"]) == (
        "job-failed",
        "error",
        "no disk",
    )


def test_of_gigabytes_only_the_lines_that_may_be_kept_are_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed = 0
    parse = output_module._value

    def counting(*arguments: Any) -> Value | None:
        nonlocal parsed
        parsed += 1
        return parse(*arguments)

    monkeypatch.setattr(output_module, "_value", counting)
    many = 100_000
    text = line("image-step", "info") * many + line("image-done", "error")
    text += b"x" * 100_000 + b"\n" + b"y\n" * many + line("command-ended", "info")
    found = read(text, allowed=3)
    assert [each["event"] for each in found[3:]] == ["image-done", "command-ended", "notice"]
    assert found[-1]["message"] == f"{2 * many - 2} further lines of the output were not kept"
    assert parsed < many / 3  # those of the blocks of 64 KiB that have an important one


def test_events_that_could_not_be_stored_come_first_again() -> None:
    output = Output("gc", 10)
    output.read(io.BytesIO(b"a\nb\nc\n"))
    taken = output.take(2)
    output.put_back(taken)
    assert [each["message"] for each in output.take()] == ["a", "b", "c"]


def test_a_line_that_could_not_be_written_again_is_kept_as_text() -> None:
    deep = line("image-done", "error")[:-2] + b', "data": {"x": '
    lines = [deep + b"[" * depth + b"]" * depth + b"}}\n" for depth in (3, 20, 300, 900, 5000)]
    lines += [deep + b"NaN}}\n", deep + b"9" * 5000 + b"}}\n", b"last\n"]
    found = read(b"".join(lines))
    assert [each["event"] for each in found] == ["image-done", *["output"] * 7]
    assert found[-1]["message"] == "last"
    assert [json.loads(json.dumps(each)) for each in found] == found


def test_the_end_of_a_command_follows_what_its_other_stream_still_has() -> None:
    output = Output("gc", 10)
    ended = {"level": "info", "event": "command-ended", "message": "the command ends with 0"}
    output.read(io.BytesIO(json.dumps(ended).encode() + b"\n"))
    assert output.take() == []
    output.read(io.BytesIO(b"1 layer removed\n"))
    output.end_command()
    assert [each["message"] for each in output.take()] == ["1 layer removed", ended["message"]]
