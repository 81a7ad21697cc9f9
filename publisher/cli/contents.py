"""`publisher ls`, `publisher diff` and `publisher find`."""

from __future__ import annotations

from collections.abc import Callable

import click

from publisher.browse.contents import Change, diff_images, list_path
from publisher.browse.find import find as find_paths
from publisher.browse.values import entry_value
from publisher.cli.failures import DONE, SOME_FAILED, UsageError
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, repository_option
from publisher.cli.published_names import complete_images
from publisher.cli.rendering import echo, message, print_json
from publisher.cli.repositories import open_repository
from publisher.entry import Entry, EntryType
from publisher.errors import PublisherError, printable
from publisher.repository import Repository

_MANY = 100
"""From how many images on a search reports that it reads them for the first time."""

_SIGNS = {Change.ADDED: "+", Change.REMOVED: "-", Change.CHANGED: "~"}


@click.command()
@click.argument("image", shell_complete=complete_images)
@click.argument("path", default="")
@repository_option
@output_option
@log_options
def ls(image: str, path: str, repository: str | None, output: str) -> None:
    """List what a published IMAGE has at PATH (its root, without one), from the layers' indexes."""
    entries = list_path(open_repository(repository), image, path)
    if output == "json":
        print_json("ls/1", {"entries": [entry_value(entry) for entry in entries]})
        return
    for entry in entries:
        target = f" -> {printable(entry.target)}" if entry.type is EntryType.SYMLINK else ""
        echo(
            f"{entry.type}{entry.mode:05o} {entry.uid:>6} {entry.gid:>6} {entry.size:>12}  "
            f"{_shown(entry)}{target}"
        )


@click.command()
@click.argument("old", shell_complete=complete_images)
@click.argument("new", shell_complete=complete_images)
@click.option("--packages", is_flag=True, help="Compare installed packages instead of files.")
@repository_option
@output_option
@log_options
def diff(old: str, new: str, packages: bool, repository: str | None, output: str) -> None:
    """Show what differs between the published images OLD and NEW: + added, - removed, ~ changed.

    Files are compared by the digests in the layers' indexes; times are not compared. Packages are
    those of `publisher packages`.

    \b
    publisher diff quay.io/stimela/casa:1.7.0 quay.io/stimela/casa:1.7.1
    publisher diff --packages quay.io/stimela/casa:1.7.0 quay.io/stimela/casa:1.7.1
    """
    opened = open_repository(repository)
    if packages:
        _diff_packages(opened, old, new, output)
        return
    differences = diff_images(opened, old, new)
    if output == "json":
        values = [
            {
                "path": each.path,
                "change": str(each.change),
                "fields": list(each.fields),
                "old": entry_value(each.old) if each.old else None,
                "new": entry_value(each.new) if each.new else None,
            }
            for each in differences
        ]
        print_json("diff/1", {"differences": values})
        return
    for each in differences:
        fields = f"  ({', '.join(each.fields)})" if each.fields else ""
        echo(f"{_SIGNS[each.change]} {printable(each.path) or '.'}{fields}")


def _diff_packages(repository: Repository, old: str, new: str, output: str) -> None:
    from publisher.browse.packages import diff_packages  # files are compared without it

    changes = diff_packages(repository, old, new)
    if output == "json":
        values = [
            {
                "type": str(each.type),
                "name": each.name,
                "change": str(each.kind),
                "old": list(each.old),
                "new": list(each.new),
            }
            for each in changes
        ]
        print_json("diff-packages/1", {"differences": values})
        return
    for each in changes:
        versions = " -> ".join(", ".join(part) for part in (each.old, each.new) if part)
        echo(printable(f"{_SIGNS[each.kind]} {each.type} {each.name} {versions}"))


@click.command()
@click.argument("pattern", required=False)
@click.option(
    "--package",
    "package",
    metavar="QUERY",
    help="Find a package: [TYPE:]NAME, with conditions on its version.",
)
@repository_option
@output_option
@log_options
def find(pattern: str | None, package: str | None, repository: str | None, output: str) -> int:
    """Find the published images that contain a path, or a package.

    PATTERN is a glob: without a slash it matches names anywhere, with one whole paths; * matches
    slashes too. Exits with 1 if an image could not be looked into.

    The name in a QUERY is a glob for packages and their source packages. Versions are compared as
    the package manager does; without an epoch or a revision, they are those of upstream. TYPE is
    one of those of `publisher packages`. The packages of images are kept in the user's cache, so
    that only the first search takes long.

    \b
    publisher find 'libssl.so*'
    publisher find 'usr/lib/*/libcuda*'
    publisher find --package 'openssl<3.0.15'
    publisher find --package 'pypi:numpy>=1.20,<2'
    """
    if (pattern is None) == (package is None):
        raise UsageError(
            "cannot search",
            why="either a PATTERN or --package is needed",
            hint="publisher find --help",
        )
    problems: list[dict[str, str]] = []

    def note(image: str, error: PublisherError) -> None:
        problems.append({"image": image, "problem": str(error)})
        echo(f"{image}: {error}", err=True)

    opened = open_repository(repository)
    if package is not None:
        _find_packages(opened, package, note, problems, output)
    else:
        _find_paths(opened, pattern or "", note, problems, output)
    return SOME_FAILED if problems else DONE


def _find_packages(
    repository: Repository,
    text: str,
    note: Callable[[str, PublisherError], None],
    problems: list[dict[str, str]],
    output: str,
) -> None:
    # What reads databases, and the cache: searches for paths do without.
    from publisher.browse.find_packages import find_packages
    from publisher.browse.values import package_value
    from publisher.cli.bars import Bar
    from publisher.cli.state import user_cache
    from publisher.packages.query import InvalidQuery, PackageQuery

    try:
        query = PackageQuery.parse(text)
    except InvalidQuery as error:
        raise UsageError(error.what, why=error.why, hint=error.hint) from error
    cache = user_cache(repository.url, "packages")
    with Bar("images") as bar:

        def progress(done: int, images: int) -> None:
            if not done and images >= _MANY:
                message(f"reading the packages of {images:,} images, for this and later searches")
            bar.show(done, images)

        found = list(find_packages(repository, query, cache, note, progress))
    if output == "json":
        values = [{"image": each.image, "package": package_value(each.installed)} for each in found]
        print_json("find-packages/1", {"found": values, "unknown": problems})
        return
    for each in found:
        package = each.installed.package
        echo(printable(f"{each.image}  {each.installed.type} {package.name} {package.version}"))
    if not found:
        message(f"no published image has the package {text!r}")


def _find_paths(
    repository: Repository,
    pattern: str,
    note: Callable[[str, PublisherError], None],
    problems: list[dict[str, str]],
    output: str,
) -> None:
    found = find_paths(repository, pattern, note)
    if output == "json":
        values = [{"image": each.name, "entry": entry_value(each.entry)} for each in found]
        print_json("find/1", {"found": values, "unknown": problems})
    else:
        matched = False
        for each in found:
            matched = True
            echo(f"{each.name}  {_shown(each.entry)}")
        if not matched:
            message(f"no published image contains {pattern!r}")


def _shown(entry: Entry) -> str:
    return printable(entry.path) or "."
