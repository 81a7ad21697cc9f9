"""`publisher inspect` and `publisher show`: the config of an image is shown, and escaped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from publisher.cli.main import publisher
from publisher.errors import PublisherError
from publisher.oci.digest import digest_of
from publisher.oci.document import Document
from tests.command import succeed
from tests.layer_builder import file, image, image_index, layer, write_layout

OSC = "\x1b]0;title\x07"
SETTINGS: dict[str, Any] = {
    "Entrypoint": ["/bin/tool", "--option"],
    "Cmd": ["a b"],
    "User": "app:app",
    "WorkingDir": "/srv",
    "Env": ["PATH=/bin", f"COLOR={OSC}"],
    "Labels": {"org.example.owner": "astro", f"odd{OSC}": "x\ny"},
    "ExposedPorts": {"80/tcp": {}},
    "Volumes": {"/data": {}},
    "StopSignal": "SIGINT",
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30_000_000_000, "Retries": 3},
}
EXPECTED = [
    "entrypoint:  '/bin/tool' '--option'",
    "command:     'a b'",
    "user:        app:app",
    "directory:   /srv",
    "environment: PATH=/bin",
    "environment: COLOR=\\x1b]0;title\\x07",
    "label:       org.example.owner=astro",
    "label:       odd\\x1b]0;title\\x07=x\\ny",
    "ports:       80/tcp",
    "volumes:     /data",
    "stop signal: SIGINT",
    "health:      'CMD' 'true', every 30 s, retries 3",
    "history:     1 step, 1 with a layer",
]


def printed(*arguments: str | Path) -> str:
    """The output of a command, with the message of its error."""
    result = CliRunner().invoke(publisher, list(map(str, arguments)), standalone_mode=False)
    if isinstance(result.exception, PublisherError):
        return f"{result.output}{result.exception}"
    assert result.exception is None, repr(result.exception)
    return result.output


def test_inspect_and_show_print_the_config_field_by_field(tmp_path: Path) -> None:
    place = write_layout(image(layer(file("a")), config=SETTINGS), tmp_path / "layout", "1")
    tree = tmp_path / "images"
    succeed("ingest-image", f"oci:{place}:1", "--repository", tree)
    for output in (
        printed("inspect", f"oci:{place}:1"),
        printed("show", "local/layout:1", "--repository", tree),
    ):
        lines = [line.strip() for line in output.splitlines()]
        assert [line for line in EXPECTED if line not in lines] == []
        assert "\x1b" not in output


def test_the_json_output_has_the_exact_config(tmp_path: Path) -> None:
    built = image(layer(file("a")), config={**SETTINGS, "x-unknown": [1, None]})
    place = write_layout(built, tmp_path / "layout", "1")
    found = json.loads(printed("inspect", f"oci:{place}:1", "--output", "json"))
    assert found["images"][0]["config"] == json.loads(built.config)


@pytest.mark.parametrize("where", ["os", "architecture", "variant"])
@pytest.mark.parametrize("output", ["text", "json"])
def test_control_sequences_in_the_platform_of_an_index_are_escaped(
    tmp_path: Path, where: str, output: str
) -> None:
    built = image(layer(file("a")))
    place = write_layout(built, tmp_path / "layout", "1")
    index = json.loads(image_index({"linux/amd64": built}).data)
    odd = dict(index["manifests"][0])
    odd["platform"] = {"os": "linux", "architecture": "arm", where: f"x{OSC}"}
    index["manifests"].append(odd)
    data = json.dumps(index).encode()
    top = Document(data, index["mediaType"], digest_of(data))
    (place / "blobs/sha256" / top.digest[7:]).write_bytes(data)
    described = {
        "mediaType": top.media_type,
        "digest": top.digest,
        "size": len(data),
        "annotations": {"org.opencontainers.image.ref.name": "1"},
    }
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    for arguments in (
        ("inspect", f"oci:{place}:1"),
        ("inspect", f"oci:{place}:1", "--platform", "linux/amd64"),
        ("inspect", f"oci:{place}:1", "--platform", "linux/s390x"),
    ):
        shown = printed(*arguments, "--output", output)
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "]0;title" in shown
