"""`publisher trace --bundle` publishes a file bundle beside the program of an image."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from publisher.tree import layout
from tests.command import Result, publisher, succeed
from tests.components import require, require_user_namespaces
from tests.cvmfs import Machine
from tests.traced_image import MAIN, write_traced_image

NAME = "images.test.org"
IMAGE = "local/traced:1"
URL = ("--repository", f"cvmfs:{NAME}")


@pytest.fixture(params=["stratum 0", "gateway"])
def published(request: pytest.FixtureRequest, machine: Machine, tmp_path: Path) -> Machine:
    require("strace", "bwrap", "busybox")
    require_user_namespaces()
    gateway = ("-u", "gw,/srv/cvmfs,http://gateway") if request.param == "gateway" else ()
    machine.make(NAME, *gateway)
    source = write_traced_image(tmp_path / "layout")
    succeed("ingest-image", source, "--name", "traced", *URL, env=machine.environment)
    return machine


def trace(machine: Machine, *words: str) -> Result:
    result = publisher("trace", IMAGE, *URL, "--output", "json", *words, env=machine.environment)
    assert result.code == 0, result.err
    renew(machine)
    return result


def renew(machine: Machine) -> None:
    """At a gateway, the mount is updated by the next transaction."""
    if "gateway" in (machine.configuration / NAME / "server.conf").read_text():
        for words in (("transaction", NAME), ("abort", "-f", NAME)):
            assert machine.server(*words).returncode == 0


def damage(machine: Machine, *paths: str) -> None:
    """Remove files from the repository; the times of their directories stay."""
    assert machine.server("transaction", NAME).returncode == 0
    for path in paths:
        place = machine.mount(NAME) / path
        before = place.parent.stat()
        place.unlink()
        os.utime(place.parent, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert machine.server("publish", NAME).returncode == 0
    renew(machine)


def bundles(machine: Machine) -> list[str]:
    top = machine.published(NAME)
    return sorted(str(path.relative_to(top)) for path in top.rglob(".cvmfsbundle*"))


def test_a_bundle_is_published_repaired_replaced_and_removed_with_its_list(
    published: Machine,
) -> None:
    env, top = published.environment, published.published(NAME)
    before = published.revision(NAME)
    traced = trace(published, "--bundle").json
    assert published.revision(NAME) == before + 1
    flat = layout.flat_image(traced["imageId"])
    [path] = bundles(published)
    assert path == traced["bundle"] == f"{flat}/opt/.cvmfsbundle-start"
    bundle = json.loads((top / path).read_text("utf-8"))
    dependencies = bundle.pop("dependencies")
    assert bundle == {"name": "CVMFS_BUNDLE", "version": "1.0.0", "encoding": "UTF-8"}
    assert all((top / dependency.lstrip("/")).is_file() for dependency in dependencies)
    listed = [file["path"] for file in traced["files"]]
    expected = [f"/{flat}/{name}" for name in listed if name != MAIN and name.isprintable()]
    assert dependencies == expected

    # It is not a part of the image for any other command.
    succeed("verify", "--deep", *URL, env=env)
    shown = succeed("ls", IMAGE, "opt", *URL, env=env).out
    assert "start" in shown and "bundle" not in shown
    assert trace(published, "--bundle").json["status"] == "unchanged"
    assert published.revision(NAME) == before + 1

    other = trace(published, "--bundle", "--trigger", "/bin/busybox").json
    assert bundles(published) == [other["bundle"]] == [f"{flat}/bin/.cvmfsbundle-busybox"]
    assert published.revision(NAME) <= before + 3
    succeed("verify", "--deep", *URL, env=env)
    words = ("trace", IMAGE, "--bundle", "--trigger", "/bin/sh", *URL)
    refused = publisher(*words, env=env)
    assert refused.code == 1 and "bin/sh is not one of the files in the list" in refused.err

    damage(published, other["bundle"])
    assert bundles(published) == []
    found = publisher("verify", *URL, "--output", "json", env=env)
    assert [each["kind"] for each in found.json["findings"]] == ["bundle-wrong"]
    for paths in ((), (f"{flat}/etc/tested",), (f"{flat}/etc/tested", other["bundle"])):
        damage(published, *paths)
        publisher("verify", "--deep", "--repair", *URL, env=env)
        renew(published)
        assert bundles(published) == [other["bundle"]]
        succeed("verify", "--deep", *URL, env=env)

    assert trace(published, "--remove").json["status"] == "removed"
    assert bundles(published) == [] and not (top / traced["path"]).exists()
    succeed("verify", "--deep", *URL, env=env)

    trace(published, "--bundle", "--", "/bin/true")
    assert len(bundles(published)) == 1
    succeed("remove", IMAGE, *URL, env=env)
    succeed("gc", "--now", *URL, env=env)
    renew(published)
    assert not any((top / layout.HOT_FILES).rglob("*.json"))
    assert bundles(published) == []
    succeed("verify", "--deep", *URL, env=env)
