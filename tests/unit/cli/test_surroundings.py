"""Unusual environments: no home, no user name, another locale; and signals."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from publisher.cli.failures import UsageError
from publisher.cli.sources import load_settings
from tests.command import TIMEOUT, command, environment, succeed
from tests.components import program, require_user_namespaces
from tests.layer_builder import file, image, layer, symlink, write_layout
from tests.registry import OwnRegistry, wait_for
from tests.registry_faults import slow, status
from tests.registry_images import sample_image


def test_a_user_without_a_name_and_a_home_can_check_and_publish(tmp_path: Path) -> None:
    """As in containers that run under any user ID."""
    require_user_namespaces()
    built = write_layout(image(layer(file("motd", b"hi"))), tmp_path / "layout", "1")
    wishes = tmp_path / "wishes.yaml"
    wishes.write_text(f"version: 2\nimages: [{{image: 'oci:{built}:1', name: x}}]\n")
    homeless = {key: value for key, value in environment().items() if key != "HOME"}
    for arguments in (("check", wishes), ("ingest", wishes, "--repository", tmp_path / "images")):
        ended = subprocess.run(
            ["unshare", "--user", "--map-user=54321", *command(*arguments)],
            env=homeless,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "images/local/x:1/motd").read_text() == "hi"


def test_names_become_the_same_bytes_whatever_the_locale(tmp_path: Path) -> None:
    names = ["caf\u00e9", "\u65e5\u672c", "latin\udce9"]
    members = [member for n in names for member in (file(n), symlink(f"link to {n}", n))]
    built = write_layout(image(layer(*members)), tmp_path / "layout", "1")
    other = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # as Latin-1 has it
    spelled = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xc3\xa9"))
    succeed("ingest-image", f"oci:{built}:1", "--repository", spelled, env=other)
    flat = spelled / "local/layout:1"
    for name in names:
        assert (flat / name).is_file()
        assert os.readlink(flat / f"link to {name}") == name


def test_a_limit_of_processes_that_is_reached_is_named(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become a user whose processes are counted")
    built = write_layout(image(layer(file("motd"))), tmp_path / "layout", "1")
    images = tmp_path / "images"
    images.mkdir()
    user = 60_000 + os.getpid() % 5_000  # that no other process has
    os.chown(images, user, user)
    ingest = command("ingest-image", f"oci:{built}:1", "--repository", images)
    reading = "-all,+dac_read_search"  # of the files of Python
    ended = subprocess.run(
        [
            *(program("setpriv"), f"--reuid={user}", f"--regid={user}", "--clear-groups"),
            *(f"--inh-caps={reading}", f"--ambient-caps={reading}", f"--bounding-set={reading}"),
            *(program("prlimit"), "--nproc=1", *ingest),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert ended.returncode == 3
    assert "publisher: cannot start a process or thread\n  why: this user, or" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (images / "local").exists()


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), env=environment(), stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("verb", ["inspect", "tags"])
def test_a_command_without_a_transaction_ends_by_either_signal_with_130(
    number: signal.Signals, verb: str
) -> None:
    with OwnRegistry() as registry:
        registry.misbehave(slow(delay=300))
        process = start(verb, f"{registry.url}/team/x:1")
        wait_for(lambda: registry.count(path="/team/x/") > 0, 60)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (
        130,
        "publisher: interrupted; the next run goes on from there",
    )


def test_a_plan_that_waits_for_a_registry_ends_at_once(tmp_path: Path) -> None:
    with OwnRegistry() as registry:
        registry.misbehave(slow(delay=300))
        wishes = tmp_path / "wishes.yaml"
        wishes.write_text(f"version: 2\nimages: ['{registry.url}/team/x:1']\n")
        process = start("plan", wishes, "--repository", tmp_path / "images")
        wait_for(lambda: registry.count(path="/team/x/") > 0, 60)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, len(registry.requests)) == (130, 1), err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("path", ["/manifests/", "/blobs/"])
def test_an_ingest_that_waits_for_a_registry_ends_at_once(
    tmp_path: Path, number: signal.Signals, path: str
) -> None:
    with OwnRegistry() as registry:
        registry.add("team/x", "1", sample_image())
        registry.misbehave(status(429, retry_after="250"), path=path)
        process = start(
            "ingest-image", f"{registry.url}/team/x:1", "--repository", tmp_path / "images"
        )
        assert process.stderr is not None
        while "waiting 250 s for" not in (line := process.stderr.readline()):
            assert line, "it ended without waiting"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err and "failed" not in err


def test_a_registry_that_is_slow_is_not_asked_again_after_a_signal(tmp_path: Path) -> None:
    with OwnRegistry() as registry:
        registry.add("team/x", "1", sample_image())
        registry.misbehave(slow(delay=300), path="/manifests/")
        process = start(
            "ingest-image", f"{registry.url}/team/x:1", "--repository", tmp_path / "images"
        )
        wait_for(lambda: registry.count(path="/manifests/") > 0, 60)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert [request.method for request in registry.requests] == ["HEAD"]


def test_registries_that_are_permitted_are_named_or_none_is_restricted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("PUBLISHER_REGISTRIES", raising=False)
    assert load_settings({}).only == frozenset()
    monkeypatch.setenv("PUBLISHER_REGISTRIES", " Quay.io  index.docker.io ")
    assert load_settings({}).only == {"quay.io", "docker.io"}
    for text in ("", "  ", "\t"):
        monkeypatch.setenv("PUBLISHER_REGISTRIES", text)
        with pytest.raises(UsageError, match="names no registry"):
            load_settings({})
