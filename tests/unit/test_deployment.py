"""The scheduled jobs in deploy/ and the Dockerfile are valid, and work."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml

from publisher.cli.main import publisher
from publisher.sandbox import for_unpacking
from tests.command import succeed
from tests.components import require, run
from tests.registry import OwnRegistry
from tests.registry_auth import BasicAuth
from tests.registry_images import sample_image
from tests.schemas import ROOT

SYSTEMD = ROOT / "deploy/systemd"
JOBS = {"ingest": "publisher", "prune": "publisher-prune", "gc": "publisher-gc"}
JOBS["verify"] = "publisher-verify"
"""The unit of each scheduled command, in the order of a first day."""
SERVICES = sorted(SYSTEMD.glob("*.service"))
EXPOSURE_LIMIT = 3.0


@dataclass(frozen=True, slots=True)
class Job:
    """One scheduled command: the words after "publisher", and its environment."""

    words: Sequence[str]
    environment: Mapping[str, str]


def unit(path: Path) -> configparser.ConfigParser:
    """A unit file; of a key that occurs several times, the last value."""
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read_string(path.read_text())
    return read


def of_systemd(command: str) -> Job:
    text = (SYSTEMD / f"{JOBS[command]}.service").read_text()
    environment = dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE))
    [line] = re.findall(r"^ExecStart=/opt/publisher/bin/publisher (.*)$", text, re.MULTILINE)
    # As systemd does: a variable that is a word of its own becomes as many words as its value has.
    words = [
        word
        for each in line.split()
        for word in (environment[each[1:]].split() if each.startswith("$") else [each])
    ]
    return Job(words, environment)


def of_cron(command: str) -> Job:
    table = (ROOT / "deploy/cron/publisher").read_text()
    [line] = re.findall(rf"^\S+ \S+ .* nice publisher ({command} .*)$", table, re.MULTILINE)
    variables = dict(re.findall(r"^([A-Z_]+)=(.*)$", table, re.MULTILINE))
    return Job(line.split(), {k: v for k, v in variables.items() if k not in ("PATH", "SHELL")})


def of_kubernetes(command: str) -> Job:
    base = ROOT / "deploy/kubernetes/publisher/base"
    containers = []
    for name in (command, "pod"):
        job = yaml.safe_load((base / f"{name}.yaml").read_text())["spec"]["jobTemplate"]["spec"]
        containers += job["template"]["spec"]["containers"]
    assert [each["name"] for each in containers] == ["publisher", "publisher"]
    environment = {each["name"]: each["value"] for each in containers[1]["env"]}
    return Job(containers[0]["args"], environment)


FORMS = {"systemd": of_systemd, "cron": of_cron, "kubernetes": of_kubernetes}


@pytest.mark.parametrize("form", FORMS)
def test_the_scheduled_jobs_work_without_credentials_and_with_them(
    tmp_path: Path, form: str
) -> None:
    def here(text: str) -> str:
        for place in ("/etc/", "/var/lib/", "/srv/"):
            text = text.replace(place, f"{tmp_path}{place}")
        return text

    def job(command: str) -> int:
        """Run a job, and return the number of lines that it printed."""
        found = FORMS[form](command)
        variables = {name: here(value) for name, value in found.environment.items()}
        done = succeed(*map(here, found.words), env=variables)
        return len((done.out + done.err).splitlines())

    for folder in ("etc/publisher", "var/lib/publisher", "srv"):
        (tmp_path / folder).mkdir(parents=True)
    credentials = Path(here(FORMS[form]("ingest").environment["DOCKER_CONFIG"]))
    tree = tmp_path / "srv/images"
    with OwnRegistry(BasicAuth({"robot": "secret"})) as private, OwnRegistry() as public:
        for registry in (private, public):
            registry.add("team/x", "1", sample_image())
        wish_list = tmp_path / "etc/publisher/wishlist.yaml"
        wish_list.write_text(f"version: 2\nimages: ['{public.url}/team/x:1']\n")
        for command in JOBS:
            job(command)
        assert (tree / public.host / "team/x:1").exists()
        assert job("ingest") == (0 if form == "cron" else 1)

        credentials.mkdir(exist_ok=True)
        login = ("login", private.url, "-u", "robot", "--password-stdin")
        succeed(*login, "--authfile", credentials / "config.json", input="secret")
        wish_list.write_text(f"version: 2\nimages: ['{private.url}/team/x:1']\n")
        job("ingest")
        assert (tree / private.host / "team/x:1").exists()


def test_the_jobs_of_all_forms_run_at_the_same_times() -> None:
    lines = (ROOT / "deploy/cron/publisher").read_text().splitlines()
    jobs = [line for line in lines if re.match(r"[0-9*]", line)]
    assert all(re.fullmatch(r"(?:[0-9*/]+ ){5}root nice publisher .*", job) for job in jobs)
    assert not any("%" in job for job in jobs)  # cron would make a line break of it
    times = {job.split()[8]: " ".join(job.split()[:5]) for job in jobs}
    assert list(times) == list(JOBS)
    base = ROOT / "deploy/kubernetes/publisher/base"
    for command, name in JOBS.items():
        pod_job = yaml.safe_load((base / f"{command}.yaml").read_text())
        assert pod_job["spec"]["schedule"] == times[command]
        [calendar] = re.findall(r"^OnCalendar=(.*)$", (SYSTEMD / f"{name}.timer").read_text(), re.M)
        minute, hour, _, _, weekday = times[command].split()
        day = {"*": "*-*-* ", "0": "Sun *-*-* "}[weekday]
        start = f"{day}{int(hour):02}:{minute}" if hour != "*" else "*:0/10"
        assert calendar == start


def test_the_commands_of_the_jobs_have_valid_options() -> None:
    for form in FORMS.values():
        for name in JOBS:
            command = publisher.get_command(click.Context(publisher), name)
            assert command is not None
            command.make_context(name, list(form(name).words[1:]))


def test_systemd_accepts_the_units_and_finds_them_hardened(tmp_path: Path) -> None:
    require("systemd-analyze")
    for path in (*SERVICES, *SYSTEMD.glob("*.timer")):
        assert unit(path)["Unit"]["Description"]
        # The program is not installed there on the machine that runs the tests.
        text = path.read_text().replace("/opt/publisher/bin/publisher", "/bin/true")
        (tmp_path / path.name).write_text(text)
    assert run("systemd-analyze", "verify", *tmp_path.glob("publisher*")) == ""
    for path in SERVICES:
        out = run("systemd-analyze", "security", "--offline=true", path)
        [exposure] = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", out)
        assert float(exposure) < EXPOSURE_LIMIT, path.name


def test_the_units_of_the_jobs_differ_in_their_commands_only() -> None:
    own = {"ExecStart", "Description"}
    services = [SYSTEMD / f"{name}.service" for name in JOBS.values()]
    assert len({settings_but(path, own) for path in services}) == 1
    assert "StateDirectory=publisher" in settings_but(services[0], own)
    assert "StateDirectoryMode=0755" in settings_but(services[0], own)
    for name in JOBS.values():
        assert unit(SYSTEMD / f"{name}.timer")["Install"]["WantedBy"] == "timers.target"


def test_the_units_permit_what_confines_worker_processes() -> None:
    for name in JOBS.values():
        text = (SYSTEMD / f"{name}.service").read_text()
        capabilities = {
            "SYS_CHROOT",
            *(each.name for each in for_unpacking(set_user_id=False, devices=False)),
        }
        [bounding] = re.findall(r"^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)
        assert {f"CAP_{each}" for each in capabilities} <= set(bounding.split())
        calls = " ".join(re.findall(r"^SystemCallFilter=(.*)$", text, re.MULTILINE)).split()
        landlock = {f"landlock_{each}" for each in ("create_ruleset", "add_rule", "restrict_self")}
        assert {"@system-service", "chroot"} | landlock <= set(calls)
    drop_in = SYSTEMD / "drop-ins/ordinary-user.conf"
    template = ROOT / "deploy/ansible/roles/publisher_host/templates/service.j2"
    for path in (drop_in, template):
        values = re.findall(r"^RestrictNamespaces=(.*)$", path.read_text(), re.MULTILINE)
        assert values == ["", "user"]
    pod = yaml.safe_load((ROOT / "deploy/kubernetes/publisher/base/pod.yaml").read_text())
    [container] = pod["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert capabilities <= set(container["securityContext"]["capabilities"]["add"])


def settings_but(path: Path, keys: set[str]) -> str:
    """The settings of a unit except those with `keys`, and the variables of its own command."""
    kept = [
        line
        for line in path.read_text().splitlines()
        if line[:1].isalpha()
        and line.partition("=")[0] not in keys
        and not re.match(r"Environment=(?:WISHLISTS|\w+_OPTIONS)=", line)
    ]
    return "\n".join(kept)


def test_the_environment_file_sets_variables_that_the_jobs_read() -> None:
    lines = (SYSTEMD / "environment").read_text().splitlines()
    names = {line[1:].partition("=")[0] for line in lines if re.match(r"#[A-Z_]+=", line)}
    by_units: set[str] = set()
    by_commands: set[str | None] = set()
    for command, name in JOBS.items():
        service = unit(SYSTEMD / f"{name}.service")["Service"]
        by_units |= set(re.findall(r"\$(\w+)", service["ExecStart"]))
        found = publisher.get_command(click.Context(publisher), command)
        assert found is not None
        by_commands |= {each.envvar for each in found.params if isinstance(each.envvar, str)}
    assert by_units <= names
    assert names - by_units <= by_commands


@pytest.mark.parametrize("path", sorted((SYSTEMD / "drop-ins").glob("*")), ids=lambda p: p.name)
def test_systemd_accepts_the_units_with_a_drop_in(tmp_path: Path, path: Path) -> None:
    require("systemd-analyze")
    for name in JOBS.values():
        text = (SYSTEMD / f"{name}.service").read_text()
        text = text.replace("/opt/publisher/bin/publisher", "/bin/true")
        (tmp_path / f"{name}.service").write_text(text)
        folder = tmp_path / f"{name}.service.d"
        folder.mkdir()
        (folder / path.name).write_text(path.read_text())
        assert f"{name}" in path.read_text()  # the comment installs it for each job
    assert run("systemd-analyze", "verify", *tmp_path.glob("*.service")) == ""


def test_the_drop_in_for_cvmfs_resets_every_restriction_of_the_units() -> None:
    """Without privileges the helper of cvmfs_server fails, and so it does in a mount namespace."""
    restrictions = re.compile(
        r"(?:Protect|Private|Restrict|SystemCall(?:Filter|Arch)|Lock|MemoryDeny|NoNew|Capab|ReadWrite)"
    )
    settings = unit(SYSTEMD / "publisher.service")["Service"]
    expected = {name for name in settings if restrictions.match(name)}
    found = unit(SYSTEMD / "drop-ins/cvmfs.conf")["Service"]
    assert expected <= set(found)
    assert {found[name] for name in expected} <= {"no", "", "~", "default"}


ROLES = ROOT / "deploy/ansible/roles"
ROLE_NAMES = ("publisher_host", "client_host")


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_the_variables_of_a_role_are_described_with_their_defaults(role: str) -> None:
    specs = yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    assert {name: option["default"] for name, option in options.items()} == defaults
    files = [path for path in (ROLES / role).rglob("*") if path.suffix in (".yml", ".j2")]
    used = "".join(path.read_text() for path in files if path.parent.name != "meta")
    assert [name for name in defaults if used.count(name) < 2] == []


def test_nothing_installs_the_project_of_pypi_that_has_the_same_name() -> None:
    defaults = [yaml.safe_load((ROLES / r / "defaults/main.yml").read_text()) for r in ROLE_NAMES]
    packages = {k: v for each in defaults for k, v in each.items() if k.endswith("_package")}
    assert packages == {"publisher_host_package": "", "client_host_publisher_package": ""}
    by_name = re.compile(r"pip install (?:-\S+ )*['\"]?publisher\b")
    warned = ROOT / "docs/installation.md"
    for folder in ("docs", "deploy", "publisher", "layout", "thin-images"):
        for path in sorted((ROOT / folder).rglob("*")):
            if (
                path.is_file()
                and path.suffix in (".md", ".py", ".yml", ".service")
                and path != warned
            ):
                assert not by_name.search(path.read_text()), path


def test_the_examples_of_the_collection_set_described_variables() -> None:
    text = (ROOT / "deploy/ansible/README.md").read_text()
    defaults: set[str] = set()
    for role in ROLE_NAMES:
        defaults |= set(yaml.safe_load((ROLES / role / "defaults/main.yml").read_text()))
    examples = [yaml.safe_load(each) for each in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    groups = [group for each in examples for group in each.values() if "vars" in group]
    assert len(groups) == 4
    for group in groups:
        assert set(group["vars"]) <= defaults
    assert set(re.findall(r"\b(?:publisher|client)_host_\w+", text)) <= defaults


def test_the_role_for_clients_has_the_configuration_that_the_snapshotter_prints() -> None:
    variables = yaml.safe_load((ROLES / "client_host/vars/main.yml").read_text())
    for version, tables in variables["client_host_containerd_tables"].items():
        printed = succeed("snapshotter", "--config", f"containerd-{version}").out
        assert printed == f"version = {version}\n\n{tables}"


def test_the_files_of_the_roles_are_those_of_systemd() -> None:
    links = [path for path in ROLES.rglob("*") if path.is_symlink()]
    assert {path.name for path in links} == {
        *(f"{name}.{kind}" for name in JOBS.values() for kind in ("service", "timer")),
        "cvmfs.conf",
        "monitoring.conf",
        "publisher-snapshotter.service",
    }
    assert all(SYSTEMD in path.resolve().parents for path in links)


def test_the_container_image_has_an_ordinary_user_and_can_fetch_wish_lists_from_git() -> None:
    _, runtime, _, final_stage = re.split("^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.M)
    assert final_stage.startswith("runtime\n")
    assert re.search(r"apt-get install .*\bgit openssh-client\b", runtime)
    [user] = re.findall(r"^USER (\d+):\d+$", final_stage, re.MULTILINE)
    assert f"useradd --uid {user} " in runtime
    assert 'VOLUME ["/srv/images", "/var/lib/publisher"]' in final_stage
    assert "PUBLISHER_STATE=/var/lib/publisher" in final_stage
