"""Quotas: an image that needs more than is left is refused, before it is downloaded if possible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.browse.statistics.charges import Charges
from publisher.browse.statistics.holdings import read_holdings
from publisher.browse.statistics.quota import RunQuota
from publisher.cli.quotas import QuotaOptions
from publisher.errors import PublisherError
from publisher.ingest.run import ingest
from publisher.wishlist.model import Request
from publisher.wishlist.quota import Quota, QuotaExceeded, Usage
from tests.any_repository import KINDS
from tests.command import publisher
from tests.layer_builder import file, image, layer, write_layout
from tests.registry import OwnRegistry
from tests.registry_images import noisy_layer
from tests.removal_tree import Tree, new_tree

KB = 1000


class Lists:
    """Wish lists in a directory, for a tree beside them."""

    def __init__(self, directory: Path, registry: OwnRegistry) -> None:
        self.directory = directory
        self.registry = registry

    def write(self, name: str, *images: str) -> None:
        text = "".join(f"- {self.registry.url}/{each}\n" for each in images)
        (self.directory / name).write_text(f"version: 2\nimages:\n{text}")

    def ingest(self, *arguments: str, verb: str = "ingest") -> dict[str, Any]:
        """The outcomes by the last part of the image's name."""
        words = (verb, *arguments, "--repository=dir:tree", "--output=json")
        found = publisher(*words, cwd=self.directory, home=self.directory)
        assert found.code in (0, 1), found.err
        return {each["name"].rpartition("/")[2]: each for each in found.json["outcomes"]}


def test_an_image_beyond_a_quota_is_refused_before_its_layers_are_fetched(tmp_path: Path) -> None:
    shared = noisy_layer(60 * KB, 1)
    with OwnRegistry() as registry:
        for number, name in enumerate("abcdef", 2):
            registry.add(name, "1", image(shared, noisy_layer(20 * KB, number)))
        lists = Lists(tmp_path, registry)
        lists.write("astro.yaml", "a:1", "b:1", "c:1")
        lists.write("bio.yaml", "a:1", "d:1")
        lists.write("more.yaml", "e:1")
        own = ("--project=astro", "--quota-list=more.yaml")

        words = ("astro.yaml", *own, "--quota-images=2", "--repository=dir:tree", "--output=json")
        planned = publisher("plan", *words, cwd=tmp_path, home=tmp_path)
        states = sorted(each["status"] for each in planned.json["images"])
        assert planned.code == 1 and states == ["failed", "published", "published"]

        found = lists.ingest("astro.yaml", *own, "--quota-images=2", "--jobs=3")
        [refused] = [each for each in found.values() if each["status"] == "failed"]
        assert "the quota of the project astro is 2 images, and 2 are published" in refused["error"]
        assert "ask the administrator for a larger quota" in refused["error"]
        assert refused["cause"] == "quota"
        fetched = registry.count("GET", "/blobs/")
        # The next run tries it again, and asks for the manifest alone.
        [again] = [
            e
            for e in lists.ingest("astro.yaml", *own, "--quota-images=2").values()
            if e["status"] != "unchanged"
        ]
        assert again["status"] == "failed" and again["name"] == refused["name"]
        assert registry.count("GET", "/blobs/") == fetched + 1  # its config

        # 60 + 2 * 20 kB are used, and the third image needs what its layer has as an archive.
        found = lists.ingest("astro.yaml", *own, "--quota-bytes=115 kB")
        error = found[refused["name"].rpartition("/")[2]]["error"]
        assert "is 115.0 kB, 100.0 kB are used, and the image needs at least 22.0 kB more" in error
        found = lists.ingest("astro.yaml", *own, "--quota-bytes=123 kB", "--quota-images=3")
        assert [each["status"] for each in found.values()].count("published") == 1

        # A list of the same project counts; a single image of it does, too.
        found = lists.ingest(
            "more.yaml", "--project=astro", "--quota-list=astro.yaml", "--quota-images=3"
        )
        assert "and 3 are published" in found["e:1"]["error"]
        found = lists.ingest("more.yaml", *own, "--quota-list=astro.yaml", "--quota-images=1")
        assert "astro is 1 image, and 3 are published" in found["e:1"]["error"]
        single = (f"{registry.url}/f:1", "--project=astro")
        counted = ("--quota-list=astro.yaml", "--quota-images=3")
        assert lists.ingest(*single, *counted, verb="ingest-image")["f:1"]["status"] == "failed"
        assert lists.ingest(*single, verb="ingest-image")["f:1"]["status"] == "published"
        found = lists.ingest("more.yaml", *own, "--quota-list=astro.yaml", "--quota-images=4")
        assert "and 4 are published" in found["e:1"]["error"]

        # Another list requests `a`, and an image with the same layer: the project pays less.
        assert lists.ingest("bio.yaml")["d:1"]["status"] == "published"
        found = lists.ingest("more.yaml", *own, "--quota-list=astro.yaml", "--quota-bytes=1 kB")
        # 60 kB * 4 / 6 of the shared layer, 10 kB of `a`, and three times 20 kB.
        assert (
            "110.0 kB are used, and the image needs at least 24.9 kB more" in found["e:1"]["error"]
        )

        # Nothing that is published is removed or refused because the quota is exceeded already.
        found = lists.ingest("astro.yaml", *own, "--quota-images=0", "--quota-bytes=0 B")
        assert {each["status"] for each in found.values()} == {"unchanged"}
        registry.add("b", "1", image(shared, noisy_layer(10 * KB, 20)))
        found = lists.ingest("astro.yaml", *own, "--quota-images=0", "--quota-bytes=0 B")
        assert found["b:1"]["status"] == "updated"


def test_the_size_in_the_tree_counts_once_a_layer_is_unpacked(tmp_path: Path) -> None:
    """A layer of one letter is a thousandth of its size when it is downloaded."""
    with OwnRegistry() as registry:
        registry.add("long", "1", image(layer(file("long", b"x" * 300 * KB))))
        registry.add("small", "1", image(noisy_layer(50 * KB)))
        lists = Lists(tmp_path, registry)
        lists.write("l.yaml", "long:1", "small:1")
        found = lists.ingest("l.yaml", "--quota-bytes=100 kB", "--jobs=1")
        assert (
            "the quota of the lists is 100.0 kB, 0 B are used, and the image needs 300.0 kB m"
            in (found["long:1"]["error"])
        )
        assert found["small:1"]["status"] == "published"
        assert not list((tmp_path / "tree/.layers").rglob("long"))
        # The layer is staged, so that its size is known before the next download.
        before = registry.count("GET", "/blobs/")
        found = lists.ingest("l.yaml", "--quota-bytes=100 kB")
        assert "50.0 kB are used, and the image needs 300.0 kB" in found["long:1"]["error"]
        assert registry.count("GET", "/blobs/") == before + 1  # the config
        found = lists.ingest("l.yaml", "--quota-bytes=350 kB")
        assert found["long:1"]["status"] == "published"


@pytest.mark.parametrize("kind", KINDS)
def test_each_backend_knows_the_sizes_of_layers_that_are_unpacked(
    kind: str, tmp_path: Path
) -> None:
    with new_tree(kind, tmp_path) as tree:
        tree.publish("small", image(layer(file("small", b"s" * 40))), "/lists/b")
        for tag in ("first", "second"):
            write_layout(image(layer(file(tag, tag.encode() * 10_000))), tree.layout, tag)
        requests = [Request(tree.wish(tag), "/lists/a") for tag in ("small", "first", "second")]

        def run(size: int) -> list[tuple[str, str]]:
            quota = RunQuota(Quota("p", bytes=size), ["/lists/a"], tree.repository, unexpected)
            report = ingest(requests, tree.repository, tree.sources, jobs=1, quota=quota)
            return [(str(each.status), each.error) for each in report.outcomes]

        # Half of the small image, whose other half another list pays, and 50 kB.
        small, first, second = run(50_500)
        assert (small[0], first[0], second[0]) == ("recorded", "published", "failed")
        assert "50.0 kB are used, and the image needs 60.0 kB more" in second[1]
        *_, second = run(110_019)
        assert second[0] == "failed"
        *_, second = run(110_020)
        assert second[0] == "published"
        usage = charged(tree)
        assert usage == Usage(3, 110_020)


class _Lock:
    """A lock that calls a function each time that it was released."""

    def __init__(self) -> None:
        self.released: Callable[[], None] = lambda: None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.released()


def test_an_image_that_is_refused_leaves_the_others_their_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a second thread finds whenever the first one lets it: only published images."""
    with new_tree("directory", tmp_path) as tree:
        quota = RunQuota(Quota("p", bytes=100), ["/a"], tree.repository, unexpected)
        lock = _Lock()
        monkeypatch.setattr(quota, "_lock", lock)
        admitted: list[str] = []

        def admit_small() -> None:
            lock.released = lambda: None
            with quota.counted("small", "/a", {"small": 60}):
                admitted.append("small")

        lock.released = admit_small
        with pytest.raises(QuotaExceeded) as caught, quota.counted("large", "/a", {"large": 101}):
            pass
        assert admitted == ["small"]
        # Without any other image it would be too large as well: to remove one does not help.
        assert "0 B are used, and the image needs at least 101 B more" in str(caught.value.why)
        assert caught.value.hint == "ask the administrator for a larger quota"
        with (
            pytest.raises(QuotaExceeded, match="60 B are used") as caught,
            quota.counted("other", "/a", {"other": 41}),
        ):
            pass
        assert "remove other wishes" in caught.value.hint


def charged(tree: Tree) -> Usage:
    holdings = read_holdings(tree.repository, unexpected)
    return Charges(holdings, {"/lists/a": "p"}).usage("p")


def unexpected(name: str, error: PublisherError) -> None:
    raise AssertionError(name) from error


def test_a_list_of_a_quota_that_may_be_misspelt_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "own.yaml").touch()
    further = [f"{tmp_path}/own.yaml", f"{tmp_path}/onw.yaml", "https://lists.example.org/l.yaml"]
    found = QuotaOptions.of("", 1, None, further, ["/a"])
    assert found is not None and len(found.lists) == 4
    assert caplog.messages == [
        f"no file {tmp_path}/onw.yaml: if it is misspelt, its images do not count"
    ]


def test_images_that_could_not_be_found_again_cannot_have_a_quota(tmp_path: Path) -> None:
    for words in (("ingest", "-"), ("ingest-image", "r.example.org/a:1")):
        found = publisher(*words, "--quota-images=1", "--repository=dir:t", cwd=tmp_path, input="")
        assert found.code == 2 and "neither a wish list with a name nor a project" in found.err
    for wrong in ("http://r.example.org/astro", "/r.example.org/astro", "r.example.org/astro:1"):
        found = publisher("ingest", "l.yaml", f"--prefix={wrong}", cwd=tmp_path)
        assert found.code == 2 and f"{wrong!r} is not a directory of public names" in found.err
    found = publisher("ingest", "l.yaml", "--quota-bytes=12", cwd=tmp_path)
    assert found.code == 2 and "'12' must be a size with its unit, such as 500 GB" in found.err
