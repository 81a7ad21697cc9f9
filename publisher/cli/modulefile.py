"""`publisher modulefile`."""

from __future__ import annotations

from pathlib import Path

import click

from publisher.browse.module_files import write_module
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, repository_option
from publisher.cli.published_names import complete_images
from publisher.cli.rendering import echo, print_json
from publisher.cli.repositories import open_repository
from publisher.runtimes.modulefile import FORMATS, RUNTIMES


@click.command()
@click.argument("image", shell_complete=complete_images)
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default="lua",
    show_default=True,
    help="lua for Lmod, tcl for Environment Modules (which Lmod reads, too).",
)
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="apptainer",
    show_default=True,
    help="The runtime that the wrappers use; publisher means `publisher run`.",
)
@click.option(
    "--command",
    "commands",
    multiple=True,
    metavar="NAME",
    help="Another program of the image to provide; may be given several times.",
)
@repository_option
@output_option
@log_options
def modulefile(
    image: str,
    directory: Path,
    kind: str,
    runtime: str,
    commands: tuple[str, ...],
    repository: str | None,
    output: str,
) -> None:
    """Write a module file for a published IMAGE below DIRECTORY, which belongs into MODULEPATH.

    Loading it puts wrappers into PATH: for the program that the image runs by itself, and for each
    --command. The programs then look installed. Paths are those of machines that mount the
    repository: see --mount of `publisher init`.

    \b
    publisher modulefile quay.io/a/casa:6 /opt/modules --command python3
    module use /opt/modules && module load quay.io/a/casa/6 && casa --version
    """
    written = write_module(
        open_repository(repository), image, directory, kind=kind, runtime=runtime, commands=commands
    )
    if output == "json":
        value = {
            "module": written.name,
            "file": str(written.file),
            "commands": list(written.commands),
        }
        print_json("modulefile/1", value)
    else:
        echo(f"{written.file}: module load {written.name} provides {', '.join(written.commands)}")
