"""The alerts and the dashboard in deploy/prometheus: Prometheus' own tool checks them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import yaml

from publisher.metrics.families import FAMILIES
from tests.components import require
from tests.schemas import ROOT

FOLDER = ROOT / "deploy/prometheus"
RULES = yaml.safe_load((FOLDER / "publisher.rules.yml").read_text())["groups"][0]["rules"]
TESTS = yaml.safe_load((FOLDER / "publisher.rules.test.yml").read_text())["tests"]
DASHBOARD = json.loads((FOLDER / "publisher.dashboard.json").read_text())


def promtool(*arguments: str | Path) -> None:
    require("promtool")
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> list[str]:
    """The expressions of all panels, with every repository selected."""
    return [
        target["expr"].replace("$repository", ".*")
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    ]


def test_prometheus_accepts_the_alerts_and_their_tests_pass() -> None:
    promtool("check", "rules", "publisher.rules.yml")
    promtool("test", "rules", "publisher.rules.test.yml")


def test_each_alert_is_tested_to_fire_and_not_to_fire_and_is_explained() -> None:
    cases = [case for test in TESTS for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in RULES}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names
    page = (ROOT / "docs/administration.md").read_text()
    assert set(re.findall(r"^\| `(Publisher\w+)` \| \S", page, re.MULTILINE)) == names


def test_the_expressions_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    rules = [{"record": f"panel{n}", "expr": each} for n, each in enumerate(expressions())]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", path)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) == variables


def test_alerts_and_dashboard_use_metrics_that_exist_and_the_page_names_all() -> None:
    known = {f"{f.name}_total" if f.is_counter else f.name for f in FAMILIES}
    used = " ".join([*(rule["expr"] for rule in RULES), *expressions()])
    assert set(re.findall(r"publisher_\w+", used)) <= known
    assert set(re.findall(r"publisher_\w+", " ".join(expressions()))) == known
    page = (ROOT / "docs/administration.md").read_text()
    assert set(re.findall(r"^\| `(publisher_\w+)` \| \S", page, re.MULTILINE)) == known
