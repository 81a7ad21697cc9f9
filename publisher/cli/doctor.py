"""`publisher doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from publisher.cli.failures import DONE, SOME_FAILED
from publisher.cli.logs import log_options
from publisher.cli.notifications import Notifier, doctor_problems, notify_option
from publisher.cli.options import output_option, quiet_option, repository_option
from publisher.cli.rendering import echo, plural, print_json
from publisher.cli.repositories import open_repository
from publisher.cli.sources import open_sources, source_options
from publisher.repository import RepositoryError
from publisher.repository.checks import Check, Verdict
from publisher.verify.doctor import ask_registries, examine

_SIGNS = {Verdict.GOOD: "ok", Verdict.WARNING: "warning", Verdict.PROBLEM: "PROBLEM"}


@click.command()
@click.argument("registries", nargs=-1, metavar="[REGISTRY]...")
@repository_option
@source_options
@notify_option
@quiet_option
@output_option
@log_options
def doctor(
    registries: tuple[str, ...],
    repository: str | None,
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
    notifier = Notifier(notify)
    checks: list[Check] = []
    if repository:
        checks += _examine(repository)
    if registries:
        with open_sources(source_settings) as sources:
            checks += ask_registries(registries, sources)
    if not checks:
        raise click.UsageError("name a repository with --repository, or a registry")
    _render(checks, quiet, output)
    notifier.send(repository, "doctor", (), problems=doctor_problems(checks), scope=registries)
    return SOME_FAILED if any(c.verdict is Verdict.PROBLEM for c in checks) else DONE


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
