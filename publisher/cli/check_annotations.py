"""The findings of `publisher check` in the forms of code forges, which show them at their lines."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from publisher import __version__
from publisher.errors import printable
from publisher.ingest.check import Report
from publisher.ingest.findings import Finding, Level, describe_rule
from publisher.wishlist.changes import without_line_numbers

_COMMANDS = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTE: "notice"}
_SEVERITIES = {Level.ERROR: "major", Level.WARNING: "minor", Level.NOTE: "info"}
_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def github(report: Report) -> str:
    """Return commands by which a GitHub workflow annotates lines, the errors first.

    GitHub shows only the first ten of each level. Source of the form: GitHub's documentation,
    "Workflow commands for GitHub Actions".
    """
    findings = sorted(report.findings, key=lambda finding: list(Level).index(finding.level))
    return "".join(f"{_workflow_command(finding)}\n" for finding in findings)


def _workflow_command(finding: Finding) -> str:
    properties = {"file": _path(finding.file), "title": finding.rule}
    if finding.line:
        properties |= {"line": str(finding.line), "col": str(finding.column)}
    text = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{_COMMANDS[finding.level]} {text}::{_data(finding.text)}"


def _data(text: str) -> str:
    lines = printable(text, keep_line_breaks=True)
    return lines.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def gitlab(report: Report) -> str:
    """Return a code quality report of GitLab, which is a subset of Code Climate's format."""
    values = [
        {
            "description": printable(finding.text),
            "check_name": finding.rule,
            "fingerprint": fingerprint,
            "severity": _SEVERITIES[finding.level],
            "location": {
                "path": _path(finding.file),
                "lines": {"begin": max(finding.line, 1)},
                "positions": {
                    "begin": {"line": max(finding.line, 1), "column": max(finding.column, 1)}
                },
            },
        }
        for finding, fingerprint in _with_fingerprints(report.findings)
    ]
    return json.dumps(values, indent=1) + "\n"


def sarif(report: Report) -> str:
    """Return a log in the Static Analysis Results Interchange Format, version 2.1.0 (OASIS)."""
    rules = sorted({finding.rule for finding in report.findings})
    run = {
        "tool": {
            "driver": {
                "name": "publisher check",
                "version": __version__,
                "rules": [
                    {
                        "id": rule,
                        "shortDescription": {"text": describe_rule(rule)},
                    }
                    for rule in rules
                ],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(finding, fingerprint, rules.index(finding.rule), report)
            for finding, fingerprint in _with_fingerprints(report.findings)
        ],
    }
    log = {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1) + "\n"


def _result(finding: Finding, fingerprint: str, rule: int, report: Report) -> dict[str, object]:
    place: dict[str, object] = {
        "artifactLocation": {"uri": quote(os.fsencode(_path(finding.file)))}
    }
    if finding.line:
        place["region"] = {"startLine": finding.line, "startColumn": finding.column}
    result: dict[str, object] = {
        "ruleId": finding.rule,
        "ruleIndex": rule,
        "level": str(finding.level),
        "message": {"text": printable(finding.text)},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"wish/v1": fingerprint},
    }
    if any(each.base is not None for each in report.lists):
        result["baselineState"] = "unchanged" if finding.earlier else "new"
    return result


def _with_fingerprints(findings: Iterable[Finding]) -> Iterator[tuple[Finding, str]]:
    """Yield findings, each with a text that stays the same if it moves to another line."""
    seen: Counter[str] = Counter()
    for finding in findings:
        message = without_line_numbers(finding.message)
        identity = "\0".join((finding.rule, _path(finding.file), finding.subject, message))
        seen[identity] += 1
        data = f"{identity}\0{seen[identity]}".encode(errors="surrogateescape")
        yield finding, hashlib.sha256(data).hexdigest()


def _path(file: str) -> str:
    """Return a file relative to the current directory, which is to be the top of the checkout."""
    path = os.path.normpath(file)
    if not os.path.isabs(path):
        return path
    relative = os.path.relpath(os.path.realpath(path))
    return path if relative.startswith("..") else relative
