"""The commands that run a published image, for each runtime that can read it. Pure.

They are those of docs/runtimes, with the path and the name of the image.
"""

from __future__ import annotations

from collections.abc import Collection

from publisher.runtimes.shell import quote
from publisher.site.pages import Command
from publisher.tree import layout


def run_commands(
    name: str,
    mount: str,
    url: str,
    outputs: Collection[str],
    *,
    has_flat: bool,
    has_program: bool,
    thin: str = "",
) -> tuple[Command, ...]:
    """Return how the image published as `name` is run.

    Args:
        name: The public name.
        mount: The path at which clients mount the repository.
        url: The URL of the repository, for the publisher's own commands.
        outputs: The outputs of its wish.
        has_flat: Whether its name leads to a flat image.
        has_program: Whether it has an entry point or a command.
        thin: The reference of its thin image, or "".
    """
    commands: list[Command] = []
    if has_flat:
        commands += _flat(name, mount, url, has_program=has_program)
    engine = _engine_name(name)
    program = "" if has_program else " sh"
    if "podman" in outputs and engine:
        commands.append(
            Command(
                "Podman, from its store",
                f"podman run --rm {engine}{program}",
                f"needs additionalimagestores = [{quote(f'{mount}/{layout.PODMAN_STORE}')}] "
                "in storage.conf",
            )
        )
    if "squashfs" in outputs:
        file = quote(f"{mount}/{layout.squashfs_link(name)}")
        commands.append(
            Command("As one file", f"cp -L {file} image.squashfs\napptainer run image.squashfs")
        )
    if "sbom" in outputs:
        files = " ".join(quote(f"{mount}/{path}") for path in layout.sbom_files(name))
        commands.append(Command("Bills of materials", f"cp {files} .", "CycloneDX and SPDX"))
    if thin:
        commands.append(
            Command(
                "Docker, as a thin image",
                f"docker run --rm --runtime thin {quote(thin)}{program}",
                "needs publisher-oci-runtime on the machine",
            )
        )
    if "layers" in outputs and engine and not _is_local(name):
        commands += _with_snapshotter(engine, program)
    return tuple(commands)


def _with_snapshotter(engine: str, program: str) -> list[Command]:
    needs = "needs the service publisher snapshotter"
    arguments = f" --{program}" if program else ""
    return [
        Command(
            "containerd, with the snapshotter",
            f"ctr images pull --snapshotter publisher {engine}\n"
            f"ctr run --rm --snapshotter publisher {engine} try{program}",
            f"{needs}, as root",
        ),
        Command("Docker, with the snapshotter", f"docker run --rm {engine}{program}", needs),
        Command(
            "Kubernetes, with the snapshotter",
            f"kubectl run try --rm --attach --restart=Never --image={engine}{arguments}",
            f"{needs} on the nodes",
        ),
    ]


def _flat(name: str, mount: str, url: str, *, has_program: bool) -> list[Command]:
    root = quote(f"{mount}/{name}")
    bwrap = f"bwrap --ro-bind {root} / --dev /dev --proc /proc --tmpfs /tmp"
    own = f"publisher run --repository {quote(url)} {quote(name)}"
    if not has_program:
        return [
            Command("Apptainer", f"apptainer shell {root}"),
            Command("Podman", f"podman run --rm -it --rootfs {root}:O sh"),
            Command("Charliecloud", f"ch-run {root} -- sh"),
            Command("bubblewrap", f"{bwrap} sh"),
            Command("To try it", f"{own} -- sh", "as engines start it, on a publishing machine"),
        ]
    return [
        Command("Apptainer", f"apptainer run {root}"),
        Command("Podman", f"podman run --rm --rootfs {root}:O /.run"),
        Command("Charliecloud", f"ch-run --unset-env='*' {root} -- /.run"),
        Command("bubblewrap", f"{bwrap} --clearenv /.run"),
        Command("To try it", own, "as engines start it, on a publishing machine"),
    ]


def _engine_name(name: str) -> str:
    """Return the quoted reference by which engines know the image, or "" if they do not."""
    platform, plain = layout.split_platform(name)
    if platform:
        return ""
    return quote(f"localhost/{plain.partition('/')[2]}" if _is_local(name) else plain)


def _is_local(name: str) -> bool:
    """Return whether the image is in no registry, from which engines could pull it."""
    return layout.split_platform(name)[1].partition("/")[0] == layout.LOCAL
