"""`publisher harbor sync`, with a stand-in for Harbor."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command import Result, publisher
from tests.harbor import PASSWORD, Harbor
from tests.schemas import ROOT, output_schema


def configure(directory: Path, harbor: Harbor, **more: object) -> Path:
    password = directory / "password"
    password.write_text(PASSWORD + "\n")
    password.chmod(0o600)
    path = directory / "service.yaml"
    credentials = str(directory / "astro.json")
    configuration: dict[str, Any] = {
        "version": 1,
        "state": str(directory / "state"),
        "repositories": {"images": {"url": f"dir:{directory}/images"}},
        "administrators": [{"group": "operators", "role": "admin"}],
        "projects": {
            "astro": {
                "members": [{"user": "alice", "role": "editor"}],
                "credentials": credentials,
            },
            "bio": {"members": [{"claims": {"department": "biology"}, "role": "viewer"}]},
        },
        "harbor": {
            "url": harbor.url,
            "user": "admin",
            "password-file": "password",
            "storage": {"astro": "5 GB"},
            **more,
        },
    }
    path.write_text(yaml.safe_dump(configuration))
    return path


def sync(path: Path, *options: str) -> tuple[Result, list[dict[str, Any]]]:
    arguments = ("--output", "json", *options)
    found = publisher(
        "harbor", "sync", "--config", path, *arguments, env={"PUBLISHER_LOG_LEVEL": "debug"}
    )
    assert PASSWORD not in found.out + found.err
    assert "topsecret-robot" not in found.out + found.err
    if not found.out:
        return found, []
    output_schema("harbor-sync/1").validate(found.json)
    return found, found.json["actions"]


def texts(actions: list[dict[str, Any]], *statuses: str) -> list[str]:
    return [
        f"{each['action']} {each['project']} {each['subject']}".strip()
        for each in actions
        if each["status"] in statuses
    ]


def test_harbor_is_made_to_match_and_then_needs_nothing(tmp_path: Path) -> None:
    with Harbor() as harbor:
        path = configure(tmp_path, harbor)
        harbor.add_project("library")
        wanted = [
            "create-project astro",
            "add-member astro alice",
            "add-member astro operators",
            "create-robot astro publisher",
            "create-project bio",
            "add-member bio operators",
        ]
        reported = ["skip-member bio claims department=biology", "remove-project library"]
        found, actions = sync(path, "--dry-run")
        assert found.code == 0 and texts(actions, "planned") == wanted
        assert texts(actions, "reported") == reported and harbor.changes == []
        found, actions = sync(path)
        assert (found.code, texts(actions, "done"), texts(actions, "reported")) == (
            0,
            wanted,
            reported,
        )
        assert [each["storage"] for each in quotas(harbor, "astro")] == [5 * 10**9]
        roles = {each["entity_name"]: each["role_id"] for each in harbor.members["astro"]}
        assert roles == {"admin": 1, "alice": 2, "operators": 1}
        credentials = tmp_path / "astro.json"
        assert credentials.stat().st_mode & 0o077 == 0
        [key] = json.loads(credentials.read_text())["auths"]
        assert key == harbor.url.removeprefix("http://")

        changed = len(harbor.changes)
        found, actions = sync(path)
        assert found.code == 0 and texts(actions, "done", "failed", "planned") == []
        assert len(harbor.changes) == changed
        # The secret is lost: the account gets another one.
        credentials.unlink()
        found, actions = sync(path)
        assert texts(actions, "done") == ["renew-robot astro robot$astro+publisher"]
        assert credentials.exists() and harbor.secrets == 2


def quotas(harbor: Harbor, project: str) -> list[dict[str, int]]:
    return [each["hard"] for each in harbor.quotas.values() if each["ref"]["name"] == project]


def test_what_is_unknown_is_removed_only_with_prune_and_never_with_images(tmp_path: Path) -> None:
    with Harbor() as harbor:
        for number in range(130):  # more than one page
            harbor.add_project(f"old{number}")
        harbor.add_project("astro", 5 * 10**9)
        harbor.add_project("bio")
        harbor.images.add("old7")
        harbor.add_member("astro", "alice", 3)
        harbor.add_member("astro", "bob", 2)
        harbor.add_robot("astro", "ci")
        harbor.add_robot("astro", "publisher", disable=True)
        for name in ("astro", "bio"):
            harbor.add_member(name, "operators", 1, "g")
        path = configure(tmp_path, harbor)
        found, actions = sync(path)
        assert found.code == 0 and texts(actions, "done") == [
            "change-role astro alice",
            "update-robot astro robot$astro+publisher",
            "renew-robot astro robot$astro+publisher",
        ]
        removals = [each for each in texts(actions, "reported") if each.startswith("remove")]
        assert len(removals) == 132 and len(harbor.projects) == 132
        assert removals[:2] == ["remove-member astro bob", "remove-robot astro robot$astro+ci"]
        # What another program removed meanwhile is as it should be.
        harbor.fail["DELETE /projects/old8"] = 404
        found, actions = sync(path, "--prune")
        assert found.code == 1 and texts(actions, "failed") == ["remove-project old7"]
        [failed] = [each for each in actions if each["status"] == "failed"]
        assert "status 412: the project contains repositories" in failed["error"]
        assert set(harbor.projects) == {"astro", "bio", "old7", "old8"}
        assert {each["entity_name"] for each in harbor.members["astro"]} == {
            "admin",
            "alice",
            "operators",
        }


def test_each_failure_is_named_and_the_next_run_continues(tmp_path: Path) -> None:
    with Harbor() as harbor:
        path = configure(tmp_path, harbor)
        harbor.fail["POST /projects"] = 403
        found, actions = sync(path)
        assert found.code == 1 and texts(actions, "done") == []
        errors = {each["error"] for each in actions if each["action"] != "create-project"}
        assert "the project could not be created" in errors
        assert "\x1b" not in found.out
        harbor.fail = {"POST /robots": 409}
        found, actions = sync(path)
        assert found.code == 1 and texts(actions, "failed") == ["create-robot astro publisher"]
        harbor.fail = {"GET /projects/astro/members": 404}
        found, actions = sync(path)
        assert found.code == 1 and texts(actions, "failed") == ["read-project astro"]
        harbor.fail = {}
        found, actions = sync(path)
        assert found.code == 0 and texts(actions, "done") == ["create-robot astro publisher"]


def test_a_wrong_password_or_configuration_is_an_error_with_what_helps(tmp_path: Path) -> None:
    with Harbor() as harbor:
        path = configure(tmp_path, harbor)
        (tmp_path / "password").write_text("topsecret-wrong")
        found = publisher("harbor", "sync", "--config", path)
        assert found.code == 1 and "status 401: unauthorized" in found.err
        assert "topsecret" not in found.err and "password-file" in found.err
        configure(tmp_path, harbor, storage={"other": "5 GB", "astro": "5"}, groups="x", a=1)
        found = publisher("harbor", "sync", "--config", path)
        assert found.code == 2
        for text in ("no project 'other'", "of astro must be a size", "groups must be", "'a'"):
            assert text in found.err, found.err
        configure(tmp_path, harbor, url="https://user:pw123@h/x", user="a:b")
        found = publisher("harbor", "sync", "--config", path)
        assert found.code == 2 and "pw123" not in found.err and "no ':'" in found.err
        text = yaml.safe_load(path.read_text())
        del text["harbor"]
        path.write_text(yaml.safe_dump(text))
        found = publisher("harbor", "sync", "--config", path)
        assert found.code == 2 and "has no key harbor" in found.err
        assert harbor.changes == []


def test_a_page_has_no_more_items_than_were_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Harbor() as harbor:
        for number in range(101):
            harbor.add_project(f"old{number}")
        monkeypatch.setattr(Harbor, "page", lambda self, items, query, *known: (200, items))
        found = publisher("harbor", "sync", "--config", configure(tmp_path, harbor))
        assert found.code == 1 and "a page has more than 100 items" in found.err


def test_the_example_of_the_documentation_works(tmp_path: Path) -> None:
    section = (ROOT / "docs/service.md").read_text().partition("\n## Harbor\n")[2]
    [configuration, *_] = re.findall(r"^```yaml\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    [commands, *_] = re.findall(r"^```console\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    with Harbor() as harbor:
        harbor.add_project("library")
        for old, new in (
            ("https://harbor.example.org", harbor.url),
            ("user: publisher", "user: admin"),
            ("/etc/publisher", str(tmp_path)),
        ):
            assert old in configuration
            configuration = configuration.replace(old, new)
        (tmp_path / "service.yaml").write_text(configuration)
        (tmp_path / "harbor.password").write_text(PASSWORD)
        (tmp_path / "harbor.password").chmod(0o600)
        for line in commands.splitlines():
            words = line.replace("/etc/publisher", str(tmp_path)).split()
            assert words[:2] == ["$", "publisher"]
            found = publisher(*words[2:])
            assert found.code == 0, found.err
        assert "done: create-project astro (quota 200.0 GB)" in found.out
        assert "reported: remove-project library" in found.out
