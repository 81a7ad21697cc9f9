"""The documentation site: its generated reference, and its links."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.figures import diagrams, sharing
from docs.handbook import commands, licences, links, pages, schemas, staging, tables
from docs.handbook.text import escaped, without_empty_addresses
from publisher.metrics.families import FAMILIES
from tests.command import succeed

ROOT = Path(__file__).parents[2]


def test_each_command_has_a_page_with_all_of_its_options() -> None:
    made = {page.name: page.text for page in commands.command_pages()}
    listed = succeed("--help").out.partition("Commands:\n")[2].partition("Exit codes:")[0]
    names = re.findall(r"^    ([a-z-]+)  ", listed, re.MULTILINE)
    assert {f"publisher-{name}" for name in names} <= set(made)
    for name in ("check", "gc", "ingest"):
        options = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", succeed(name, "--help").out, re.MULTILINE)
        shown = re.findall(r"^`(?:-\w, )?(--[a-z-]+)", made[f"publisher-{name}"], re.MULTILINE)
        assert (len(options) > 10, shown) == (True, options)
        headings = re.findall(r"^## (.*)$", made[f"publisher-{name}"], re.MULTILINE)
        assert headings[:3] == ["Synopsis", "Description", "Options"]
    assert "```console\n$ publisher gc --dry-run\n" in made["publisher-gc"]
    assert made["publisher"].endswith("interrupted; the next run goes on from there\n")


def test_text_of_the_program_is_not_taken_for_markup() -> None:
    assert escaped("a *glob* <b> [x](y) `*code*` a_b") == (
        r"a \*glob\* \<b\> \[x\](y) `*code*` a\_b"
    )
    assert escaped("see docs/output.md.") == "see [docs/output.md](/docs/output.md)."
    assert escaped("a ` of its own") == "a \\` of its own"


def test_man_pages_do_not_show_the_empty_addresses_of_links_between_pages() -> None:
    text = ".B adopt \\%<>\nsee docs/output.md <>, and \\%<https://example.org>\n"
    kept = ".B adopt\nsee docs/output.md, and \\%<https://example.org>\n"
    assert without_empty_addresses(text) == kept
    with pytest.raises(AssertionError):
        without_empty_addresses("docs/output.md (<>)")


def test_each_key_of_a_schema_is_in_its_table() -> None:
    for name, path in staging.schemas():
        text = schemas.schema_section(path.read_text(), pages.schema_anchor(name))
        schema = json.loads(path.read_text())
        for key in schema.get("properties", {}):
            assert f"| `{key}`" in text, (name, key)
        for label in re.findall(r"\]\(#([^)]+)\)", text):
            assert f"({label})=" in text, (name, label)


def test_the_keys_of_objects_inside_objects_have_their_path() -> None:
    schema = {
        "title": "x",
        "properties": {
            "a": {"type": "array", "items": {"properties": {"b": {"$ref": "#/$defs/d"}}}},
            "c": {"enum": ["p", "q"], "description": "One | two.", "default": "p"},
        },
        "required": ["c"],
        "$defs": {"d": {"type": "object", "properties": {"e": {"type": "integer", "minimum": 1}}}},
    }
    text = schemas.schema_section(json.dumps(schema), "x")
    assert "| `a[].b` | [d](#x-d) |" in text
    assert '| `c` (required) | `"p"`, `"q"` | One \\| two. Default: `"p"`. |' in text
    assert "(x-d)=\n### d" in text and "| `e` | integer, at least 1 |" in text


def test_metrics_exit_codes_and_variables_are_complete() -> None:
    metrics = tables.metrics_page()
    assert all(f"`{family.name}" in metrics for family in FAMILIES)
    shown = re.findall(r"^\| `(\d+)` \|", tables.exit_codes_page(), re.MULTILINE)
    codes = succeed("--help").out.partition("Exit codes:")[2]
    assert shown == re.findall(r"^ *(\d+) ", codes, re.MULTILINE)
    assert {"PUBLISHER_REPOSITORY", "PUBLISHER_WORKERS", "REGISTRY_AUTH_FILE"} <= set(
        tables.variables()
    )


def test_every_page_is_in_the_navigation_and_every_link_leads_to_a_page(tmp_path: Path) -> None:
    staging.stage(tmp_path / "source")
    index = (tmp_path / "source/index.md").read_text()
    for page in staging.written_pages():
        assert (tmp_path / "source" / f"{page.name}.md").exists()
        in_navigation = re.search(rf"(?:<{page.name}>|^{page.name})$", index, re.MULTILINE)
        assert in_navigation or page.name == "index", page.source
    for path in (tmp_path / "source").rglob("*.md"):
        name = str(path.relative_to(tmp_path / "source"))
        for target in pages.links(path.read_text(), name):
            assert (tmp_path / "source" / target).exists(), (name, target)


def test_links_are_rewritten_outside_of_code_blocks_only() -> None:
    text = "[a `b`](../README.md#x) [c](https://x/) [d](#e)\n```\n[a](../README.md)\n```\n"
    names = {"README.md": "index.md"}
    assert pages.rewritten(text, "runtimes/podman", "docs/podman.md", names) == text.replace(
        "(../README.md#x)", "(../index.md#x)"
    )
    with pytest.raises(KeyError):
        pages.rewritten("[a](missing.md)", "a", "docs/a.md", names)


def test_links_with_names_of_files_as_their_texts_show_headings_on_the_site() -> None:
    text = "see [a.md](a.md#x), [of a](a.md) and [a.yml](a.yml)"
    names = {"docs/a.md": "a.md", "docs/a.yml": "files/a.md"}
    shown = pages.rewritten(text, "b", "docs/b.md", names)
    assert shown == "see [](a.md#x), [of a](a.md) and [a.yml](files/a.md)"
    of_command = pages.rewritten("[docs/a.md](/docs/a.md)", "reference/commands/b", "b.md", names)
    assert of_command == "[docs/a.md](../../a.md)"


def test_a_broken_link_of_a_built_site_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="#here"><a href="b.html#there"><a href="b.html#gone">'
        '<a href="c.html"><img src="d.svg"><a href="https://example.org/">'
    )
    (tmp_path / "b.html").write_text('<p id="there">')
    assert links.broken_links(tmp_path) == [
        f"a.html links to {target}" for target in ("b.html#gone", "c.html", "d.svg")
    ]


def test_the_licences_of_all_dependencies_are_listed_and_compatible() -> None:
    page = (ROOT / "docs/licences.md").read_text()
    assert page == licences.licences_page(), (
        "run python -m docs.handbook.licences > docs/licences.md"
    )
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (.+) \|$", page, re.MULTILINE)
    assert {"click", "requests", "psycopg", "sigstore"} <= {name for name, _, _ in rows}
    for name, _, licence in rows:
        assert not re.search(r"(?<!L)GPL|Affero|Proprietary", licence), name
    assert licences.unknown() == ["sigstore-models"]  # Apache-2.0, in its repository only


def test_the_figures_have_their_own_background_in_light_and_dark() -> None:
    figures = sorted((ROOT / "docs/figures").glob("*.svg"))
    assert len(figures) >= 2
    for path in figures:
        text = path.read_text()
        assert ElementTree.fromstring(text)[0].tag.endswith("title"), path
        light, dark = text.split("@media (prefers-color-scheme: dark)")
        used = set(re.findall(r'class="(\w+)"', text))
        for name in used - {"title"}:
            assert f".{name} {{" in light and f".{name} {{" in dark, (path, name)
    drawn = {name: figure() for name, figure in diagrams.FIGURES.items()}
    drawn["sharing.svg"] = sharing.figure()
    for name, text in drawn.items():
        assert text == (ROOT / "docs/figures" / name).read_text(), name
