"""A pull request for a list of 1,000 wishes, checked against a real registry."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import check_forms, cosign
from tests.command import command, publisher, succeed
from tests.command import environment as settings
from tests.components import Registry, docker_registry
from tests.cosign import Key
from tests.git_checkout import checkout, commit_files, git
from tests.layer_builder import image
from tests.registry_images import noisy_layer, push_as_it_is, sample_image
from tests.schemas import ROOT

pytestmark = pytest.mark.system

POLICY = """\
version: 1
registries: {{deny: [denied.example.org]}}
max-size: 100 kB
signatures:
  - {{images: ['{host}/secure/*'], keys: [cosign.pub]}}
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with docker_registry(tmp_path / "registry") as registry:
        yield registry


def requests_of(registry: Registry) -> list[str]:
    """The requests that the registry has answered, by its own log."""
    lines = [line for line in registry.log.read_text().splitlines() if "response completed" in line]
    return [
        " ".join(re.findall(r'http\.request\.(?:method|uri)="?([^" ]+)', line)) for line in lines
    ]


def test_seven_added_lines_have_seven_verdicts_in_every_form(
    registry: Registry, tmp_path: Path
) -> None:
    url, key = registry.url, Key.generate()
    for name, built in (
        ("team/fine", sample_image(1000, seed=1)),
        ("team/arm", image(noisy_layer(1000, 2), architecture="arm64")),
        ("team/large", image(noisy_layer(200_000, 3))),
        ("secure/none", sample_image(1000, seed=4)),
    ):
        push_as_it_is(url, name, "1", built)

    wishes = [f"  - {url}/team/app{number}:1\n" for number in range(959)]
    broken = [f"  - {url}/team/Broken{number}:1\n" for number in range(20)]
    gone = [f"  - {{image: {url}/gone/x{number}:1, owner: bio}}\n" for number in range(20)]
    old = "version: 2\nimages:\n" + "".join(["  - debian:stable\n", *wishes, *broken, *gone])
    added = [
        f"  - {url}/team/fine:1\n",
        f"  - {url}/team/fine:2\n",
        f"  - {url}/team/arm:1\n",
        f"  - {url}/team/large:1\n",
        "  - denied.example.org/x:1\n",
        f"  - {url}/secure/none:1\n",
        "  - https://docker.io/library/debian:stable\n",
    ]
    clone = checkout(tmp_path / "clone", **{"lists/a.yaml": old})
    key.write_public(clone / "cosign.pub")
    (clone / "policy.yaml").write_text(POLICY.format(host=registry.host))
    git(clone, "checkout", "--quiet", "-b", "wish")
    # In the middle, so that all wishes below move.
    lines = old.splitlines(keepends=True)
    commit_files(clone, {"lists/a.yaml": "".join(lines[:500] + added + lines[500:])})

    before = len(requests_of(registry))
    reports = [
        word
        for form in ("json", "github", "gitlab", "sarif", "markdown")
        for word in ("--report", f"{form}={tmp_path / form}")
    ]
    words = ("check", "lists/a.yaml", "--base", "main", "--policy", "policy.yaml")
    result = publisher(*words, *reports, cwd=clone, home=tmp_path)
    assert result.code == 1, result.out + result.err
    requests = requests_of(registry)[before:]
    assert len([r for r in requests if "/team/fine/manifests/1" in r]) == 1
    assert not [r for r in requests if "/app" in r or "/gone/" in r or r.startswith("HEAD")]
    assert len(requests) <= 2 + 2 + 2 + 2 + 6, requests

    verdicts = {
        502: "image-missing",
        503: "platform-missing",
        504: "policy/max-size",
        505: "policy/registries",
        506: "policy/signatures",
        507: "duplicate-wish",
    }
    expected = {("lists/a.yaml", line, 5, "error", rule) for line, rule in verdicts.items()}
    for form, read in (
        ("json", check_forms.places_of_json),
        ("github", check_forms.places_of_github),
        ("gitlab", check_forms.places_of_gitlab),
        ("sarif", check_forms.places_of_sarif),
    ):
        found = read((tmp_path / form).read_text())
        assert {place for place in found if place[3] != "note"} == expected, form
        notes = {place for place in found if place[3] == "note"}
        assert {place[4] for place in notes} == {"wish-list"}
        assert len(notes) == 20
    rows = check_forms.table((tmp_path / "markdown").read_text())
    marks = {row[1]: row[0] for row in rows}
    assert marks == {
        f"lists/a.yaml:{line}": "❌" if line in verdicts else "✅" for line in range(501, 508)
    }
    failed = re.findall(r"^lists/a\.yaml:(\d+):5: failed: ", result.out, re.MULTILINE)
    assert [int(line) for line in failed] == list(verdicts)
    assert "ok: " in result.out
    assert "is already listed on line 3 (remove this line)" in result.out

    # The 40 wishes that were broken before do not fail a change that is fine.
    commit_files(clone, {"lists/a.yaml": "".join([*lines[:500], added[0], *lines[500:]])})
    before = len(requests_of(registry))
    result = succeed(*words, cwd=clone, home=tmp_path)
    assert len(requests_of(registry)) - before == 2
    assert "1 added, 0 altered, 0 removed since main (" in result.out
    result = succeed(*words, "--all", "--jobs", "16", cwd=clone, home=tmp_path)
    assert result.out.count(": note: not part of this change, requested by bio: ") == 20


def test_images_signed_by_the_key_of_the_policy_are_accepted(
    registry: Registry, tmp_path: Path
) -> None:
    key, other = Key.generate(), Key.generate()
    key.write_public(tmp_path / "cosign.pub")
    (tmp_path / "policy.yaml").write_text(POLICY.format(host=registry.host))
    names = ("signed", "other", "tampered", "none")
    digests = {}
    for seed, name in enumerate(names):
        built = sample_image(1000, seed=seed)
        push_as_it_is(registry.url, f"secure/{name}", "1", built)
        digests[name] = built.manifest.digest
    for name, signed in (
        ("signed", key.sign(digests["signed"])),
        ("other", other.sign(digests["other"])),
        ("tampered", cosign.tampered(key.sign(digests["signed"]), digests["tampered"])),
    ):
        push_as_it_is(registry.url, f"secure/{name}", cosign.tag_of(digests[name]), signed)
    (tmp_path / "l.yaml").write_text(
        "version: 2\nimages:\n" + "".join(f"  - {registry.url}/secure/{name}:1\n" for name in names)
    )
    words = ("check", "l.yaml", "--policy", "policy.yaml", "--output", "json")
    result = publisher(*words, cwd=tmp_path, home=tmp_path)
    assert result.code == 1
    assert [each["status"] for each in result.json["images"]] == ["ok", *["failed"] * 3]
    assert {f["rule"] for f in result.json["findings"]} == {"policy/signatures"}


def test_the_way_from_an_empty_repository_to_a_merged_wish_works_as_documented(
    registry: Registry, tmp_path: Path
) -> None:
    base = noisy_layer(2000, 1)
    push_as_it_is(registry.url, "astro/base", "1", image(base))
    push_as_it_is(registry.url, "astro/tools", "2", image(base, noisy_layer(2000, 2)))
    text = (ROOT / "docs/pull-requests.md").read_text()
    section = text.split("## From an empty repository")[1].split("\n## ")[0]
    commands = re.findall(r"^\$ (.*)$", section, re.MULTILINE)
    assert len(commands) > 15
    script = "set -x\n" + "\n".join(commands)
    for old, new in (
        ("allow: [quay.io]", f'allow: ["{registry.host}"]'),
        ("quay.io/astro", f"{registry.url}/astro"),
        ("/srv/images", f"{tmp_path}/images"),
        ("publisher ", f"{shlex.join(command())} "),
        ("git commit", "git -c user.name=a -c user.email=a@example.org commit"),
    ):
        script = script.replace(old, new)
    environment = settings(tmp_path, PYTHONPATH=str(ROOT))
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    shown = [line for kind, block in blocks if not kind for line in block.splitlines()]
    assert len(shown) == 4
    for line in shown:
        pattern = re.escape(line).replace("0b1e3a9f6c2d", "[0-9a-f]{12}")
        pattern = re.sub(r"quay\\\.io", r"(?:http://)?127\\.0\\.0\\.1:\\d+", pattern)
        assert re.search(f"^{pattern}$", done.stdout, re.MULTILINE), (line, done.stdout)
    assert "astro/tools:2" in done.stdout.splitlines()[-1]
