"""The error for a name that no image is published as, and its hint."""

from __future__ import annotations

import pytest

from publisher.errors import PublisherError
from publisher.repository.published import load_image
from publisher.tree import layout
from tests.memory_repository import MemoryRepository


class Counting(MemoryRepository):
    """Counts the paths that are looked up."""

    looked_up = 0

    def exists(self, path: str) -> bool:
        self.looked_up += 1
        return super().exists(path)


def hint(tags: int) -> tuple[str, int]:
    """The hint for a missing tag beside so many, and how many paths were looked up for it."""
    repository = Counting()
    with repository.transaction("test") as transaction, transaction.exclusive():
        for number in range(tags):
            transaction.replace(layout.manifest_file(f"local/tool:{number:03}"), b"{}")
        transaction.commit()
    repository.looked_up = 0
    with pytest.raises(PublisherError) as caught:
        load_image(repository, "local/tool:latest")
    return caught.value.hint, repository.looked_up


def test_the_latest_tags_are_named_and_no_others_are_looked_up() -> None:
    assert hint(2)[0] == "name a published tag: local/tool:000, local/tool:001"
    five = ", ".join(f"local/tool:{number:03}" for number in range(195, 200))
    assert hint(200) == (f"name a published tag: {five}, …", 6)
