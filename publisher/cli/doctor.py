"""`publisher doctor`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import click

from publisher.cli.events import doctor_problems
from publisher.cli.failures import DONE, SOME_FAILED
from publisher.cli.logs import log_options
from publisher.cli.metrics import MetricsFile, metrics_option, run_updates
from publisher.cli.notifications import Notifier, notify_option
from publisher.cli.options import output_option, quiet_option, repository_option
from publisher.cli.recorded_run import RecordedRun, Result
from publisher.cli.rendering import echo, print_json
from publisher.cli.repositories import open_repository
from publisher.cli.sources import open_sources, source_options
from publisher.repository import RepositoryError
from publisher.repository.checks import Check, Verdict
from publisher.sizes import plural
from publisher.verify.doctor import ask_registries, examine

_SIGNS = {Verdict.GOOD: "ok", Verdict.WARNING: "warning", Verdict.PROBLEM: "PROBLEM"}


@click.command()
@click.argument("registries", nargs=-1, metavar="[REGISTRY]...")
@repository_option
@source_options
@metrics_option
@notify_option
@quiet_option
@output_option
@log_options
def doctor(
    registries: tuple[str, ...],
    repository: str | None,
    metrics_file: MetricsFile,
    notify: str | None,
    quiet: bool,
    output: str,
    **source_settings: str | None,
) -> int:
    """Check that this machine can publish to the repository and reach each REGISTRY.

    Changes nothing. Each problem comes with a remedy; --quiet hides successful checks. Ends with 1
    if there is a problem.

    \b
    publisher doctor --repository cvmfs:images.example.org docker.io registry.example.org
    publisher doctor --repository dir:/srv/images --output json
    """
    run = RecordedRun(
        "doctor",
        notifier=Notifier(notify),
        metrics=metrics_file,
        scope=registries,
        only_reads=True,
    )
    with run:
        checks: list[Check] = []
        if repository:
            run.begin(repository)
            checks += _examine(repository)
        if registries:
            with open_sources(source_settings) as sources:
                checks += ask_registries(registries, sources)
        if not checks:
            raise click.UsageError("name a repository with --repository, or a registry")
        _render(checks, quiet, output)
        counts = Counter(str(check.verdict) for check in checks)
        good = not counts[Verdict.PROBLEM]
        run.exit_code = DONE if good else SOME_FAILED
        run.notify(repository, (), doctor_problems(checks))
        if repository:
            updates = partial(run_updates, command="doctor", lists={"": good})
            run.done(repository, Result(counts), updates)
        return run.exit_code


def _examine(url: str) -> list[Check]:
    try:
        opened = open_repository(url)
    except RepositoryError as error:
        return [Check(url, Verdict.PROBLEM, f"{error.what}: {error.why}", error.hint)]
    try:
        return list(examine(opened))
    finally:
        opened.close()


def _render(checks: Sequence[Check], quiet: bool, output: str) -> None:
    if output == "json":
        print_json("doctor/1", {"checks": [asdict(check) for check in checks]})
        return
    width = max(len(check.subject) for check in checks)
    for check in checks:
        if quiet and check.verdict is Verdict.GOOD:
            continue
        echo(f"{_SIGNS[check.verdict]:8} {check.subject:{width}}  {check.finding}")
        if check.cure:
            echo(f"{'':8} {'':{width}}  try: {check.cure}")
    bad = sum(check.verdict is Verdict.PROBLEM for check in checks)
    warnings = sum(check.verdict is Verdict.WARNING for check in checks)
    if not quiet:
        echo(f"{plural(bad, 'problem')}, {plural(warnings, 'warning')}")
