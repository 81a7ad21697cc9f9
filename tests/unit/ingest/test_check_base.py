"""A change of a wish list is checked without asking about the wishes that it does not touch."""

from __future__ import annotations

from pathlib import Path

from tests.command import publisher, succeed
from tests.layer_builder import image, image_index
from tests.registry import OwnRegistry
from tests.registry_images import noisy_layer, sample_image
from tests.schemas import output_schema, strict

BEFORE = """\
version: 2
repository: dir:tree
defaults: {{outputs: [flat]}}
images:
  - {host}/team/app:v1
  - {host}/gone/x:1
  - {{image: {host}/gone/y:1, owner: bio}}
  - {{image: {host}/team/many, tags: ['1.*'], exclude: ['1.9']}}
  - {{image: {host}/team/terms:1, grace: 10d}}
  - A B
"""
AFTER = (
    BEFORE.replace("10d", "20d")
    + """\
  - {host}/team/app:v2
  - {host}/team/app:latest
  - {host}/team/app:v3
  - {host}/team/app:v1
  - {host}/team/many:1.1
  - {{image: {host}/team/many:1.2, grace: 1d}}
  - {{image: {host}/team/app:v1, outputs: [layers]}}
  - {{image: {host}/team/app, tags: ['v[12]']}}
  - {{image: {host}/team/app, tags: ['7.*']}}
  - C D
"""
)


def test_each_added_wish_has_a_verdict_and_earlier_mistakes_are_notes(tmp_path: Path) -> None:
    shared = noisy_layer(3000, 1)
    first, second = image(shared), image(shared, noisy_layer(5000, 2))
    index = image_index({"linux/amd64": second, "linux/arm64": sample_image(10)})
    with OwnRegistry() as registry:
        host = registry.url
        for tag in ("v1", "latest"):
            registry.add("team/app", tag, first)
        registry.add("team/app", None, second)
        registry.add_document("team/app", "v2", index)
        for tag in ("1.1", "1.2"):
            registry.add("team/many", tag, first)
        succeed("ingest-image", f"{host}/team/app:v1", "--repository", tmp_path / "tree")
        (tmp_path / "old.yaml").write_text(BEFORE.format(host=host))
        (tmp_path / "l.yaml").write_text(AFTER.format(host=host))
        registry.requests.clear()
        words = ("check", "l.yaml", "--base", "old.yaml")
        result = publisher(*words, "--output", "json", cwd=tmp_path, home=tmp_path)
        requests = [request.path for request in registry.requests]
        text = publisher(*words, cwd=tmp_path, home=tmp_path)
        everything = publisher(*words, "--all", cwd=tmp_path, home=tmp_path)
    assert result.code == text.code == 2, result.out + result.err
    strict(output_schema("check/1")).validate(result.json)
    assert not [path for path in requests if "/gone/" in path or "/terms/" in path]
    # The index, the manifest of the platform, and its config: no layer, and nothing twice.
    [by_tag] = [path for path in requests if path.endswith("/team/app/manifests/v2")][:1]
    assert by_tag
    found = [(f["line"], f["level"], f["rule"]) for f in result.json["findings"]]
    assert found == [
        (10, "note", "wish-list"),
        (12, "note", "mutable-tag"),
        (13, "error", "image-missing"),
        (14, "error", "duplicate-wish"),
        (15, "warning", "overlapping-wish"),
        (16, "error", "name-taken"),
        (17, "error", "name-taken"),
        (18, "warning", "overlapping-wish"),
        (18, "warning", "overlapping-wish"),
        (19, "error", "no-matching-tag"),
        (20, "error", "wish-list"),
    ]
    assert [p["line"] for p in result.json["problems"]] == [20]
    images = {(i["line"], i["name"].rpartition(":")[2]): i for i in result.json["images"]}
    assert images[11, "v2"]["compressedBytes"] - len(shared.blob) == images[11, "v2"]["newBytes"]
    assert images[11, "v2"]["digest"] == index.digest
    assert images[12, "latest"]["newBytes"] == 0
    assert images[15, "1.1"]["change"] == "added"
    [compared] = result.json["comparisons"]
    assert (compared["base"], compared["added"]) == ("the file old.yaml", 9)
    assert (compared["kept"], compared["terms"], compared["removed"]) == (4, 1, 0)

    assert "l.yaml:10:5: note: not part of this change: 'A B' is not an image" in text.out
    assert "l.yaml:14:5: failed: " in text.out
    assert "is already listed on line 5 (remove this line)" in text.out
    assert "9 added, 1 altered, 0 removed since the file old.yaml" in text.out
    assert "line 8 requests it with other settings" in text.out
    assert everything.code == 2
    notes = [line for line in everything.out.splitlines() if ": note: not part of this" in line]
    places = [line.split(": ")[0] for line in notes]
    assert places == [f"l.yaml:{line}:5" for line in (6, 7, 9, 10)]
    assert "not part of this change, requested by bio: " in notes[1]


def test_only_earlier_mistakes_do_not_fail_the_check(tmp_path: Path) -> None:
    with OwnRegistry() as registry:
        registry.add("team/app", "v2", sample_image(10))
        old = "version: 2\nimages:\n" + "".join(
            f"  - {registry.url}/no/x{n}:1\n" for n in range(40)
        )
        old += f"  - A B\n  - A B\n  - {registry.url}/no/x1:1\n"
        (tmp_path / "old.yaml").write_text(old)
        (tmp_path / "l.yaml").write_text(f"{old}  - {registry.url}/team/app:v2\n")
        words = ("check", "l.yaml", "--base", "old.yaml")
        result = succeed(*words, cwd=tmp_path, home=tmp_path)
        assert len(registry.requests) == 2
        succeed(*words, "--all", cwd=tmp_path, home=tmp_path)
    assert result.out.splitlines()[-1].startswith("42 wishes, 1 added, 0 altered, 0 removed since ")
    assert result.out.count(": note: not part of this change: ") == 3


def test_of_two_equal_wishes_the_added_one_fails_wherever_it_is(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("version: 2\nimages:\n  - a:1\n")
    new = "version: 2\nimages:\n  - docker.io/library/a:1\n  - a:1\n"
    (tmp_path / "l.yaml").write_text(new)
    words = ("check", "l.yaml", "--offline", "--base", "old.yaml")
    result = publisher(*words, cwd=tmp_path)
    assert result.code == 1
    assert result.out.startswith("l.yaml:3:5: failed: ")
    assert "is already listed on line 4 (remove this line)" in result.out


def test_a_list_that_is_unusable_as_a_whole_fails_even_if_it_was_before(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("version: 3\n")
    (tmp_path / "l.yaml").write_text("version: 3\n")
    words = ("check", "l.yaml", "--offline", "--base", "old.yaml")
    result = publisher(*words, cwd=tmp_path)
    assert (result.code, "l.yaml:1:10: error: " in result.out) == (2, True)
    (tmp_path / "l.yaml").write_text("version: 2\nimages: [a:1]\n")
    result = succeed(*words, cwd=tmp_path)
    assert "note: the list was unusable in the file old.yaml: every wish counts as" in result.out


def test_bases_that_cannot_be_used_are_refused_and_nothing_is_asked(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("version: 2\nimages: [a:1]\n")
    result = publisher("check", "a.yaml", "b.yaml", "--base", "a.yaml", cwd=tmp_path)
    assert result.code == 2
    assert "cannot compare 2 lists with the file a.yaml" in result.err
    result = publisher("check", "a.yaml", "--base", "main", "--output", "json", cwd=tmp_path)
    assert result.code == 2
    output_schema("error/1").validate(result.json)
    assert result.json["error"]["kind"] == "unknown-base"
