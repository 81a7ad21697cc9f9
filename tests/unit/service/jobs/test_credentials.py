"""A job has the credentials of its project only, whatever else the host has."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from publisher.service.access import Access
from publisher.service.configuration import (
    ListConfiguration,
    RepositoryConfiguration,
    ServiceConfiguration,
)
from publisher.service.jobs.command import job_environment
from publisher.service.jobs.credentials import UnsafeCredentials, project_options
from publisher.service.jobs.model import JobKind, JobRequest
from publisher.service.jobs.running import job_words
from publisher.service.projects import Project
from tests.command import Result, publisher, succeed
from tests.layer_builder import file, image, layer, write_layout
from tests.registry import OwnRegistry
from tests.registry_auth import BasicAuth, basic


def credentials(path: Path, registry: str) -> Path:
    auth = basic("robot", "secret").removeprefix("Basic ")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": {registry: {"auth": auth}}}))
    path.chmod(0o600)
    return path


@dataclass(frozen=True, slots=True)
class Service:
    configuration: ServiceConfiguration
    environment: dict[str, str]

    def run(self, request: JobRequest, **arguments: tuple[str, ...]) -> Result:
        """Run the command of a job in its environment, as a host does."""
        [repository] = self.configuration.repositories
        more = dict.fromkeys(JobKind, arguments["arguments"]) if arguments else {}
        configuration = replace(
            self.configuration, repositories=(replace(repository, arguments=more),)
        )
        words = job_words(configuration, request)
        variables = job_environment(configuration, self.environment, request.project)
        return publisher(*words, home=Path(variables["HOME"]), env=variables)


def test_a_job_cannot_use_the_credentials_of_another_project_or_of_the_host(tmp_path: Path) -> None:
    home, state = tmp_path / "home", tmp_path / "state"
    state.mkdir()
    with OwnRegistry(BasicAuth({"robot": "secret"})) as registry:
        registry.add("team/a", "1", image(layer(file("etc/motd", b"hello"))))
        of_astro = credentials(tmp_path / "astro.json", registry.host)
        of_home = credentials(home / ".docker/config.json", registry.host)
        settings = home / ".config/publisher/config.yaml"
        settings.parent.mkdir(parents=True)
        plain = f"registries: {{'{registry.host}': {{insecure: true"
        settings.write_text(f"{plain}, credentials: {of_astro}}}}}\n")
        for project in ("astro", "bio"):
            (tmp_path / f"{project}.yaml").write_text(f"{plain}}}}}\n")
            (tmp_path / f"list-{project}.yaml").write_text(
                f"version: 2\nimages: [{{image: '{registry.host}/team/a:1'}}]\n"
            )
        (tmp_path / "list-free.yaml").write_bytes((tmp_path / "list-bio.yaml").read_bytes())
        lists = tuple(
            ListConfiguration(name, str(tmp_path / f"list-{name}.yaml"), project=project)
            for name, project in (("astro", "astro"), ("bio", "bio"), ("free", ""))
        )
        projects = (
            Project("astro", credentials=of_astro, settings=tmp_path / "astro.yaml"),
            Project("bio", settings=tmp_path / "bio.yaml"),
        )
        named = ("DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "PUBLISHER_CONFIG")
        service = Service(
            ServiceConfiguration(
                "service.yaml",
                state,
                "",
                (RepositoryConfiguration("images", f"dir:{tmp_path}/images", lists),),
                environment=named,
                access=Access(projects=projects),
            ),
            {
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "DOCKER_AUTH_CONFIG": of_home.read_text(),
                "REGISTRY_AUTH_FILE": str(of_astro),
                "DOCKER_CONFIG": str(of_home.parent),
                "PUBLISHER_CONFIG": str(settings),
            },
        )
        name = f"{registry.host}/team/a:1"
        of_list, of_image = JobKind.INGEST_LIST, JobKind.INGEST_IMAGE
        smuggled = ("--authfile", str(of_astro), "--config", str(settings))
        smuggling = {"arguments": smuggled}
        for request, more in (
            (JobRequest(of_list, "images", "bio", project="bio"), {}),
            (
                JobRequest(of_list, "images", "bio", ("--retry-failed", *smuggled), project="bio"),
                smuggling,
            ),
            (JobRequest(JobKind.PLAN, "images", "bio", project="bio"), smuggling),
            (JobRequest(of_image, "images", name, smuggled, project="bio"), smuggling),
        ):
            before = len(registry.requests)
            found = service.run(request, **more)
            asked = registry.requests[before:]
            assert not any("authorization" in each.headers for each in asked), request
            printed = found.out + found.err
            assert "secret" not in printed and basic("robot", "secret") not in printed
            if request.kind is not JobKind.PLAN:
                assert found.code == 1 and "401" in printed, printed
                assert f"publisher login --authfile FILE {registry.host}" in printed
        for request in (
            JobRequest(of_list, "images", "astro", project="astro"),
            JobRequest(of_list, "images", "free"),
        ):
            found = service.run(request)
            assert found.code == 0, found.err


def test_jobs_of_a_project_publish_below_its_prefix_only(tmp_path: Path) -> None:
    """Also what a member adds to a list, or requests as a single image."""
    state, home = tmp_path / "state", tmp_path / "home"
    state.mkdir()
    home.mkdir()
    with OwnRegistry() as registry:
        for name in ("astro/a", "astronomy/b", "astro", "bio/c"):
            registry.add(name, "1", image(layer(file("motd", name.encode()))))
        prefix = f"{registry.host}/astro"
        settings, path = tmp_path / "astro.yaml", tmp_path / "list.yaml"
        settings.write_text(f"registries: {{'{registry.host}': {{insecure: true}}}}\n")
        write_layout(image(layer(file("motd", b"x"))), tmp_path / "layout", "1")
        path.write_text(
            f"version: 2\nimages:\n- {prefix}/a:1\n- {registry.host}/astronomy/b:1\n"
            f"- {prefix}:1\n- {{image: '{registry.host}/bio/c', tags: ['*']}}\n"
            f"- {{image: 'oci:{tmp_path}/layout:1', name: '../{prefix}/x'}}\n"
            f"- {{image: 'oci:{tmp_path}/layout:1', name: 'x'}}\n"
        )
        project = Project("astro", settings=settings, prefix=prefix)
        wish_list = ListConfiguration("astro", str(path), project="astro")
        service = Service(
            ServiceConfiguration(
                "service.yaml",
                state,
                "",
                (RepositoryConfiguration("images", f"dir:{tmp_path}/images", (wish_list,)),),
                access=Access(projects=(project,)),
            ),
            {"PATH": os.environ["PATH"], "HOME": str(home)},
        )
        smuggled = {"arguments": (f"--prefix={registry.host}",)}
        for kind, subject, more in (
            (JobKind.PLAN, "astro", smuggled),
            (JobKind.INGEST_LIST, "astro", smuggled),
        ):
            found = service.run(JobRequest(kind, "images", subject, project="astro"), **more)
            assert found.code == 1, found.err
            for name in (f"{registry.host}/astronomy/b", prefix, f"{registry.host}/bio/c"):
                assert f"its public name {name} is not below {prefix}/" in found.err, found.err
            assert "its public name local/x is not below" in found.err
            assert not registry.seen(path="/(astronomy|bio)/|/astro/(tags|manifests)")
        of_image = JobKind.INGEST_IMAGE
        for name, code in ((f"{registry.host}/bio/c:1", 1), (f"{prefix}/a:1", 0)):
            found = service.run(JobRequest(of_image, "images", name, project="astro"))
            assert found.code == code, found.err
        checked = publisher("check", f"--prefix={prefix}/", "--offline", path, "--output=json")
        failed = {each["line"]: each["rule"] for each in checked.json["findings"]}
        assert failed == dict.fromkeys((4, 5, 6, 8), "outside-prefix") | {7: "wish-list"}
    listed = succeed("list", "--repository", f"dir:{tmp_path}/images", "--output=json")
    assert [each["name"] for each in listed.json["images"]] == [f"{prefix}/a:1"]


def test_a_file_that_other_users_can_read_is_refused(tmp_path: Path) -> None:
    path = credentials(tmp_path / "astro.json", "r.example.org")
    project = Project("astro", credentials=path)
    options = project_options(project)
    assert options[0] == f"--authfile={path}"
    for mode in (0o640, 0o604, 0o622):
        path.chmod(mode)
        with pytest.raises(UnsafeCredentials, match="chmod 600"):
            project_options(project)
    with pytest.raises(OSError):
        project_options(Project("bio", credentials=tmp_path / "missing.json"))
    with pytest.raises(UnsafeCredentials):
        project_options(Project("bio", credentials=tmp_path))


def test_a_job_sends_no_request_to_a_registry_that_its_project_may_not_use(tmp_path: Path) -> None:
    with OwnRegistry() as own, OwnRegistry() as other:
        for each in (own, other):
            each.add("team/a", "1", image(layer(file("etc/motd", b"hello"))))
        settings = tmp_path / "astro.yaml"
        insecure = "".join(f"  '{each.host}': {{insecure: true}}\n" for each in (own, other))
        settings.write_text(f"registries:\n{insecure}")
        source = tmp_path / "list.yaml"
        source.write_text(
            "version: 2\nimages:\n"
            f"  - '{other.host}/team/a:1'\n"
            f"  - {{image: '{other.host}/team/a', tags: ['*']}}\n"
            f"  - '{own.host}/team/a:1'\n"
        )
        lists = (ListConfiguration("astro", str(source), project="astro"),)
        project = Project("astro", settings=settings, registries=(own.host,))
        service = Service(
            ServiceConfiguration(
                "service.yaml",
                tmp_path / "state",
                "",
                (RepositoryConfiguration("images", f"dir:{tmp_path}/images", lists),),
                environment=("PUBLISHER_REGISTRIES",),
                access=Access(projects=(project,)),
            ),
            {
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path / "home"),
                "PUBLISHER_REGISTRIES": other.host,
            },
        )
        request = JobRequest(JobKind.INGEST_LIST, "images", "astro", project="astro")
        found = service.run(request)
        assert found.code == 1 and not other.requests, found.err
        assert f"requests to the registry {other.host} are not permitted" in found.err
        assert f"use one of {own.host}" in found.err and own.requests
        image_of_other = JobRequest(
            JobKind.INGEST_IMAGE, "images", f"{other.host}/team/a:1", project="astro"
        )
        assert service.run(image_of_other).code == 1 and not other.requests
        # The same host without a project is restricted by what the configuration lets through.
        free = JobRequest(JobKind.INGEST_IMAGE, "images", f"http://{own.host}/team/a:1")
        assert "not permitted" in service.run(free).err
