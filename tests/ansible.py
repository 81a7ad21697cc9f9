"""The Ansible collection of deploy/ansible, installed as in its README, and run on machines."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.components import program, require, run
from tests.machines import Machine
from tests.schemas import ROOT

COLLECTION = ROOT / "deploy/ansible"


def tool(name: str) -> str:
    """The path of a program of the extra deploy-tests, which is beside Python."""
    path = str(Path(sys.executable).parent / name)
    require(path)
    return path


@dataclass(frozen=True, slots=True)
class Recap:
    """What a run of a playbook did to one machine."""

    ok: int
    changed: int
    failed: int
    unreachable: int


@dataclass(frozen=True, slots=True)
class Controller:
    """A directory with the collection, an inventory, and the key for the machines."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        beside = Path(sys.executable).parent  # ansible-lint runs ansible-playbook
        return {
            **kept,
            "PATH": f"{beside}:{kept.get('PATH', '')}",
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            "ANSIBLE_HOST_KEY_CHECKING": "false",
            "ANSIBLE_PIPELINING": "true",
        }

    def install_collection(self) -> None:
        galaxy = (tool("ansible-galaxy"), "collection")
        self._run(*galaxy, "build", "--output-path", self.folder, COLLECTION)
        [archive] = self.folder.glob("*.tar.gz")
        self._run(*galaxy, "install", "--offline", "-p", self.folder / "collections", archive)

    def write_inventory(self, groups: Mapping[str, tuple[Machine, Mapping[str, Any]]]) -> None:
        """Make one host of each group, with the group's variables."""
        run(program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", self.folder / "key")
        public = (self.folder / "key.pub").read_text()
        inventory = {}
        for group, (machine, variables) in groups.items():
            keys = machine.root / "root/.ssh/authorized_keys"
            keys.write_text(public)
            machine.run("mkdir", "--parents", "/run/sshd")
            sshd = " ".join([*machine.enter, "/usr/sbin/sshd", "-i"])
            options = f"-o UserKnownHostsFile=/dev/null -o 'ProxyCommand={sshd}'"
            connection = {
                "ansible_user": "root",
                "ansible_ssh_private_key_file": str(self.folder / "key"),
                "ansible_ssh_common_args": options,
                "ansible_python_interpreter": "/usr/bin/python3",
            }
            inventory[group] = {"hosts": {group[:-1]: {}}, "vars": {**connection, **variables}}
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(inventory))

    def play(self, *options: str) -> dict[str, Recap]:
        """Run the collection's playbook on all machines; a failed task is an error."""
        inventory = self.folder / "inventory.yml"
        command = (tool("ansible-playbook"), "--inventory", inventory, "publisher.images.site")
        with tempfile.TemporaryDirectory() as sockets:  # whose paths have to be short
            variables = {"ANSIBLE_SSH_CONTROL_PATH_DIR": sockets}
            out = self._run(*command, *options, env=self.environment | variables)
        fields = r"(\w+) +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)"
        return {
            name: Recap(int(ok), int(changed), int(failed), int(unreachable))
            for name, ok, changed, unreachable, failed in re.findall(fields, out)
        }

    def lint(self) -> list[dict[str, Any]]:
        """What ansible-lint finds in the collection, by the rules for production."""
        options = ("--offline", "--profile=production", "--format=codeclimate", "--nocolor")
        out = self._run(tool("ansible-lint"), *options, cwd=COLLECTION)
        found: list[dict[str, Any]] = json.loads(out)
        return found

    def _run(
        self, *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> str:
        return run(*command, cwd=cwd or self.folder, env=env or self.environment)
