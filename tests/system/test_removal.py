"""Removal as an administrator does it: by commands, with a real registry and real wish lists."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.command import Result, publisher, succeed
from tests.components import Registry, docker_registry, run
from tests.git_server import commit, git_server
from tests.layer_builder import Image, digest_of, directory, file, image, layer, write_layout
from tests.trees import tree_identity

pytestmark = pytest.mark.system

BASE = layer(directory("etc"), file("etc/base", b"base"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


class Site:
    """A repository, fed by one wish list from the registry."""

    def __init__(self, folder: Path, registry: Registry, prefix: str) -> None:
        self.folder = folder
        self.registry = registry
        self.prefix = prefix
        self.repository = folder / "tree"
        self.list = folder / "wishes.yaml"

    def push(self, name: str, built: Image | None = None) -> str:
        """Push an image; return the reference for a wish."""
        built = built or image(BASE, layer(file(name.replace(":", "-"))))
        layout = write_layout(built, self.folder / "layout" / name.replace(":", "-"), "x")
        self.registry.push(f"oci:{layout}:x", f"{self.prefix}/{name}")
        return f"{self.registry.url}/{self.prefix}/{name}"

    def name(self, name: str) -> str:
        """The public name of what was pushed so."""
        return f"{self.registry.host}/{self.prefix}/{name}"

    def wish(self, *images: str) -> None:
        self.list.write_text("\n".join(["version: 2", "images:", *(f"- '{i}'" for i in images)]))

    def ingest(self) -> Result:
        return succeed("ingest", self.list, "--repository", self.repository)

    def run(self, *words: str | Path) -> Result:
        return publisher(*words, "--repository", self.repository)

    def json(self, *words: str | Path) -> object:
        return succeed(*words, "--repository", self.repository, "--output", "json").json

    def scheduled(self) -> list[str]:
        value = succeed("schedule", "--repository", self.repository, "--output", "json").json
        return [entry["name"].removeprefix(self.name("")) for entry in value["entries"]]

    def verify(self) -> None:
        succeed("verify", "--deep", "--repository", self.repository)


@pytest.fixture
def site(tmp_path: Path, registry: Registry) -> Site:
    return Site(tmp_path, registry, tmp_path.name.lower().replace("_", "-")[:60].strip("-"))


def test_from_a_withdrawn_wish_to_a_collected_image(site: Site) -> None:
    images = [site.push(f"tool:{n}") for n in range(3)]
    site.wish(*images)
    site.ingest()
    site.wish(*images[1:])
    assert "tool:0" in site.run("prune", site.list, "--dry-run").out
    assert site.scheduled() == []
    assert site.run("prune", site.list).code == 0
    assert site.scheduled() == ["tool:0"]
    assert (site.repository / site.name("tool:0")).exists()
    assert "0 images collected" in site.run("gc").out
    before = tree_identity(site.repository)
    foreseen = site.json("gc", "--now", "--dry-run")
    assert tree_identity(site.repository) == before
    done = site.json("gc", "--now")
    assert isinstance(foreseen, dict) and isinstance(done, dict)
    assert foreseen | {"dryRun": False} == done
    assert (done["layers"], done["flatImages"]) == (1, 1)
    assert not os.path.lexists(site.repository / site.name("tool:0"))
    assert (site.repository / site.name("tool:1") / "etc/base").exists()
    site.verify()


def test_an_ingest_restores_an_image_that_is_requested_again(site: Site) -> None:
    images = [site.push(f"tool:{n}") for n in range(2)]
    site.wish(*images)
    site.ingest()
    site.wish(images[1])
    assert site.run("prune", site.list, "--drop-links").code == 0
    assert not os.path.lexists(site.repository / site.name("tool:0"))
    site.verify()
    site.wish(*images)
    site.ingest()
    assert site.scheduled() == []
    assert (site.repository / site.name("tool:0") / "tool-0").exists()


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", 2, "nothing was scheduled"),
        ("version: 2\nimages: []\n", 2, "empty list"),
        ("version: 2\nimages:\n- 'a\n", 2, "nothing was scheduled"),
        (
            "version: 2\nimages:\n- docker.io/library/debian:12\n- ':::'\n",
            2,
            "nothing was scheduled",
        ),
    ],
    ids=["emptied", "no images", "YAML error", "a broken wish"],
)
def test_a_broken_list_schedules_nothing_and_the_reason_is_printed(
    site: Site, text: str, code: int, message: str
) -> None:
    site.wish(*(site.push(f"tool:{n}") for n in range(2)))
    site.ingest()
    site.list.write_text(text)
    before = published_paths(site)
    result = site.run("prune", site.list, "--yes-really")
    assert result.code == code, result
    assert message in result.err and "nothing was scheduled" in result.err
    assert published_paths(site) == before


def published_paths(site: Site) -> dict[str, tuple[int, int, int]]:
    """Everything but the publisher's own working state."""
    paths = tree_identity(site.repository)
    return {path: each for path, each in paths.items() if "/.publisher" not in path}


def test_nothing_is_scheduled_while_the_registry_does_not_answer(
    site: Site, tmp_path: Path
) -> None:
    with docker_registry(tmp_path / "short") as short:
        site.registry = short
        images = [site.push(f"tool:{n}") for n in range(2)]
        site.wish(*images)
        site.ingest()
    site.wish(f"{short.url}/{site.prefix}/tool:1*")
    result = site.run("prune", site.list, "--yes-really")
    assert result.code == 1
    assert "uncertain what the lists request" in result.err and short.host in result.err
    assert site.scheduled() == []


def test_more_than_a_fifth_at_once_needs_confirmation(site: Site) -> None:
    images = [site.push(f"tool:{n}") for n in range(5)]
    site.wish(*images)
    site.ingest()
    site.wish(images[0])
    refused = site.run("prune", site.list)
    assert refused.code == 1 and "4 of 5 images" in refused.err and "--yes-really" in refused.err
    assert site.scheduled() == []
    assert site.run("prune", site.list, "--at-most", "4").code == 0
    assert len(site.scheduled()) == 4


def test_a_list_in_git_is_followed_from_commit_to_commit(site: Site, tmp_path: Path) -> None:
    images = [site.push(f"tool:{n}") for n in range(2)]

    def publish_list(*requested: str) -> None:
        text = "\n".join(["version: 2", "images:", *(f"- '{i}'" for i in requested)])
        commit(tmp_path / "git/wishes.git", {"lists/all.yaml": text})

    (tmp_path / "git").mkdir()
    publish_list(*images)
    with git_server(tmp_path / "git") as url:
        place = f"git+{url}/wishes.git//lists/all.yaml@main"
        succeed("ingest", place, "--repository", site.repository)
        publish_list(images[0])
        assert site.run("prune", place.removesuffix("@main")).code == 0
    assert site.scheduled() == ["tool:1"]
    lost = site.run("prune", place)
    assert lost.code == 2 and "nothing was scheduled" in lost.err


def test_a_process_continues_in_an_image_that_is_collected(site: Site) -> None:
    reference = site.push("tool:1", image(BASE, layer(file("data", b"x" * 100_000))))
    site.wish(reference)
    site.ingest()
    public = site.repository / site.name("tool:1")
    reader = subprocess.Popen(
        ["sh", "-c", "exec 3<data; echo open; read line; cat <&3 | wc -c"],
        cwd=public.resolve(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with reader:
        assert reader.stdout is not None and reader.stdout.readline() == "open\n"
        site.run("remove", site.name("tool:1"), "--grace", "0s")
        assert "1 image collected" in site.run("gc").out
        assert not os.path.lexists(public)
        out, _ = reader.communicate("go\n", timeout=60)
    assert out.strip() == "100000"


def test_a_disk_that_is_full_but_for_a_little_can_be_emptied(site: Site, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted_memory(disk, "4m"):
        site.repository = disk / "tree"
        images = [site.push(f"tool:{n}") for n in range(5)]
        site.wish(*images)
        site.ingest()
        for number in range(4):
            assert site.run("remove", site.name(f"tool:{number}")).code == 0
        with (disk / "filler").open("wb", buffering=0) as filler:
            with pytest.raises(OSError):
                while filler.write(b"x" * 4096):
                    pass
        full = site.run("gc", "--now")
        assert full.code == 3 and "publisher gc" in full.err
        assert len(site.scheduled()) == 4
        site.verify()
        os.truncate(disk / "filler", (disk / "filler").stat().st_size - 100_000)
        assert "4 images collected" in site.run("gc", "--now").out
        site.verify()


@contextmanager
def mounted_memory(folder: Path, size: str) -> Iterator[None]:
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        run("umount", str(folder))


def test_pins_hold_by_command(site: Site) -> None:
    reference = site.push("tool:1")
    site.wish(reference, site.push("tool:2"))
    site.ingest()
    name = site.name("tool:1")
    assert site.run("pin", name, "--until", "2999-12-31", "--reason", "survey").code == 0
    assert "survey" in site.run("pin").out
    refused = site.run("remove", name)
    assert refused.code == 1 and "publisher unpin" in refused.err
    site.push("tool:1", image(BASE, layer(file("moved"))))
    assert "1 pinned" in site.ingest().out
    assert site.run("unpin", name).code == 0
    assert "1 updated" in site.ingest().out
    assert site.scheduled() == ["tool:1"]


def test_the_thin_image_of_a_collected_original_is_deleted_when_asked(site: Site) -> None:
    images = [site.push(f"tool:{n}") for n in range(2)]
    lines = [
        "version: 2",
        "thin: '$(scheme)://$(registry)/thin/$(image)'",
        "defaults: {outputs: [flat, thin]}",
        "images:",
    ]
    site.list.write_text("\n".join([*lines, *(f"- '{image}'" for image in images)]))
    site.ingest()
    names = [f"{site.registry.host}/thin/{site.prefix}/tool:{n}" for n in range(2)]
    assert all(is_there(name) for name in names)
    for number, options in ((0, ()), (1, ("--delete-thin",))):
        assert site.run("remove", site.name(f"tool:{number}")).code == 0
        assert site.run("gc", "--now", *options).code == 0
    assert [is_there(name) for name in names] == [True, False]


def is_there(name: str) -> bool:
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    return subprocess.run(command, capture_output=True).returncode == 0


# Cases that DUCC handles wrongly


def test_hidden_files_in_the_root_of_the_repository_have_no_effect_and_stay(site: Site) -> None:
    images = [site.push(f"tool:{n}") for n in range(2)]
    site.wish(*images)
    site.ingest()
    foreign = [site.repository / name for name in (".cvmfsdirtab", ".hidden", ".x/y")]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (site.repository / ".dangling").symlink_to("nowhere")
    site.wish(images[1])
    assert site.run("prune", site.list).code == 0
    assert "1 image collected" in site.run("gc", "--now").out
    assert all(path.read_text() == "mine" for path in foreign)
    assert (site.repository / ".dangling").is_symlink()
    assert (site.repository / site.name("tool:1") / "tool-1").exists()


def pinned(site: Site, name: str) -> tuple[str, str]:
    """Push an image; the wish for its digest, and its public name."""
    reference = site.push(f"{name}:{name.replace('/', '-')}")
    raw = run(
        "skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference[7:]}"
    ).encode()
    repository = reference.rpartition(":")[0]
    return f"{repository}@{digest_of(raw)}", site.name(f"{name}@{digest_of(raw)}")


def test_an_image_pinned_by_digest_beside_a_nested_name_is_removed_alone(site: Site) -> None:
    wish, public = pinned(site, "group")
    nested = site.push("group/tool:1")
    site.wish(wish, nested)
    site.ingest()
    site.wish(nested)
    assert site.run("prune", site.list).code == 0
    assert "1 image collected" in site.run("gc", "--now").out
    assert not os.path.lexists(site.repository / public)
    assert (site.repository / site.name("group/tool:1") / "etc/base").exists()
    site.verify()
    site.wish(wish, nested)
    site.ingest()
    site.wish(wish)
    assert site.run("prune", site.list).code == 0
    assert "1 image collected" in site.run("gc", "--now").out
    assert (site.repository / public / "etc/base").exists()
    assert not (site.repository / site.name("group")).exists()
    site.verify()


def test_of_two_images_of_one_repository_pinned_by_digest_one_is_removed(site: Site) -> None:
    first, first_name = pinned(site, "tool")
    second_digest = image(BASE, layer(file("second")))
    site.push("tool:second", second_digest)
    second = f"{first.partition('@')[0]}@{second_digest.manifest.digest}"
    second_name = f"{first_name.partition('@')[0]}@{second_digest.manifest.digest}"
    site.wish(first, second)
    site.ingest()
    site.wish(second)
    assert site.run("prune", site.list).code == 0
    assert "1 image collected" in site.run("gc", "--now").out
    assert not os.path.lexists(site.repository / first_name)
    assert (site.repository / second_name / "second").exists()
    site.verify()


def test_images_of_another_tool_are_left_to_it(site: Site) -> None:
    """Metadata as that tool writes it: no publication.json, a manifest with capitalised keys."""
    images = [site.push(f"tool:{n}") for n in range(2)]
    site.wish(*images)
    site.ingest()
    metadata = site.repository / ".metadata" / site.name("tool:0")
    value = json.loads((metadata / "manifest.json").read_bytes())
    capitalised = {
        "SchemaVersion": 2,
        "MediaType": value["mediaType"],
        "Config": {key.capitalize(): item for key, item in value["config"].items()},
        "Layers": [
            {key.capitalize(): item for key, item in each.items()} for each in value["layers"]
        ],
    }
    (metadata / "manifest.json").write_text(json.dumps(capitalised))
    for name in ("publication.json", "config.json"):
        (metadata / name).unlink()
    for record in site.repository.glob(".metadata/.images/*/*.json"):
        record.unlink()
    site.wish(images[1])
    assert "1 image of other lists left alone" in site.run("prune", site.list).out
    assert site.run("prune", site.list, "--whole").code == 0
    assert site.scheduled() == ["tool:0"]
    assert "1 image collected" in site.run("gc", "--now").out
    assert not os.path.lexists(site.repository / site.name("tool:0"))
    assert (site.repository / site.name("tool:1") / "etc/base").exists()
