"""The published tree follows `layout/`, and JSON output follows `docs/schemas/`."""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from publisher.oci.digest import digest_hex, digest_of
from publisher.oci.manifest import parse_published_manifest
from publisher.tree import layout
from publisher.tree.origin import Origin
from tests import layer_builder as build
from tests import layout_example
from tests.bills import valid_cyclonedx, valid_spdx
from tests.command import Result, publisher
from tests.components import require_root
from tests.layout_example import EXAMPLE, MOVED_IMAGE, describe, published
from tests.schemas import ROOT, layout_schema, output_schema, strict
from tests.trees import assert_same_tree

TOOL = "registry.example.org/team/tool:1.0"


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """The example tree."""
    with published() as directory:
        yield directory


# The example


def test_the_example_is_what_an_ingest_publishes(root: Path) -> None:
    require_root()  # an image's owners and opaque directories can be kept
    found = describe(root)
    expected = {
        path.relative_to(EXAMPLE).as_posix(): path.read_bytes()
        for path in EXAMPLE.rglob("*")
        if path.is_file()
    }
    differences = [
        line
        for path in sorted(found.keys() | expected.keys())
        if found.get(path) != expected.get(path)
        for line in difflib.unified_diff(
            expected.get(path, b"").decode().splitlines(),
            found.get(path, b"").decode().splitlines(),
            f"layout/example/{path}",
            "published",
            lineterm="",
        )
    ]
    assert not differences, "\n".join(
        ["if this is meant: python -m tests.layout_example", *differences]
    )


def schema_of(path: str) -> str | None:
    """Which schema a metadata file follows; None for documents that others specified."""
    name = path.rpartition("/")[2]
    if name in (layout.MANIFEST_FILE, layout.CONFIG_FILE):
        return None
    if path.startswith(layout.IMAGES):
        return "image-users"
    return name.removesuffix(".json")


def metadata_files(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*.json")):
        relative = path.relative_to(root).as_posix()
        inside = layout.LAYER_TREE in relative.split("/") or relative.startswith(layout.FLAT)
        if not inside and not relative.startswith(layout.STATE):
            yield relative


BILLS: Mapping[str, Callable[[bytes], object]] = {
    "sbom.cdx": valid_cyclonedx,
    "sbom.spdx": valid_spdx,
}
"""Bills of materials, whose schemas are those of their specifications."""


def test_every_metadata_file_matches_its_schema(root: Path) -> None:
    checked: set[str] = set()
    for path in metadata_files(root):
        schema = schema_of(path)
        if schema is not None and schema in BILLS:
            BILLS[schema]((root / path).read_bytes())
            checked.add(schema)
        elif schema is not None:
            value = json.loads((root / path).read_bytes())
            layout_schema(schema).validate(value)
            if schema != "origin":
                strict(layout_schema(schema)).validate(value)
            checked.add(schema)
    records = {"origin", "publication", "remove-schedule", "schedule", "image-users"}
    assert checked == records | BILLS.keys()


def test_every_line_of_a_layer_index_matches_its_schema() -> None:
    indexes = list(EXAMPLE.rglob("index.jsonl"))
    assert len(indexes) == 4
    for path in indexes:
        header, *entries = map(json.loads, path.read_text().splitlines())
        strict(layout_schema("index-header")).validate(header)
        assert len(entries) == header["entries"]
        for entry in entries:
            strict(layout_schema("index-entry")).validate(entry)


def test_every_schema_explains_every_key() -> None:
    schemas = [*ROOT.glob("layout/schemas/*.json"), *ROOT.glob("docs/schemas/*.json")]
    # An entry's keys are explained in one place, layout/index.md.
    schemas = [path for path in schemas if not path.name.startswith("index-")]
    assert len(schemas) > 15
    for path in schemas:
        schema = json.loads(path.read_bytes())
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["title"]
        for place, value in _properties(schema):
            target = value
            if "$ref" in value:
                target = schema["$defs"][value["$ref"].rpartition("/")[2]]
            known = value.keys() | target.keys()
            assert {"description", "items", "const", "enum"} & known or place in (
                "line",
                "column",
                "entry",
            ), f"{path.name}: {place}"


def _properties(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from ((key, value) for key, value in properties.items() if value)
        for value in schema.values():
            yield from _properties(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _properties(value)


# What the contract promises beyond schemas


def test_manifests_and_configs_are_the_exact_bytes(root: Path) -> None:
    metadata = root / layout.image_metadata(TOOL)
    assert (metadata / "manifest.json").read_bytes() == MOVED_IMAGE.manifest.data
    assert (metadata / "config.json").read_bytes() == MOVED_IMAGE.config
    for path in metadata_files(root):
        if path.endswith(layout.PUBLICATION_FILE):
            record = json.loads((root / path).read_bytes())
            for key, file in (("manifestDigest", "manifest.json"), ("imageId", "config.json")):
                data = (root / path).with_name(file).read_bytes()
                assert digest_of(data) == record[key], path


def test_every_link_leads_to_the_image_that_its_metadata_names(root: Path) -> None:
    links = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_symlink()
        and path.relative_to(root).parts[0] not in (layout.FLAT, layout.LAYERS, layout.METADATA)
    ]
    assert len(links) == 5
    for name in links:
        manifest = parse_published_manifest((root / layout.manifest_file(name)).read_bytes())
        assert not os.readlink(root / name).startswith("/")
        assert (root / name).resolve() == (root / layout.flat_image(manifest.image_id)).resolve()


def test_origins_agree_with_all_manifests(root: Path) -> None:
    expected: dict[str, set[str]] = {}
    for path in metadata_files(root):
        if path.endswith(layout.MANIFEST_FILE):
            manifest = parse_published_manifest((root / path).read_bytes())
            for layer in manifest.layers:
                expected.setdefault(layer.digest, set()).add(manifest.image_id)
    shards = {path.name for path in root.glob(f"{layout.LAYERS}/*/*")}
    assert shards == {digest_hex(digest) for digest in expected}
    for digest, images in expected.items():
        path = layout.layer_origin(digest)
        assert Origin.parse((root / path).read_bytes(), path).images == images


def test_each_layer_is_found_by_the_chain_ids_of_the_configs(root: Path) -> None:
    expected: dict[str, str] = {}
    for path in metadata_files(root):
        if path.endswith(layout.CONFIG_FILE):
            config = json.loads((root / path).read_bytes())
            manifest = json.loads((root / path).with_name(layout.MANIFEST_FILE).read_bytes())
            chain = ""
            for layer, diff_id in zip(
                manifest["layers"], config["rootfs"]["diff_ids"], strict=True
            ):
                chain = digest_of(f"{chain} {diff_id}".encode()) if chain else diff_id
                expected[chain] = layer["digest"]
    links = {f"sha256:{path.name}": path for path in root.glob(".metadata/.chains/??/*")}
    assert links.keys() == expected.keys()
    for chain, link in links.items():
        assert link.parent.name == digest_hex(chain)[:2]
        assert not os.readlink(link).startswith("/")
        assert link.resolve() == (root / layout.layer_directory(expected[chain])).resolve()
        origin = json.loads((link / ".metadata" / "origin.json").read_bytes())
        assert chain in origin["chains"]


def test_a_scheduled_image_is_still_complete(root: Path) -> None:
    (kept,) = (path.parent for path in root.glob(f"{layout.RETIRED}/*/*/{layout.SCHEDULE_FILE}"))
    (entry,) = json.loads((kept / layout.SCHEDULE_FILE).read_bytes())["entries"]
    assert kept == root / layout.retired_directory(entry["manifestDigest"])
    assert digest_of((kept / "manifest.json").read_bytes()) == entry["manifestDigest"]
    assert json.loads((kept / "manifest.json").read_bytes()) == entry["manifest"]
    assert (root / layout.flat_image(entry["imageId"])).is_dir()
    for layer in entry["manifest"]["layers"]:
        assert (root / layout.layer_tree(layer["digest"])).is_dir()


def test_the_readers_guide_names_every_kind_of_file(root: Path) -> None:
    guide = (ROOT / "layout" / "README.md").read_text()
    for path in metadata_files(root):
        name = path.rpartition("/")[2]
        if not path.startswith(layout.IMAGES):
            assert name in guide, path
    for name in (
        ".flat",
        ".layers",
        ".multiarch",
        ".retired",
        ".images",
        ".chains",
        ".publisher",
        "index.zst",
    ):
        assert name in guide
    for schema in ROOT.glob("layout/schemas/*.json"):
        assert schema.name in guide, schema.name


def test_publishing_again_gives_the_same_tree(root: Path) -> None:
    with published() as again:
        assert_same_tree(again, root, ignore_paths=(f"{layout.STATE}*",), ignore=("mtime_ns",))


# JSON output


def run(*arguments: str | Path, code: int = 0) -> Any:
    """Return what a command prints with --output json, validated with its schema."""
    result = publisher(*arguments, "--output", "json")
    return checked(result, code)


def checked(result: Result, code: int) -> Any:
    assert result.code == code, f"{result.out}\n{result.err}"
    value = result.json
    kind = value["schema"].removeprefix("publisher/")
    output_schema(kind).validate(value)
    strict(output_schema(kind)).validate(value)
    return value


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with the tags good and other, and a wish list beside it."""
    folder = tmp_path_factory.mktemp("sources")
    build.write_layout(layout_example.TOOL_IMAGE, folder / "tool", "good")
    build.write_layout(layout_example.MOVED_IMAGE, folder / "tool", "other")
    (folder / "wishes.yaml").write_text(
        f"version: 2\nrepository: dir:{folder}/images\nimages:\n"
        f"- oci:{folder}/tool:good\n- oci:{folder}/tool:other\n- oci:{folder}/tool:missing\n"
    )
    return folder


@pytest.fixture(scope="module")
def repository(sources: Path) -> Path:
    run("ingest", sources / "wishes.yaml", code=1)
    return sources / "images"


def test_ingest_reports_the_outcome_of_each_image(sources: Path, tmp_path: Path) -> None:
    arguments = ("ingest", sources / "wishes.yaml", "--repository", tmp_path / "images")
    first = run(*arguments, code=1)
    assert [o["status"] for o in first["outcomes"]] == ["published", "published", "failed"]
    assert "missing" in first["outcomes"][2]["error"]
    assert sum(o["layersFetched"] for o in first["outcomes"]) >= 3
    second = run(*arguments, code=1)
    assert [o["status"] for o in second["outcomes"]] == ["unchanged", "unchanged", "failed"]
    build.write_layout(layout_example.MOVED_IMAGE, tmp_path / "tool", "good")
    moved = run(*("ingest-image", f"oci:{tmp_path}/tool:good", "--repository", tmp_path / "images"))
    assert [o["status"] for o in moved["outcomes"]] == ["updated"]


def test_list_and_show_report_what_is_published(repository: Path) -> None:
    images = run("list", "--repository", repository)["images"]
    assert [image["name"] for image in images] == ["local/tool:good", "local/tool:other"]
    shown = run("show", "local/tool:good", "--repository", repository)
    assert shown["config"]["config"]["Cmd"] == ["/bin/su"]
    assert (repository / shown["flatPath"]).is_dir()
    assert all((repository / layer["path"]).is_dir() for layer in shown["layers"])


def test_list_and_show_report_what_cannot_be_read(repository: Path) -> None:
    record = repository / layout.publication_file("local/tool:other")
    data = record.read_bytes()
    manifest = repository / layout.manifest_file("local/tool:good")
    try:
        record.write_bytes(b"{}")
        images = run("list", "--repository", repository, code=1)["images"]
        assert "problem" not in images[0]
        assert layout.publication_file("local/tool:other") in images[1]["problem"]
        shown = run("show", "local/tool:other", "--repository", repository, code=1)
        assert shown["layers"] == []
        record.unlink()  # as another tool's image has none
        assert "publishedAt" not in run("list", "--repository", repository)["images"][1]
        assert run("show", "local/tool:other", "--repository", repository)["layers"]
    finally:
        record.write_bytes(data)
    assert manifest.exists()


def test_text_from_outside_cannot_control_a_terminal(tmp_path: Path) -> None:
    config = {
        "User": "\x1b[2J\nevil",
        "Entrypoint": "\x9b31m",
        "WorkingDir": "\ud800",
        "Cmd": ["\x1b]0;title\x07"],
    }
    image = build.image(build.layer(build.file("x")), config=config)
    build.write_layout(image, tmp_path / "tool", "1")
    repository = ("--repository", tmp_path / "images")
    run("ingest-image", f"oci:{tmp_path}/tool:1", *repository)
    shown = publisher("show", "local/tool:1", *repository)
    assert shown.code == 0
    assert all(line.isprintable() for line in shown.out.splitlines())
    assert "\\x1b[2J\\nevil" in shown.out
    assert run("show", "local/tool:1", *repository)["config"]["config"] == config


def test_a_name_that_is_not_published_is_repeated_as_it_was_written(repository: Path) -> None:
    for name, shown in (
        ("local/nothing:1", "local/nothing:1"),
        ("debian", "docker.io/library/debian:latest"),
    ):
        result = publisher("show", name, "--repository", repository)
        assert result.code == 1
        assert f"no image is published as {shown}\n" in result.err


def test_two_lists_with_different_images_for_one_place_are_reported(tmp_path: Path) -> None:
    for owner, built in (("a", layout_example.TOOL_IMAGE), ("b", layout_example.MOVED_IMAGE)):
        build.write_layout(built, tmp_path / owner / "tool", "1")
        (tmp_path / f"{owner}.yaml").write_text(
            f"version: 2\nimages:\n- oci:{tmp_path}/{owner}/tool:1\n"
        )
    lists = (tmp_path / "a.yaml", tmp_path / "b.yaml")
    report = run("ingest", *lists, "--repository", tmp_path / "images", code=1)
    assert sorted(o["status"] for o in report["outcomes"]) == ["failed", "published"]
    (failed,) = [o for o in report["outcomes"] if o["status"] == "failed"]
    assert "is published at the same place, local/tool:1" in failed["error"]
    # The same image in two lists is no contradiction.
    lists[1].write_text(lists[0].read_text())
    report = run("ingest", *lists, "--repository", tmp_path / "other")
    assert sorted(o["status"] for o in report["outcomes"]) == ["published", "recorded"]
    assert {o["wishList"] for o in report["outcomes"]} == {str(path) for path in lists}


def test_ls_diff_and_find_report_the_content_of_images(repository: Path) -> None:
    entries = run("ls", "local/tool:good", "etc", "--repository", repository)["entries"]
    assert [entry["path"] for entry in entries] == ["etc/version"]
    both = ("local/tool:good", "local/tool:other")
    differences = run("diff", *both, "--repository", repository)["differences"]
    assert {d["change"] for d in differences} == {"added", "removed", "changed"}
    found = run("find", "newer", "--repository", repository)["found"]
    assert [(f["image"], f["entry"]["path"]) for f in found] == [("local/tool:other", "opt/newer")]


def test_inspect_and_tags_report_what_a_source_has(sources: Path, repository: Path) -> None:
    reference = f"oci:{sources}/tool:good"
    assert run("inspect", reference)["images"][0]["layers"][0]["published"] is None
    known = run("inspect", reference, "--repository", repository)
    assert all(layer["published"] for layer in known["images"][0]["layers"])
    assert run("tags", f"oci:{sources}/tool")["tags"] == ["good", "other"]


def test_check_reports_problems_of_lists_and_images(sources: Path, tmp_path: Path) -> None:
    found = run("check", sources / "wishes.yaml", code=1)
    assert [image["status"] for image in found["images"]] == ["ok", "ok", "failed"]
    assert run("check", "--offline", sources / "wishes.yaml")["images"] == []
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 2\nimages:\n- ../x:1\n- docker.io/library/debian:stable\n")
    (problem,) = run("check", "--offline", bad, code=2)["problems"]
    assert (problem["line"], problem["severity"]) == (3, "error")


def test_plan_reports_what_an_ingest_would_do(sources: Path, repository: Path) -> None:
    planned = run("plan", sources / "wishes.yaml", code=1)["images"]
    assert [image["status"] for image in planned] == ["unchanged", "unchanged", "failed"]


def test_a_plan_can_be_made_before_anything_was_published(sources: Path, tmp_path: Path) -> None:
    empty, occupied = tmp_path / "empty", tmp_path / "occupied"
    empty.mkdir()
    (tmp_path / "occupied" / "something").mkdir(parents=True)
    for place in (tmp_path / "new", empty):
        planned = run("plan", sources / "wishes.yaml", "--repository", place, code=1)["images"]
        assert [image["status"] for image in planned] == ["published", "published", "failed"]
        assert all(image["newLayers"] for image in planned[:2])
    assert sorted(tmp_path.iterdir()) == [empty, occupied]
    assert not list(empty.iterdir())
    for place in (tmp_path / "no" / "parent", occupied):
        run("plan", sources / "wishes.yaml", "--repository", place, code=3)


def test_init_reports_the_policy(tmp_path: Path) -> None:
    assert run("init", tmp_path / "images", "--readable")["policy"] == {"readable": True}
    settings = json.loads((tmp_path / "images" / layout.REPOSITORY_SETTINGS).read_bytes())
    strict(layout_schema("repository")).validate(settings)
    assert not run("init", tmp_path / "images")["changed"]
    kept = run("init", tmp_path / "images", "--writable", "keep")["policy"]
    assert kept == {"readable": True, "writable": "keep"}
    settings = json.loads((tmp_path / "images" / layout.REPOSITORY_SETTINGS).read_bytes())
    strict(layout_schema("repository")).validate(settings)


def test_verify_finds_the_example_sound_in_every_byte(root: Path) -> None:
    found = run("verify", "--deep", "--repository", root)
    assert found["findings"] == []
    assert (found["images"], found["layers"], found["flatImages"]) == (5, 4, 4)


def test_verify_reports_findings(root: Path) -> None:
    link = root / TOOL
    text = os.readlink(link)
    link.unlink()
    link.symlink_to("nowhere")
    try:
        found = run("verify", "--repository", root, code=1)
        assert {finding["image"] for finding in found["findings"]} == {TOOL}
        repaired = run("verify", "--repair", "--repository", root)
        assert repaired["repaired"]
        assert os.readlink(link) == text
    finally:
        link.unlink()
        link.symlink_to(text)


def test_removal_reports_each_of_its_steps(sources: Path, tmp_path: Path) -> None:
    repository = ("--repository", tmp_path / "images")
    name = "local/tool:good"
    wishes = tmp_path / "wishes.yaml"
    wishes.write_text(f"version: 2\nimages:\n- oci:{sources}/tool:good\n")
    run("ingest", wishes, *repository)
    assert [p["name"] for p in run("pin", name, "--until", "2999-12-31", *repository)["pinned"]]
    assert run("pin", *repository)["pinned"][0]["until"] == "2999-12-31"
    assert run("unpin", name, *repository)["unpinned"]
    assert [e["name"] for e in run("remove", name, *repository)["scheduled"]] == [name]
    assert [e["name"] for e in run("schedule", *repository)["entries"]] == [name]
    settings = json.loads((tmp_path / "images" / layout.REMOVE_SCHEDULE).read_bytes())
    layout_schema("remove-schedule").validate(settings)
    assert run("restore", name, *repository)["restored"] == [name]
    run("pin", name, "--reason", "test", *repository)
    layout_schema("pins").validate(json.loads((tmp_path / "images" / layout.PINS).read_bytes()))
    run("unpin", name, *repository)
    wishes.write_text(f"version: 2\nimages:\n- oci:{sources}/tool:other\n")
    (pruned,) = run("prune", wishes, "--yes-really", *repository)["repositories"]
    assert [e["name"] for e in pruned["scheduled"]] == [name]
    assert run("gc", "--dry-run", "--now", *repository)["dryRun"]
    collected = run("gc", "--now", *repository)
    assert [e["name"] for e in collected["collected"]] == [name]
    assert run("list", *repository)["images"] == []
    assert run("verify", "--deep", *repository)["findings"] == []


def test_log_reports_users_and_changes(repository: Path) -> None:
    transactions = run("log", "--repository", repository)["transactions"]
    assert {c["name"] for t in transactions for c in t["changes"]} >= {
        "local/tool:good",
        "local/tool:other",
    }
    for transaction, line in zip(
        transactions,
        re.findall(r"(?m)^\S.*$", publisher("log", "--repository", repository).out),
        strict=True,
    ):
        trees, paths = transaction["paths"]["trees"], transaction["paths"]["removed"]
        assert f"  {trees} tree{'s' * (trees != 1)} added, " in line
        assert line.endswith(f" written, {paths} path{'s' * (paths != 1)} removed")


def test_thin_reports_the_destination_of_the_thin_image(repository: Path, tmp_path: Path) -> None:
    place = f"oci:{tmp_path}/thin:1"
    saved = run("thin", "local/tool:good", "--save", place, "--repository", repository)
    assert saved["reference"] == place


def test_version_reports_versions() -> None:
    assert run("version")["python"]


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("list",), 2, "no repository was given"),
        (("list", "--repository", "s3:x"), 2, "s3:x"),
        (("list", "--repository", "/nonexistent/images"), 3, "/nonexistent/images"),
        (("ingest", "/nonexistent/wishes.yaml", "--repository", "x"), 2, "wishes.yaml"),
        (("ingest-image", "../x", "--repository", "/nonexistent/images"), 2, "../x"),
        (("ingest-image", "quay.io/a/b:1", "--repository", "/nonexistent/x"), 3, "/nonexistent"),
    ],
)
def test_an_error_is_one_document_and_one_message(
    arguments: tuple[str, ...], code: int, part: str
) -> None:
    result = publisher(*arguments, "--output", "json")
    value = checked(result, code)
    assert value["schema"] == "publisher/error/1"
    assert part in value["error"]["what"]
    assert part in result.err
    assert "Traceback" not in result.err


def test_an_error_of_the_disk_is_a_message_too(repository: Path, tmp_path: Path) -> None:
    """A directory for module files that is below a file."""
    (tmp_path / "file").touch()
    arguments = ("local/tool:good", tmp_path / "file/modules", "--command", "sh")
    result = publisher("modulefile", *arguments, "--repository", repository, "--output", "json")
    error = checked(result, 1)["error"]
    assert "file/modules" in error["what"] and error["why"] == "Not a directory"
    assert "Traceback" not in result.err


def test_nothing_but_the_document_is_on_stdout(sources: Path, tmp_path: Path) -> None:
    arguments = ("ingest", sources / "wishes.yaml", "--repository", tmp_path / "images")
    result = publisher(*arguments, "--output", "json")
    json.loads(result.out)
    assert "published" in result.err
    again = publisher(*arguments, "--output", "json", "--quiet")
    json.loads(again.out)
    assert again.err == ""


def test_every_json_output_has_a_documented_schema() -> None:
    kinds = set()
    printing = ("print_json", "json_text")
    for path in (ROOT / "publisher" / "cli").glob("*.py"):
        if path.name == "rendering.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in printing:
                name = node.args[0]
                assert isinstance(name, ast.Constant), f"{path.name}: write the kind out"
                kinds.add(str(name.value))
    assert {"ingest/1", "list/1", "show/1", "check/1", "version/1"} <= kinds
    guide = (ROOT / "docs" / "output.md").read_text()
    for kind in kinds | {"error/1"}:
        output_schema(kind)
        assert f"`{kind}`" in guide, f"docs/output.md does not name {kind}"
