"""`make audit` asks for every pinned version, and fails for one that has an advisory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.components import require
from tests.http_server import Received, http_server

ROOT = Path(__file__).parents[2]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
PINNED = dict(re.findall(r"^([^=#\s]+)==(\S+)$", CONSTRAINTS, re.MULTILINE))
ADVISORY = {
    "id": "PYSEC-2099-1",
    "aliases": ["CVE-2099-1000"],
    "details": "A request makes it read any file.",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "click"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
        }
    ],
}
"""In the form of the OSV schema (ossf.github.io/osv-schema)."""


class Database:
    """An OSV service, which knows the advisories of some packages."""

    def __init__(self, affected: Mapping[str, object] | None = None, status: int = 200) -> None:
        self.affected = affected or {}
        self.status = status
        self.asked: dict[str, str] = {}

    def respond(self, request: Received) -> None:
        query = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        name = query["package"]["name"]
        assert query["package"]["ecosystem"] == "PyPI"
        self.asked[name] = query["version"]
        found = {"vulns": [self.affected[name]]} if name in self.affected else {}
        request.answer(json.dumps(found).encode(), self.status, Content_Type="application/json")


def audit(database: Database, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run the target with the environment of the tests."""
    require("make")
    binaries = Path(sys.executable).parent
    with http_server(database.respond) as address:
        options = f"--vulnerability-service osv --osv-url {address}/v1/query --cache-dir {cache}"
        return subprocess.run(
            ["make", "--silent", "--old-file=.venv/development", f"BIN={binaries}", "audit"],
            cwd=ROOT,
            env={**os.environ, "ARGS": options},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def test_every_pinned_version_is_asked_for(tmp_path: Path) -> None:
    database = Database()
    result = audit(database, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "No known vulnerabilities found" in result.stderr
    assert database.asked == {
        re.sub(r"[-_.]+", "-", name).lower(): version for name, version in PINNED.items()
    }


def test_a_version_with_an_advisory_is_an_error_that_names_both(tmp_path: Path) -> None:
    result = audit(Database({"click": ADVISORY}), tmp_path)
    assert result.returncode != 0
    [line] = [line for line in result.stdout.splitlines() if line.startswith("click ")]
    assert line.split() == ["click", PINNED["click"], "PYSEC-2099-1", "99.0"]


@pytest.mark.parametrize("status", [404, 500])
def test_a_database_that_fails_is_an_error(status: int, tmp_path: Path) -> None:
    result = audit(Database(status=status), tmp_path)
    assert result.returncode != 0
    assert "No known vulnerabilities" not in result.stdout + result.stderr
