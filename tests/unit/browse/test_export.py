"""`publisher export` prints what is published as a wish list."""

from __future__ import annotations

from pathlib import Path

from publisher.wishlist import parse_wish_list
from tests.command import publisher, succeed
from tests.layer_builder import image, image_index, write_layout
from tests.registry import OwnRegistry
from tests.registry_images import noisy_layer, sample_image

NAMES = ("amd64", "arm64")


def test_the_published_images_become_a_list_that_publishes_them_again(tmp_path: Path) -> None:
    built = sample_image(100)
    layout = write_layout(built, tmp_path / "layout", "v3")
    tree = tmp_path / "images"
    repository = ("--repository", tree)
    empty = publisher("export", *repository)
    assert (empty.code, empty.out) == (3, "")
    with OwnRegistry() as registry:
        host = f"http://{registry.host}"
        both = {
            f"linux/{name}": image(noisy_layer(100, seed), architecture=name)
            for seed, name in enumerate(NAMES)
        }
        for each in both.values():
            registry.add("team/app", None, each)
        registry.add_document("team/app", "v1", image_index(both))
        for tag in ("1", "2", "3"):
            registry.add("team/tool", tag, built)
        wish_list = tmp_path / "l.yaml"
        wish_list.write_text(
            "version: 2\ndefaults: {grace: 1w}\nimages:\n"
            f"- {{image: '{host}/team/app:v1', grace: 36h, "
            "platforms: [linux/arm64, linux/amd64]}\n"
            f"- {{image: '{host}/team/tool', tags: ['*']}}\n"
            f"- {{image: 'oci:{layout}:v3', name: tool, outputs: [layers], owner: astro, "
            "note: 'it''s: a test'}\n"
        )
        succeed("ingest", wish_list, *repository)
        succeed("remove", f"{registry.host}/team/tool:3", *repository)
        exported = succeed("export", *repository)
        assert exported.err == ""
        assert exported.out == (
            f"version: 2\nrepository: dir:{tree}\ndefaults:\n  grace: 7d\nimages:\n"
            f"  - image: {host}/team/app:v1\n    platforms: [linux/arm64, linux/amd64]\n"
            f"    grace: 1d12h\n  - {host}/team/tool:1\n  - {host}/team/tool:2\n"
            f"  - image: oci:{layout}:v3\n    outputs: [layers]\n    name: tool\n    owner: astro\n"
            "    note: 'it''s: a test'\n"
        )
        wish_list.write_text(exported.out)
        planned = succeed("plan", wish_list, "--output", "json").json["images"]
        assert [image["status"] for image in planned] == ["unchanged"] * 4
        succeed("fmt", "--check", wish_list)
        # With digests, an empty repository gets the same images after their tags have moved.
        pinned = succeed("export", "*/team/*", "--digests", *repository).out
        registry.add("team/tool", "1", sample_image(7))
        other = tmp_path / "other.yaml"
        other.write_text(pinned)
        report = succeed(
            *("ingest", other, "--repository", tmp_path / "copy", "--output", "json")
        ).json
        digests = {o["name"].rpartition("/")[2]: o["digest"] for o in report["outcomes"]}
        assert digests == {
            "app:v1": image_index(both).digest,
            "tool:1": built.manifest.digest,
            "tool:2": built.manifest.digest,
        }
    assert [wish.name for wish in parse_wish_list(pinned, "l").wishes] == [None, None, None]
    nothing = publisher("export", "quay.io/*", *repository)
    assert (nothing.code, "no published image matches 'quay.io/*'" in nothing.err) == (1, True)


def test_images_that_cannot_be_requested_are_named(tmp_path: Path) -> None:
    layout = write_layout(sample_image(100), tmp_path / "layout", "v3")
    tree = tmp_path / "images"
    for name in ("good", "bad"):
        arguments = ("--name", name, "--repository", tree)
        succeed("ingest-image", f"oci:{layout}:v3", *arguments)
    (tree / ".metadata/local/bad:v3/publication.json").write_text("{}")
    result = publisher("export", "--thin", "x.example.org/thin/$(image)", "--repository", tree)
    assert result.code == 1
    assert result.err.startswith("publisher: left out: local/bad:v3: ")
    [wish] = parse_wish_list(result.out, "l").wishes
    assert (wish.name, "\nthin: 'x.example.org/thin/$(image)'\n" in result.out) == ("good", True)
