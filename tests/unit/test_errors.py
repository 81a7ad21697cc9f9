"""Errors and the escaping of text from outside."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from publisher.errors import PublisherError, explain, printable

OSC = "\x1b]0;title\x07"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, ü and …", "plain text, ü and …"),
        (OSC, "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\ud800", "\\ud800"),
        ("back\\slash and 'quotes' \x00", "back\\slash and 'quotes' \\x00"),
    ],
)
def test_printable_escapes_what_a_terminal_interprets(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_an_error_escapes_what_it_quotes_and_keeps_line_breaks() -> None:
    error = PublisherError(f"cannot read {OSC}", why=f"two\nlines {OSC}", hint=OSC)
    assert "\x1b" not in f"{error}{error.what}{error.why}{error.hint}"
    assert error.why.startswith("two\nlines ")


def test_an_error_of_temporary_files_names_the_variable_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "missing")])
    with pytest.raises(FileNotFoundError) as caught:
        tempfile.gettempdir()
    error = explain(caught.value)
    assert error.why.startswith("No usable temporary directory")
    assert error.hint == "set TMPDIR to a directory in which this user may create files"
