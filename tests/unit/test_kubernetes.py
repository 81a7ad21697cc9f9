"""The manifests in deploy/kubernetes match the schemas of Kubernetes, and fit together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.schemas import ROOT

MANIFESTS = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
FIRST = {"image-volume.yaml": "1.31"}
"""The first version of Kubernetes that knows all fields of a manifest, if it is not OLDEST."""

OLDEST, LATEST = "1.25", "1.37"
POD_SPECS = {
    "Pod": ("spec",),
    "DaemonSet": ("spec", "template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
}


def documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each is not None]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_is_valid_in_the_oldest_and_the_latest_version(path: Path) -> None:
    for document in documents(path):
        for version in (FIRST.get(path.name, OLDEST), LATEST):
            assert kubernetes_validate.validate(document, version, strict=True) == version


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("spec", "containers", 0), "volumeMount", []),
        (("spec", "containers", 0, "securityContext"), "runAsUser", "root"),
        (("spec", "volumes", 0, "hostPath"), "readOnly", True),
        ((), "kind", "Pood"),
    ],
)
def test_an_invalid_manifest_is_refused(path: tuple[Any, ...], key: str, value: object) -> None:
    [document] = documents(ROOT / "deploy/kubernetes/flat-image.yaml")
    place: Any = document
    for step in path:
        place = place[step]
    place[key] = value
    with pytest.raises(
        (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError)
    ):
        kubernetes_validate.validate(document, LATEST, strict=True)


def pods() -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    for path in MANIFESTS:
        found = documents(path)
        for document in found:
            spec = document
            for key in POD_SPECS.get(document["kind"], ()):
                spec = spec[key]
            if spec is not document:
                yield path.name, spec, found


@pytest.mark.parametrize(
    ("spec", "all_documents"), [pytest.param(spec, found, id=name) for name, spec, found in pods()]
)
def test_the_volumes_of_a_pod_are_those_that_its_containers_mount(
    spec: dict[str, Any], all_documents: list[dict[str, Any]]
) -> None:
    volumes = {each["name"]: each for each in spec["volumes"]}
    mounts = [mount for container in spec["containers"] for mount in container["volumeMounts"]]
    assert {mount["name"] for mount in mounts} == set(volumes)
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
    by_kind = {each["kind"]: each for each in all_documents}
    if "PersistentVolume" in by_kind:
        volume, claim = by_kind["PersistentVolume"], by_kind["PersistentVolumeClaim"]
        [mounted] = [v["persistentVolumeClaim"] for v in volumes.values()]
        assert mounted == {"claimName": claim["metadata"]["name"], "readOnly": True}
        assert volume["spec"]["claimRef"]["name"] == claim["metadata"]["name"]
        assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
        for key in ("accessModes", "storageClassName"):
            assert claim["spec"][key] == volume["spec"][key]


def test_every_manifest_is_described() -> None:
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/*/*.md"), ROOT / "README.md"]
    text = "".join(path.read_text() for path in pages)
    assert [path.name for path in MANIFESTS if f"deploy/kubernetes/{path.name}" not in text] == []
