"""The result of a check in the forms of code forges, valid and with the places of findings."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from tests import check_forms
from tests.command import publisher, succeed
from tests.layer_builder import write_layout
from tests.registry_images import sample_image

FORMS = ("text", "json", "github", "gitlab", "sarif", "markdown")


def test_every_form_has_the_findings_at_their_places(tmp_path: Path) -> None:
    write_layout(sample_image(1000), tmp_path / "layout", "v1")
    write_layout(sample_image(1000), tmp_path / "layout", "latest")
    lists = tmp_path / "lists, 100%"
    lists.mkdir()
    old = "version: 2\nimages:\n  - X Y\n"
    new = (
        "  - oci:layout:v1\n"
        "  - {image: 'oci:layout:gone', owner: '@all <b>|*x*'}\n"
        "  - oci:layout:latest\n"
        "  - oci:layout:v1\n"
        "  - 'A|<i>@you'\n"
    )
    (tmp_path / "old.yaml").write_text(old)
    path = lists / "é.yaml"
    path.write_text(old + new)
    name = "lists, 100%/é.yaml"
    reports = [word for form in FORMS for word in ("--report", f"{form}={tmp_path / form}")]
    words = ("check", "--base", "old.yaml", *reports)
    result = publisher(*words, name, cwd=tmp_path)
    assert result.code == 2, result.err
    files = {form: (tmp_path / form).read_text() for form in FORMS}
    assert files["text"] == result.out
    expected = {
        (name, 3, 5, "note", "wish-list"),
        (name, 5, 5, "error", "image-missing"),
        (name, 6, 5, "note", "mutable-tag"),
        (name, 7, 5, "error", "duplicate-wish"),
        (name, 8, 5, "error", "wish-list"),
    }
    assert check_forms.places_of_json(files["json"]) == expected
    assert check_forms.places_of_github(files["github"]) == expected
    assert check_forms.places_of_gitlab(files["gitlab"]) == expected
    assert check_forms.places_of_sarif(files["sarif"]) == expected
    states = [each["baselineState"] for each in json.loads(files["sarif"])["runs"][0]["results"]]
    assert states == ["unchanged", "new", "new", "new", "new"]
    assert files["github"].startswith("::error file=lists%2C 100%25/é.yaml,title=image-missing,")

    rows = check_forms.table(files["markdown"])
    assert [(row[0], row[1].rpartition(":")[2]) for row in rows] == [
        ("✅", "4"),
        ("❌", "5"),
        ("✅", "6"),
        ("❌", "7"),
        ("❌", "8"),
    ]
    assert rows[0][2:5] == ["`local/layout:v1`", "2.6 kB", "?"]
    assert "**remove this line**" in rows[3][6]
    for text in ("@you", "@all", "<i>", "<b>"):
        assert text not in re.sub(r"(?<!\\)`[^`]*`", "", files["markdown"])
    assert "1 note on what this change does not touch" in files["markdown"]

    # Another line, the same finding: forges match them by their fingerprints.
    path.write_text(old + "\n\n" + new)
    moved = publisher("check", "--base", "old.yaml", path, "--output", "gitlab", cwd=tmp_path)
    both = [json.loads(files["gitlab"]), json.loads(moved.out)]
    assert len({each["location"]["lines"]["begin"] for found in both for each in found}) > 5
    first, second = ({each["fingerprint"] for each in found} for found in both)
    assert first == second


def test_a_check_without_findings_is_valid_in_every_form(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text("version: 2\nimages: [a:1]\n")
    words = ("check", "l.yaml", "--offline", "--output")
    assert succeed(*words, "github", cwd=tmp_path).out == ""
    assert json.loads(succeed(*words, "gitlab", cwd=tmp_path).out) == []
    assert check_forms.places_of_sarif(succeed(*words, "sarif", cwd=tmp_path).out) == set()
    assert succeed(*words, "markdown", cwd=tmp_path).out.startswith(
        "### ✅ Wish lists: no errors\n"
    )
    # The name of a file need not be UTF-8.
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.yaml")).write_text("version: 3\n")
    result = publisher("check", os.fsdecode(b"\xff.yaml"), "--output", "sarif", cwd=tmp_path)
    check_forms.places_of_sarif(result.out)
    assert '"uri": "%FF.yaml"' in result.out
    for report in ("x=y", "json", "json="):
        result = publisher("check", "l.yaml", "--offline", "--report", report, cwd=tmp_path)
        assert (result.code, f"cannot use --report {report}" in result.err) == (2, True)


def test_a_backslash_before_a_column_does_not_end_the_cell_of_a_comment(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text("version: 2\nimages: ['a\\|<img/src=x>[x](http://e)']\n")
    result = publisher("check", "l.yaml", "--offline", "--output", "markdown", cwd=tmp_path)
    row = next(line for line in result.out.splitlines() if "l.yaml:2" in line)
    assert "<code>a\\\\\\|&lt;img/src=x&gt;\\[x\\](http://e)</code>" in row
    assert "<img" not in row
    assert len(re.findall(r"(?:[^|\\]|\\.)+", row)) == 7
