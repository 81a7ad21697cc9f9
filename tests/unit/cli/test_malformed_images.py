"""Commands meet images whose config, manifest or index is malformed: an error, never a traceback.

The commands run in this process, where an exception that no command expects would surface.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from publisher.cli.failures import exit_code
from publisher.cli.main import publisher
from publisher.errors import PublisherError
from publisher.oci.document import Document
from tests.command import publisher as run_publisher
from tests.components import require, require_root
from tests.layer_builder import (
    Image,
    digest_of,
    file,
    image,
    layer,
    write_layout,
)

GOOD = image(layer(file("motd", b"1")), config={"Cmd": ["/bin/a"]})


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it printed, with the message of its error."""

    code: int
    output: str


def call(*arguments: str | Path) -> Ended:
    """Run a command; its exception, if any, is one that the command line explains."""
    result = CliRunner().invoke(publisher, list(map(str, arguments)), standalone_mode=False)
    error = result.exception
    if error is None:
        code = result.return_value if isinstance(result.return_value, int) else 0
        return Ended(code, result.output)
    assert isinstance(error, PublisherError), repr(error)
    return Ended(exit_code(error), f"{result.output}{error}")


def with_config(changes: Mapping[str, Any], *, whole: Any = None) -> Image:
    """An image whose config has other values; `whole` replaces all of it."""
    config = json.loads(GOOD.config)
    data = json.dumps(config | changes if whole is None else whole).encode()
    manifest = json.loads(GOOD.manifest.data)
    manifest["config"] |= {"digest": digest_of(data), "size": len(data)}
    return Image(document(manifest), data, GOOD.layers)


def document(value: Any) -> Document:
    data = json.dumps(value).encode()
    return Document(data, GOOD.manifest.media_type, digest_of(data))


def settings(**values: Any) -> dict[str, Any]:
    return {"config": {"Cmd": ["/bin/a"], **values}}


MALFORMED: dict[str, Image] = {
    "Entrypoint": with_config(settings(Entrypoint=5)),
    "Cmd": with_config(settings(Cmd=1)),
    "Env": with_config(settings(Env=[1])),
    "User": with_config(settings(User={})),
    "Labels": with_config(settings(Labels=[])),
    "history": with_config({"history": [1]}),
    "created": with_config({"created": 5}),
    "config": with_config({"config": []}),
    "diff_ids": with_config({"rootfs": {"diff_ids": 5}}),
    "not a JSON object": with_config({}, whole=[1]),
}


def publish(place: Path, tree: Path, outputs: str = "flat, layers, podman") -> Ended:
    wishes = place.parent / "wishes.yaml"
    wishes.write_text(
        f"version: 2\nimages:\n- {{image: 'oci:{place}:1', name: tool, outputs: [{outputs}]}}\n"
    )
    return call("ingest", wishes, "--repository", tree)


@pytest.mark.parametrize("field", MALFORMED)
def test_an_image_with_a_malformed_config_is_refused_and_the_field_named(
    tmp_path: Path, field: str
) -> None:
    place = write_layout(MALFORMED[field], tmp_path / "layout", "1")
    result = publish(place, tmp_path / "images")
    assert result.code == 1
    assert field in result.output
    shown = call("inspect", f"oci:{place}:1")
    assert field in shown.output
    assert not (tmp_path / "images/local").exists()


@pytest.mark.parametrize("field", MALFORMED)
def test_a_published_image_with_a_malformed_config_is_shown_and_its_use_refused(
    tmp_path: Path, field: str
) -> None:
    tree = tmp_path / "images"
    publish(write_layout(GOOD, tmp_path / "layout", "1"), tree)
    (tree / ".metadata/local/tool:1/config.json").write_bytes(MALFORMED[field].config)
    shown = call("show", "local/tool:1", "--repository", tree)
    assert shown.code == 1
    assert "config:      unreadable" in shown.output
    for command in (
        ("run", "local/tool:1", "--with", "bwrap"),
        ("modulefile", "local/tool:1", str(tmp_path / "modules")),
        ("thin", "local/tool:1"),
        ("verify", "--deep"),
        ("list",),
    ):
        call(*command, "--repository", tree)
    assert call("show", "local/tool:1", "--repository", tree, "--output", "json").code == 1


def test_an_image_without_layers_is_published_with_every_output(tmp_path: Path) -> None:
    tree = tmp_path / "images"
    place = write_layout(image(config={"Cmd": ["/a"]}), tmp_path / "layout", "1")
    for outputs in ("layers, podman", "flat, podman", "flat, layers, podman"):
        assert publish(place, tree, outputs).code == 0
        [entry] = json.loads((tree / "podmanStore/overlay-images/images.json").read_bytes())
        assert entry["names"] == ["localhost/tool:1"]
        assert call("verify", "--deep", "--repository", tree).code == 0
    assert call("thin", "local/tool:1", "--repository", tree).code == 0


LONG = ["V=" + "x" * 7_000_000]
MANY = [f"V{number}=" + "x" * 100_000 for number in range(70)]
SOME = [f"V{number}=" + "x" * 100_000 for number in range(25)]


@pytest.mark.parametrize("way", ["bwrap", "podman", "chroot"])
@pytest.mark.parametrize(
    ("variables", "cause", "hint"),
    [
        pytest.param(LONG, "has 7000002 bytes", "no runtime", id="one variable"),
        pytest.param(MANY, "of 7000", "shorten its environment", id="many variables"),
        pytest.param(SOME, "of 2500", "ulimit -s unlimited", id="the stack limit"),
    ],
)
def test_an_environment_that_the_kernel_cannot_pass_on_is_named(
    tmp_path: Path, way: str, variables: list[str], cause: str, hint: str
) -> None:
    if way == "chroot":
        require_root()
    else:
        require(way)
    built = image(
        layer(file("bin/a", b"", mode=0o755)), config={"Cmd": ["/bin/a"], "Env": variables}
    )
    tree = tmp_path / "images"
    assert publish(write_layout(built, tmp_path / "layout", "1"), tree, "flat, layers").code == 0
    # A process of its own: it is replaced, or changes its root.
    words = ("run", "local/tool:1", "--with", way, "--repository", tree)
    result = run_publisher(*words, env={"PATH": os.environ["PATH"]})
    assert result.code == 1, result
    assert result.err.startswith("publisher: cannot run the image")
    assert cause in result.err and hint in result.err
    assert "x" * 100 not in result.err  # at most the beginning of a value


@pytest.mark.parametrize("damage", [b"", b"\n", b"[]", b"null"])
@pytest.mark.parametrize("file_name", ["overlay-images/images.json", "overlay-layers/layers.json"])
def test_an_empty_list_of_the_podman_store_is_continued(
    tmp_path: Path, file_name: str, damage: bytes
) -> None:
    tree = tmp_path / "images"
    place = write_layout(GOOD, tmp_path / "layout", "1")
    publish(place, tree)
    (tree / "podmanStore" / file_name).write_bytes(damage)
    other = image(layer(file("other", b"1")))
    write_layout(other, tmp_path / "layout", "1")
    result = publish(place, tree)
    if damage == b"null":
        assert result.code != 0
        assert "publisher verify --repair" in result.output
    else:
        assert result.code == 0
        assert other.image_id[7:] in (tree / "podmanStore/overlay-images/images.json").read_text()


@pytest.mark.parametrize("damage", [b"{", b"[5]", b'[{"id": 5}]', b'[{"id": "a", "names": 5}]'])
def test_a_damaged_podman_store_is_built_again_by_the_hint_of_its_message(
    tmp_path: Path, damage: bytes
) -> None:
    tree = tmp_path / "images"
    place = write_layout(GOOD, tmp_path / "layout", "1")
    publish(place, tree)
    (tree / "podmanStore/overlay-images/images.json").write_bytes(damage)
    assert call("verify", "--repository", tree).code == 1
    write_layout(image(layer(file("other", b"1"))), tmp_path / "layout", "1")
    result = publish(place, tree)
    assert result.code != 0
    assert "publisher verify --repair" in result.output
    call("verify", "--repair", "--repository", tree)
    assert publish(place, tree).code == 0
    assert call("verify", "--deep", "--repository", tree).code == 0


VALUES: tuple[Any, ...] = (None, 5, -1, 1.5, True, "text", [], [1], {}, {"a": 1})
MANIFEST_FIELDS: tuple[tuple[str | int, ...], ...] = (
    *(("schemaVersion",), ("mediaType",), ("artifactType",), ("config",), ("layers",)),
    *(("annotations",), ("layers", 0), ("annotations", "a")),
    *(("config", key) for key in ("mediaType", "digest", "size", "urls", "annotations")),
    *(("layers", 0, key) for key in ("mediaType", "digest", "size", "urls", "annotations")),
)
INDEX_FIELDS: tuple[tuple[str | int, ...], ...] = (
    *(("schemaVersion",), ("mediaType",), ("manifests",), ("annotations",), ("manifests", 0)),
    *(
        ("manifests", 0, key)
        for key in ("mediaType", "digest", "size", "platform", "urls", "annotations")
    ),
    *(("manifests", 0, "platform", key) for key in ("os", "architecture", "variant")),
)


def put(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    changed = json.loads(json.dumps(value))
    holder = changed
    for key in path[:-1]:
        holder = holder.setdefault(key, {}) if isinstance(key, str) else holder[key]
    holder[path[-1]] = new
    return changed


@pytest.mark.parametrize("path", MANIFEST_FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_a_manifest_field_of_any_type_is_read_or_refused(
    tmp_path: Path, path: tuple[str | int, ...]
) -> None:
    for number, value in enumerate(VALUES):
        changed = document(put(json.loads(GOOD.manifest.data), path, value))
        place = write_layout(Image(changed, GOOD.config, GOOD.layers), tmp_path / "layout", "1")
        call("inspect", f"oci:{place}:1")
        result = publish(place, tmp_path / "images" / str(number) / "tree")
        assert result.code in (0, 1, 3)


@pytest.mark.parametrize("path", INDEX_FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_an_index_field_of_any_type_is_read_or_refused(
    tmp_path: Path, path: tuple[str | int, ...]
) -> None:
    place = write_layout(GOOD, tmp_path / "layout", "1")
    index_file = place / "index.json"
    original = json.loads(index_file.read_bytes())
    original["manifests"][0]["platform"] = {"os": "linux", "architecture": "amd64"}
    for value in VALUES:
        index_file.write_text(json.dumps(put(original, path, value)))
        call("inspect", f"oci:{place}:1")
        call("tags", f"oci:{place}")
        call("ingest-image", f"oci:{place}:1", "--repository", tmp_path / "images")
