"""How a published image is started: `publisher run`."""

from __future__ import annotations

from pathlib import Path

from publisher.browse.run import plan_run
from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree.layout import RepositoryURL
from tests.command import succeed
from tests.layer_builder import directory, fifo, image, layer, write_layout


def test_users_are_unknown_where_their_files_are_something_else(tmp_path: Path) -> None:
    odd = layer(directory("etc"), directory("etc/passwd"), fifo("etc/group"))
    built = image(odd, config={"Cmd": ["sh"], "User": "7"})
    write_layout(built, tmp_path / "layout", "1")
    root = tmp_path / "images"
    reference = f"oci:{tmp_path}/layout:1"
    succeed("ingest-image", reference, "--name", "odd", "--repository", root)
    start = plan_run(DirectoryRepository(RepositoryURL("dir", str(root))), "local/odd:1", ())
    assert (start.identity.uid, start.identity.gid) == (7, 0)
