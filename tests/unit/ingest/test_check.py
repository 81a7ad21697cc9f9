"""Wish lists are checked, with and without requests to the sources of images."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from publisher.ingest.check import check
from publisher.sources.open import Sources
from tests.command import publisher
from tests.layer_builder import image, image_index, write_layout
from tests.registry import OwnRegistry
from tests.registry_images import fast_sources, noisy_layer, sample_image

GOOD = b"version: 2\nimages:\n  - debian:stable\n"


@pytest.fixture
def registry() -> Iterator[OwnRegistry]:
    with OwnRegistry() as registry:
        yield registry


@pytest.fixture
def sources() -> Iterator[Sources]:
    with fast_sources() as sources:
        yield sources


def test_offline_every_problem_of_every_list_is_found_without_a_request() -> None:
    report = check(
        [
            ("a.yaml", GOOD),
            ("b.yaml", b"version: 3\n"),
            ("c.yaml", b"version: 2\nimages: [A/b, alpine, alpine]\n"),
        ]
    )
    assert report.wishes == 3
    assert report.images == ()
    assert [(p.file, p.severity) for p in report.problems] == [
        ("b.yaml", "error"),
        ("c.yaml", "error"),
        ("c.yaml", "warning"),
    ]
    assert len(report.errors) == 2


def test_a_wish_that_has_expired_is_warned_of() -> None:
    text = b"version: 2\nimages: [{image: debian, expires: 2027-01-01}]\n"
    assert check([("l", text)], today=date(2026, 12, 31)).problems == ()
    (warning,) = check([("l", text)], today=date(2027, 1, 1)).problems
    assert str(warning) == (
        "l:2:10: warning: the wish for docker.io/library/debian:latest has expired on 2027-01-01 "
        "(remove it, or set a later date)"
    )


def test_each_image_is_looked_for_and_each_failure_has_its_cause(
    registry: OwnRegistry, sources: Sources, tmp_path: Path
) -> None:
    shared = noisy_layer(1000, 1)
    first, second = image(shared, noisy_layer(2000, 2)), image(shared, noisy_layer(3000, 3))
    registry.add("team/app", "v1", first)
    registry.add("team/app", "v2", second)
    registry.add("team/amd", "v2", second)
    layout = write_layout(second, tmp_path / "layout", "v3")
    url = registry.url
    text = f"""\
version: 2
images:
  - {url}/team/app:v1
  - {url}/team/app:gone
  - {url}/team/app:*
  - image: {url}/team/app
    tags: ['7.*']
  - image: {url}/team/amd:v2
    platforms: [linux/arm64]
  - image: oci:{layout}:v3
    name: tool
"""
    report = check([("l", text.encode())], sources)
    assert report.problems == ()
    host = registry.url.removeprefix("http://")
    assert [(i.line, i.name, bool(i.error)) for i in report.images] == [
        (3, f"{host}/team/app:v1", False),
        (4, f"{host}/team/app:gone", True),
        (5, f"{host}/team/app:v1", False),
        (5, f"{host}/team/app:v2", False),
        (6, f"{url}/team/app:7.*", True),
        (8, f"{host}/team/amd:v2", True),
        (10, "local/tool:v3", False),
    ]
    assert report.images[0].digest == first.manifest.digest
    assert report.images[0].layers == {each.digest: len(each.blob) for each in first.layers}
    gone, unmatched, wrong_platform = (image.error for image in report.failed)
    assert "does not have it" in gone
    assert "7.*" in unmatched
    assert "linux/arm64" in wrong_platform
    distinct = {each.digest: len(each.blob) for each in (*first.layers, *second.layers)}
    assert report.download_size == sum(distinct.values())


def test_layers_of_all_requested_platforms_count(registry: OwnRegistry, sources: Sources) -> None:
    images = {
        f"linux/{name}": image(noisy_layer(1000, seed), architecture=name)
        for seed, name in enumerate(("amd64", "arm64", "riscv64"))
    }
    for each in images.values():
        registry.add("team/app", None, each)
    registry.add_document("team/app", "v1", image_index(images))
    text = (
        "version: 2\nimages:\n"
        f"  - {{image: '{registry.url}/team/app:v1', platforms: [linux/amd64, linux/arm64]}}\n"
    )
    (found,) = check([("l", text.encode())], sources).images
    assert found.error == ""
    assert found.platforms == ("linux/amd64", "linux/arm64")
    assert set(found.layers) == {
        images[platform].layers[0].digest for platform in ("linux/amd64", "linux/arm64")
    }


def test_no_blob_but_the_config_is_fetched(registry: OwnRegistry, sources: Sources) -> None:
    sample = sample_image(1000, 1000)
    registry.add("team/app", "v1", sample)
    check([("l", f"version: 2\nimages: ['{registry.url}/team/app:v1']\n".encode())], sources)
    assert {request.path.rpartition("/")[2] for request in registry.requests} & set(
        sample.blobs
    ) == {sample.image_id}


def test_an_unreachable_registry_fails_its_images_only(
    registry: OwnRegistry, sources: Sources
) -> None:
    registry.add("team/app", "v1", sample_image(1000))
    with OwnRegistry() as closed:
        unreachable = closed.url
    text = f"version: 2\nimages: ['{unreachable}/a:1', '{registry.url}/team/app:v1']\n"
    bad, good = check([("l", text.encode())], sources).images
    assert bad.error
    assert not good.error


# --- the command ----------------------------------------------------------------------------


def test_the_command_ends_with_0_for_a_sound_list(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_bytes(GOOD)
    result = publisher("check", "--offline", "l.yaml", cwd=tmp_path)
    assert (result.code, result.out, result.err) == (0, "1 wish\n", "")


def test_the_command_ends_with_2_for_a_list_with_mistakes(tmp_path: Path) -> None:
    result = publisher("check", "--offline", "-", cwd=tmp_path, input="version: 2\nimages: [A/b]\n")
    assert result.code == 2
    assert result.out.startswith("-:2:10: error: 'A/b' is not an image reference: ")
    assert result.out.endswith("\n0 wishes, 1 error\n")


def test_the_command_ends_with_1_for_an_image_that_is_missing(tmp_path: Path) -> None:
    write_layout(sample_image(1000), tmp_path / "layout", "v1")
    (tmp_path / "l.yaml").write_text("version: 2\nimages: [oci:layout:v1, oci:layout:v2]\n")
    result = publisher("check", "l.yaml", "--output", "json", cwd=tmp_path, home=tmp_path)
    assert result.code == 1
    value = result.json
    assert value["schema"] == "publisher/check/1"
    assert value["wishes"] == 2
    assert value["problems"] == []
    assert [(i["name"], i["status"]) for i in value["images"]] == [
        ("local/layout:v1", "ok"),
        ("local/layout:v2", "failed"),
    ]
    assert value["downloadBytes"] == value["images"][0]["compressedBytes"] > 1000
    text = publisher("check", "l.yaml", cwd=tmp_path, home=tmp_path)
    assert "ok: local/layout:v1  " in text.out
    assert "l.yaml:2:25: failed: local/layout:v2: " in text.out


def test_the_command_names_the_file_that_it_cannot_read(tmp_path: Path) -> None:
    result = publisher("check", "--offline", "missing.yaml", cwd=tmp_path)
    assert result.code == 2
    assert "cannot read wish list missing.yaml" in result.err
    assert "No such file" in result.err
