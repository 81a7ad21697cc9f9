"""`publisher packages`: what the package managers in an image have installed."""

from __future__ import annotations

import fnmatch

import click

from publisher.browse.packages import image_packages
from publisher.browse.values import packages_value
from publisher.cli.failures import DONE, SOME_FAILED
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, repository_option
from publisher.cli.published_names import complete_images
from publisher.cli.rendering import message, print_json
from publisher.cli.repositories import open_repository
from publisher.cli.tables import print_aligned
from publisher.errors import printable, shorten
from publisher.packages.model import PACKAGE_TYPES, InstalledPackage
from publisher.repository.image_packages import ImagePackages
from publisher.sizes import plural


@click.command()
@click.argument("image", shell_complete=complete_images)
@click.option(
    "--type",
    "types",
    type=click.Choice(PACKAGE_TYPES),
    multiple=True,
    help="Only packages of this type; may be repeated.",
)
@click.option("--name", default="*", help="Only packages whose names match this glob.")
@repository_option
@output_option
@log_options
def packages(
    image: str, types: tuple[str, ...], name: str, repository: str | None, output: str
) -> int:
    """List the packages in a published IMAGE, from the databases of its package managers.

    These are the databases of dpkg (deb), apk and rpm, and the metadata of installed packages of
    Python (pypi), Conda, R (cran) and npm, the last only where npm installs globally. Files that
    other layers of the image replace or delete do not count. Exits with 1 if a database was
    skipped.

    \b
    publisher packages docker.io/library/debian:stable
    publisher packages quay.io/team/tool:1 --type pypi --name 'num*'
    """
    found = image_packages(open_repository(repository), image)
    shown = [
        each
        for each in found.packages
        if (not types or each.type in types) and fnmatch.fnmatchcase(each.package.name, name)
    ]
    if output == "json":
        print_json("packages/1", packages_value(found, shown))
    else:
        _print(found, shown)
    return SOME_FAILED if found.skipped else DONE


def _print(found: ImagePackages, shown: list[InstalledPackage]) -> None:
    rows = [
        (
            shorten(printable(each.package.name)),
            shorten(printable(each.package.version)),
            str(each.type),
            shorten(printable(each.package.architecture)),
        )
        for each in shown
    ]
    if rows:
        rows.insert(0, ("NAME", "VERSION", "TYPE", "ARCHITECTURE"))
    print_aligned(rows, figures=False)
    if not rows:
        kind = "matching packages" if found.packages else "packages"
        message(f"the databases of {found.name} list no {kind}")
    for each in found.skipped[:10]:
        message(f"skipped {each.path or 'a part of a layer'}: {each.why}")
    if len(found.skipped) > 10:
        message(f"skipped {plural(len(found.skipped) - 10, 'other database')}: --output json")
