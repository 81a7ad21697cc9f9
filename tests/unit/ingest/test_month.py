"""What failing images cost in a month of runs, in requests that the registry receives.

PUBLISHER_LIVE_WISHES=960 is the full size, which takes some minutes.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from publisher.ingest.report import Status
from publisher.ingest.run import ingest
from publisher.state.backoff import LONGEST
from publisher.state.store import open_state
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.memory_repository import MemoryRepository
from tests.registry import OwnRegistry
from tests.registry_images import fast_sources, sample_image

LIVE = int(os.environ.get("PUBLISHER_LIVE_WISHES", "2"))
DEAD = 40
START = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = (0, 1, 3, 7, 14, 29)
MINUTES = (0, 10, 20, 30, 40)


class Month:
    """Wishes of which some are dead, and runs at moments of a month."""

    def __init__(self, registry: OwnRegistry, directory: Path) -> None:
        self.registry = registry
        self.directory = directory
        self.repository = MemoryRepository()
        self.image = sample_image(1000)
        for number in range(LIVE):
            registry.add("live", str(number), self.image)
        names = [f"live:{n}" for n in range(LIVE)] + [f"dead:{n}" for n in range(DEAD)]
        self.wishes = [Request(wish_for(f"{registry.url}/{name}"), "list") for name in names]

    def run(self, now: datetime, *, retry_failed: bool = False) -> list[Status]:
        """Return the outcomes of the dead images."""
        self.registry.requests.clear()
        # As in real runs, each one opens the state that the former one has written.
        with (
            fast_sources() as sources,
            open_state(self.directory, "dir:/images", writable=True) as state,
        ):
            report = ingest(
                self.wishes,
                self.repository,
                sources,
                state=state,
                retry_failed=retry_failed,
                now=lambda: now,
            )
        looked_up = {request.path for request in self.registry.seen(path="live/manifests/[0-9]+$")}
        assert len(looked_up) == LIVE
        assert not any(outcome.error for outcome in report.outcomes[:LIVE])
        return [outcome.status for outcome in report.outcomes[LIVE:]]

    def requests_for_dead_images(self) -> tuple[int, int]:
        """Return how many dead images the last run tried, and by how many requests."""
        paths = [request.path for request in self.registry.seen(path="/dead/")]
        return len({path for path in paths if "/manifests/" in path}), len(paths)


def test_dead_images_cost_few_requests_and_are_published_soon_after_they_return(
    tmp_path: Path,
) -> None:
    with OwnRegistry() as registry:
        month = Month(registry, tmp_path)
        tried, requests = [], []
        for day in DAYS:
            for minute in MINUTES:
                month.run(START + timedelta(days=day, minutes=minute))
                images, count = month.requests_for_dead_images()
                tried.append(images)
                requests.append(count)
        print(f"tried in each of {len(tried)} runs: {tried}\nrequests: {requests}")
        # At first after about 5, 10, 20 and 40 minutes, and at last once a day.
        assert tried == [DEAD, DEAD, DEAD, 0, DEAD, *[DEAD, 0, 0, 0, 0] * (len(DAYS) - 1)]
        assert all(count <= 3 * images for images, count in zip(tried, requests, strict=True))

        end = START + timedelta(days=29, minutes=41)
        for number in (0, 1):
            registry.add("dead", str(number), month.image)
        assert month.run(end) == [Status.WAITING] * DEAD
        with open_state(tmp_path, "dir:/images", writable=False) as state:
            due = [state.wish("list", f"{registry.host}/dead:{n}") for n in (0, 1)]
        [first, second] = sorted(each.next_try for each in due if each and each.next_try)
        assert first <= second <= end + LONGEST
        assert Status.PUBLISHED not in month.run(first - timedelta(seconds=1))
        assert month.run(second)[:2] == [Status.PUBLISHED] * 2

        registry.add("dead", "2", month.image)
        again = second + timedelta(seconds=1)
        assert month.run(again, retry_failed=True)[2] is Status.PUBLISHED
