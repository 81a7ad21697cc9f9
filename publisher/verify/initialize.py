"""Create a repository, or change its settings: the use case behind `publisher init`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from publisher.layers.errors import LayerError
from publisher.layers.policy import Policy, policy_values
from publisher.repository import Repository
from publisher.repository.settings import load_settings, stored_policy
from publisher.tree import layout
from publisher.tree.record import InvalidRecord
from publisher.tree.settings import RepositorySettings


def initialize(repository: Repository, policy: Policy, mount: str | None = None) -> bool:
    """Store the settings of the repository; return False if nothing changed.

    Unreadable settings are replaced.

    Args:
        repository: The repository, opened for writing.
        policy: The policy. It applies to layers that are unpacked afterwards; published layers do
            not change.
        mount: The absolute path at which clients mount the repository; "" for its own path, and
            None for the path that it already has.
    """
    with repository.transaction("init") as transaction, transaction.exclusive():
        before: RepositorySettings | None = None
        with suppress(InvalidRecord):
            before = load_settings(repository)
        settings = replace(before or RepositorySettings(), policy=policy_values(policy))
        if mount is not None:
            settings = replace(settings, mount=mount)
        if settings == before and repository.exists(layout.REPOSITORY_SETTINGS):
            return False
        transaction.replace(layout.REPOSITORY_SETTINGS, settings.to_bytes())
        transaction.record("repository", "initialized")
        transaction.commit()
    return True


def current_policy(repository: Repository) -> tuple[Policy, str]:
    """Return the repository's policy, and "".

    If it is unreadable, return the default policy and the reason.
    """
    try:
        return stored_policy(repository), ""
    except (InvalidRecord, LayerError) as error:
        return Policy(), f"{error.what}: {error.why}"
