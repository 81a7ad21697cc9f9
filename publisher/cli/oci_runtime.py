"""`publisher oci-runtime`."""

from __future__ import annotations

import click

from publisher.runtimes import oci_runtime


@click.command(
    "oci-runtime",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def oci_runtime_command(words: tuple[str, ...]) -> None:
    """Run containers of thin images with runc or crun.

    An engine starts this program in place of runc, with the same arguments. It mounts the layers
    that the recipe of a thin image names, and becomes runc. Containers of other images are started
    by runc alone. `publisher-oci-runtime` is the same program, and starts faster: configure engines
    with it.

    \b
      --tree PATH     a published tree that recipes may name, may be repeated;
                      those below /cvmfs always may be named
      --runtime NAME  the other runtime (default: the first of runc and crun that is installed)

    Both can also be in /etc/publisher/oci-runtime.json: {"trees": ["/srv/images"]}

    \b
    With {"runtimes": {"thin": {"path": "/usr/local/bin/publisher-oci-runtime"}}} in
    /etc/docker/daemon.json:
      docker run --rm --runtime thin registry.example.org/thin/library/debian:stable
    """
    oci_runtime.main(list(words))
