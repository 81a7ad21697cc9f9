"""The settings of a repository, and the policy in them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from publisher.layers.policy import Policy, policy_from_values
from publisher.repository.protocol import Repository
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from publisher.tree.settings import RepositorySettings


def load_settings(repository: Repository) -> RepositorySettings:
    """Return the repository's settings; the defaults where it has none.

    Raises:
        InvalidRecord: They are unreadable.
    """
    data = repository.read(layout.REPOSITORY_SETTINGS)
    if data is None:
        return RepositorySettings()
    return RepositorySettings.parse(data, layout.REPOSITORY_SETTINGS)


def stored_policy(repository: Repository) -> Policy:
    """Return the policy as it was set, without what follows from the kind of repository.

    Raises:
        InvalidRecord: The settings are unreadable.
        LayerError: They have an option or value that this release does not know.
    """
    return policy_from_values(load_settings(repository).policy)


def load_policy(repository: Repository) -> Policy:
    """Return what of images may appear in this repository; raise as `stored_policy` does."""
    policy = stored_policy(repository)
    if policy.writable is None and repository.url.kind == "dir":
        return replace(policy, writable="drop")
    return policy


def mount_point(url: RepositoryURL) -> Path:
    """Return the absolute path of the published tree on this machine."""
    return Path("/cvmfs", url.location) if url.kind == "cvmfs" else Path(url.location).absolute()


def own_mount(repository: Repository) -> str:
    """Return where clients mount the repository unless its settings name another path."""
    return os.path.normpath(mount_point(repository.url))


def client_mount(repository: Repository) -> str:
    """Return the absolute path at which clients mount the repository.

    Raises:
        InvalidRecord: The settings are unreadable.
    """
    return load_settings(repository).mount or own_mount(repository)
