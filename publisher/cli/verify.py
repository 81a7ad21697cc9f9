"""`publisher verify`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

import click

from publisher.cli.events import verify_problems
from publisher.cli.failures import DONE, SOME_FAILED, UsageError
from publisher.cli.logs import log_options
from publisher.cli.metrics import MetricsFile, metrics_option, verify_updates
from publisher.cli.notifications import Notifier, notify_option
from publisher.cli.options import output_option, quiet_option, repository_option, wait_option
from publisher.cli.recorded_run import RecordedRun, Result
from publisher.cli.rendering import echo, message, print_json
from publisher.cli.repositories import open_repository
from publisher.cli.sources import open_sources, source_options
from publisher.cli.workers import open_workers, workers_option
from publisher.errors import printable
from publisher.layers.policy import Policy
from publisher.repository import Repository
from publisher.repository.settings import load_policy
from publisher.sizes import plural
from publisher.verify.findings import Finding, Kind, Remedy, Severity, is_wanted
from publisher.verify.outcome import Repaired
from publisher.verify.run import Report
from publisher.verify.run import verify as run_verify
from publisher.workers.pool import Workers


@click.command()
@click.option("--deep", is_flag=True, help="Read all contents, and compare them with the indexes.")
@click.option(
    "--repair",
    is_flag=True,
    help="Repair what can be derived: links, records, flat images, missing indexes.",
)
@click.option("--refetch", is_flag=True, help="Also download what is damaged or missing.")
@click.option(
    "--replace-newer",
    is_flag=True,
    help="Also rebuild records that a newer release wrote, if you have no such release.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be repaired, and change nothing.")
@repository_option
@workers_option
@wait_option
@source_options
@metrics_option
@notify_option
@quiet_option
@output_option
@log_options
def verify(
    deep: bool,
    repair: bool,
    refetch: bool,
    replace_newer: bool,
    dry_run: bool,
    repository: str | None,
    workers: int | None,
    wait: float,
    metrics_file: MetricsFile,
    notify: str | None,
    quiet: bool,
    output: str,
    **source_settings: str | None,
) -> int:
    """Compare everything published with its records: links, layers, flat images.

    Ends with 0 if the repository is sound, with 1 if a finding needs a repair. Notes describe
    harmless differences. Nothing is deleted, and without --repair or --refetch nothing is changed.

    \b
    publisher verify --repository dir:/srv/images
    publisher verify --deep --repair --refetch
    """
    if replace_newer and not (repair or refetch):
        raise UsageError("cannot use --replace-newer alone", hint="add --repair")
    # Without --deep, it is unknown whether what an earlier run found in the contents is repaired.
    scope = ("--deep",) if deep else ()
    run = RecordedRun(
        "verify",
        notifier=Notifier(notify),
        metrics=metrics_file,
        scope=scope,
        only_reads=not (repair or refetch),
    )
    with run, open_workers(workers) as opened:
        run.begin(repository)
        progress = None if quiet else _print_progress
        report = run_verify(
            open_repository(repository), deep=deep, progress=progress, processes=opened.count
        )
        wanted = [
            finding
            for finding in report.findings
            if ((repair or refetch) and is_wanted(finding, refetch))
            or (replace_newer and finding.kind is Kind.FUTURE_VERSION)
        ]
        repaired = Repaired()
        if wanted and not dry_run:
            repaired, report = _repair(
                report,
                open_repository(repository, writable=True, wait=wait, workers=opened),
                source_settings if refetch else None,
                opened,
                progress,
                replace_newer,
            )
        if output == "json":
            print_json("verify/1", _value(report, repaired))
        else:
            _print(report, repaired, quiet)
            for finding in wanted if dry_run else ():
                does = finding.remedy if finding.remedy is not Remedy.NONE else "replace"
                echo(f"would {does}: {finding.path}")
        run.exit_code = DONE if report.sound else SOME_FAILED
        run.notify(repository, (), verify_problems(report))
        counts = Counter(str(finding.severity) for finding in report.findings)
        counts["repaired"] = len(repaired.findings)
        run.done(repository, Result(counts), partial(verify_updates, report=report))
        return run.exit_code


def _repair(
    report: Report,
    repository: Repository,
    source_settings: Mapping[str, str | None] | None,
    workers: Workers,
    progress: Callable[[str], None] | None,
    replace_newer: bool,
) -> tuple[Repaired, Report]:
    """Repair what was found, and close the repository; without settings, download nothing."""
    from publisher.verify.repair import repair  # it loads what publishes

    with ExitStack() as stack:
        stack.callback(repository.close)
        sources = None
        policy = Policy()
        if source_settings is not None:
            sources = stack.enter_context(open_sources(source_settings))
            policy = load_policy(repository)
        return repair(
            repository,
            report,
            sources,
            policy,
            progress,
            workers=workers,
            replace_newer=replace_newer,
        )


def _print_progress(what: str) -> None:
    echo(what, err=True)


def _value(report: Report, repaired: Repaired) -> dict[str, object]:
    return {
        "sound": report.sound,
        "deep": report.deep,
        "images": report.images,
        "layers": report.layers,
        "flatImages": report.flat_images,
        "findings": [_finding_value(finding) for finding in report.findings],
        "repaired": [_finding_value(finding) for finding in repaired.findings],
        "failures": [
            {"finding": _finding_value(failure.finding), "why": failure.why, "hint": failure.hint}
            for failure in repaired.failures
        ],
    }


def _finding_value(finding: Finding) -> dict[str, str]:
    return {
        "severity": finding.severity,
        "kind": finding.kind,
        "path": finding.path,
        "what": finding.what,
        "remedy": finding.remedy,
        "how": finding.how,
        "image": finding.image,
    }


def _print(report: Report, repaired: Repaired, quiet: bool) -> None:
    for finding in repaired.findings:
        if not quiet:
            echo(f"repaired: {finding.kind}: {printable(finding.path)}")
    for finding in report.findings:
        if not quiet or finding.severity is not Severity.NOTE:
            echo(_describe(finding, report.deep))
    for failure in repaired.failures:
        message(f"cannot repair {failure.finding.path}: {failure.why}", prefix="")
        if failure.hint:
            message(f"    try: {failure.hint}", prefix="")
    if quiet:
        return
    counts = [
        plural(sum(finding.severity is severity for finding in report.findings), severity)
        for severity in Severity
    ]
    looked = f"{plural(report.images, 'image')}, {plural(report.layers, 'layer')}"
    contents = "contents read" if report.deep else "contents not read (--deep reads them)"
    echo(f"{looked}, {contents}: {', '.join(counts)}")


def _describe(finding: Finding, deep: bool) -> str:
    text = f"{finding.severity}: {finding.kind}: {printable(finding.path) or '.'}: {finding.what}"
    if finding.image and finding.image not in finding.path:
        text += f"\n    image: {finding.image}"
    if finding.remedy is not Remedy.NONE:
        text += f"\n    try: publisher verify {'--deep ' if deep else ''}--{finding.remedy}"
    if finding.how:
        text += f"\n    try: {finding.how}"
    return text
