"""An image that holds more than `init --limit` allows is refused, before it is published."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from publisher.ingest.check import check
from publisher.ingest.check_image import Target
from publisher.ingest.plan import plan
from publisher.ingest.report import Status
from publisher.ingest.run import ingest
from publisher.layers.policy import Limits, Policy
from publisher.sources.open import Sources
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.command import publisher
from tests.layer_builder import file, image, layer, write_layout
from tests.memory_repository import MemoryRepository
from tests.registry_images import noisy_layer

LARGE = image(noisy_layer(60_000, 1), noisy_layer(60_000, 2))
"""Two layers within 100,000 bytes each, and together above, as downloaded as well."""

INFLATED = image(layer(file("zeros", bytes(60_000))), layer(file("more", bytes(60_000))))
"""Small as downloaded, and large when unpacked."""

LIMITS = Limits(image_bytes=100_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for tag, built in (("large", LARGE), ("inflated", INFLATED), ("small", image(noisy_layer(10)))):
        write_layout(built, tmp_path / "app", tag)
    return tmp_path


def requests(folder: Path) -> list[Request]:
    return [Request(wish_for(f"oci:{folder}/app:{t}")) for t in ("large", "inflated", "small")]


def test_an_image_above_the_limit_is_refused_and_the_others_are_published(folder: Path) -> None:
    repository = MemoryRepository()
    with Sources() as sources:
        report = ingest(requests(folder), repository, sources, policy=Policy(limits=LIMITS))
    large, inflated, small = report.outcomes
    assert "bytes are more than 100000" in large.error and large.layers_fetched == 0
    assert "bytes are more than 100000" in inflated.error
    assert small.status is Status.PUBLISHED
    assert list(repository.names()) == ["local/app:small"]


def test_too_many_entries_are_refused_as_well(folder: Path) -> None:
    with Sources() as sources:
        report = ingest(
            requests(folder)[:1],
            MemoryRepository(),
            sources,
            policy=Policy(limits=Limits(image_entries=1)),
        )
    assert "entries are more than 1" in report.outcomes[0].error


def test_plan_and_check_refuse_what_is_too_large_as_downloaded(folder: Path) -> None:
    with Sources() as sources:
        now = datetime.now(UTC)
        planned = plan(requests(folder), MemoryRepository(), sources, now, limits=LIMITS)
        lines = [f"- 'oci:{folder}/app:{tag}'" for tag in ("large", "small")]
        text = "\n".join(["version: 2", "images:", *lines]).encode()
        checked = check([("list.yaml", text)], sources, target_of=lambda url: Target(LIMITS))
    assert [each.status for each in planned] == [
        Status.FAILED,
        Status.PUBLISHED,
        Status.PUBLISHED,
    ]
    assert [bool(each.error) for each in checked.images] == [True, False]


@pytest.mark.parametrize("command", ["ingest", "plan"])
def test_the_limit_that_init_writes_holds_for_ingest_and_plan(folder: Path, command: str) -> None:
    tree = ("--repository", folder / "tree")
    assert publisher("init", folder / "tree", "--limit", "image-bytes=100000").code == 0
    wishes = folder / "list.yaml"
    wishes.write_text(f"version: 2\nimages:\n- 'oci:{folder}/app:large'\n")
    result = publisher(command, wishes, *tree)
    assert result.code == 1
    assert "are more than 100000" in result.err


@pytest.mark.parametrize("named_by", ["list", "option", "environment"])
def test_the_limit_that_init_writes_holds_for_check(folder: Path, named_by: str) -> None:
    wishes, tree = folder / "wishes.yaml", folder / "tree"
    assert publisher("init", tree, "--limit", "image-bytes=100000").code == 0
    wishes.write_text(
        f"version: 2\nrepository: dir:{tree if named_by == 'list' else folder / 'none'}\n"
        f"images: ['oci:{folder}/app:large', 'oci:{folder}/app:small']\n"
    )
    option = ("--repository", tree) if named_by == "option" else ()
    environment = {"PUBLISHER_REPOSITORY": str(tree)} if named_by == "environment" else {}
    result = publisher("check", wishes, *option, env=environment)
    assert result.code == 1, result
    assert "bytes are more than 100000" in result.out
    assert "app:small" in result.out


def test_check_uses_the_default_limits_where_the_repository_cannot_be_read(folder: Path) -> None:
    wishes = folder / "wishes.yaml"
    wishes.write_text(f"version: 2\nrepository: /none/x\nimages: ['oci:{folder}/app:large']\n")
    assert publisher("check", wishes).code == 0
