"""The commands in documents and deployment files are valid."""

from __future__ import annotations

import configparser
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
from publisher.wishlist import parse_wish_list
from tests.command import succeed
from tests.components import require, run
from tests.registry import OwnRegistry
from tests.registry_auth import BasicAuth
from tests.registry_images import sample_image
from tests.schemas import ROOT

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "layout/*.md", "thin-images/*.md", "deploy/**/*")
    for path in ROOT.glob(pattern)
    if path.is_file()
)
_ENDS_A_COMMAND = re.compile(r"\s(?:\||>|2>|<|&&|;|#)")


def command_lines() -> Iterator[tuple[str, str]]:
    """(where, words after "publisher") of every command that a document shows."""
    for path in DOCUMENTS:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = re.search(
                r"(?:^\s*\$ |^ExecStart=\S*|root (?:nice )?|^ {10})publisher (?P<words>[a-z].*)$",
                line,
            )
            if found:
                words = _ENDS_A_COMMAND.split(found["words"])[0]
                yield f"{path.relative_to(ROOT)}:{number}", words


def test_commands_are_found_in_documents_and_deployment_files() -> None:
    places = {place.partition(":")[0] for place, _ in command_lines()}
    assert {
        "README.md",
        "docs/administration.md",
        "docs/output.md",
        "deploy/cron/publisher",
        "deploy/systemd/publisher.service",
        "deploy/github-actions/check.yml",
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


def test_the_cron_job_has_a_time_a_user_and_a_command() -> None:
    lines = (ROOT / "deploy/cron/publisher").read_text().splitlines()
    jobs = [line for line in lines if line and line[0] not in "#ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    assert len(jobs) == 1
    assert re.fullmatch(r"(?:[0-9*/,-]+ ){5}root nice publisher ingest .*", jobs[0])
    assert "%" not in jobs[0]  # cron would make a line break of it


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    require("systemd-analyze")
    for name in ("publisher.service", "publisher.timer", "publisher-snapshotter.service"):
        text = (ROOT / "deploy/systemd" / name).read_text()
        units = configparser.ConfigParser(strict=False, interpolation=None)
        units.optionxform = str  # type: ignore[assignment, method-assign]
        units.read_string(text)
        assert units["Unit"]["Description"]
        # The program is not installed there on the machine that runs the tests.
        (tmp_path / name).write_text(text.replace("/opt/publisher/bin/publisher", "/bin/true"))
    out = run("systemd-analyze", "verify", *tmp_path.glob("publisher*"))
    assert out == ""


def deployed_commands() -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """The words and the environment of the ingest of each deployment file."""
    unit = (ROOT / "deploy/systemd/publisher.service").read_text()
    [words] = re.findall(r"^ExecStart=\S+ (.*)$", unit, re.MULTILINE)
    yield (
        "systemd",
        words.split(),
        dict(re.findall(r"^Environment=(\w+)=(.*)$", unit, re.MULTILINE)),
    )
    table = (ROOT / "deploy/cron/publisher").read_text()
    [words] = re.findall(r"^\*/10 .* nice publisher (.*)$", table, re.MULTILINE)
    variables = dict(re.findall(r"^([A-Z_]+)=(.*)$", table, re.MULTILINE))
    yield "cron", words.split(), {k: v for k, v in variables.items() if k not in ("PATH", "SHELL")}
    pod = yaml.safe_load((ROOT / "deploy/kubernetes/cronjob.yaml").read_text())["spec"]
    [container] = pod["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    yield "kubernetes", container["args"], variables


@pytest.mark.parametrize(
    ("words", "variables"),
    [pytest.param(words, variables, id=name) for name, words, variables in deployed_commands()],
)
def test_the_deployed_jobs_work_without_credentials_and_with_them(
    tmp_path: Path, words: list[str], variables: dict[str, str]
) -> None:
    def here(text: str) -> str:
        return text.replace("/etc/", f"{tmp_path}/").replace("/srv/images", f"{tmp_path}/images")

    words, variables = [here(word) for word in words], {k: here(v) for k, v in variables.items()}
    [folder] = [Path(value) for value in variables.values() if value.startswith(f"{tmp_path}/")]
    (tmp_path / "publisher").mkdir()
    with OwnRegistry(BasicAuth({"robot": "secret"})) as private, OwnRegistry() as public:
        for registry in (private, public):
            registry.add("team/x", "1", sample_image())
        wish_list = tmp_path / "publisher/wishlist.yaml"
        wish_list.write_text(f"version: 2\nimages: ['{public.url}/team/x:1']\n")
        assert succeed(*words, env=variables).code == 0
        again = succeed(*words, env=variables)
        assert len((again.out + again.err).splitlines()) == ("--no-progress" in words)
        folder.mkdir(exist_ok=True)
        login = ("login", private.url, "-u", "robot", "--password-stdin")
        succeed(*login, "--authfile", folder / "config.json", input="secret")
        wish_list.write_text(f"version: 2\nimages: ['{private.url}/team/x:1']\n")
        succeed(*words, env=variables)


def test_the_container_image_can_fetch_wish_lists_from_git() -> None:
    final_stage = (ROOT / "Dockerfile").read_text().rpartition("FROM ")[2]
    assert re.search(r"apt-get install .*\bgit openssh-client\b", final_stage)


def test_the_kubernetes_job_runs_a_valid_command() -> None:
    (document,) = yaml.safe_load_all((ROOT / "deploy/kubernetes/cronjob.yaml").read_text())
    assert (document["apiVersion"], document["kind"]) == ("batch/v1", "CronJob")
    pod = document["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    parses(container["args"])
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


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


def test_the_pull_request_check_annotates_the_lines(tmp_path: Path) -> None:
    require("jq", "bash")
    workflow: dict[Any, Any] = yaml.safe_load(
        (ROOT / "deploy/github-actions/check.yml").read_text()
    )
    script = workflow["jobs"]["check"]["steps"][-1]["run"]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/bad.yaml").write_text("version: 2\nimages:\n- ../x:1\n- oci:nothing:1\n")
    program = tmp_path / "bin" / "publisher"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m publisher "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    result = run(
        *("bash", "-c", f"({script}); echo code $?"),
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
    )
    assert "::error file=lists/bad.yaml,line=3,col=3::" in result
    assert "::error file=lists/bad.yaml,line=4::local/nothing:1: " in result
    assert result.endswith("code 2\n")


def test_every_wish_list_and_policy_in_a_document_is_valid() -> None:
    count = 0
    for path in DOCUMENTS:
        if path.suffix != ".md":
            continue
        for block in re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE):
            if "policy-1.schema.json" in block:
                parse_policy(block, str(path))
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
