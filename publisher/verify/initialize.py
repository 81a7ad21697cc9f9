"""Making a directory a repository, and saying what holds for it: behind `publisher init`."""

from __future__ import annotations

from dataclasses import replace

from publisher.layers.policy import Policy, policy_from_values, policy_values
from publisher.repository import Repository
from publisher.tree import layout
from publisher.tree.settings import RepositorySettings


def load_settings(repository: Repository) -> RepositorySettings:
    """The repository's settings; the usual ones where none were made."""
    data = repository.read(layout.REPOSITORY_SETTINGS)
    if data is None:
        return RepositorySettings()
    return RepositorySettings.parse(data, layout.REPOSITORY_SETTINGS)


def load_policy(repository: Repository) -> Policy:
    """What of images may appear in this repository."""
    return policy_from_values(load_settings(repository).policy)


def initialize(repository: Repository, policy: Policy) -> bool:
    """Make `policy` the repository's, in one transaction; False if it was already.

    It holds for layers that are unpacked from then on: those that are there stay as they are.
    """
    with repository.transaction("init") as transaction, transaction.exclusive():
        before = load_settings(repository)
        settings = replace(before, policy=policy_values(policy))
        if settings == before and repository.exists(layout.REPOSITORY_SETTINGS):
            return False
        transaction.replace(layout.REPOSITORY_SETTINGS, settings.to_bytes())
        transaction.record("repository", "initialized")
        transaction.commit()
    return True
