"""How many ingests of a repository run at the same time, as its engine allows."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from publisher.service.configuration import RepositoryConfiguration, ServiceConfiguration
from publisher.service.jobs.lanes import lanes_of


def write_server(directory: Path, name: str, upstream: str) -> None:
    (directory / name).mkdir(parents=True)
    (directory / name / "server.conf").write_text(f"CVMFS_UPSTREAM_STORAGE={upstream}\n")


def test_the_server_of_a_repository_decides_whether_ingests_run_at_the_same_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_server(tmp_path, "gateway", "gw,/srv/cvmfs,http://gateway:4929/api/v1")
    write_server(tmp_path, "alone", "local,/srv/cvmfs/alone/data/txn,/srv/cvmfs/alone")
    repositories = [
        RepositoryConfiguration(f"{name}-{jobs}", url, jobs=jobs)
        for name, url in (
            ("gateway", "cvmfs:gateway"),
            ("alone", "cvmfs:alone"),
            ("elsewhere", "cvmfs:elsewhere"),
            ("directory", "dir:/srv/images"),
        )
        for jobs in (None, 1, 8)
    ]
    configuration = ServiceConfiguration(
        "service.yaml",
        tmp_path,
        "sqlite://",
        tuple(repositories),
        environment=("PUBLISHER_CVMFS_CONFIGURATION",),
    )
    with caplog.at_level(logging.WARNING):
        found = lanes_of(configuration, {"PUBLISHER_CVMFS_CONFIGURATION": str(tmp_path)})
    assert list(found.values()) == [4, 1, 8, 1, 1, 1, 1, 1, 8, 1, 1, 1]
    [alone, *elsewhere] = [record.getMessage() for record in caplog.records]
    assert alone == "one job at a time for alone-8: its server.conf names no gateway"
    assert len(elsewhere) == 3 and "server.conf is missing" in elsewhere[0]
