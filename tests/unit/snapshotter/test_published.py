"""Layers of published trees are snapshots without being unpacked."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.oci.chain import chain_ids
from publisher.tree import layout
from tests.command import publisher
from tests.components import require_mounts, require_root
from tests.layer_builder import (
    Image,
    Layer,
    directory,
    file,
    hardlink,
    image,
    layer,
    layer_of_tar,
    opaque,
    whiteout,
    write_layout,
)
from tests.snapshotter import Client, Refused, Running, mounted, running

BASE = layer(
    *(directory("etc"), file("etc/motd", b"base\n"), file("gone")),
    *(directory("opt"), file("opt/old")),
)
TOOL = layer(whiteout("gone"), directory("opt"), opaque("opt"), file("opt/tool", b"tool\n"))
CHILD = layer(file("etc/child", b"child\n"))
TOP = layer(file("top", b"top\n"))
COMMITTED = 3


def publish(folder: Path, tree: Path, *images: Image) -> None:
    for number, each in enumerate(images):
        write_layout(each, folder / "layout", str(number))
        done = publisher("ingest-image", f"oci:{folder}/layout:{number}", "--repository", tree)
        assert done.code == 0, done.err


def chains(*layers: object) -> list[str]:
    return chain_ids([each.diff_id for each in layers])  # type: ignore[attr-defined]


def refused(code: str, client: Client, *arguments: str) -> str:
    with pytest.raises(Refused) as caught:
        client.prepare_layer(*arguments)
    assert caught.value.code == code, caught.value.details
    return caught.value.details


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    publish(tmp_path, tmp_path / "tree", image(BASE, TOOL))
    return tmp_path / "tree"


@pytest.fixture
def service(tree: Path) -> Iterator[tuple[Running, Client]]:
    with running(tree.parent, tree.parent / "second", tree) as started:
        yield started


@pytest.fixture
def client(service: tuple[Running, Client]) -> Client:
    return service[1]


def test_a_published_layer_is_committed_and_the_client_learns_that_it_exists(
    client: Client, tree: Path, tmp_path: Path
) -> None:
    require_mounts()
    base, tool = chains(BASE, TOOL)
    refused("ALREADY_EXISTS", client, "extract-1", "", base)
    refused("ALREADY_EXISTS", client, "extract-2", base, tool)
    for name in ("extract-1", "extract-2"):
        with pytest.raises(Refused, match="does not exist"):
            client.stat(name)
    # containerd finds the snapshot by this filter.
    (found,) = client.list(f'labels."containerd.io/snapshot.ref"=={tool},parent=="{base}"')
    assert client.stat(found)["kind"] == COMMITTED
    assert client.usage(found) == (0, 0)
    mounts = client.prepare("container", found)
    assert f"upperdir={tmp_path}/root" in ",".join(mounts[0]["options"])
    with mounted(mounts, tmp_path / "mount") as place:
        assert sorted(path.name for path in place.iterdir()) == ["etc", "opt"]
        assert sorted(path.name for path in (place / "opt").iterdir()) == ["tool"]
        (place / "opt/tool").write_text("changed")
    assert (tree / layout.layer_tree(TOOL.digest) / "opt/tool").read_text() == "tool\n"


def test_a_layer_that_no_tree_has_is_unpacked_also_between_published_ones(
    client: Client, tmp_path: Path
) -> None:
    publish(tmp_path, tmp_path / "second", image(BASE, CHILD, TOP))
    shutil.rmtree(tmp_path / "second" / layout.layer_directory(CHILD.digest))
    base, child, top = chains(BASE, CHILD, TOP)
    refused("ALREADY_EXISTS", client, "1", "", base)
    mounts = client.prepare_layer("2", base, child)
    with mounted(mounts, tmp_path / "mount") as place:
        (place / "etc/child").write_text("unpacked\n")
    client.commit(child, "2", client.stat("2")["labels"])
    refused("ALREADY_EXISTS", client, "3", child, top)
    with mounted(client.view("view", top), tmp_path / "mount") as place:
        assert (place / "etc/child").read_text() == "unpacked\n"
        assert (place / "top").read_text() == "top\n"
        assert (place / "etc/motd").read_text() == "base\n"


def test_a_layer_is_found_by_its_digest_where_the_tree_has_no_links(
    client: Client, tree: Path
) -> None:
    shutil.rmtree(tree / layout.CHAINS)
    base, tool = chains(BASE, TOOL)
    refused("ALREADY_EXISTS", client, "1", "", base, BASE.digest)
    refused("ALREADY_EXISTS", client, "2", base, tool, TOOL.digest)
    assert client.prepare_layer("3", base, f"sha256:{'0' * 64}", TOOL.digest)


@pytest.mark.parametrize(
    "top",
    [
        layer(directory("opt"), opaque("opt"), file("opt/new")),
        layer(opaque(""), file("new")),
        layer(file("etc/implied")),
        layer(hardlink("linked", "etc/motd")),
    ],
    ids=["opaque", "opaque root", "implied", "link"],
)
def test_a_layer_whose_tree_depends_on_the_layers_below_is_unpacked_on_others(
    client: Client, tmp_path: Path, top: Layer
) -> None:
    """Its tree is as the image needs it with which it was published."""
    second = tmp_path / "second"
    other = layer(directory("etc", mode=0o700), file("etc/motd", b"other"), file("opt/secret"))
    publish(tmp_path, second, image(BASE, top), image(other))
    if top.tar.find(b"opt/new") > 0:  # as in CVMFS, which has whiteouts in place of marks
        opt = second / layout.layer_tree(top.digest) / "opt"
        for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
            os.removexattr(opt, name)
    published, lower, upper = *chains(BASE, top)[1:], *chains(other, top)
    refused("ALREADY_EXISTS", client, "1", "", lower, other.digest)
    mounts = client.prepare_layer("2", lower, upper, top.digest)
    assert f"upperdir={tmp_path}/root" in ",".join(mounts[0]["options"])
    refused("ALREADY_EXISTS", client, "3", "", chains(BASE)[0])
    refused("ALREADY_EXISTS", client, "4", chains(BASE)[0], published, top.digest)


def test_a_layer_is_not_used_for_a_chain_id_that_it_does_not_have(client: Client) -> None:
    (base,) = chains(BASE)
    # A config that names another diff ID for the layer must not define what others get.
    assert client.prepare_layer("1", "", f"sha256:{'1' * 64}", BASE.digest)
    refused("ALREADY_EXISTS", client, "3", "", base, TOOL.digest)
    mounts = client.prepare_layer("4", "", TOOL.diff_id, BASE.digest)
    assert mounts[0]["type"] == "bind"


@pytest.mark.parametrize("chain", ["", "x", "sha256:../../../etc", "sha256:" + "G" * 64, "../x"])
def test_a_label_that_is_not_a_chain_id_is_no_path(client: Client, chain: str) -> None:
    assert client.prepare_layer(f"key{chain}", "", chain, chain)


def test_two_clients_share_one_snapshot_of_a_stack(client: Client) -> None:
    base, tool = chains(BASE, TOOL)
    for namespace in ("a", "b"):
        refused("ALREADY_EXISTS", client, f"{namespace}/1", "", base)
        refused("ALREADY_EXISTS", client, f"{namespace}/2", base, tool)
    assert len(client.list()) == 2
    # On a parent that the other one unpacked itself, the same stack is another snapshot.
    client.prepare("own")
    client.commit("own-base", "own", {"containerd.io/snapshot.ref": base})
    refused("ALREADY_EXISTS", client, "3", "own-base", tool)
    (found,) = client.list('parent=="own-base"')
    assert found not in (base, tool)
    assert client.list('parent=="own-base"')[found]["labels"]["containerd.io/snapshot.ref"] == tool


def test_a_removed_snapshot_leaves_the_tree_as_it_is(
    service: tuple[Running, Client], tree: Path
) -> None:
    process, client = service
    (base,) = chains(BASE)
    refused("ALREADY_EXISTS", client, "1", "", base)
    client.remove(base)
    assert process.directories() == set()
    assert (tree / layout.layer_tree(BASE.digest) / "etc/motd").read_text() == "base\n"
    refused("ALREADY_EXISTS", client, "1", "", base)


def test_a_layer_that_is_collected_is_an_error_that_names_it_until_it_is_published_again(
    client: Client, tree: Path, tmp_path: Path
) -> None:
    (base,) = chains(BASE)
    refused("ALREADY_EXISTS", client, "1", "", base)
    client.prepare("before", base)
    hidden = tree / "hidden"
    (tree / layout.LAYERS).rename(hidden)
    for method, request in (
        ("Prepare", {"key": "container", "parent": base}),
        ("View", {"key": "container", "parent": base}),
        ("Mounts", {"key": "before"}),
    ):
        with pytest.raises(Refused) as caught:
            client.call(method, **request)
        assert caught.value.code == "FAILED_PRECONDITION"
        assert layout.layer_tree(BASE.digest) in caught.value.details
        assert "pull it again" in caught.value.details
    # What is left of it is known to be missing: a pull unpacks it.
    assert client.prepare_layer("2", "", base)
    client.remove("2")
    # Another tree has it.
    publish(tmp_path, tmp_path / "second", image(BASE))
    with mounted(client.prepare("container", base), tmp_path / "mount") as place:
        assert (place / "etc/motd").read_text() == "base\n"
    assert client.mounts("before")


def test_any_compression_of_a_published_layer_is_found_by_its_chain_id(
    client: Client, tmp_path: Path
) -> None:
    zstd = layer_of_tar(TOOL.tar, compression="zstd")
    assert zstd.digest != TOOL.digest
    base, tool = chains(BASE, zstd)
    refused("ALREADY_EXISTS", client, "1", "", base)
    refused("ALREADY_EXISTS", client, "2", base, tool, zstd.digest)


def test_a_layer_without_marks_for_the_mounts_of_root_is_unpacked(
    tree: Path, tmp_path: Path
) -> None:
    """Another user, or root without CAP_SYS_ADMIN, marks opaque directories for users alone."""
    require_mounts()
    opt = tree / layout.layer_tree(TOOL.digest) / "opt"
    assert "opaque directories" not in subjects_of_doctor(tree)
    os.removexattr(opt, "trusted.overlay.opaque")
    assert os.getxattr(opt, "user.overlay.opaque") == b"y"
    os.chown(tree / layout.layer_directory(TOOL.digest), 1000, 1000)
    assert "opaque directories" in subjects_of_doctor(tree)
    base, tool = chains(BASE, TOOL)
    with running(tmp_path, tree) as (process, client):
        refused("ALREADY_EXISTS", client, "1", "", base)
        for key in ("2", "3"):
            mounts = client.prepare_layer(key, base, tool, TOOL.digest)
            assert f"upperdir={tmp_path}/root" in ",".join(mounts[0]["options"])
        assert process.log.read_text().count("published without CAP_SYS_ADMIN") == 1
        client.commit(tool, "2", client.stat("2")["labels"])
        # Layers of CVMFS have whiteouts in place of marks: they are used without being examined.
        os.setxattr(tree, "user.fqrn", b"images.example.org")
        client.remove(tool)
        refused("ALREADY_EXISTS", client, "4", base, tool)
        os.removexattr(tree, "user.fqrn")
        client.remove(tool)
        os.removexattr(opt, "user.overlay.opaque")
        refused("ALREADY_EXISTS", client, "5", base, tool)


DEPLOY = Path(__file__).parents[3] / "deploy"


def capabilities_of(name: str) -> set[str]:
    """The capabilities that a service has, without the prefix, as its file in deploy lists them."""
    text = (DEPLOY / name).read_text()
    found = re.findall(r"^(?:CapabilityBoundingSet=| *add: \[)([A-Z_, ]+)", text, re.M)
    assert len(found) == 1, name
    return {word.removeprefix("CAP_").lower() for word in re.split("[ ,]+", found[0])}


def limited_to(capabilities: set[str]) -> list[str]:
    kept = ",".join(["-all", *sorted(f"+{name}" for name in capabilities)])
    return ["setpriv", f"--bounding-set={kept}", f"--inh-caps={kept}", "--no-new-privs"]


@pytest.mark.parametrize(
    "name", ["systemd/publisher-snapshotter.service", "kubernetes/snapshotter.yaml"]
)
def test_a_service_that_is_installed_as_documented_uses_all_layers_of_root(
    tree: Path, tmp_path: Path, name: str
) -> None:
    require_root()
    capabilities = capabilities_of(name)
    base, tool = chains(BASE, TOOL)
    with running(tmp_path, tree, before=limited_to(capabilities)) as (process, client):
        refused("ALREADY_EXISTS", client, "1", "", base)
        refused("ALREADY_EXISTS", client, "2", base, tool)
        client.prepare("3", tool)
        client.remove("3")
        assert "warning" not in process.log.read_text()
    # What it needs the capability for: without it, the marks are invisible.
    before = limited_to(capabilities - {"sys_admin"})
    (tmp_path / "less").mkdir()
    with running(tmp_path / "less", tree, before=before) as (process, client):
        refused("ALREADY_EXISTS", client, "1", "", base)
        assert client.prepare_layer("2", base, tool)
        log = process.log.read_text()
        assert "warning: without the capability CAP_SYS_ADMIN" in log
        assert "published without" not in log


def subjects_of_doctor(tree: Path) -> list[str]:
    checks = publisher("doctor", "--repository", tree, "--output", "json").json["checks"]
    return [each["subject"] for each in checks]
