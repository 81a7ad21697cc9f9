"""`publisher ingest-image`."""

from __future__ import annotations

import click

from publisher.cli.ingest_output import render
from publisher.cli.ingest_run import (
    IngestOptions,
    no_dry_run,
    no_progress_option,
    publish,
    result_of,
    verify_option,
)
from publisher.cli.logs import log_options
from publisher.cli.options import (
    jobs_option,
    output_option,
    platform_option,
    quiet_option,
    repository_option,
    wait_option,
)
from publisher.cli.policies import admission_for, prefix_option
from publisher.cli.quotas import QuotaOptions, quota_options
from publisher.cli.recorded_run import RecordedRun
from publisher.cli.sources import source_options
from publisher.cli.workers import workers_option
from publisher.sources.wish_lists import project_identity
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request


@click.command("ingest-image")
@click.argument("reference")
@platform_option(default=("linux/amd64",))
@click.option("--name", help="The name of an image that does not come from a registry.")
@prefix_option
@quota_options
@click.option("--dry-run", is_flag=True, hidden=True)
@repository_option
@jobs_option
@workers_option
@wait_option
@verify_option
@source_options
@no_progress_option
@quiet_option
@output_option
@log_options
def ingest_image(
    reference: str,
    platforms: tuple[str, ...],
    name: str | None,
    prefix: str,
    project: str,
    quota_images: int | None,
    quota_bytes: int | None,
    quota_lists: tuple[str, ...],
    dry_run: bool,
    repository: str | None,
    jobs: int,
    workers: int | None,
    wait: float,
    verify_publish: bool,
    no_progress: bool,
    quiet: bool,
    output: str,
    **source_settings: str | None,
) -> int:
    """Publish one image, without a wish list.

    REFERENCE is HOST/PATH/NAME:TAG, or oci:DIRECTORY:TAG for an OCI image layout. Of several
    platforms the first is public at the plain path, and each of them below .multiarch/.

    \b
    publisher ingest-image docker.io/library/debian:stable --repository dir:/srv/images
    publisher ingest-image oci:./layout:v1 --name tools --repository dir:/srv/images
    """
    if dry_run:
        where = ("--repository", repository) if repository else ()
        raise no_dry_run("ingest-image", "inspect", reference, *where)
    identity = project_identity(project) if project else ""
    with RecordedRun("ingest-image") as run:
        requests = [Request(wish_for(reference, platforms=platforms, name=name), identity)]
        options = IngestOptions(
            jobs=jobs,
            workers=workers,
            wait=wait,
            verify_publish=verify_publish,
            progress=not (quiet or no_progress),
            sources=source_settings,
            admission=admission_for(None, prefix, requests),
            quota=QuotaOptions.of(project, quota_images, quota_bytes, quota_lists, (identity,)),
            retry_failed=True,
        )
        report = publish(requests, repository, options, run.state(repository))
        run.done(repository, result_of(report, (), {}))
        run.exit_code = render(report, quiet, output)
        return run.exit_code
