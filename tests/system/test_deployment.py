"""kustomize renders the scheduled jobs of deploy/kubernetes, and Kubernetes accepts them."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from tests.kubectl import kustomize
from tests.schemas import ROOT

pytestmark = pytest.mark.system

KUBERNETES = ROOT / "deploy/kubernetes/publisher"
OLDEST, LATEST = "1.25", "1.37"


def by_kind(rendered: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in rendered if each["kind"] == kind}


@pytest.mark.parametrize("name", ["base", "example"])
def test_the_rendered_jobs_are_valid_and_mount_what_is_rendered(name: str) -> None:
    rendered = kustomize(KUBERNETES / name)
    for each in rendered:
        for version in (OLDEST, LATEST):
            assert kubernetes_validate.validate(each, version, strict=True) == version
    claims = set(by_kind(rendered, "PersistentVolumeClaim"))
    lists = set(by_kind(rendered, "ConfigMap")) or {"publisher-wishlist"}
    jobs = by_kind(rendered, "CronJob")
    assert set(jobs) == {f"publisher-{each}" for each in ("ingest", "prune", "gc", "verify")}
    for job in jobs.values():
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        [container] = pod["containers"]
        volumes = {each["name"]: each for each in pod["volumes"]}
        assert {each["name"] for each in container["volumeMounts"]} == set(volumes)
        mounted = [
            volumes[each]["persistentVolumeClaim"]["claimName"] for each in ("images", "state")
        ]
        assert set(mounted) == claims
        assert volumes["wishlist"]["configMap"]["name"] in lists
        assert volumes["auth"]["secret"]["optional"] is True
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert pod["automountServiceAccountToken"] is False


def test_the_overlay_adapts_namespace_image_storage_and_nodes() -> None:
    rendered = kustomize(KUBERNETES / "example")
    assert {each["metadata"]["namespace"] for each in rendered} == {"images"}
    claim = by_kind(rendered, "PersistentVolumeClaim")["images"]["spec"]
    assert claim["resources"]["requests"]["storage"] == "2Ti"
    assert claim["storageClassName"] == "nfs"
    for job in by_kind(rendered, "CronJob").values():
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        assert pod["containers"][0]["image"] == "registry.example.org/astro/publisher:0.1.0"
        assert pod["nodeSelector"] == {"kubernetes.io/hostname": "node1"}
