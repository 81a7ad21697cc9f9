"""Write a module file for a published image: the use case behind `publisher modulefile`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from publisher.browse.run import published_config
from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.replacing import replace_file
from publisher.repository import Repository
from publisher.repository.settings import client_mount, own_mount
from publisher.runtimes import modulefile


class CannotWriteModule(PublisherError):
    """A module file cannot be written as requested."""


@dataclass(frozen=True, slots=True)
class WrittenModule:
    """A written module: its name for `module load`, its file, and the commands that it provides."""

    name: str
    file: Path
    commands: tuple[str, ...]


def write_module(
    repository: Repository,
    text: str,
    directory: Path,
    *,
    kind: str = "lua",
    runtime: str = "apptainer",
    commands: Sequence[str] = (),
) -> WrittenModule:
    """Write the module of the image `text` below `directory`, a directory of MODULEPATH.

    It provides the image's own program, unless that is a shell, and `commands`. Its paths are those
    of clients: they begin where the settings of the repository place its mount.

    Raises:
        CannotWriteModule: There is no program, a command has an unusable name, or a file cannot be
            written.
        InvalidRecord: The settings of the repository are unreadable.
    """
    image, config = published_config(repository, text)
    chosen = modulefile.entry_program(config.container)
    chosen |= {command: command for command in commands}
    wrong = [command for command in chosen if not modulefile.is_command_name(command)]
    if wrong or not chosen:
        why = (
            f"{wrong[0]!r} is not a command name"
            if wrong
            else "the image has no program of its own"
        )
        raise CannotWriteModule(
            f"cannot write a module for {image}", why=why, hint="name programs with --command"
        )
    name, version = modulefile.module_name(image)
    mount = client_mount(repository)
    root = f"{mount}/{image}"
    is_cvmfs = repository.url.kind == "cvmfs" and mount == own_mount(repository)
    url = str(repository.url) if is_cvmfs else f"dir:{mount}"
    wrappers = directory.absolute() / ".wrappers" / name / version
    origin = f"the container image {image}"
    file = directory / name / (f"{version}.lua" if kind == "lua" else version)
    content = modulefile.module_file(kind, image, origin, list(chosen), str(wrappers), root)
    try:
        wrappers.mkdir(parents=True, exist_ok=True)
        for command, program in chosen.items():
            script = modulefile.wrapper(image, root, url, program, runtime)
            replace_file(wrappers / command, script.encode(), 0o755)
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, content.encode(), 0o644)
    except OSError as error:
        raise CannotWriteModule(
            f"cannot write {error.filename or directory}", why=error.strerror or str(error)
        ) from error
    return WrittenModule(f"{name}/{version}", file, tuple(chosen))
