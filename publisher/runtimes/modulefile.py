"""Module files for Lmod (Lua) and Environment Modules (Tcl), and their wrapper scripts. Pure.

For each program of the image there is a script of the same name that runs it in the image. The
module adds the scripts to PATH.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from posixpath import basename

from publisher.lazy import pattern
from publisher.oci.config import ContainerConfig
from publisher.runtimes.shell import quote

FORMATS = ("lua", "tcl")
RUNTIMES = ("apptainer", "publisher")

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "csh", "tcsh", "fish", "env"})
"""Common commands of images, for which a wrapper would hide the program of the machine."""

_COMMAND = pattern(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]*\Z")


def entry_program(config: ContainerConfig) -> dict[str, str | None]:
    """Return the program that the image runs by default, as {wrapper name: program}.

    The program is None for an entry point, since the arguments of the wrapper are passed to it. For
    a command it is the program, since arguments would replace the command. The result is empty for
    a shell.
    """
    arguments = config.arguments()
    name = basename(arguments[0]) if arguments else ""
    if not is_command_name(name) or name in _SHELLS:
        return {}
    return {name: None if config.entrypoint else arguments[0]}


def is_command_name(name: str) -> bool:
    """Return whether `name` can be the name of a wrapper."""
    return _COMMAND.match(name) is not None


def wrapper(image: str, root: str, repository: str, program: str | None, runtime: str) -> str:
    """Return the script that runs `program` of the image, or its entry point if it is None.

    `image` is its name in the `repository` (a URL), `root` the path of its public link.
    """
    if runtime == "apptainer":
        words = ["apptainer", "run" if program is None else "exec", root]
        words += [] if program is None else [program]
    else:
        words = ["publisher", "run", "--repository", repository]
        words += [image, "--"] if program is None else ["--no-entrypoint", image, "--", program]
    return f'#!/bin/sh\nexec {" ".join(map(quote, words))} "$@"\n'


def module_name(image: str) -> tuple[str, str]:
    """Return name and version of the module of a published image: its path, and tag or digest."""
    path, at, digest = image.partition("@")
    if at:
        return path, digest.replace(":", "-")
    name, _, tag = path.rpartition(":")
    return name, tag


def module_file(
    kind: str, image: str, origin: str, commands: Sequence[str], wrappers: str, root: str
) -> str:
    """Return the module file, which puts the directory `wrappers` first into PATH."""
    what = f"{origin}: {', '.join(commands)}"
    if kind == "lua":
        return (
            f"help({_lua(what)})\n"
            f"whatis({_lua(f'Name: {image}')})\n"
            f"whatis({_lua(f'Description: {what}')})\n"
            f'prepend_path("PATH", {_lua(wrappers)})\n'
            f'setenv("CONTAINER_IMAGE", {_lua(root)})\n'
        )
    return (
        "#%Module1.0\n"
        f"proc ModulesHelp {{ }} {{ puts stderr {_tcl(what)} }}\n"
        f"module-whatis {_tcl(what)}\n"
        f"prepend-path PATH {_tcl(wrappers)}\n"
        f"setenv CONTAINER_IMAGE {_tcl(root)}\n"
    )


def _lua(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _tcl(text: str) -> str:
    return '"' + re.sub(r'([\\\[\]{}$"])', r"\\\1", text).replace("\n", "\\n") + '"'
