"""`publisher token`: the first token of a service, on its database alone."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from publisher.service.access import Access
from publisher.service.audit import Audit
from publisher.service.jobs.database import connect
from publisher.service.projects import Project
from publisher.service.web.application import application
from publisher.service.web.context import Context
from tests import asgi
from tests.command import publisher
from tests.schemas import output_schema


def configure(directory: Path) -> Path:
    path = directory / "service.yaml"
    configuration = {
        "version": 1,
        "state": str(directory / "state"),
        "projects": {"astro": {}, "bio": {}},
        "repositories": {"images": {"url": f"dir:{directory}/images"}},
    }
    path.write_text(yaml.safe_dump(configuration))
    return path


def test_the_first_token_is_made_without_a_service_used_listed_and_revoked(tmp_path: Path) -> None:
    config = ("--config", configure(tmp_path))
    assert publisher("token", "list", *config).out == "no tokens\n"
    wanted = ("--name", "ci", "--allow", "read", "--allow", "administer", "--project", "astro")
    made = publisher("token", "create", *config, *wanted)
    assert made.code == 0, made.err
    text = made.out.removesuffix("\n")
    assert text.startswith("pub_") and len(text) > 40 and text not in made.err
    assert "created ci (" in made.err
    state = tmp_path / "state"
    assert state.stat().st_mode & 0o777 == 0o700
    assert not any(text.encode() in each.read_bytes() for each in state.iterdir())

    listed = publisher("token", "list", *config, "--output", "json").json
    output_schema("tokens/1").validate(listed)
    [token] = listed["tokens"]
    assert token["projects"] == ["astro"] and token["allows"] == ["administer", "read"]
    assert token["usedAt"] is None and text not in str(listed)

    # The service, of which nothing ran until now, knows the token, and what it allows.
    engine = connect(f"sqlite:///{state}/jobs.sqlite")
    access = Access(projects=(Project("astro"), Project("bio")))
    app = application(Context(list, lambda: access, database=engine))
    bearer = {"Authorization": f"Bearer {text}"}
    found = asgi.request(app, "GET", "/api/v1/identity", bearer).json()
    assert (found["name"], found["means"]) == ("ci", "token")
    assert found["grants"] == [
        {"project": "astro", "role": "viewer", "verbs": ["administer", "read"]}
    ]
    assert "ci" in publisher("token", "list", *config).out
    [used] = publisher("token", "list", *config, "--output", "json").json["tokens"]
    assert used["usedAt"] is not None

    assert publisher("token", "revoke", *config, token["id"]).code == 0
    assert asgi.request(app, "GET", "/api/v1/identity", bearer).status_code == 401
    again = publisher("token", "revoke", *config, token["id"])
    assert again.code == 2 and "no token has this identifier" in again.err
    entries = [(each.method, each.path, each.status) for each in Audit(engine).list()]
    assert entries == [
        ("DELETE", f"/api/v1/tokens/{token['id']}", 200),
        ("POST", "/api/v1/tokens", 201),
    ]
    engine.dispose()


def test_a_token_as_json_has_its_text_and_the_day_on_which_it_expires(tmp_path: Path) -> None:
    config = ("--config", configure(tmp_path))
    day = (datetime.now(UTC) + timedelta(days=10)).date().isoformat()
    options = ("--name", "all", "--allow", "submit", "--expires", day, "--output", "json")
    made = publisher("token", "create", *config, *options).json
    output_schema("token/1").validate(made)
    assert (made["expires"], made["projects"]) == (day, [])
    assert made["token"] not in publisher("token", "list", *config).out


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--name", "a b", "--allow", "read"), "'a b' is not a name"),
        (("--name", "a", "--allow", "browse"), "'browse' is not one of 'read', 'submit'"),
        (("--name", "a"), "Missing option '--allow'"),
        (("--name", "a", "--allow", "read", "--project", "geo"), "no project geo"),
        (("--name", "a", "--allow", "read", "--expires", "2020-01-01"), "not within the next"),
        (("--name", "a", "--allow", "read", "--expires", "2999-01-01"), "not within the next"),
    ],
)
def test_a_token_that_cannot_be_is_refused(
    tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    found = publisher("token", "create", "--config", configure(tmp_path), *options)
    assert found.code == 2 and why in found.err and not found.out
    assert not (tmp_path / "state").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")
def test_the_files_of_another_user_are_not_touched(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 12345, -1)
    for words in (("token", "list"), ("reconcile",)):
        found = publisher(*words, "--config", configure(tmp_path))
        assert found.code == 2 and f"sudo -u '#12345' publisher {words[0]}" in found.err
    assert list(state.iterdir()) == []
