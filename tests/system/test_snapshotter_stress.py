"""The snapshotter under load: many clients at once, collections, and kills."""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from publisher.oci.chain import chain_ids
from tests.command import succeed
from tests.components import Engine, containerd, require_mounts
from tests.layer_builder import Image, file, image, layer, write_layout
from tests.processes import wait_until
from tests.sampling import sample, share
from tests.snapshotter import Client, Refused, mounted, running
from tests.snapshotter_images import Scene, background, cri_pull, scene

pytestmark = pytest.mark.system

OTHER_FILES = 42
CHECK_FILES = f"""
seen=$(echo $(cat /etc/motd; ls /opt; ls /etc/gone 2>/dev/null))
[ "$seen" = "base tool" ] || exit {OTHER_FILES}
"""
"""By the exit code: ctr may lose the output of a command that ends at once."""
ACTIVE = 2
STEPS = 60
"""More than those of a start and of all operations of a container together."""


def test_fifty_images_of_twelve_layers_are_prepared_at_once_while_some_are_collected(
    tmp_path: Path,
) -> None:
    require_mounts()
    shared = [layer(file(f"shared/{number}", b"x" * 100)) for number in range(6)]
    images = [
        image(*shared, *(layer(file(f"own/{number}", b"%d" % name)) for number in range(6)))
        for name in range(50)
    ]
    tree = publish(tmp_path, images)
    collected = [f"local/image:{name}" for name in range(0, 50, 10)]
    with running(tmp_path, tree) as (process, client), ThreadPoolExecutor(51) as pool:
        removal = pool.submit(collect, tree, collected)
        outcomes = list(pool.map(lambda n: unpack(process.socket, n, images[n]), range(50)))
        removal.result()
        kept = [outcome for name, outcome in enumerate(outcomes) if name % 10]
        assert kept == [(12, "mounted")] * 45
        for number, (layers, last) in enumerate(outcomes):
            assert last in ("mounted", "FAILED_PRECONDITION"), number
            assert layers >= 6
        # Once for each stack, however many clients asked for it.
        unpacked = [info for info in client.list().values() if info["name"].startswith("own-")]
        published = len(client.list('kind=="committed"')) - len(unpacked)
        assert published == 6 + sum(layers - 6 for layers, _ in outcomes)
        for number in (1, 49):
            with mounted(client.mounts(f"container-{number}"), tmp_path / "mount") as place:
                assert (place / "own/5").read_bytes() == b"%d" % number
                assert len(list((place / "shared").iterdir())) == 6
        # Everything is removed, from the top of each stack.
        for name in reversed(list(client.list())):
            client.remove(name)
        assert client.list() == {}
        assert process.directories() == set()


def publish(folder: Path, images: list[Image]) -> Path:
    for name, each in enumerate(images):
        write_layout(each, folder / "image", str(name))
    wishes = [f"oci:{folder}/image:{name}" for name in range(len(images))]
    (folder / "wishes.yaml").write_text(json.dumps({"version": 2, "images": wishes}))
    succeed("ingest", folder / "wishes.yaml", "--repository", folder / "tree")
    return folder / "tree"


def collect(tree: Path, names: list[str]) -> None:
    for name in names:
        succeed("remove", name, "--repository", tree)
        succeed("gc", "--now", "--repository", tree)


def unpack(address: Path, number: int, built: Image) -> tuple[int, str]:
    """Unpack an image as containerd does; return the number of published layers, and the end."""
    client = Client(address)
    parent, published = "", 0
    for chain in chain_ids([each.diff_id for each in built.layers]):
        key = f"extract-{number}-{chain}"
        try:
            client.prepare_layer(key, parent, chain)
        except Refused as error:
            if error.code == "FAILED_PRECONDITION":  # what is below was collected
                return published, error.code
            assert error.code == "ALREADY_EXISTS", error
            published += 1
            query = f'labels."containerd.io/snapshot.ref"=={chain},parent=="{parent}"'
            (parent,) = client.list(query)
        else:
            client.commit(f"own-{number}-{chain}", key, client.stat(key)["labels"])
            parent = f"own-{number}-{chain}"
    try:
        client.prepare(f"container-{number}", parent)
    except Refused as error:
        return published, error.code
    return published, "mounted"


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Scene]:
    require_mounts()
    with scene(tmp_path) as made:
        yield made


class Load:
    """Containers that start and stop without pause, in twenty threads."""

    def __init__(self, ctr: Engine, reference: str, snapshotter: Path) -> None:
        self._ctr, self._reference, self._snapshotter = ctr, reference, snapshotter
        self._stop = threading.Event()
        self.finished = 0
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(20)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            name = f"short-{secrets.token_hex(8)}"
            try:
                options = ("run", "--rm", "--snapshotter", "publisher")
                self._ctr(*options, self._reference, name, "sh", "-c", CHECK_FILES)
            except (
                AssertionError
            ) as error:  # the snapshotter was killed, unless the files are others
                if f"ended with {OTHER_FILES}\n" in str(error):
                    self.wrong.append(name)
                while not self._stop.wait(0.05) and not accepts(self._snapshotter):
                    pass
                continue
            self.finished += 1

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.timeout(1200)  # on a busy machine
def test_killed_at_each_step_while_containers_start_and_stop_nothing_is_lost_or_left(
    images: Scene, tmp_path: Path
) -> None:
    printed = succeed("snapshotter", "--config", "containerd-2", "--socket", tmp_path / "s").out
    with (
        running(tmp_path, images.tree) as (process, client),
        containerd(tmp_path / "containerd", configuration=printed, cri=True) as engine,
    ):
        ctr = engine.in_namespace("k8s.io")
        reference = images.reference("tool")
        cri_pull(ctr.socket, reference)
        with ExitStack() as stack:
            before = [stack.enter_context(background(ctr, reference)) for _ in range(3)]
            load = Load(ctr, reference, process.socket)
            try:
                assert process.stop() == 0
                for number in sample(range(1, STEPS + 1), share(0.15)):
                    process.run_until_step(number)
                    for name in before:
                        check_tool(ctr, name)
                process.start()
                done = load.finished
                wait_until(lambda: load.finished >= done + 20)
            finally:
                load.stop()
            assert load.wrong == []
            for name in before:
                check_tool(ctr, name)
            wait_until(lambda: is_tidy(process.directories, client))
        remove_all(ctr)
        wait_until(lambda: client.list() == {})
        assert process.directories() == set()


def accepts(path: Path) -> bool:
    """Return whether a server listens at a socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def is_tidy(directories: Callable[[], set[str]], client: Client) -> bool:
    """Return whether each snapshot has its directory, and only containers use space."""
    listed = client.list()
    try:
        using = {info["kind"] for name, info in listed.items() if client.usage(name) != (0, 0)}
    except Refused:  # containerd is still removing what the ended containers had
        return False
    return len(directories()) == len(listed) and using <= {ACTIVE}


def check_tool(ctr: Engine, container: str) -> None:
    """Check the files of the image, as a running container sees them."""
    execution = f"e{secrets.token_hex(4)}"
    ctr("task", "exec", "--exec-id", execution, container, "sh", "-c", CHECK_FILES)


def remove_all(ctr: Engine) -> None:
    """Remove what runs that were interrupted left, and the images."""
    for name in ctr("task", "ls", "-q").split():
        ctr("task", "rm", "--force", name)
    for name in ctr("container", "ls", "-q").split():
        ctr("container", "rm", name)
    for name in ctr("images", "ls", "-q").split():
        ctr("images", "rm", "--sync", name)
