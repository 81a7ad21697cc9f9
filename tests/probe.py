"""An image that prints how it was started, to compare one way of running it with another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.components import Engine, program
from tests.layer_builder import (
    Image,
    directory,
    file,
    image,
    layer,
    symlink,
    whiteout,
    write_layout,
)

_SCRIPT = """\
#!/bin/sh
printf 'id=%s:%s\\0cwd=%s\\0' "$(id -u)" "$(id -g)" "$(pwd)"
for argument in "$@"; do printf 'arg=%s\\0' "$argument"; done
exec env -0
"""

NASTY = ("", "a b", "it's", 'say "x"', "$HOME `id` $(id)", "back\\slash\\n", "two\nlines", "ä*?~#")

OF_THE_RUNTIME = {"HOSTNAME", "container", "TERM", "PWD", "OLDPWD", "SHLVL", "_"}
"""Variables that a runtime or shell sets by itself."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the image received: user and group, working directory, arguments, environment."""

    id: str
    directory: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]


def probe_image(**settings: object) -> Image:
    """busybox and a script, with every awkward value in its config."""
    busybox = Path(program("busybox")).read_bytes()
    names = ("sh", "env", "id", "cat", "ls", "touch")
    base = layer(
        directory("bin"),
        file("bin/busybox", busybox, mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in names),
        directory("etc"),
        file("etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:1234:2345::/home/app:/bin/sh\n"),
        file("etc/group", b"root:x:0:\napp:x:2345:\nstaff:x:3456:\n"),
        file("etc/gone", b"x"),
        directory("work dir"),
        *(directory(name) for name in ("proc", "sys", "dev", "tmp")),
    )
    top = layer(whiteout("etc/gone"), file("probe", _SCRIPT.encode(), mode=0o755))
    environment = [f"V{number}={value}" for number, value in enumerate(NASTY)]
    config = {
        "Env": ["PATH=/bin:/usr/bin", *environment],
        "Entrypoint": ["/probe", "from the entrypoint", *NASTY[3:]],
        "Cmd": ["from the command", *NASTY[:3]],
        "User": "app:staff",
        "WorkingDir": "/work dir",
        "Labels": {"org.example.label": "it's"},
    } | settings
    return image(base, top, config=config)


def write_probe(folder: Path, **settings: object) -> str:
    """The image in an OCI layout, as podman and the publisher name it."""
    return f"oci:{write_layout(probe_image(**settings), folder, '1')}:1"


def read_report(output: str) -> Report:
    """Return what the script printed, without the runtime's own variables."""
    items = output.split("\0")[:-1]
    who, where, rest = items[0], items[1], items[2:]
    arguments = tuple(item.removeprefix("arg=") for item in rest if item.startswith("arg="))
    pairs = [item.partition("=") for item in rest if not item.startswith("arg=")]
    environment = {name: value for name, _, value in pairs if name not in OF_THE_RUNTIME}
    return Report(
        who.removeprefix("id="),
        where.removeprefix("cwd="),
        arguments,
        tuple(sorted(environment.items())),
    )


def run_original(podman: Engine, source: str, *words: str) -> Report:
    """Return the report of the image when podman runs it from its source."""
    return read_report(podman.run(source, *words))
