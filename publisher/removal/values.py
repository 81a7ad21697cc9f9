"""Scheduled images as JSON values, as docs/schemas has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.times import format_time

if TYPE_CHECKING:  # several commands need only the values
    from publisher.removal.schedule import Planned
    from publisher.tree.schedule import ScheduledRemoval


def entry_value(entry: ScheduledRemoval) -> dict[str, object]:
    """Return a schedule entry as a JSON value, without the manifest."""
    return {
        "name": entry.name,
        "reference": entry.reference,
        "manifestDigest": entry.manifest_digest,
        "imageId": entry.image_id,
        "reason": entry.reason,
        "scheduledAt": format_time(entry.scheduled_at),
        "notBefore": format_time(entry.not_before),
    }


def planned_value(planned: Planned) -> dict[str, object]:
    """Return a line of the remove schedule, with what its removal frees."""
    moment = planned.held_until
    return entry_value(planned.entry) | {
        "heldUntil": None if moment is None else format_time(moment),
        "pinned": planned.pin is not None,
        "layers": planned.layers,
        "bytes": planned.size,
        "problem": planned.problem,
    }
