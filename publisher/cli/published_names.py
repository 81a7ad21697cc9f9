"""The published names that shells complete.

They are not in `completion`, which loads what click has for shells.
"""

from __future__ import annotations

import click


def complete_images(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return the published names that begin with `incomplete`; none if the tree is unreadable."""
    from publisher.cli.repositories import open_repository

    try:
        repository = open_repository(context.params.get("repository"))
        return [name for name in repository.names() if name.startswith(incomplete)]
    except Exception:  # noqa: BLE001 - a message would end up in the user's command line
        return []
