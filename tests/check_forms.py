"""Reads what `publisher check` prints for other programs, and validates it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft4Validator, Draft202012Validator

from tests.schemas import output_schema, strict

_SCHEMAS = Path(__file__).parent / "published_schemas"

Places = set[tuple[str, int, int, str, str]]
"""File, line, column, level, rule."""

_LEVELS = {"major": "error", "minor": "warning", "info": "note", "notice": "note"}


def schema(name: str) -> Any:
    return json.loads((_SCHEMAS / name).read_text())


def places_of_json(text: str) -> Places:
    value = json.loads(text)
    strict(output_schema("check/1")).validate(value)
    return {(f["file"], f["line"], f["column"], f["level"], f["rule"]) for f in value["findings"]}


def places_of_github(text: str) -> Places:
    """Read workflow commands as GitHub's runner does."""
    found = set()
    for line in text.splitlines():
        command = re.fullmatch(r"::(error|warning|notice) ([^:]*)::(.+)", line)
        assert command, line
        assert not re.search(r"%(?!25|0D|0A)", command[3])
        words = dict(pair.split("=", 1) for pair in command[2].split(","))
        assert set(words) <= {"file", "line", "col", "title"}
        place = unquote(words["file"]), int(words.get("line", 0)), int(words.get("col", 0))
        found.add((*place, _LEVELS.get(command[1], command[1]), words["title"]))
    return found


def places_of_gitlab(text: str) -> Places:
    value = json.loads(text)
    Draft202012Validator(schema("gitlab-code-quality.json")).validate(value)
    fingerprints = [each["fingerprint"] for each in value]
    assert len(set(fingerprints)) == len(fingerprints)
    return {
        (
            each["location"]["path"],
            each["location"]["lines"]["begin"],
            each["location"]["positions"]["begin"]["column"],
            _LEVELS[each["severity"]],
            each["check_name"],
        )
        for each in value
    }


def places_of_sarif(text: str) -> Places:
    value = json.loads(text)
    Draft4Validator(schema("sarif-2.1.0.json")).validate(value)
    [run] = value["runs"]
    found = set()
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        [location] = result["locations"]
        place = location["physicalLocation"]
        region = place.get("region", {"startLine": 0, "startColumn": 0})
        file = unquote(place["artifactLocation"]["uri"])
        line, column = region["startLine"], region["startColumn"]
        found.add((file, line, column, result["level"], result["ruleId"]))
    return found


def cells(row: str) -> list[str]:
    """Return the cells of a row of a Markdown table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def table(text: str) -> list[list[str]]:
    """Return the rows of the table in a Markdown comment, which all have its width."""
    rows = [cells(line) for line in text.splitlines() if line.startswith("|")]
    head, dashes, *rows = rows
    assert set("".join(dashes)) <= {"-", ":", " "}
    assert {len(row) for row in rows} <= {len(head)}
    return rows
