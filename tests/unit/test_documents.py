"""The commands in documents and deployment files are valid."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from publisher.cli.main import publisher
from publisher.cli.snapshotter import snapshotter
from publisher.policy import parse_policy
from publisher.service.parse_configuration import parse_configuration
from publisher.wishlist import parse_wish_list
from tests.command import publisher as publisher_command
from tests.components import require, run
from tests.registry import OwnRegistry
from tests.registry_images import sample_image
from tests.schemas import ROOT

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "layout/*.md", "thin-images/*.md", "deploy/**/*")
    for path in ROOT.glob(pattern)
    if path.is_file()
)
_ENDS_A_COMMAND = re.compile(r"\s(?:\||>|2>|<|&&|;|#)")


def command_lines() -> Iterator[tuple[str, str]]:
    """(where, words after "publisher") of every command that a document shows."""
    for path in DOCUMENTS:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = re.search(
                r"(?:^\s*\$ |^ExecStart=\S*|root (?:nice )?|^ {10}|^ {4}- )"
                r"publisher (?P<words>[a-z].*)$",
                line,
            )
            if found:
                words = _ENDS_A_COMMAND.split(found["words"])[0]
                words = re.sub(r" \$\w+_OPTIONS\b", "", words)  # test_deployment.py fills them in
                yield f"{path.relative_to(ROOT)}:{number}", words


def test_commands_are_found_in_documents_and_deployment_files() -> None:
    places = {place.partition(":")[0] for place, _ in command_lines()}
    assert {
        "docs/installation.md",
        "docs/administration.md",
        "docs/output.md",
        "deploy/cron/publisher",
        "deploy/systemd/publisher.service",
        "deploy/github-actions/check.yml",
        "deploy/github-actions/ingest.yml",
        "deploy/gitlab/wish-lists.gitlab-ci.yml",
    } <= places


@pytest.mark.parametrize(("place", "words"), list(command_lines()))
def test_every_command_that_is_shown_is_valid(place: str, words: str) -> None:
    parses(shlex.split(words))


def parses(words: list[str]) -> None:
    """Fail unless the command line is valid."""
    group = click.Context(publisher, info_name="publisher")
    name, *arguments = words
    command = publisher.get_command(group, name)
    assert command is not None, f"there is no command {name}"
    try:
        command.make_context(name, arguments, parent=group)
    except click.exceptions.Exit:
        assert "--help" in arguments


def test_the_snapshotter_of_the_nodes_has_their_paths_and_a_valid_command() -> None:
    (document,) = yaml.safe_load_all((ROOT / "deploy/kubernetes/snapshotter.yaml").read_text())
    assert (document["apiVersion"], document["kind"]) == ("apps/v1", "DaemonSet")
    pod = document["spec"]["template"]["spec"]
    assert document["spec"]["selector"]["matchLabels"].items() <= (
        document["spec"]["template"]["metadata"]["labels"].items()
    )
    (container,) = pod["containers"]
    parses(container["args"])
    places = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"]}
    assert {m["name"]: m["mountPath"] for m in container["volumeMounts"]} == places
    options = {parameter.name: str(parameter.default) for parameter in snapshotter.params}
    assert options["root"] == places["state"]
    assert str(Path(options["socket"]).parent) == places["socket"]
    unit = (ROOT / "deploy/systemd/publisher-snapshotter.service").read_text()
    for directory, setting in (("/run/", "Runtime"), ("/var/lib/", "State")):
        assert f"{setting}Directory=publisher-snapshotter\n" in unit
        assert f"{directory}publisher-snapshotter" in places.values()


def test_the_pull_request_check_gets_no_more_than_it_needs() -> None:
    workflow: dict[Any, Any] = yaml.safe_load(
        (ROOT / "deploy/github-actions/check.yml").read_text()
    )
    assert workflow["permissions"] == {"contents": "read"}
    assert list(workflow[True]) == ["pull_request"]  # YAML 1.1 reads "on" as true
    assert "secrets" not in (ROOT / "deploy/github-actions/check.yml").read_text().split("jobs:")[1]


def test_the_jobs_that_publish_run_one_at_a_time_on_their_own_host() -> None:
    github: dict[Any, Any] = yaml.safe_load((ROOT / "deploy/github-actions/ingest.yml").read_text())
    assert set(github[True]) == {"push", "schedule", "workflow_dispatch"}
    assert github["concurrency"] == {"group": "publish-images"}  # nothing is cancelled
    assert github["permissions"] == {"contents": "read"}
    gitlab = yaml.safe_load((ROOT / "deploy/gitlab/wish-lists.gitlab-ci.yml").read_text())
    assert set(gitlab["stages"]) == {job["stage"] for job in gitlab.values() if "stage" in job}
    publish = gitlab["publish-images"]
    assert (publish["resource_group"], publish["interruptible"]) == ("publish-images", False)
    for job in (publish, github["jobs"]["ingest"]):
        repository = (job.get("env") or job["variables"])["PUBLISHER_REPOSITORY"]
        assert repository == "dir:/srv/images"


def commands_of_jobs(kind: str) -> dict[str, str]:
    """The shell commands of the jobs "check" and "publish", without those that install."""
    if kind == "github":
        jobs = {}
        for name in ("check", "ingest"):
            workflow = yaml.safe_load((ROOT / f"deploy/github-actions/{name}.yml").read_text())
            jobs[name] = workflow["jobs"][name]["steps"][-1]["run"]
        return {"check": jobs["check"], "publish": jobs["ingest"]}
    jobs = yaml.safe_load((ROOT / "deploy/gitlab/wish-lists.gitlab-ci.yml").read_text())
    return {
        "check": "\n".join(jobs["check-wish-lists"]["script"]),
        "publish": "\n".join(jobs["publish-images"]["script"]),
    }


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_the_jobs_for_wish_lists_check_a_change_and_publish_it(tmp_path: Path, kind: str) -> None:
    require("bash", "git")
    program = tmp_path / "bin" / "publisher"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m publisher "$@"\n')
    program.chmod(0o755)
    work = tmp_path / "work"
    (work / "lists").mkdir(parents=True)
    wish_list = work / "lists/astro.yaml"

    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        return run("git", "-C", work, *identity, *words).strip()

    def job(name: str) -> str:
        environment = {
            **os.environ,
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PUBLISHER_REPOSITORY": f"dir:{tmp_path}/images",
            "GITHUB_BASE_REF": "main",
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
            "CI_MERGE_REQUEST_DIFF_BASE_SHA": git("rev-parse", "origin/main"),
        }
        script = shlex.quote(commands_of_jobs(kind)[name])
        return run(
            "bash", "-c", f"bash -e -c {script} 2>&1; echo code $?", cwd=work, env=environment
        )

    with OwnRegistry() as registry:
        registry.add("team/x", "1", sample_image())
        registry.add("team/x", "2", sample_image(7))
        head = f"version: 2\nimages:\n- {registry.url}/team/gone:1\n- {registry.url}/team/x:1\n"
        wish_list.write_text(head)
        git("init", "--quiet", "--initial-branch=main")
        git("add", ".")
        git("commit", "--quiet", "--message=lists")
        git("update-ref", "refs/remotes/origin/main", "HEAD")
        wish_list.write_text(f"{head}- {registry.url}/team/x:2\n")
        git("commit", "--quiet", "--all", "--message=one more")
        assert job("check").endswith("code 0\n")
        wish_list.write_text(f"{head}- {registry.url}/team/x:3\n- ../x:1\n")
        git("commit", "--quiet", "--all", "--message=two mistakes")
        count = registry.count()
        failed = job("check")
        assert failed.endswith("code 2\n")
        assert not [seen for seen in registry.requests[count:] if "gone" in seen.path]
        if kind == "github":
            found = re.findall(r"^::error file=lists/astro.yaml,.*\bline=(\d+),", failed, re.M)
            assert sorted(found) == ["5", "6"]
            assert "team/x:3" in (tmp_path / "summary.md").read_text()
        else:
            report = json.loads((work / "gl-code-quality-report.json").read_text())
            lines = {
                issue["location"].get("lines", {}).get("begin")
                or issue["location"]["positions"]["begin"]["line"]
                for issue in report
                if issue["severity"] in ("major", "critical", "blocker")
            }
            assert lines == {5, 6}
        wish_list.write_text(f"version: 2\nimages:\n- {registry.url}/team/x:1\n")
        published = job("publish")
        assert published.endswith("code 0\n")
        assert "1 published" in published
        again = job("publish").splitlines()
        assert (len(again), "1 unchanged" in again[0]) == (2, True)


def test_each_hook_of_pre_commit_runs_a_valid_command_on_wish_lists(tmp_path: Path) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert {hook["id"] for hook in hooks} == {
        *("publisher-check", "publisher-fmt", "publisher-lock-check")
    }
    wish_list = tmp_path / "wishlist.yaml"
    for hook in hooks:
        assert (hook["language"], bool(hook["name"])) == ("python", True)
        for name in ("wishlist.yaml", "lists/astro.yaml", "a/lists/b/c.yml", "wish-lists.yaml"):
            assert re.search(hook["files"], name), name
        for name in ("wishlist.yaml.lock", "mkdocs.yaml", "lists/README.md", ".github/x.yml"):
            assert not re.search(hook["files"], name), name
        name, *words = shlex.split(hook["entry"])
        assert name == "publisher"
        wish_list.write_text("version: 2\nimages: [debian]\n")
        (tmp_path / "wishlist.yaml.lock").unlink(missing_ok=True)
        expected = 2 if hook["id"] == "publisher-lock-check" else 0
        assert publisher_command(*words, wish_list).code == expected
    assert wish_list.read_text() == "version: 2\nimages: [debian]\n"


def test_the_example_names_the_schema_for_editors() -> None:
    first = (ROOT / "wishlist.yaml").read_text().splitlines()[0]
    [path] = re.findall(r"^# yaml-language-server: \$schema=(\S+)$", first)
    schema = json.loads((ROOT / path).read_text())
    assert schema["title"] == "Wish list, version 2"
    assert path in (ROOT / "docs/wishlist.md").read_text()


def test_every_wish_list_policy_and_configuration_in_a_document_is_valid() -> None:
    count = 0
    for path in DOCUMENTS:
        if path.suffix != ".md":
            continue
        for block in re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE):
            if "policy-1.schema.json" in block:
                parse_policy(block, str(path))
            elif "\nrepositories:" in block:
                parse_configuration(block, str(path), lambda path: b"postgresql://h/d")
            elif "version:" in block and "images:" in block and "@sha256:…" not in block:
                wish_list = parse_wish_list(block.encode(), str(path.relative_to(ROOT)))
                assert not wish_list.unusable, path
                count += 1
    assert count >= 1


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_documents_lead_somewhere(path: Path) -> None:
    if path.suffix != ".md":
        return
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links to {target}"
