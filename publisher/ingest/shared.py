"""What all images of one run share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import field
from datetime import datetime

from publisher.ingest.admission import Admission, RunQuota
from publisher.ingest.group import Commits
from publisher.ingest.layers import LayerFetcher
from publisher.ingest.memory import Memory
from publisher.ingest.notices import Notices
from publisher.ingest.report import Outcome
from publisher.ingest.selection import Selection
from publisher.ingest.step_times import StepTimes
from publisher.ingest.thin_pushes import ThinPushes
from publisher.layers.policy import Limits
from publisher.lazy import dataclass
from publisher.repository import Repository
from publisher.sources.open import Sources
from publisher.wishlist import Places


@dataclass(slots=True)
class Run:
    """The state that all images of one run share.

    `cut_short` is set if an image was not processed because the run is to stop. `recovered` has the
    wishes whose tags could not be listed when a run last reported it, and now can.
    """

    repository: Repository
    sources: Sources
    layers: LayerFetcher
    limits: Limits
    progress: StepTimes
    stop: threading.Event
    now: Callable[[], datetime]
    thin: ThinPushes
    notices: Notices
    admission: Admission
    memory: Memory
    selection: Selection
    commits: Commits
    quota: RunQuota | None = None
    cut_short: bool = False
    places: Places = field(default_factory=Places)
    recovered: list[Outcome] = field(default_factory=list)
