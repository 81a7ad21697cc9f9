"""`publisher sbom`: a bill of materials of an image."""

from __future__ import annotations

import click

from publisher.browse.sbom import image_subject
from publisher.cli.failures import DONE, SOME_FAILED, UsageError
from publisher.cli.logs import log_options
from publisher.cli.options import repository_option
from publisher.cli.published_names import complete_images
from publisher.cli.rendering import message, print_as_it_is
from publisher.cli.repositories import open_repository
from publisher.errors import install_hint
from publisher.sbom.subject import Subject
from publisher.sizes import plural

_FORMS = ("cyclonedx", "spdx")


@click.command()
@click.argument("image", shell_complete=complete_images)
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMS),
    default=_FORMS[0],
    show_default=True,
    help="CycloneDX 1.6, or SPDX 2.3, both in JSON.",
)
@repository_option
@log_options
def sbom(image: str, form: str, repository: str | None) -> int:
    """Print the bill of materials of a published IMAGE: its packages with their package URLs.

    The packages are those of `publisher packages`. The document of an image is always the same:
    its identifiers are derived from the image's name and digest, and its time is that of the image.
    Exits with 1 if a package database was skipped. Needs the extra `sbom`.

    \b
    publisher sbom docker.io/library/debian:stable > debian.cdx.json
    publisher sbom docker.io/library/debian:stable --format spdx > debian.spdx.json
    """
    subject, found = image_subject(open_repository(repository), image)
    print_as_it_is(_document(subject, form).decode())
    if found.skipped:
        message(f"{plural(len(found.skipped), 'package database')} skipped")
        message(f"try: publisher packages {found.name}", prefix="  ")
    return SOME_FAILED if found.skipped else DONE


def _document(subject: Subject, form: str) -> bytes:
    try:
        if form == "spdx":
            from publisher.sbom.spdx import spdx

            return spdx(subject)
        from publisher.sbom.cyclonedx import cyclonedx

        return cyclonedx(subject)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"cannot write the bill of materials of {subject.name}",
            why=f"the Python package {error.name} is missing",
            hint=install_hint("sbom"),
        ) from error
