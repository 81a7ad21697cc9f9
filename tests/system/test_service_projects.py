"""A project of the service: its prefix and quota, and what follows when it is removed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from publisher.service.jobs.model import JobFilter, JobKind, JobState
from tests.command import succeed
from tests.components import docker_registry
from tests.layer_builder import file, image, layer, write_layout
from tests.registry_images import noise
from tests.service import AskedJobs, HostProcess, eventually, running_host

pytestmark = pytest.mark.system


def test_a_project_publishes_within_its_limits_and_is_withdrawn_with_the_configuration(
    tmp_path: Path,
) -> None:
    layout, wishes = tmp_path / "layout", tmp_path / "astro.yaml"
    for tag, size in (("small", 10_000), ("large", 90_000)):
        write_layout(image(layer(file(tag, noise(size)))), layout, tag)
    host = HostProcess("serve", tmp_path / "host", {"access": {"anonymous": "everything"}})
    free: dict[str, Any] = {"url": f"dir:{tmp_path}/images"}
    with docker_registry(tmp_path / "registry") as registry:
        for name, tag in (("astro/a", "small"), ("astro/b", "large"), ("bio/c", "small")):
            registry.push(f"oci:{layout}:{tag}", f"{name}:1")
        images = [f"http://{registry.host}/{name}:1" for name in ("astro/a", "astro/b", "bio/c")]
        wishes.write_text(yaml.safe_dump({"version": 2, "images": images}))
        project = {"prefix": f"{registry.host}/astro", "quota": {"bytes": "50 kB"}}
        lists = {"astro": {"source": str(wishes), "project": "astro"}}
        configured = {"projects": {"astro": project}, "repositories": {"images": free}}
        host.write(
            projects=configured["projects"], repositories={"images": free | {"lists": lists}}
        )
        with running_host(host):
            eventually(lambda: host.status("/readyz") == 200)
            asked = AskedJobs(f"sqlite:///{tmp_path}/host/state/jobs.sqlite")
            job = asked.submit(JobKind.INGEST_LIST, "images", "astro", project="astro")
            ended = asked.end_of(job)
            printed = "\n".join(asked.messages(ended))
            assert ended.state is JobState.FAILED and ended.exit_code == 1, printed
            assert "the quota of the project astro is 50.0 kB" in printed
            assert (
                f"its public name {registry.host}/bio/c is not below {project['prefix']}/"
                in printed
            )
            name = f"{registry.host}/astro/a:1"
            [shown] = get(host, "projects")["projects"]
            [used] = shown["repositories"]
            assert (used["images"], used["bytes"]) == (1, 10_000)
            assert [each["name"] for each in get(host, f"{OF}/images")["images"]] == [name]

            host.configuration.pop("projects")
            host.write(repositories={"images": free})
            host.process.send_signal(signal.SIGHUP)
            eventually(lambda: [each["name"] for each in get(host, f"{OF}/removals")["entries"]])
            [entry] = get(host, f"{OF}/removals")["entries"]
            assert (entry["name"], entry["reason"]) == (name, "withdrawn")
            assert [each["name"] for each in get(host, f"{OF}/images")["images"]] == [name]

            host.write(
                projects=configured["projects"], repositories={"images": free | {"lists": lists}}
            )
            host.process.send_signal(signal.SIGHUP)
            eventually(lambda: not get(host, f"{OF}/removals")["entries"])
            chosen = JobFilter(kinds=frozenset({JobKind.RECONCILE}))
            reconciled = [asked.end_of(each) for each in asked.jobs.list(chosen).jobs]
            assert [each.state for each in reconciled] == [JobState.SUCCEEDED] * 2
            assert {each.request.requested_by for each in reconciled} == {"configuration"}
            logged = asked.messages(reconciled[-1])  # of the first one
            assert any(each.startswith(f"scheduled: {name}") for each in logged), logged
            assert host.stop() == 0
    succeed("verify", "--deep", "--repository", f"dir:{tmp_path}/images")


OF = "repositories/images"


def get(host: HostProcess, path: str) -> Any:
    found = requests.get(f"http://127.0.0.1:{host.port}/api/v1/{path}", timeout=60)
    assert found.status_code == 200, found.text
    return found.json()
