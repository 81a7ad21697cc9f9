"""A push to a real registry is published by its notification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from publisher.service.jobs.model import JobState
from tests.command import succeed
from tests.components import docker_registry
from tests.layer_builder import file, image, layer, write_layout
from tests.service import AskedJobs, HostProcess, eventually, running_host

pytestmark = pytest.mark.system

SECRET = "topsecret-0123456789"


def test_a_push_to_a_registry_is_published(tmp_path: Path) -> None:
    for tag in ("1", "2"):
        write_layout(image(layer(file("version", tag.encode()))), tmp_path / "layout", tag)
    wishes, secret = tmp_path / "wishes.yaml", tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    configuration: dict[str, object] = {
        "access": {"anonymous": "everything"},
        "repositories": {
            "images": {
                "url": f"dir:{tmp_path}/images",
                "lists": {"astro": {"source": str(wishes)}},
            }
        },
    }
    host = HostProcess("serve", tmp_path / "host", configuration)
    address = f"http://127.0.0.1:{host.port}/hooks/own"
    with docker_registry(tmp_path / "registry", notified={address: f"Bearer {SECRET}"}) as registry:
        hook = {"kind": "distribution", "secret-file": str(secret), "registry": registry.host}
        host.write(hooks={"own": hook})
        requested = [f"http://{registry.host}/astro/app:1", f"http://{registry.host}/astro/all:*"]
        wishes.write_text(yaml.safe_dump({"version": 2, "images": requested}))
        with running_host(host):
            eventually(lambda: host.status("/readyz") == 200)
            asked = AskedJobs(f"sqlite:///{tmp_path}/host/state/jobs.sqlite")
            layout = f"oci:{tmp_path}/layout"
            registry.push(f"{layout}:1", "astro/other:1")  # no wish requests it
            registry.push(f"{layout}:1", "astro/app:1")
            registry.push(f"{layout}:1", "astro/all:1")
            registry.push(f"{layout}:2", "astro/all:2")
            expected = {f"{registry.host}/astro/{name}" for name in ("app:1", "all:1", "all:2")}
            eventually(lambda: names(host) == expected)
            eventually(lambda: all(job.state.is_final for job in asked.jobs.list().jobs))
            jobs = asked.jobs.list().jobs
            assert {job.state for job in jobs} == {JobState.SUCCEEDED}
            assert {job.request.subject for job in jobs} == {"astro"}
            assert {job.request.requested_by for job in jobs} == {"webhook own"}
            # What was answered is queued, also if the host dies in the next moment.
            answer = report(address, registry.host)
            host.kill()
            host.start()
            [job_id] = answer["jobs"]
            ended = asked.end_of(asked.jobs.get(job_id))
            assert ended.state is JobState.SUCCEEDED
            eventually(lambda: host.status("/readyz") == 200)
            assert len(asked.jobs.list().jobs) == len(jobs) + 1
            assert SECRET not in host.log.read_text()
            assert host.stop() == 0
    succeed("verify", "--deep", "--repository", f"dir:{tmp_path}/images")


def report(address: str, registry: str) -> Any:
    """Report a push as the registry does, and return the answer."""
    media_type = "application/vnd.oci.image.manifest.v1+json"
    target = {"mediaType": media_type, "repository": "astro/all", "tag": "1"}
    event = {"action": "push", "target": target, "request": {"host": registry}}
    headers = {"Authorization": f"Bearer {SECRET}"}
    found = requests.post(address, json={"events": [event]}, headers=headers, timeout=60)
    assert found.status_code == 202, found.text
    return found.json()


def names(host: HostProcess) -> set[str]:
    """The names of the published images, none before the first one."""
    url = f"http://127.0.0.1:{host.port}/api/v1/repositories/images/images"
    found = requests.get(url, timeout=60)
    return {each["name"] for each in found.json()["images"]} if found.ok else set()
