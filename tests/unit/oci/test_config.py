"""Image configs: typed values for every specified field, and refusals that name the field."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given

from publisher.browse.values import config_value
from publisher.cli.image_config import print_config
from publisher.errors import InvalidManifest
from publisher.oci.config import (
    ContainerConfig,
    HealthCheck,
    HistoryStep,
    ImageConfig,
    parse_config,
    single_layer_config,
)
from publisher.oci.manifest import check_consistency, parse_manifest
from publisher.oci.platform import Platform
from publisher.runtimes import launch, modulefile
from publisher.runtimes.flat_files import runtime_files
from publisher.runtimes.launch import CannotRun
from tests.mutations import mutated
from tests.oci_documents import CONFIG, ONE, TWO, document, manifest

WHOLE: dict[str, Any] = {
    "os": "linux",
    "architecture": "arm64",
    "variant": "v8",
    "os.version": "6",
    "os.features": ["a"],
    "created": "2026-01-02T03:04:05Z",
    "author": "an author",
    "config": {
        "Env": ["PATH=/bin", "A=1", "A=2", "NONE", "=x"],
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["true"],
        "User": "app:app",
        "WorkingDir": "/srv",
        "Labels": {"org.example": "x"},
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "StopSignal": "SIGINT",
        "ArgsEscaped": True,
        "Healthcheck": {
            "Test": ["CMD", "true"],
            "Interval": 30_000_000_000,
            "Timeout": 2,
            "StartPeriod": 3,
            "Retries": 4,
        },
    },
    "rootfs": {"type": "layers", "diff_ids": [ONE, TWO]},
    "history": [
        {
            "created": "2026-01-02T03:04:05Z",
            "created_by": "RUN",
            "author": "an author",
            "comment": "a comment",
            "empty_layer": True,
        }
    ],
}

VALUES: tuple[Any, ...] = (
    *(5, -1, 1.5, 2**70, True, "text"),
    *([], [1], [[]], [{}], [True]),
    *({}, {"a": 1}, {"a": {}}, {"a": [None]}),
)
OBJECTS = tuple(value for value in VALUES if isinstance(value, dict))
NESTED_OBJECTS: tuple[Any, ...] = ({}, {"a": {}})
STRING: tuple[Any, ...] = ("text",)
NUMBER: tuple[Any, ...] = (5, -1)
BOOLEAN: tuple[Any, ...] = (True,)
TEXTS: tuple[Any, ...] = ([],)
WORDS: tuple[Any, ...] = ([], "text")

ACCEPTED: dict[tuple[str | int, ...], tuple[Any, ...]] = {
    # Each specified field, with those of VALUES that are of its type.
    ("os",): STRING,
    ("architecture",): STRING,
    ("variant",): STRING,
    ("os.version",): STRING,
    ("os.features",): TEXTS,
    ("created",): STRING,
    ("author",): STRING,
    ("config",): OBJECTS,
    ("config", "Env"): TEXTS,
    ("config", "Entrypoint"): WORDS,
    ("config", "Cmd"): WORDS,
    ("config", "User"): STRING,
    ("config", "WorkingDir"): STRING,
    ("config", "Labels"): ({},),
    ("config", "Labels", "org.example"): STRING,
    ("config", "ExposedPorts"): NESTED_OBJECTS,
    ("config", "ExposedPorts", "80/tcp"): OBJECTS,
    ("config", "Volumes"): NESTED_OBJECTS,
    ("config", "Volumes", "/data"): OBJECTS,
    ("config", "StopSignal"): STRING,
    ("config", "ArgsEscaped"): BOOLEAN,
    ("config", "Healthcheck"): OBJECTS,
    ("config", "Healthcheck", "Test"): TEXTS,
    ("config", "Healthcheck", "Interval"): NUMBER,
    ("config", "Healthcheck", "Timeout"): NUMBER,
    ("config", "Healthcheck", "StartPeriod"): NUMBER,
    ("config", "Healthcheck", "Retries"): NUMBER,
    ("rootfs",): OBJECTS,
    ("rootfs", "diff_ids"): TEXTS,
    ("history",): ([], [{}]),
    ("history", 0): OBJECTS,
    ("history", 0, "created"): STRING,
    ("history", 0, "created_by"): STRING,
    ("history", 0, "author"): STRING,
    ("history", 0, "comment"): STRING,
    ("history", 0, "empty_layer"): BOOLEAN,
}


def changed(path: tuple[str | int, ...], value: Any) -> bytes:
    whole = copy.deepcopy(WHOLE)
    holder: Any = whole
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return json.dumps(whole).encode()


def use(data: bytes) -> None:
    """Do with a config all that is done with the config of an image."""
    found = parse_config(data, ONE)
    runtime_files(found.container)
    modulefile.entry_program(found.container)
    with contextlib.suppress(CannotRun):
        launch.prepare_start("/root", found.container, (), "", "")
    thin = single_layer_config(data, TWO, "CVMFS_IMAGE=true", "a step")
    assert parse_config(thin, ONE).diff_ids == (TWO,)
    print_config(found, "")
    config_value(data)


def test_a_config_is_read_into_typed_values() -> None:
    assert parse_config(json.dumps(WHOLE).encode(), ONE) == ImageConfig(
        Platform("linux", "arm64", "v8"),
        (ONE, TWO),
        ContainerConfig(
            ("PATH=/bin", "A=1", "A=2", "NONE", "=x"),
            ("/bin/sh", "-c"),
            ("true",),
            "app:app",
            "/srv",
            {"org.example": "x"},
            ("80/tcp",),
            ("/data",),
            "SIGINT",
            HealthCheck(("CMD", "true"), 30_000_000_000, 2, 3, 4),
        ),
        "2026-01-02T03:04:05Z",
        "an author",
        "6",
        ("a",),
        (HistoryStep("2026-01-02T03:04:05Z", "RUN", "an author", "a comment", True),),
    )


def test_of_two_variables_with_one_name_the_last_counts() -> None:
    found = parse_config(json.dumps(WHOLE).encode(), ONE)
    assert found.container.environment == {"PATH": "/bin", "A": "2"}


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: ".".join(map(str, path)))
def test_every_field_of_every_wrong_type_is_refused_by_name(
    path: tuple[str | int, ...], value: Any
) -> None:
    data = changed(path, value)
    if any(value == each and type(value) is type(each) for each in ACCEPTED[path]):
        use(data)
        return
    with pytest.raises(InvalidManifest) as caught:
        use(data)
    assert caught.value.what == f"cannot read config {ONE}"
    named = path[:2] if path[0] == "config" and "Healthcheck" not in path else path
    assert all(str(key) in caught.value.why for key in named)


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: ".".join(map(str, path)))
def test_null_is_the_same_as_absent_except_for_the_platform(path: tuple[str | int, ...]) -> None:
    if path in (("os",), ("architecture",)):
        with pytest.raises(InvalidManifest, match=rf"{path[0]} is not a string"):
            use(changed(path, None))
    else:
        use(changed(path, None))


@pytest.mark.parametrize("field", ["Env", "Entrypoint", "Cmd"])
def test_null_in_a_list_of_strings_is_the_empty_string(field: str) -> None:
    use(changed(("config", field), [None]))


@given(data=mutated(WHOLE))
def test_any_config_is_refused_or_used_without_an_exception(data: bytes) -> None:
    with contextlib.suppress(InvalidManifest):
        use(data)


@pytest.mark.parametrize(
    ("created", "is_time"),
    [
        ("2026-01-02T03:04:05Z", True),
        ("2026-01-02T03:04:05.123456789+02:00", True),
        ("2026-01-02T03:04:05.1Z", True),
        ("2026-13-02T03:04:05Z", False),
        ("yesterday", False),
        ("2026-01-02 03:04:05Z", False),
        ("2026-01-02T03:04:05Z\n", False),
    ],
)
def test_a_time_that_go_cannot_read_is_ignored_with_a_note(created: str, is_time: bool) -> None:
    found = parse_config(changed(("created",), created), ONE)
    assert found.created == (created if is_time else "")
    assert [note.split(" is ignored")[0] for note in found.notes] == (
        [] if is_time else ["created"]
    )


def test_an_entrypoint_that_is_one_string_is_one_argument() -> None:
    found = parse_config(changed(("config", "Entrypoint"), "a b"), ONE)
    assert found.container.entrypoint == ("a b",)


def test_lone_surrogates_become_the_replacement_character() -> None:
    found = parse_config(changed(("config", "Env"), ["A=\ud800x"]), ONE)
    assert found.container.variables == ("A=\ufffdx",)


@pytest.mark.parametrize("rootfs", [None, {}, {"diff_ids": None}, {"diff_ids": []}])
def test_a_config_of_an_image_without_layers_may_leave_them_out(rootfs: Any) -> None:
    assert parse_config(changed(("rootfs",), rootfs), ONE).diff_ids == ()


@pytest.mark.parametrize("diff_id", ["x", None, 1, "md5:" + "0" * 32])
def test_a_diff_id_that_is_not_a_digest_is_refused(diff_id: Any) -> None:
    with pytest.raises(InvalidManifest, match="diff_ids"):
        parse_config(changed(("rootfs", "diff_ids"), [diff_id]), ONE)


def test_a_config_and_a_manifest_with_different_numbers_of_layers_are_refused() -> None:
    found = parse_manifest(document(manifest()))
    check_consistency(found, parse_config(json.dumps(CONFIG).encode(), ONE), ONE)
    other = json.dumps({**CONFIG, "rootfs": {"diff_ids": [ONE]}}).encode()
    with pytest.raises(InvalidManifest, match="2 layers, but its config has 1 diff ID"):
        check_consistency(found, parse_config(other, ONE), ONE)
