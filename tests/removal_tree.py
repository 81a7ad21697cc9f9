"""A small published tree that tests fill and empty in their own process, by a clock they set."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from publisher.ingest.report import Outcome
from publisher.ingest.run import ingest
from publisher.oci.chain import chain_ids
from publisher.removal.gc import Report, choose, collect
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.verify.run import verify
from publisher.wishlist import Wish, WishList, wish_for
from publisher.wishlist.model import Request
from tests.any_repository import environment_of, find_repository, make_repository
from tests.clocks import SkippingClock
from tests.layer_builder import Image, write_layout

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Tree:
    """A repository, and a layout to fill it from. `now` is the time of its clock."""

    def __init__(self, folder: Path, kind: str = "directory") -> None:
        self.place = make_repository(kind, folder)
        self.root = self.place.root
        self.layout = folder / "app"
        self.repository = self.place.open()
        self.sources = Sources(clock=SkippingClock())
        self.now = NOON

    def clock(self) -> datetime:
        return self.now

    def close(self) -> None:
        self.repository.close()
        self.sources.close()

    def wish(self, tag: str, **fields: object) -> Wish:
        """A wish for a tag of the layout."""
        return replace(wish_for(f"oci:{self.layout}:{tag}"), **fields)  # type: ignore[arg-type]

    def publish(
        self, tag: str, image: Image, wish_list: str = "/lists/a", days: int = 30
    ) -> Outcome:
        """Let the tag name the image, and ingest it; `days` of grace."""
        write_layout(image, self.layout, tag)
        return self.ingest(self.wish(tag, grace=timedelta(days=days)), wish_list)

    def ingest(self, wish: Wish, wish_list: str = "/lists/a") -> Outcome:
        report = ingest(
            [Request(wish, wish_list)], self.repository, self.sources, jobs=1, now=self.clock
        )
        (outcome,) = report.outcomes
        assert not outcome.error, outcome.error
        return outcome

    def wish_list(self, *tags: str, name: str = "/lists/a") -> WishList:
        return WishList(name, 2, "", None, tuple(self.wish(tag) for tag in tags))

    def collect(
        self, *, at_once: bool = False, image: str | None = None, dry_run: bool = False
    ) -> Report:
        choice = choose(self.repository, at_once=at_once, image=image)
        return collect(self.repository, choice, self.clock, dry_run=dry_run)

    def collected(self, *, at_once: bool = False) -> list[str]:
        """The names of the images that a collection removes."""
        return [each.entry.name for each in self.collect(at_once=at_once).released]

    def layers(self) -> set[str]:
        """The digests of the layers in the tree."""
        return {f"sha256:{path.name}" for path in self.root.glob(".layers/*/*") if path.is_dir()}

    def flat_images(self) -> set[str]:
        """The IDs of the flat images in the tree."""
        return {f"sha256:{path.name}" for path in self.root.glob(".flat/*/*") if path.is_dir()}

    def names_in(self, path: str) -> set[str]:
        """Return the names in a directory, without empty directories and the server's own files."""
        own = (".cvmfscatalog", "new_repository")
        return {
            found.relative_to(self.root / path).parts[0]
            for found in (self.root / path).rglob("*")
            if not found.is_dir() and found.name not in own
        }

    def links(self) -> list[str]:
        """The public names whose links are not dangling."""
        return sorted(
            path.relative_to(self.root).as_posix()
            for path in self.root.glob("local/*")
            if path.is_symlink() and path.is_dir()
        )

    def chains(self) -> dict[str, str]:
        """The digests of layers by the chain IDs under which they are linked."""
        found = {}
        for path in self.root.glob(f"{layout.CHAINS}/??/*"):
            target = (path / "layerfs").resolve(strict=True).parent
            assert target.parent.parent == self.root.resolve() / layout.LAYERS
            found[f"sha256:{path.name}"] = f"sha256:{target.name}"
        return found

    def assert_sound(self) -> None:
        """Fail unless all content and records are present and correct, and nothing else is."""
        assert not verify(self.repository, deep=True).findings

    def forget_layout(self) -> None:
        """Remove the source."""
        shutil.rmtree(self.layout)


@contextmanager
def new_tree(kind: str, folder: Path) -> Iterator[Tree]:
    """A tree in a repository of one of KINDS, in whose environment the test runs."""
    with environment_of(find_repository(kind, folder)):
        made = Tree(folder, kind)
        try:
            yield made
        finally:
            made.close()


def digests(*images: Image) -> set[str]:
    """The layers of these images."""
    return {layer.digest for image in images for layer in image.layers}


def chains(*images: Image) -> dict[str, str]:
    """The layers of these images by their chain IDs."""
    return {
        chain: layer.digest
        for image in images
        for chain, layer in zip(
            chain_ids([layer.diff_id for layer in image.layers]), image.layers, strict=True
        )
    }


def ids(images: Sequence[Image]) -> set[str]:
    """The image IDs of these images."""
    return {image.image_id for image in images}
