"""The history while it is read and written concurrently."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from publisher.repository import history
from publisher.repository.history import History
from publisher.tree.history import Record


def record(number: int) -> Record:
    return Record(str(number), "2026-01-01T00:00:00Z", "me", "here", 1, "test", (), {})


def test_a_reader_sees_no_record_twice_while_files_are_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(str(record(100).to_value()))
    monkeypatch.setattr(history, "MAX_BYTES", 3 * size)
    numbers = count(100)
    written = History(tmp_path)
    for _ in range(10):
        written.append(record(next(numbers)).to_value())
    seen = []
    for each in written.read():
        seen.append(int(each.id))
        if len(seen) == 1:  # enough to rotate the file that is being read
            for _ in range(4):
                written.append(record(next(numbers)).to_value())
    assert sorted(set(seen), reverse=True) == seen
    assert seen == list(range(109, 99, -1)), "and none is missing"


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b'{"id":' * 100_000, b"5", b"null", b"not JSON", b'{"id":[]}', b"\xff"]
)
def test_a_damaged_line_is_left_out(tmp_path: Path, line: bytes) -> None:
    written = History(tmp_path)
    written.append(record(1).to_value())
    with (tmp_path / "history.jsonl").open("ab") as file:
        file.write(line + b"\n")
    written.append(record(2).to_value())
    assert [each.id for each in written.read()] == ["2", "1"]
