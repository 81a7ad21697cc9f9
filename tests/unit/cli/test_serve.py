"""`publisher serve` and `publisher worker`: what they check before they run."""

from __future__ import annotations

import socket
from pathlib import Path

import filelock

from publisher.cli.serve import _listen
from publisher.service.configuration import Listen
from tests.command import publisher, succeed


def write(tmp_path: Path, **more: str) -> Path:
    path = tmp_path / "service.yaml"
    lines = [f"{key}: {value}" for key, value in more.items()]
    state = f"version: 1\nstate: {tmp_path}/state\n"
    path.write_text("\n".join([state, "repositories: {r: {url: 'dir:/r'}}", *lines]))
    return path


def test_a_configuration_is_checked_and_all_its_errors_are_usage_errors(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert succeed("serve", "--config", path, "--check").out == (
        f"{path}: repositories r; 0 lists, jobs in SQLite\n"
    )
    assert not (tmp_path / "state").exists()
    write(tmp_path, listen="1", limit="2")
    result = publisher("serve", "--config", path, "--check")
    assert result.code == 2
    assert f"{path}:5:9: error: listen must be" in result.err
    assert f"{path}:6:1: error: unknown key 'limit' in the configuration (did you" in result.err
    missing = publisher("serve", "--config", tmp_path / "none", "--check")
    assert (missing.code, "No such file" in missing.err) == (2, True)


def test_a_worker_needs_a_database_for_several_hosts(tmp_path: Path) -> None:
    result = publisher("worker", "--config", write(tmp_path), "--check")
    assert (result.code, "an SQLite database is for one host" in result.err) == (2, True)
    path = write(tmp_path, database="postgresql:///jobs")
    assert "jobs in PostgreSQL" in succeed("worker", "--config", path, "--check").out


def test_an_address_or_a_state_in_use_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        path = write(tmp_path, listen=f"'127.0.0.1:{port}'")
        result = publisher("serve", "--config", path)
        assert (result.code, "cannot listen on 127.0.0.1" in result.err) == (2, True)
    (tmp_path / "state").mkdir()
    with filelock.FileLock(tmp_path / "state/service.lock"):
        result = publisher("serve", "--config", path)
        assert (result.code, "another process of the service uses it" in result.err) == (3, True)


def test_the_parts_of_an_answer_are_sent_without_waiting_for_each_other() -> None:
    with (
        _listen(Listen("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()),
    ):
        served, _ = listening.accept()
        with served:
            assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
