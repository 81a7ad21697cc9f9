"""Podman with the additional image store of a tree, configured as docs/runtimes/podman.md shows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from tests.command import succeed
from tests.components import Engine, program, require, run

_PAGE = Path(__file__).parent.parent / "docs/runtimes/podman.md"

USER = 12345


def configuration(number: int, tree: Path, **places: str) -> str:
    """The configuration file `number` (from 0) on the page, with the places of a test."""
    text = re.findall(r"^```toml\n(.*?)^```", _PAGE.read_text(), re.M | re.S)[number]
    for key, place in places.items():
        text, count = re.subn(rf'^{key} = ".*"$', f'{key} = "{place}"', text, flags=re.M)
        assert count == 1, key
    assert text.count('"/srv/images/podmanStore"') == 1
    return str(text.replace("/srv/images/", f"{tree}/"))


def with_store(engine: Engine, folder: Path, tree: Path, network: bool = False) -> Engine:
    """The engine of root with the store in `tree`; without a network unless requested."""
    words = list(engine.command)
    options = {}
    for option in ("--root", "--runroot"):  # it would override the whole configuration
        at = words.index(option)
        options[option] = words[at + 1]
        del words[at : at + 2]
    file = folder / "storage.conf"
    file.write_text(
        configuration(0, tree, runroot=options["--runroot"], graphroot=options["--root"])
    )
    prefix: tuple[str, ...] = ("env", f"CONTAINERS_STORAGE_CONF={file}")
    if not network:
        prefix = (*prefix, "unshare", "--net", "--")
    return replace(engine, command=(*prefix, *words))


def rootless(folder: Path, tree: Path) -> Engine:
    """podman of an ordinary user who has subordinate IDs, with the store in `tree`."""
    require("newuidmap", "setpriv", "runc")
    home = folder / "home"
    (home / "runtime").mkdir(parents=True)
    file = home / "storage.conf"
    file.write_text(configuration(1, tree))
    run("chown", "--recursive", f"{USER}:{USER}", home)
    (folder / "subid").write_text(f"{USER}:200000:65536\n")
    users = Path("/etc/passwd").read_text()
    (folder / "passwd").write_text(f"{users}user:x:{USER}:{USER}::{home}:/bin/sh\n")
    # Mounted in a namespace of its own: the files of the machine do not change.
    script = (
        "for file in /etc/subuid /etc/subgid; do "
        f"[ -e $file ] || touch $file; mount --bind {folder}/subid $file || exit; done; "
        f"mount --bind {folder}/passwd /etc/passwd && cd / && "
        f"exec setpriv --reuid={USER} --regid={USER} --clear-groups env --ignore-environment "
        f"PATH=$PATH HOME={home} XDG_RUNTIME_DIR={home}/runtime "
        f'CONTAINERS_STORAGE_CONF={file} "$@"'
    )
    options = ("--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc")
    return Engine(
        ("unshare", "--mount", "--net", "sh", "-c", script, "sh", program("podman"), *options),
        run_options=(
            *("--network", "none"),
            *("--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000"),
        ),
    )


def publish(folder: Path, tree: Path, *images: str, outputs: str) -> None:
    """Publish the wishes `images`, each in YAML, with these outputs."""
    wishes = folder / "wishes.yaml"
    lines = ["version: 2", f"defaults: {{outputs: [{outputs}]}}", "images:"]
    wishes.write_text("\n".join([*lines, *(f"  - {each}" for each in images)]) + "\n")
    succeed("ingest", wishes, "--repository", tree)
