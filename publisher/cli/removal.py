"""Shared by the commands about removal: durations, schedule entries as text and JSON."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from publisher.durations import parse_duration
from publisher.sizes import human_size

if TYPE_CHECKING:  # several commands use only the time
    from publisher.removal.reference_counts import Released


class Duration(click.ParamType[timedelta]):
    """An option's value such as 36h or 30d."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Parse the value; an invalid one is a usage error."""
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def describe_released(released: Released) -> str:
    """Return a line about an image that is, or would be, collected."""
    entry = released.entry
    parts = [f"{released.layers} layer{'' if released.layers == 1 else 's'}"]
    if released.flat:
        parts.append("flat image")
    return (
        f"{entry.name}  {entry.manifest_digest[7:19]}  {entry.reason_text}  "
        f"{', '.join(parts)}, {human_size(released.size)}"
    )
