"""`publisher lock` writes digests beside a list, and `ingest --locked` publishes exactly these."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, cast

import pytest

from tests.command import Result, publisher, succeed
from tests.components import require, run
from tests.layer_builder import Image, write_layout
from tests.registry import OwnRegistry
from tests.registry_images import sample_image
from tests.schemas import output_schema, strict
from tests.trees import describe_tree
from tests.unit.sources.test_docker_archive import saved, write_tar

FIRST, SECOND = sample_image(100, 200), sample_image(300, 400)


def digest(built: Image) -> str:
    return built.manifest.digest


def lock_json(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    result = publisher("lock", *arguments, "--output", "json")
    assert result.code == code, result.err
    strict(output_schema("lock/1")).validate(result.json)
    [value] = result.json["locks"]
    return cast("dict[str, Any]", value)


def test_a_moved_tag_is_one_line_of_the_lock_and_the_old_image_is_published(
    tmp_path: Path,
) -> None:
    wish_list, lock = tmp_path / "l.yaml", tmp_path / "l.yaml.lock"
    tree = ("--repository", tmp_path / "images")
    with OwnRegistry() as registry:
        host = f"http://{registry.host}"
        for tag in ("1.9", "1.10", "2.0"):
            registry.add("team/app", tag, FIRST)
        registry.add("team/tool", "v1", FIRST)
        wish_list.write_text(
            f"version: 2\nimages:\n- {{image: '{host}/team/app', "
            "tags: ['1.*'], exclude: ['1.8']}\n"
            f"- {host}/team/tool:v1\n- {host}/team/tool@{digest(FIRST)}\n"
            "- {image: debian, expires: 2020-01-01}\n"
        )
        assert succeed("lock", wish_list).out.splitlines()[-1] == f"{lock}: 4 images, 4 changed"
        before = lock.read_text()
        assert before.splitlines()[1:] == [
            f'{host}/team/app ["1.*"] except ["1.8"]',
            f"{host}/team/app:1.10 {digest(FIRST)}",
            f"{host}/team/app:1.9 {digest(FIRST)}",
            f"{host}/team/tool:v1 {digest(FIRST)}",
            f"{host}/team/tool@{digest(FIRST)} {digest(FIRST)}",
            "# end",
        ]
        registry.add("team/app", "1.10", SECOND)
        registry.add("team/app", "1.11", SECOND)
        count = registry.count()
        planned = succeed("plan", wish_list, "--locked", *tree, "--output", "json").json["images"]
        assert [image["status"] for image in planned[:4]] == ["published"] * 4
        report = succeed("ingest", wish_list, "--locked", *tree, "--output", "json").json
        locked = {each["name"].rpartition(":")[2]: each["digest"] for each in report["outcomes"]}
        assert (locked["1.10"], locked["v1"]) == (digest(FIRST), digest(FIRST))
        assert not [name for name in locked if name in ("1.11", "2.0")]
        assert not [r for r in registry.requests[count:] if "tags/list" in r.path]
        # What is locked and published needs no request.
        count = registry.count()
        again = succeed("ingest", wish_list, "--locked", *tree, "--output", "json").json
        assert {each["status"] for each in again["outcomes"]} == {"unchanged", "expired"}
        assert registry.count() == count

        # New tags and moved ones are separate lines.
        assert lock_json(wish_list)["changes"] == [
            {
                "reference": f"{host}/team/app:1.10",
                "digest": digest(SECOND),
                "earlier": digest(FIRST),
            },
            {"reference": f"{host}/team/app:1.11", "digest": digest(SECOND), "earlier": ""},
        ]
        difference = list(difflib.ndiff(before.splitlines(), lock.read_text().splitlines()))
        assert [line for line in difference if line[0] in "+-"] == [
            f"- {host}/team/app:1.10 {digest(FIRST)}",
            f"+ {host}/team/app:1.10 {digest(SECOND)}",
            f"+ {host}/team/app:1.11 {digest(SECOND)}",
        ]
        moved = succeed("ingest", wish_list, "--locked", *tree, "--output", "json").json
        assert sorted(each["status"] for each in moved["outcomes"]) == [
            *("expired", "published", "unchanged", "unchanged", "unchanged", "updated")
        ]

        # A further wish alone is looked up.
        registry.add("team/tool", "v1", SECOND)
        registry.add("team/more", "1", SECOND)
        with wish_list.open("a") as file:
            file.write(f"- {host}/team/more:1\n- {host}/team/gone:1\n")
        count = registry.count()
        value = lock_json(wish_list, "--only-new", code=1)
        assert value["changes"] == [
            {"reference": f"{host}/team/more:1", "digest": digest(SECOND), "earlier": ""}
        ]
        [failure] = value["failed"]
        assert (failure["line"], "does not have it" in failure["error"]) == (8, True)
        assert not [r for r in registry.requests[count:] if "/app/" in r.path or "v1" in r.path]
        assert f"{host}/team/gone:1 unresolved\n" in lock.read_text()
        # The lock is that of the list: the image without a digest fails, and no other.
        result = publisher("ingest", wish_list, "--locked", *tree)
        assert result.code == 1
        assert "the lock has no digest for it" in result.err
        assert "1 published" in result.out
        # An image that cannot be resolved keeps its digest.
        text = lock.read_text()
        for name in ("app", "tool", "more"):
            registry.tags[f"team/{name}"].clear()
        assert lock_json(wish_list, code=1)["changes"] == []
        assert lock.read_text() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "l.yaml", "l.yaml.lock"]


HEAD = "# publisher lock 1: x"
SOME = f"docker.io/library/a:1 sha256:{'0' * 64}"


def refused(tmp_path: Path) -> Result:
    """Run commands that use the lock of l.yaml, which fail and change nothing."""
    before = describe_tree(tmp_path)
    result = publisher("ingest", "l.yaml", "--locked", "--repository", "images", cwd=tmp_path)
    assert (result.code, result.out) == (2, "")
    checked = publisher("lock", "--check", "l.yaml", cwd=tmp_path)
    assert (checked.code, checked.err) == (2, result.err)
    assert describe_tree(tmp_path) == before
    return result


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("", "l.yaml.lock:1:1: error: this is not a lock: its first line is not"),
        ("version: 2\n", "l.yaml.lock:1:1: error: this is not a lock"),
        ("# publisher lock 7: x\n# end\n", "1:1: error: locks of this version are not supported"),
        (f"{HEAD}\n{SOME}\n", "l.yaml.lock:2:1: error: the file is cut off: its last line is not"),
        (f"{HEAD}\n{SOME}\n# end", "the file is cut off"),
        (f"{HEAD}\n<<<<<<< HEAD\n{SOME}\n# end\n", "2:1: error: malformed line: '<<<<<<< HEAD'"),
        (f"{HEAD}\n{SOME[:-1]}\n# end\n", "2:1: error: malformed line"),
        (f"{HEAD}\na:1{SOME[21:]}\n# end\n", "2:1: error: malformed line"),
        (f"{HEAD}\n{SOME}\n{SOME}\n# end\n", "3:1: error: docker.io/library/a:1 is on line 2 alr"),
        (f'{HEAD}\ndocker.io/library/a ["1" x\n# end\n', "2:1: error: malformed line"),
        (f"{HEAD}\ndocker.io/library/a {'[' * 99999}\n# end\n", "2:1: error: malformed line"),
        (f"{HEAD}\n\x00\xff\n# end\n", "2:1: error: malformed line"),
    ],
)
def test_a_damaged_lock_is_an_error_with_its_line(tmp_path: Path, text: str, reported: str) -> None:
    (tmp_path / "l.yaml").write_text("version: 2\nimages: ['a:1']\n")
    (tmp_path / "l.yaml.lock").write_text(text, "latin-1")
    result = refused(tmp_path)
    assert "cannot use lock l.yaml.lock\n" in result.err
    assert reported in result.err
    assert "try: publisher lock l.yaml\n" in result.err


def test_a_missing_lock_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text("version: 2\nimages: ['a:1']\n")
    result = refused(tmp_path)
    assert "cannot read lock l.yaml.lock\n  why: no such file\n" in result.err
    for arguments, hint in (
        (("ingest", "-", "--locked"), "name the file of the list"),
        (("lock", "-"), "name the file of the list"),
        (("lock", "https://example.org/l.yaml"), "clone the repository of the list"),
    ):
        result = publisher(*arguments, cwd=tmp_path, input="version: 2\nimages: ['a:1']\n")
        assert (result.code, hint in result.err) == (2, True)


def test_a_lock_of_another_list_is_an_error_that_names_each_difference(tmp_path: Path) -> None:
    zeros = "sha256:" + "0" * 64
    (tmp_path / "l.yaml").write_text(
        "version: 2\nimages:\n- a:1\n- b:2\n- {image: c, tags: ['1.*']}\n- {image: d, tags: [x]}\n"
    )
    lock = tmp_path / "l.yaml.lock"
    lock.write_text(
        f"{HEAD}\n{SOME}\n"
        f'docker.io/library/c ["*"]\ndocker.io/library/c:1.0 {zeros}\n'
        f'docker.io/library/d ["x"]\ndocker.io/library/d:x {zeros}\ndocker.io/library/d:y {zeros}\n'
        "# end\n"
    )
    result = refused(tmp_path)
    for expected in (
        "l.yaml:4:3: error: docker.io/library/b:2 is not in the lock l.yaml.lock",
        "l.yaml:5:3: error: docker.io/library/c:1.* is not in the lock l.yaml.lock",
        'l.yaml.lock:3:1: error: no wish of l.yaml requests docker.io/library/c ["*"]',
        "l.yaml.lock:4:1: error: no wish of l.yaml requests docker.io/library/c:1.0",
        "l.yaml.lock:7:1: error: no wish of l.yaml requests docker.io/library/d:y",
        "try: publisher lock --only-new l.yaml\n",
    ):
        assert expected in result.err
    assert result.err.count(": error: ") == 5


def test_a_damaged_lock_is_written_anew_and_a_failure_leaves_the_earlier_one(
    tmp_path: Path,
) -> None:
    wish_list, lock = tmp_path / "l.yaml", tmp_path / "l.yaml.lock"
    with OwnRegistry() as registry:
        registry.add("team/app", "1", FIRST)
        wish_list.write_text(f"version: 2\nimages: ['http://{registry.host}/team/app:1']\n")
        succeed("lock", wish_list)
        good = lock.read_text()
        lock.write_text("<<<<<<< HEAD\n")
        result = publisher("lock", "--only-new", wish_list)
        assert (result.code, f"try: publisher lock {wish_list}" in result.err) == (2, True)
        assert "locked anew" in succeed("lock", wish_list).err
        assert lock.read_text() == good
        assert succeed("lock", "--check", wish_list).out == ""
    wish_list.write_text("version: 2\nimages: [A/b, oci:nothing:1]\n")
    os.chmod(lock, 0o640)
    result = publisher("lock", wish_list)
    assert result.code == 1
    assert f"{wish_list}:2:10: failed: A/b: " in result.err
    assert lock.read_text().splitlines()[1] == "oci:nothing:1 unresolved"
    assert lock.stat().st_mode & 0o777 == 0o640
    lock.unlink()
    lock.symlink_to(lock.name)
    result = publisher("lock", wish_list)
    assert (result.code, "unresolved" in lock.read_text()) == (1, True)


def test_a_list_in_git_has_its_lock_beside_it(tmp_path: Path) -> None:
    require("git")
    folder = tmp_path / "wishes"
    folder.mkdir()
    with OwnRegistry() as registry:
        registry.add("team/app", "1", FIRST)
        (folder / "l.yaml").write_text(
            f"version: 2\nimages: ['http://{registry.host}/team/app:1']\n"
        )
        git = ("git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@example.org")
        run(*git, "init", "--quiet", "--initial-branch=main")
        run(*git, "add", ".")
        run(*git, "commit", "--quiet", "--message=lists")
        location = f"git+file://{folder}//l.yaml@main"
        arguments = ("--locked", "--repository", tmp_path / "images", "--output", "json")
        result = publisher("ingest", location, *arguments)
        assert result.code == 2
        assert f"cannot read lock git+file://{folder}//l.yaml.lock@main\n" in result.err
        assert "  try: add the lock beside the list, or omit --locked\n" in result.err
        succeed("lock", folder / "l.yaml")
        registry.add("team/app", "1", SECOND)
        run(*git, "add", ".")
        run(*git, "commit", "--quiet", "--message=lock")
        [outcome] = succeed("ingest", location, *arguments).json["outcomes"]
        assert outcome["digest"] == digest(FIRST)
        assert outcome["wishList"] == f"git+file://{folder}//l.yaml"


def test_an_image_that_its_source_replaced_is_not_published_in_its_place(tmp_path: Path) -> None:
    archive, layout = tmp_path / "saved.tar", tmp_path / "layout"
    write_tar(archive, saved(FIRST, "x:1"))
    write_layout(FIRST, layout, "1")
    wish_list = tmp_path / "l.yaml"
    wish_list.write_text(
        f"version: 2\nimages: ['docker-archive:{archive}:x:1', 'oci:{layout}:1']\n"
    )
    succeed("lock", wish_list)
    write_tar(archive, saved(SECOND, "x:1"))
    write_layout(SECOND, layout, "1")  # the blobs of the first image stay
    arguments = ("--locked", "--repository", tmp_path / "images")
    result = publisher("ingest", wish_list, *arguments)
    assert result.code == 1
    assert "it is another image now, and docker-archive: has no earlier ones" in result.err
    assert "published: local/layout:1" in result.out
    write_tar(archive, saved(FIRST, "x:1"))
    assert "published: local/x:1" in succeed("ingest", wish_list, *arguments).out
    shown = succeed("show", "local/layout:1", *arguments[1:], "--output", "json").json
    assert shown["manifestDigest"] == digest(FIRST)
