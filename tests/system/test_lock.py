"""A lock in git, and the images of a real registry whose tags move."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import succeed
from tests.components import docker_registry, program, require, run
from tests.layer_builder import file, image, layer, write_layout

pytestmark = pytest.mark.system


def test_a_moved_tag_is_one_line_of_a_diff_and_the_locked_image_is_published(
    tmp_path: Path,
) -> None:
    require("git")
    work, tree = tmp_path / "wishes", tmp_path / "images"
    work.mkdir()
    git = ("git", "-C", work, "-c", "user.name=a", "-c", "user.email=a@example.org")
    with docker_registry(tmp_path / "registry") as registry:

        def push(text: bytes, *tags: str) -> None:
            for tag in tags:
                source = write_layout(image(layer(file("version", text))), tmp_path / "app", tag)
                registry.push(f"oci:{source}:{tag}", f"team/app:{tag}")

        push(b"old", "1.0", "1.1", "2.0")
        wish_list = work / "l.yaml"
        wish_list.write_text(
            f"version: 2\nrepository: dir:{tree}\nimages:\n"
            f"- {{image: '{registry.url}/team/app', tags: ['>=1,<3']}}\n"
        )
        listed = run(
            *(program("skopeo"), "list-tags", "--tls-verify=false"),
            f"docker://{registry.host}/team/app",
        )
        expanded = succeed("expand", wish_list).out.split()
        assert expanded == [
            f"{registry.url}/team/app:{t}" for t in sorted(json.loads(listed)["Tags"])
        ]
        succeed("lock", wish_list)
        run(*git, "init", "--quiet")
        run(*git, "add", ".")
        run(*git, "commit", "--quiet", "--message=lists")
        push(b"new", "1.1")
        succeed("ingest", wish_list, "--locked")
        public = tree / registry.host / "team"
        assert {path.name: (path / "version").read_bytes() for path in public.iterdir()} == {
            f"app:{tag}": b"old" for tag in ("1.0", "1.1", "2.0")
        }
        succeed("lock", wish_list)
        assert run(*git, "diff", "--numstat").split() == ["1", "1", "l.yaml.lock"]
        difference = run(*git, "diff", "--unified=0").splitlines()[-2:]
        assert [line.split()[0] for line in difference] == [
            f"-{registry.url}/team/app:1.1",
            f"+{registry.url}/team/app:1.1",
        ]
        succeed("ingest", wish_list, "--locked")
        assert (public / "app:1.1/version").read_bytes() == b"new"
