"""What a job has of its project: credentials, registry settings, prefix and quota."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from publisher.errors import PublisherError
from publisher.service.configuration import RepositoryConfiguration
from publisher.service.projects import Project
from publisher.service.secret_files import is_exposed

OF_THE_HOST = ("DOCKER_AUTH_CONFIG", "DOCKER_CONFIG", "DOCKER_HOST", "REGISTRY_AUTH_FILE")
"""Variables with credentials, and engines, of the user of the service; jobs of projects do not have
them, also if `environment` names them."""


class UnsafeCredentials(PublisherError):
    """The file with the credentials of a project cannot be used."""


def project_options(project: Project) -> list[str]:
    """Return the options of the commands of a project's jobs; they replace earlier ones.

    Without credentials or settings of its own, a project has none: its jobs do not fall back to
    those of the user of the service, in whose place they have an empty file.

    Raises:
        UnsafeCredentials: Other users may read the file with the credentials.
        OSError: The file cannot be read.
    """
    credentials, settings = (
        each or Path(os.devnull) for each in (project.credentials, project.settings)
    )
    if project.credentials is not None:
        status = os.stat(credentials)
        if is_exposed(status) or not stat.S_ISREG(status.st_mode):
            raise UnsafeCredentials(
                f"cannot use the credentials of the project {project.name}",
                why=f"{credentials} is not a file that its owner alone can read",
                hint=f"chmod 600 {credentials}",
            )
    prefix = [f"--prefix={project.prefix}"] if project.prefix else []
    return [f"--authfile={credentials}", f"--config={settings}", *prefix]


def quota_options(project: Project, repository: RepositoryConfiguration) -> list[str]:
    """Return the options of the ingests of a project: its quota, and all lists that count for it.

    Its single images are recorded with its name in place of a list.
    """
    quota = project.quota
    options = [f"--project={project.name}"]
    options += [f"--quota-images={quota.images}"] if quota.images is not None else []
    options += [f"--quota-bytes={quota.bytes} B"] if quota.bytes is not None else []
    if quota.is_limited:
        options += [f"--quota-list={each.source}" for each in repository.lists_of(project.name)]
    return options
