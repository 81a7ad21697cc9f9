"""Images whose manifest, config, layers and diff IDs have sha512 digests, through every command."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from publisher.oci.digest import digest_hex, digest_of
from publisher.oci.media_types import OCI_CONFIG, OCI_MANIFEST
from tests.command import publisher, succeed
from tests.layer_builder import file, layer

LAYERS = [layer(file("a", b"1")), layer(file("b", b"2"))]


def write_layout(folder: Path, tag: str = "1") -> str:
    """Write the image to an OCI image layout; return the digest of its manifest."""
    blobs = folder / "blobs/sha512"
    blobs.mkdir(parents=True)

    def add(data: bytes, media_type: str) -> dict[str, Any]:
        digest = digest_of(data, "sha512")
        (blobs / digest_hex(digest)).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    tars = [digest_of(each.tar, "sha512") for each in LAYERS]
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Cmd": ["/a"]},
        "rootfs": {"type": "layers", "diff_ids": tars},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": add(json.dumps(config).encode(), OCI_CONFIG),
        "layers": [add(each.blob, each.descriptor.media_type) for each in LAYERS],
    }
    top = add(json.dumps(manifest).encode(), OCI_MANIFEST)
    top["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    return str(top["digest"])


@pytest.mark.parametrize("pinned", [False, True])
def test_an_image_with_sha512_digests_is_published_verified_and_collected(
    tmp_path: Path, pinned: bool
) -> None:
    place, tree = tmp_path / "layout", tmp_path / "images"
    digest = write_layout(place)
    reference = f"oci:{place}:1" + (f"@{digest}" if pinned else "")
    wishes = tmp_path / "wishes.yaml"
    wishes.write_text(
        "version: 2\nimages:\n"
        f"- {{image: '{reference}', name: tool, outputs: [flat, layers, podman]}}\n"
    )
    assert digest in succeed("inspect", reference).out
    succeed("ingest", wishes, "--repository", tree)
    assert (tree / "local/tool:1/a").read_bytes() == b"1"
    for each in LAYERS:
        name = hashlib.sha512(each.blob).hexdigest()
        assert (tree / f".layers/{name[:2]}/{name}/layerfs").is_dir()
    again = succeed("ingest", wishes, "--repository", tree, "--output", "json").json
    assert [each["layersFetched"] for each in again["outcomes"]] == [0]
    assert digest in succeed("show", "local/tool:1", "--repository", tree).out
    succeed("thin", "local/tool:1", "--repository", tree)
    succeed("verify", "--deep", "--repository", tree)
    succeed("remove", "local/tool:1", "--repository", tree, "--grace", "0d")
    succeed("gc", "--repository", tree)
    assert not (tree / "local/tool:1").exists()
    assert not list((tree / ".layers").glob("*/*"))
    assert publisher("verify", "--deep", "--repository", tree).code == 0
