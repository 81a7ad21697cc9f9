"""`publisher adopt`."""

from __future__ import annotations

from dataclasses import asdict

import click

from publisher.cli.failures import DONE, SOME_FAILED
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, quiet_option, repository_option, wait_option
from publisher.cli.rendering import echo, print_json
from publisher.cli.repositories import open_repository
from publisher.cli.sources import open_sources, source_options
from publisher.errors import printable
from publisher.sizes import plural
from publisher.times import utc_now
from publisher.verify.adopt import AdoptionStatus, adopt


@click.command("adopt")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@repository_option
@wait_option
@source_options
@quiet_option
@output_option
@log_options
def adopt_command(
    dry_run: bool,
    repository: str | None,
    wait: float,
    quiet: bool,
    output: str,
    **source_settings: str | None,
) -> int:
    """Take over a repository that DUCC filled: layers and flat images stay and are used.

    For each image the exact manifest and the config are fetched from its registry, but no layer.
    All records are written in one transaction. Images that cannot be adopted stay as they are and
    are named. Afterwards, `publisher verify --repair` creates the indexes of layers.

    \b
    publisher adopt --dry-run --repository cvmfs:unpacked.example.org
    publisher adopt --repository cvmfs:unpacked.example.org
    """
    opened = open_repository(repository, writable=not dry_run, wait=wait)
    try:
        with open_sources(source_settings) as sources:
            report = adopt(opened, sources, utc_now, dry_run=dry_run)
    finally:
        opened.close()
    kept = [image for image in report.images if image.status is AdoptionStatus.KEPT]
    if output == "json":
        print_json("adopt/1", {"dryRun": dry_run, **_value(asdict(report))})
    else:
        for image in report.images:
            if image.status is AdoptionStatus.KEPT or not quiet:
                echo(
                    f"{image.status:8} {printable(image.name)}  {image.why}",
                    err=image.status is AdoptionStatus.KEPT,
                )
        would = "would write" if dry_run else "wrote"
        echo(f"{would} {plural(report.records, 'record')} in one transaction")
        if report.layers_without_index:
            echo(
                f"{plural(report.layers_without_index, 'layer')} without an index: "
                "publisher verify --repair creates them"
            )
    return SOME_FAILED if kept else DONE


def _value(report: dict[str, object]) -> dict[str, object]:
    report["layersWithoutIndex"] = report.pop("layers_without_index")
    return report
