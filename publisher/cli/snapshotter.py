"""`publisher snapshotter`."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import click

from publisher.cli.failures import DONE, UsageError
from publisher.cli.logs import is_requested, log_options
from publisher.cli.rendering import echo, message
from publisher.cli.systemd import notify_systemd
from publisher.errors import install_hint
from publisher.repository import RepositoryError
from publisher.snapshotter.engines import CONFIGURATIONS, configuration

_ROOT = "/var/lib/publisher-snapshotter"
_SOCKET = "/run/publisher-snapshotter/snapshotter.sock"


@click.command()
@click.option(
    "--tree",
    "trees",
    metavar="PATH",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A published tree, as it is mounted on this machine. May be given several times: a layer "
    "is taken from the first tree that has it.",
)
@click.option(
    "--root",
    metavar="PATH",
    type=click.Path(path_type=Path),
    default=_ROOT,
    show_default=True,
    help="The directory for the state, for the files of containers, and for layers that no tree "
    "has.",
)
@click.option(
    "--socket",
    metavar="PATH",
    type=click.Path(path_type=Path),
    default=_SOCKET,
    show_default=True,
    help="The Unix socket to listen on.",
)
@click.option(
    "--config",
    "engine",
    type=click.Choice(list(CONFIGURATIONS)),
    help="Print the configuration of an engine for this snapshotter, and exit. The number is the "
    "version of containerd's configuration: 2 for containerd 1.6 and 1.7, 3 for containerd 2.",
)
@log_options
def snapshotter(trees: tuple[Path, ...], root: Path, socket: Path, engine: str | None) -> int:
    """Let containerd start published images without downloading their layers.

    Runs, as root, on each machine that mounts a published tree, until it is terminated. containerd,
    Docker with its containerd image store, Kubernetes and nerdctl ask it for each layer of an
    image: a layer that a tree has is mounted from there, any other is downloaded and unpacked as
    usual. Containers go on while it is restarted.

    \b
    publisher snapshotter --config containerd-3 > /etc/containerd/config.toml
    publisher snapshotter --tree /cvmfs/images.example.org
    ctr images pull --snapshotter publisher docker.io/library/debian:stable

    Ends with 0 when it is terminated, with 3 if its state cannot be used.
    """
    if engine is not None:
        echo(configuration(engine, socket.absolute()).rstrip())
        return DONE
    if not trees:
        raise UsageError(
            "cannot serve layers",
            why="no tree was given",
            hint="publisher snapshotter --tree /cvmfs/images.example.org",
        )
    return _serve([tree.absolute() for tree in trees], root.absolute(), socket.absolute())


def _serve(trees: list[Path], root: Path, socket: Path) -> int:
    try:
        from publisher.snapshotter.service import Service
    except ImportError as error:
        raise UsageError(
            "cannot serve layers",
            why=f"the Python package {error.name} is missing",
            hint=install_hint("snapshotter"),
        ) from error
    from publisher.snapshotter.snapshotter import Snapshotter
    from publisher.snapshotter.store import StateUnusable
    from publisher.snapshotter.trees import PublishedTrees

    _log_to_stderr()
    # Blocked before any thread begins, the signals are received by `sigwait` alone.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    published = PublishedTrees(trees)
    for tree in published.missing():
        message(f"warning: {tree} has no layers now; they are used as soon as it has", prefix="")
    if not published.sees_marks:
        message(
            "warning: without the capability CAP_SYS_ADMIN, the marks of opaque directories are "
            "invisible: layers that have such directories are downloaded",
            prefix="",
        )
    try:
        state = Snapshotter(root, published)
        try:
            service = Service(state, socket)
            service.start()
            message(f"serving {', '.join(map(str, trees))} at {socket}", prefix="")
            notify_systemd("READY=1")
            signal.sigwait(signals)
            notify_systemd("STOPPING=1")
            service.stop()
        finally:
            state.close()
    except StateUnusable as error:
        raise RepositoryError(error.what, why=error.why, hint=error.hint) from error
    except OSError as error:
        raise RepositoryError(
            f"cannot serve layers at {socket} with the state in {root}",
            why=f"{error.filename}: {error.strerror}",
        ) from error
    return DONE


def _log_to_stderr() -> None:
    if is_requested():
        return  # lines as those of other commands
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("publisher.snapshotter")
    log.addHandler(handler)
    log.setLevel(min(logging.INFO, log.getEffectiveLevel()))
    log.propagate = False
