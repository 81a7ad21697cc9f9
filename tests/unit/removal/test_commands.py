"""The commands about removal: common mistakes are explained, and change nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import Result, publisher, succeed
from tests.layer_builder import file, image, layer, write_layout
from tests.schemas import output_schema, strict
from tests.trees import tree_identity

BASE = layer(file("base", b"base"))
ONE_OF_DUCC = {
    "SchemaVersion": 2,
    "MediaType": "application/vnd.docker.distribution.manifest.v2+json",
    "Config": {
        "MediaType": "application/vnd.docker.container.image.v1+json",
        "Size": 10,
        "Digest": f"sha256:{'a' * 64}",
    },
    "Layers": [],
}


class Place:
    """A repository that is fed from a layout by one wish list."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.list = folder / "list.yaml"

    def wish(self, *tags: str) -> None:
        for tag in tags:
            write_layout(image(BASE, layer(file(tag))), self.folder / "app", tag)
        lines = [f"- 'oci:{self.folder}/app:{tag}'" for tag in tags]
        self.list.write_text("\n".join(["version: 2", "images:", *lines]))

    def run(self, *words: str | Path, **options: object) -> Result:
        return publisher(*words, "--repository", self.tree, **options)  # type: ignore[arg-type]

    def ingest(self) -> None:
        succeed("ingest", self.list, "--repository", self.tree)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.wish("x", "y")
    made.ingest()
    return made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("shared"))
    made.wish("x", "y")
    made.ingest()
    yield made


X = "local/app:x"
EVERY_COMMAND = [
    ("schedule",),
    ("gc", "--now"),
    ("gc", "--now", "--dry-run"),
    ("remove", X),
    ("restore", X),
    ("pin", X),
    ("unpin", X),
    ("show", X),
    ("prune", "LIST"),
    ("plan", "LIST"),
    ("ingest", "LIST"),
]


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "publisher adopt"),
        (json.dumps([ONE_OF_DUCC]), "publisher adopt"),
    ],
    ids=["empty list", "list"],
)
def test_a_schedule_of_another_tool_is_named_with_the_command_that_helps_and_nothing_changes(
    shared: Place, words: tuple[str, ...], text: str, message: str
) -> None:
    result = _run_with_schedule(shared, words, text)
    if words == ("unpin", X):  # needs no schedule to find out that there is no pin
        assert (result.code, "it is not pinned" in result.err) == (1, True)
        return
    assert result.code == code_of(words)
    assert "remove-schedule.json" in result.err and message in result.err


def code_of(words: tuple[str, ...]) -> int:
    """Return the exit code of a command that cannot read the schedule; `show` shows the rest."""
    return 1 if words[0] == "show" else 3


NEED_THE_WHOLE_SCHEDULE = [
    words for words in EVERY_COMMAND if words[0] not in ("pin", "unpin", "plan", "ingest")
]


@pytest.mark.parametrize("words", NEED_THE_WHOLE_SCHEDULE, ids=" ".join)
@pytest.mark.parametrize(
    ("text", "message"),
    [('{"images": []}', "it has no version"), ("", "not JSON"), ('{"version": 2, "la', "not JSON")],
    ids=["another form", "emptied", "truncated"],
)
def test_a_damaged_schedule_is_named_with_the_command_that_helps_and_nothing_changes(
    shared: Place, words: tuple[str, ...], text: str, message: str
) -> None:
    result = _run_with_schedule(shared, words, text)
    assert result.code == code_of(words)
    assert "remove-schedule.json" in result.err and message in result.err
    assert "try: publisher verify --repair" in result.err


def test_a_damaged_schedule_does_not_stop_ingests_and_is_repaired(place: Place) -> None:
    """Only an image whose tag has moved fails: scheduling what it replaces needs the schedule."""
    place.run("remove", X)
    (place.tree / ".metadata/remove-schedule.json").write_text('{"version": 2, "la')
    place.wish("x", "y", "z")
    write_layout(image(layer(file("moved"))), place.folder / "app", "y")
    result = place.run("ingest", place.list, "--output", "json")
    statuses = {o["name"]: o["status"] for o in result.json["outcomes"]}
    assert (statuses["local/app:z"], statuses["local/app:y"]) == ("published", "failed")
    assert place.run("verify", "--repair").code == 0
    assert place.run("ingest", place.list).code == 0
    assert "local/app:y" in place.run("schedule").out
    assert place.run("verify").code == 0


def _run_with_schedule(shared: Place, words: tuple[str, ...], text: str) -> Result:
    """Run a command while the schedule is `text`, and make sure that it changes nothing."""
    (shared.tree / ".metadata/remove-schedule.json").write_text(text)
    before = published(shared.tree)
    result = shared.run(*(str(shared.list) if word == "LIST" else word for word in words))
    assert published(shared.tree) == before
    return result


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("[]", 0, "wrote 1 record"),
        (json.dumps([ONE_OF_DUCC]), 1, "cvmfs_ducc garbage-collection"),
        ('[1, "x"]', 3, "not of manifests"),
        ('{"images": []}', 3, "it has no version"),
        ("", 3, "not JSON"),
    ],
)
def test_another_tool_s_schedule_is_converted_if_it_is_empty_and_refused_otherwise(
    place: Place, text: str, code: int, message: str
) -> None:
    path = place.tree / ".metadata/remove-schedule.json"
    path.write_text(text)
    result = place.run("adopt")
    assert (result.code, message in result.out + result.err) == (code, True), result
    if code:
        assert path.read_text() == text
    else:
        assert place.run("schedule").code == 0


def published(tree: Path) -> dict[str, object]:
    """Everything but the publisher's own working state."""
    return {p: each for p, each in tree_identity(tree).items() if "/.publisher" not in p}


def test_a_list_under_another_path_is_reported_as_unknown(place: Place, tmp_path: Path) -> None:
    place.wish("x")
    (tmp_path / "link.yaml").symlink_to(place.list)
    elsewhere = place.run("prune", tmp_path / "link.yaml", "--output", "json")
    strict(output_schema("prune/1")).validate(elsewhere.json)
    (repository,) = elsewhere.json["repositories"]
    assert repository["unknownLists"] == [str(tmp_path / "link.yaml")]
    assert (repository["scheduled"], repository["others"]) == ([], 2)
    assert "no image was published from" in place.run("prune", tmp_path / "link.yaml").err
    for path in ("list.yaml", "./app/../list.yaml"):
        known = place.run("prune", path, "--dry-run", cwd=tmp_path)
        assert "would be scheduled: local/app:y" in known.out and not known.err


def test_a_list_that_was_renamed_is_followed_by_one_prune_of_the_whole(
    place: Place, tmp_path: Path
) -> None:
    place.list = place.list.rename(tmp_path / "renamed.yaml")
    place.ingest()
    place.wish("x")
    kept = place.run("prune", place.list)
    assert f"kept: local/app:y  {tmp_path}/list.yaml requests it" in kept.out
    assert "scheduled: local/app:y" in place.run("prune", place.list, "--whole").out
    place.wish("z")
    place.ingest()
    assert "scheduled: local/app:x" in place.run("prune", place.list).out


def test_options_of_a_pin_without_an_image_are_an_error(place: Place) -> None:
    for words in (("--until", "2999-01-01"), ("--reason", "why")):
        refused = place.run("pin", *words)
        assert refused.code == 2 and "Name the IMAGE" in refused.err


@pytest.mark.parametrize("text", ["2026-12-24T00:00:00Z", "2026-12-24+02:00", "tomorrow", "24.12."])
def test_a_pin_ends_with_a_day_and_not_with_a_time(place: Place, text: str) -> None:
    assert place.run("pin", X, "--until", text).code == 2
    assert place.run("pin").out == ""


def test_the_reason_why_a_named_image_is_not_collected_is_reported(place: Place) -> None:
    assert "it is not scheduled" in place.run("gc", "--image", X).err
    place.run("remove", X)
    assert "(or with --now)" in place.run("gc", "--image", X).err
    moved = image(layer(file("moved")))
    write_layout(moved, place.folder / "app", "x")
    place.ingest()
    digest = json.loads(place.run("schedule", "--output", "json").out)["entries"][0][
        "manifestDigest"
    ]
    assert place.run("pin", f"{X}@{digest}").code == 0
    assert "it is pinned" in place.run("gc", "--image", X, "--now").err
    assert place.run("unpin", f"{X}@{digest}").code == 0
    done = place.run("gc", "--image", X, "--now")
    assert "1 image collected" in done.out and not done.err


@pytest.mark.parametrize("command", ["remove", "restore", "pin", "gc"])
def test_a_missing_image_is_named_as_on_the_command_line(place: Place, command: str) -> None:
    words = ("gc", "--image", "local/app:z") if command == "gc" else (command, "local/app:z")
    result = place.run(*words)
    assert result.code == 1 and "as local/app:z\n" in result.err


@pytest.mark.parametrize("words", [("--limit", "0"), ("--grace", "0"), ("--grace", "-1d")])
def test_a_collection_of_nothing_or_of_the_past_is_a_usage_error(
    place: Place, words: tuple[str, ...]
) -> None:
    assert place.run("gc", *words).code == 2


def test_a_shorter_grace_period_replaces_that_of_the_wish(place: Place) -> None:
    place.run("remove", X, "--grace", "90d")
    assert "0 images collected" in place.run("gc", "--grace", "1h").out
    assert "1 image collected" in place.run("gc", "--grace", "0s").out
    assert place.run("verify", "--deep").code == 0


def test_the_json_of_every_command_matches_its_schema(place: Place) -> None:
    def run(*words: str | Path, code: int = 0) -> Any:
        result = place.run(*words, "--output", "json")
        assert result.code == code, result
        kind = result.json["schema"].removeprefix("publisher/")
        strict(output_schema(kind)).validate(result.json)
        return result.json

    [scheduled] = run("remove", X, "--drop-link")["scheduled"]
    assert (scheduled["name"], scheduled["reason"]) == (X, "removed")
    assert [entry["name"] for entry in run("schedule")["entries"]] == [X]
    assert run("restore", X)["restored"] == [X]
    [pin] = run("pin", X, "--until", "2999-12-31", "--reason", "why")["pinned"]
    assert (pin["until"], pin["reason"]) == ("2999-12-31", "why")
    assert run("pin")["pinned"] == [pin]
    place.wish("y")
    (kept,) = run("prune", place.list)["repositories"]
    assert kept["kept"] == {X: "it is pinned"}
    assert run("unpin", X)["unpinned"] == [pin]
    foreseen = run("prune", place.list, "--dry-run")
    assert foreseen["dryRun"] and [e["name"] for e in foreseen["repositories"][0]["scheduled"]]
    (refused,) = run("prune", place.list, "--at-most", "0", code=1)["repositories"]
    assert refused["withdrawn"] == [X] and "1 of 2 images" in refused["refused"]
    (withdrawn,) = run("prune", place.list)["repositories"]
    assert [entry["reason"] for entry in withdrawn["scheduled"]] == ["withdrawn"]
    (record,) = place.tree.glob(f".layers/*/{BASE.digest[7:]}/.metadata/origin.json")
    data = record.read_bytes()
    record.write_bytes(b"{")
    (doubtful,) = run("schedule")["entries"]
    assert "origin.json" in doubtful["problem"]
    assert len(run("gc", "--now", code=1)["kept"]) == 1
    record.write_bytes(data)
    foreseen = run("gc", "--now", "--dry-run")
    assert run("gc", "--now") == foreseen | {"dryRun": False}
    assert (foreseen["layers"], foreseen["flatImages"], foreseen["bytes"]) == (1, 1, 0)
    assert run("gc", "--now")["collected"] == []
    assert run("remove", X, code=1)["error"]["what"].endswith(X)


def test_remove_takes_patterns_and_names_the_list_that_publishes_the_images_again(
    place: Place,
) -> None:
    result = place.run("remove", "local/app:*")
    assert result.code == 0
    assert result.out.count("scheduled: local/app:") == 2
    assert f"the next ingest of {place.list} publishes again what it still requests" in result.err


def test_restore_takes_the_digest_that_schedule_prints(place: Place) -> None:
    write_layout(image(layer(file("moved"))), place.folder / "app", "x")
    place.ingest()
    _, name, digest, *_ = place.run("schedule").out.split()
    assert name == X
    assert place.run("restore", f"{X}@{digest}").out == f"restored: {X}\n"


def test_a_list_that_does_not_exist_any_more_is_withdrawn_by_its_name(place: Place) -> None:
    place.list.unlink()
    found = place.run("prune", "--withdrawn", place.list)
    assert found.code == 1 and "2 of 2 images are not requested any more" in found.err
    found = place.run("prune", "--withdrawn", place.list, "--yes-really", "--output=json")
    [report] = found.json["repositories"]
    assert found.code == 0 and len(report["scheduled"]) == 2
    found = place.run("prune", "--yes-really")
    assert found.code == 2 and "Missing argument" in found.err
