"""The lines that a host of the service writes to stderr."""

from __future__ import annotations

import logging
import os

import pytest

from publisher.cli.service_process import _OneLine


def test_a_line_begins_with_its_time_or_with_its_priority_in_the_journal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    record = logging.LogRecord("publisher.service", logging.WARNING, "", 0, "a\nb", (), None)
    record.created = 1_764_230_400.5
    assert _OneLine().format(record) == "2025-11-27T08:00:00.500Z WARNING: a"
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    assert _OneLine().format(record) == "<4>WARNING: a"
