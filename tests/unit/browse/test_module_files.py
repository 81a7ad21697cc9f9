"""`publisher modulefile`: the paths in modules and wrappers are those of clients."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from publisher.browse.module_files import write_module
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from publisher.tree.settings import RepositorySettings
from tests.command import Result, run_here
from tests.layer_builder import file, image, layer, write_layout
from tests.memory_repository import MemoryRepository

IMAGE = "local/tool:1"


def ask(*arguments: str | Path) -> Result:
    result = run_here(*arguments, "--repository", "images")
    assert result.code == 0, result.err
    return result


def wrapper_and_module(runtime: str) -> tuple[str, str]:
    ask("modulefile", IMAGE, "modules", "--command", "tool", "--runtime", runtime)
    directory = Path("modules")
    wrapper = directory / ".wrappers/local/tool/1/tool"
    return wrapper.read_text(), (directory / "local/tool/1.lua").read_text()


def test_modules_name_the_mount_of_the_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_layout(image(layer(file("bin/tool", b"#!"))), tmp_path / "tool", "1")
    ask("ingest-image", f"oci:{tmp_path}/tool:1")

    def check(root: str) -> None:
        wrapper, module = wrapper_and_module("apptainer")
        assert f"apptainer exec {root}/{IMAGE} tool " in wrapper
        assert f'"CONTAINER_IMAGE", "{root}/{IMAGE}"' in module
        wrapper, _ = wrapper_and_module("publisher")
        assert f"run --repository dir:{root} --no-entrypoint {IMAGE} -- tool " in wrapper

    check(f"{tmp_path}/images")
    assert run_here("init", "images", "--mount", "/srv/images").code == 0
    check("/srv/images")


@pytest.mark.parametrize(
    ("mount", "url"),
    [("", "cvmfs:images.example.org"), ("/mnt/images", "dir:/mnt/images")],
)
def test_wrappers_for_cvmfs_use_its_name_where_clients_mount_it_below_cvmfs(
    tmp_path: Path, mount: str, url: str
) -> None:
    repository = MemoryRepository()
    repository.url = RepositoryURL("cvmfs", "images.example.org")
    directory = tmp_path / "directory"
    write_layout(image(layer(file("bin/tool", b"#!"))), tmp_path / "tool", "1")
    published = run_here("ingest-image", f"oci:{tmp_path}/tool:1", "--repository", directory)
    assert published.code == 0
    with repository.transaction("test") as transaction, transaction.exclusive():
        for name in os.listdir(directory / layout.METADATA / IMAGE):
            path = f"{layout.METADATA}/{IMAGE}/{name}"
            transaction.replace(path, (directory / path).read_bytes())
        transaction.replace(layout.REPOSITORY_SETTINGS, RepositorySettings(mount=mount).to_bytes())
        transaction.commit()
    write_module(repository, IMAGE, tmp_path, runtime="publisher", commands=["tool"])
    wrapper = (tmp_path / ".wrappers/local/tool/1/tool").read_text()
    assert f"--repository {url} --no-entrypoint" in wrapper
