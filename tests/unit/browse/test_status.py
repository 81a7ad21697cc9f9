"""`publisher status` shows what is published, and why the rest is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from publisher.state import Cause, Tries
from publisher.state.database import state_file
from publisher.state.store import State, open_state
from publisher.times import format_time
from publisher.tree import layout
from tests.command import Result, run_here
from tests.cvmfs import make_machine
from tests.layer_builder import file, image, layer, write_layout
from tests.registry import OwnRegistry
from tests.schemas import output_schema, strict
from tests.stratum1 import NAME, Files, signer, stratum1

NOW = datetime.now(UTC).replace(microsecond=0)
LATER = NOW + timedelta(hours=3)
EARLIER = NOW - timedelta(days=2)
ONE, TWO = "local/one:1", "local/two:1"
MISSING = "registry.example.org/astro/tool:9"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two published images, below `images`."""
    monkeypatch.setenv("PUBLISHER_STATE", str(tmp_path / "state"))
    for name in ("one", "two"):
        write_layout(image(layer(file("name", name.encode()))), tmp_path / name, "1")
        made = ask(tmp_path, "ingest-image", f"oci:{tmp_path}/{name}:1")
        assert made.code == 0, made.err
    return tmp_path


def ask(root: Path, *arguments: str | Path) -> Result:
    return run_here(*arguments, "--repository", root / "images")


def document(root: Path, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
    result = ask(root, "status", *arguments, "--output", "json")
    assert result.code == code, result.err
    strict(output_schema("status/1")).validate(result.json)
    value: dict[str, Any] = result.json
    return value


def wishes(root: Path, *arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document(root, *arguments, code=code)["wishes"]
    return found


def states(root: Path, *arguments: str | Path, code: int = 0) -> dict[str, str]:
    return {each["name"]: each["status"] for each in wishes(root, *arguments, code=code)}


def writable(root: Path) -> State:
    return open_state(root / "state", f"dir:{root}/images", writable=True)


def remember_failures(root: Path, wish_list: str = "/lists/astro.yaml") -> None:
    """An image that never was published, and one whose update fails."""
    with closing(writable(root)) as state:
        missing = Tries(wish_list, MISSING, MISSING, first_seen=EARLIER, owner="astro", line=7)
        for _ in range(3):
            missing = state.record_failure(
                missing, EARLIER, Cause.IMAGE_MISSING, "no such\ntag", LATER
            )
        known = Tries(wish_list, TWO, "oci:/two:1", first_seen=EARLIER, owner="bio")
        known = state.record_success(known, EARLIER, "sha256:" + 64 * "2")
        state.record_failure(known, NOW, Cause.UNREACHABLE, "no answer in time")
        fresh = Tries(wish_list, "registry.example.org/astro/new:1", "x", first_seen=NOW)
        state.record_success(replace(fresh, owner="astro"), NOW)


def test_every_wish_and_every_image_has_a_line(root: Path) -> None:
    remember_failures(root)
    assert ask(root, "pin", ONE, "--until", "2999-12-31").code == 0
    found = wishes(root)
    assert [(each["name"], each["status"], each["published"]) for each in found] == [
        (ONE, "published", True),
        (TWO, "failing", True),
        # The state has a success, and the repository does not have the image.
        ("registry.example.org/astro/new:1", "waiting", False),
        (MISSING, "failing", False),
    ]
    one, two, _, missing = found
    shown = ask(root, "show", ONE, "--output", "json").json
    assert one["manifestDigest"] == shown["manifestDigest"]
    assert one["publishedAt"] == shown["publishedAt"]
    assert (one["pinned"], one["pinnedUntil"]) == (True, "2999-12-31")
    assert two["behind"] is True
    assert missing["error"] == "no such tag" and missing["cause"] == "image-missing"
    assert missing["tries"] == 3 and missing["owner"] == "astro"
    text = ask(root, "status").out.splitlines()
    assert f"{ONE} " in text[0] and text[0].endswith("pinned until 2999-12-31")
    since = EARLIER.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (
        f"failing since {since}: no such tag (image-missing, tried 3 times); next try at "
        + LATER.strftime("%Y-%m-%dT%H:%M:%SZ")
    ) in text[3]
    assert "published since" in text[1] and text[1].endswith("next try: with the next run")


@pytest.mark.parametrize("wish_list", ["", "project:astro"])
def test_a_single_image_that_fails_is_not_tried_by_the_next_run(root: Path, wish_list: str) -> None:
    remember_failures(root, wish_list)
    line = ask(root, "status", MISSING).out
    assert line.endswith(
        "tried 3 times); no list requests it: only a further request tries it again\n"
    )


def test_names_globs_owners_and_failures_select_lines(root: Path) -> None:
    remember_failures(root)
    assert states(root, ONE) == {ONE: "published"}
    assert states(root, "local/t*") == {TWO: "failing"}
    assert states(root, MISSING, ONE) == {ONE: "published", MISSING: "failing"}
    assert list(states(root, "--failing")) == [TWO, MISSING]
    assert list(states(root, "--failing", "--owner", "astro")) == [MISSING]
    assert states(root, "--owner", "geo") == {}
    assert "no wish and no image is selected" in ask(root, "status", "--owner", "geo").err
    assert "no selected wish fails" in ask(root, "status", "--failing", ONE).err
    assert states(root, "quay.io/absent", code=1) == {"quay.io/absent:latest": "unknown"}
    assert ask(root, "status", "quay.io/absent").out.endswith(
        "unknown: it is not published, and no run has worked on it\n"
    )


def test_an_image_of_several_lists_has_a_line_for_each(root: Path) -> None:
    remember_failures(root, "/lists/a.yaml")
    remember_failures(root, "/lists/b.yaml")
    assert [each["wishList"] for each in wishes(root, MISSING)] == [
        "/lists/a.yaml",
        "/lists/b.yaml",
    ]
    first, second = ask(root, "status", MISSING).out.splitlines()
    assert first.endswith("; for /lists/a.yaml") and second.endswith("; for /lists/b.yaml")


def test_scheduled_and_removed_images_have_their_time(root: Path) -> None:
    assert ask(root, "remove", ONE).code == 0
    [one] = wishes(root, ONE)
    assert one["status"] == "scheduled" and one["published"]
    assert one["removableFrom"].endswith("Z") and one["removalReason"] == "removed"
    assert "scheduled for removal, from 20" in ask(root, "status", ONE).out
    # Its public link is removed at once, and its content later.
    assert ask(root, "remove", TWO, "--drop-link").code == 0
    [two] = wishes(root, TWO)
    assert (two["status"], two["published"]) == ("scheduled", False)
    assert "published since" not in ask(root, "status", TWO).out


def test_a_list_shows_its_wishes_that_no_run_has_seen(root: Path) -> None:
    lists = root / "wishlist.yaml"
    lists.write_text(
        f"version: 2\nrepository: dir:{root}/images\nimages:\n"
        f"  - {MISSING}\n  - {{image: registry.example.org/geo/map:3, owner: geo}}\n"
        "  - {image: registry.example.org/geo/old:1, expires: 2026-01-01}\n"
        "  - image: registry.example.org/astro/tool\n    tags: ['1.*']\n"
        "  - image: registry.example.org/geo/many\n    tags: ['1.*']\n"
        f"  - {{image: 'oci:{root}/two', name: one, tags: ['*']}}\n"
    )
    remember_failures(root, str(lists))
    with closing(writable(root)) as state:
        state.record_success(Tries(str(lists), ONE, "oci:/two:1", first_seen=NOW), NOW)
    found = run_here("status", lists, "--output", "json")  # the repository is that of the list
    assert found.code == 0, found.err
    assert [(each["name"], each["status"]) for each in found.json["wishes"]] == [
        (ONE, "published"),
        (TWO, "failing"),
        ("registry.example.org/astro/new:1", "waiting"),
        (MISSING, "failing"),
        ("registry.example.org/geo/many:1.*", "waiting"),
        ("registry.example.org/geo/map:3", "waiting"),
        ("registry.example.org/geo/old:1", "expired"),
    ]
    text = ask(root, "status", lists).out
    assert "waiting: no run has published it yet" in text
    assert "its wish expired on 2026-01-01" in text
    assert "it is not published any more; the next run publishes it" in text
    assert list(states(root, lists, "--owner", "geo")) == ["registry.example.org/geo/map:3"]
    # A wish with an error is named until a run has worked on it.
    text = lists.read_text()
    lists.write_text(text + "  - registry.example.org/a:b:c\n")
    result = ask(root, "status", lists)
    assert result.code == 1 and "cannot use the wish registry.example.org/a:b:c" in result.err
    # The records of a list that cannot be read are shown nevertheless.
    lists.unlink()
    result = ask(root, "status", lists)
    assert result.code == 1
    assert "No such file" in result.err and MISSING in result.out


def test_what_a_run_has_found_is_shown(root: Path) -> None:
    lists = root / "wishlist.yaml"
    with OwnRegistry() as registry:
        absent = f"{registry.host}/tools/absent:1"
        lists.write_text(
            f"version: 2\nimages:\n  - oci:{root}/one:1\n"
            f"  - {{image: 'http://{absent}', owner: geo}}\n"
        )
        assert ask(root, "ingest", lists).code == 1
    found = document(root)
    assert found["lastRun"]["command"] == "ingest" and found["lastRun"]["exitCode"] == 1
    assert [(each["name"], each["status"], each["wishList"]) for each in found["wishes"]] == [
        (absent, "failing", str(lists)),
        (ONE, "published", str(lists)),
        (TWO, "published", ""),
    ]
    failing, one, _ = found["wishes"]
    assert failing["owner"] == "geo" and failing["nextTry"] and failing["cause"] == "image-missing"
    assert one["behind"] is False
    result = ask(root, "status", lists, "--failing")
    assert result.out.startswith(f"{absent}  failing since 20")
    assert "last run: ingest, ended 20" in result.err


def test_the_registry_is_asked_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLISHER_STATE", str(tmp_path / "state"))
    with OwnRegistry() as registry:
        name = f"{registry.host}/tools/a:1"
        registry.add("tools/a", "1", image(layer(file("a"))))
        assert ask(tmp_path, "ingest-image", f"http://{name}").code == 0
        assert wishes(tmp_path, name, "--check-registry")[0]["behind"] is False
        registry.add("tools/a", "1", image(layer(file("b"))))
        registry.requests.clear()
        [line] = wishes(tmp_path, "--check-registry")
        assert line["behind"] is True and line["registryDigest"] != line["sourceDigest"]
        assert len(registry.requests) == 1
        text = ask(tmp_path, "status", "--check-registry").out
        assert f": the registry had {line['registryDigest'][:19]} at" in text
        assert "; behind since 20" in text and line["behindSince"] == line["registryCheckedAt"]
    [line] = wishes(tmp_path, "--check-registry")
    assert line["behind"] is None and "cannot" in line["registryError"]


def test_since_when_a_pinned_image_is_behind_its_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBLISHER_STATE", str(tmp_path / "state"))
    lists = tmp_path / "wishes.yaml"
    with OwnRegistry() as registry:
        name = f"{registry.host}/tools/a:1"
        registry.add("tools/a", "1", image(layer(file("a"))))
        lists.write_text(f"version: 2\nimages: ['http://{name}']\n")
        assert ask(tmp_path, "ingest", lists).code == 0
        assert ask(tmp_path, "pin", name).code == 0
        assert wishes(tmp_path, name)[0]["behindSince"] is None
        registry.add("tools/a", "1", image(layer(file("b"))))
        assert ask(tmp_path, "ingest", lists).code == 0
        assert wishes(tmp_path, name)[0]["behindSince"] is not None
        with closing(writable(tmp_path)) as state:
            known = state.wish(str(lists), name)
            assert known is not None
            earlier = replace(known, behind_since=None)
            state.record_success(earlier, EARLIER, known.digest, is_behind=True)
        registry.requests.clear()
        assert ask(tmp_path, "ingest", lists).code == 0
        assert len(registry.requests) == 1
        for option in ((), ("--check-registry",)):
            [line] = wishes(tmp_path, name, *option)
            assert line["behindSince"] == format_time(EARLIER)
            assert f"; behind since {format_time(EARLIER)}: the registry had" in (
                ask(tmp_path, "status", name, *option).out
            )
        assert ask(tmp_path, "unpin", name).code == 0
        assert ask(tmp_path, "ingest", lists).code == 0
    [line] = wishes(tmp_path, name)
    assert (line["behind"], line["behindSince"]) == (False, None)


def test_an_image_of_two_lists_is_looked_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBLISHER_STATE", str(tmp_path / "state"))
    with OwnRegistry() as registry:
        registry.add("tools/a", "1", image(layer(file("a"))))
        for number in range(2):
            lists = tmp_path / f"{number}.yaml"
            lists.write_text(f"version: 2\nimages: ['http://{registry.host}/tools/a:1']\n")
            assert ask(tmp_path, "ingest", lists).code == 0
        registry.requests.clear()
        found = wishes(tmp_path, "--check-registry")
        assert [each["behind"] for each in found] == [False, False]
        assert len(registry.requests) == 1


def test_each_wish_for_tags_of_one_repository_has_a_line(root: Path) -> None:
    lists = root / "wishlist.yaml"
    lists.write_text(
        "version: 2\nimages:\n  - {image: registry.example.org/geo/many, tags: ['1.*']}\n"
        "  - {image: registry.example.org/geo/many, tags: ['2.*']}\n"
    )
    name = "registry.example.org/geo/many:1.*"
    with closing(writable(root)) as state:
        tries = Tries(str(lists), name, name, first_seen=EARLIER)
        state.record_failure(tries, NOW, Cause.IMAGE_MISSING, "no tag matches", LATER)
    assert states(root, lists) == {name: "failing", name.replace("1.", "2."): "waiting"}


def test_what_is_damaged_has_a_line_and_hides_nothing_else(root: Path) -> None:
    remember_failures(root)
    record = root / "images" / layout.publication_file(ONE)
    record.write_bytes(b"{")
    assert states(root, code=1) == {
        ONE: "unreadable",
        TWO: "failing",
        "registry.example.org/astro/new:1": "waiting",
        MISSING: "failing",
    }
    (root / "images" / layout.PINS).write_bytes(b"junk")
    result = ask(root, "status")
    assert result.code == 1
    assert "cannot read .metadata/pins.json" in result.err and MISSING in result.out
    # Without the state, what is published is known.
    state_file(root / "state", f"dir:{root}/images").write_bytes(b"junk" * 1000)
    assert states(root, code=1) == {ONE: "unreadable", TWO: "published"}
    assert "cannot read the state" in ask(root, "status").err


def test_a_machine_without_state_shows_what_the_tree_has(root: Path) -> None:
    shutil.rmtree(root / "state", ignore_errors=True)
    found = document(root)
    assert found["hasState"] is False and found["lastRun"] is None
    assert [each["status"] for each in found["wishes"]] == ["published", "published"]
    result = ask(root, "status")
    assert result.code == 0
    assert "failures and waiting wishes are unknown" in result.err


def test_an_ordinary_user_reads_the_state_of_the_publisher(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    remember_failures(root)
    for path in (root, *root.parents):
        if path != Path("/") and path.stat().st_mode & 0o5 != 0o5:
            path.chmod(path.stat().st_mode | 0o55)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.environ["HOME"] = "/nonexistent"
            found = ask(root, "status", "--failing")
            code = 0 if MISSING in found.out and found.code == 0 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def published_cvmfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The revision of a CVMFS repository that has an image."""
    machine = make_machine(tmp_path / "machine")
    for key, value in machine.environment.items():
        monkeypatch.setenv(key, value)
    machine.make(NAME)
    source = write_layout(image(layer(file("motd"))), tmp_path / "one", "1")
    assert run_here("ingest-image", f"oci:{source}:1", "--repository", f"cvmfs:{NAME}").code == 0
    yield machine.revision(NAME)


def test_the_lag_of_each_replica_is_shown(tmp_path: Path, published_cvmfs: int) -> None:
    with stratum1(tmp_path / "near", published_cvmfs) as near, stratum1(tmp_path / "far") as far:
        replicas = [word for each in (near, far) for word in ("--replica", each.url)]
        arguments = ("status", "--repository", f"cvmfs:{NAME}", *replicas)
        more = ("--public-key", signer("master").public)
        found = run_here(*arguments, *more, "--output", "json")
        assert found.code == 0, found.err
        strict(output_schema("status/1")).validate(found.json)
        assert found.json["revision"] == published_cvmfs
        assert [(each["behind"], each["verified"]) for each in found.json["replicas"]] == [
            (0, True),
            (published_cvmfs - 1, True),
        ]
        text = run_here(*arguments).out
        assert f"{published_cvmfs - 1} revision" in text.splitlines()[-1]
        far.serve(Files(expires=EARLIER))
        result = run_here(*arguments, *more)
        assert result.code == 1 and "its whitelist expired at" in result.out
        assert f"{near.url}: revision {published_cvmfs}" in result.out
