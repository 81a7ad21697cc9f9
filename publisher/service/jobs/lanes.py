"""How many jobs of a repository may run at the same time: what its engine allows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from publisher.repository import RepositoryError
from publisher.repository.cvmfs.configuration import load_configuration
from publisher.repository.cvmfs.places import CONFIGURATION
from publisher.service.configuration import RepositoryConfiguration, ServiceConfiguration
from publisher.service.jobs.command import job_environment

_log = logging.getLogger(__name__)

_AT_A_GATEWAY = 4
"""How many ingests run at the same time if the configuration does not state it."""


def lanes_of(
    configuration: ServiceConfiguration, environment: Mapping[str, str]
) -> Mapping[str, int]:
    """Return how many ingests of each repository run at the same time.

    A directory has one writer at a time, and so has a CVMFS repository without a gateway, whatever
    the configuration states. `environment` is that of the process.
    """
    variables = job_environment(configuration, environment)
    directory = Path(variables.get("PUBLISHER_CVMFS_CONFIGURATION", CONFIGURATION))
    return {each.name: _lanes(each, directory) for each in configuration.repositories}


def _lanes(repository: RepositoryConfiguration, directory: Path) -> int:
    if not repository.cvmfs_name:
        return 1
    try:
        found = load_configuration(repository.cvmfs_name, directory)
    except RepositoryError as error:
        # Jobs of the repository run on other hosts, or fail with this error.
        lanes = repository.jobs or 1
        _log.warning("%d at a time of the jobs for %s: %s", lanes, repository.name, error)
        return lanes
    if found.is_gateway:
        return repository.jobs or _AT_A_GATEWAY
    if repository.jobs is not None and repository.jobs > 1:
        text = "one job at a time for %s: its server.conf names no gateway"
        _log.warning(text, repository.name)
    return 1
