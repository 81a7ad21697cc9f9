"""The command of a job, and its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.service.configuration import (
    ListConfiguration,
    RepositoryConfiguration,
    ServiceConfiguration,
)
from publisher.service.jobs.command import (
    CannotRun,
    check_registry,
    job_arguments,
    job_environment,
)
from publisher.service.jobs.model import JobKind, JobRequest
from publisher.service.projects import Project

LISTS = (ListConfiguration("astro", "/w/astro.yaml"), ListConfiguration("bio", "/w/bio.yaml"))
FULL = RepositoryConfiguration(
    "images", "dir:/r", LISTS, arguments={JobKind.GC: ("--limit=5",)}, site=Path("/www")
)
CONFIGURATION = ServiceConfiguration(
    "service.yaml",
    Path("/s"),
    "sqlite:////s/jobs.sqlite",
    (FULL, RepositoryConfiguration("empty", "dir:/e")),
    environment=("HTTPS_PROXY",),
)


def words(kind: JobKind, repository: str = "images", subject: str = "", *more: str) -> str:
    return " ".join(
        job_arguments(CONFIGURATION.repositories, JobRequest(kind, repository, subject, more))
    )


def test_each_kind_of_job_is_a_command_and_what_a_user_chose_is_never_an_option() -> None:
    options = "--repository=dir:/r --log-level={} --log-format=json"
    steps, log = options.format("debug"), options.format("info")
    assert words(JobKind.INGEST_LIST, "images", "bio") == f"ingest {steps} -- /w/bio.yaml"
    assert words(JobKind.INGEST_IMAGE, "images", "--help") == f"ingest-image {steps} -- --help"
    assert words(JobKind.PLAN, "images", "astro") == f"plan {log} -- /w/astro.yaml"
    assert words(JobKind.PRUNE) == f"prune {log} -- /w/astro.yaml /w/bio.yaml"
    assert words(JobKind.GC, "images", "", "--now") == f"gc {log} --limit=5 --now --"
    assert words(JobKind.VERIFY) == f"verify {log} --"
    assert words(JobKind.SITE) == f"site {log} -- /www"


@pytest.mark.parametrize(
    ("kind", "repository", "subject", "why"),
    [
        (JobKind.GC, "other", "", "the configuration has no repository other"),
        (JobKind.PLAN, "images", "x\x1b", r"repository images has no list x\x1b"),
        (JobKind.PRUNE, "empty", "", "repository empty has no lists"),
        (JobKind.SITE, "empty", "", "repository empty has no directory for a site"),
    ],
)
def test_what_the_configuration_does_not_have_cannot_run(
    kind: JobKind, repository: str, subject: str, why: str
) -> None:
    with pytest.raises(CannotRun) as caught:
        words(kind, repository, subject)
    assert caught.value.why == why


def test_a_job_runs_for_the_project_that_its_list_has_and_where_that_may_publish() -> None:
    lists = (ListConfiguration("astro", "/a", project="astro"), ListConfiguration("free", "/f"))
    repositories = (
        RepositoryConfiguration("images", "dir:/r", lists),
        RepositoryConfiguration("other", "dir:/o", projects=("bio",)),
    )
    image = JobKind.INGEST_IMAGE
    for request, why in (
        (JobRequest(JobKind.PLAN, "images", "astro", project="astro"), ""),
        (JobRequest(JobKind.PLAN, "images", "free"), ""),
        (JobRequest(JobKind.PLAN, "images", "astro"), "the list astro has a project"),
        (
            JobRequest(JobKind.PLAN, "images", "free", project="bio"),
            "the list free is not one of the project bio",
        ),
        (JobRequest(image, "images", "a:1", project="astro"), ""),
        (JobRequest(image, "other", "a:1", project="bio"), ""),
        (JobRequest(image, "other", "a:1", project="astro"), "may not publish to the repository o"),
        (JobRequest(image, "images", "a:1", project="gone"), "the project gone may not publish to"),
        (JobRequest(image, "images", "a:1"), ""),
    ):
        if not why:
            assert job_arguments(repositories, request)
            continue
        with pytest.raises(CannotRun) as caught:
            job_arguments(repositories, request)
        assert why in caught.value.why


def test_a_job_has_the_variables_that_it_needs_and_those_that_the_configuration_names() -> None:
    given = {"PATH": "/bin", "SECRET": "x", "HTTPS_PROXY": "p", "PUBLISHER_STATE": "/other"}
    assert job_environment(CONFIGURATION, given) == {
        "PATH": "/bin",
        "HTTPS_PROXY": "p",
        "PUBLISHER_STATE": "/s/wishes",
    }


def test_a_single_image_is_one_of_a_registry_that_its_project_may_use() -> None:
    projects = (Project("astro", registries=("docker.io", "r.example.org:5000")), Project("bio"))

    def check(kind: JobKind, image: str, project: str) -> None:
        check_registry(projects, JobRequest(kind, "images", image, project=project))

    of_image = JobKind.INGEST_IMAGE
    for image in ("debian:12", "registry-1.docker.io/a/b:1", "R.example.org:5000/a/b:1"):
        check(of_image, image, "astro")
    for image in ("quay.io/a/b:1", "r.example.org/a/b:1", "http://169.254.169.254/a/b:1"):
        check(of_image, image, "bio")
        check(of_image, image, "")
        check(JobKind.INGEST_LIST, image, "astro")  # the name of a list
        with pytest.raises(CannotRun, match="the project astro may not use the registry"):
            check(of_image, image, "astro")
