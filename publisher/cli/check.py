"""`publisher check`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import click

from publisher.cli.check_annotations import github, gitlab, sarif
from publisher.cli.check_comment import markdown
from publisher.cli.check_text import json_document, text
from publisher.cli.failures import DONE, SOME_FAILED, USAGE, UsageError
from publisher.cli.files import write_report
from publisher.cli.logs import log_options
from publisher.cli.options import (
    allow_local_option,
    jobs_option,
    quiet_option,
    repository_option,
    wish_lists_argument,
)
from publisher.cli.policies import policy_option, prefix_option, read_policy, signatures_for
from publisher.cli.rendering import print_as_it_is
from publisher.cli.repositories import open_repository
from publisher.cli.sources import load_settings, open_sources, source_options
from publisher.cli.wishlists import may_name_local, read_document
from publisher.errors import PublisherError, explain
from publisher.ingest.check import Report
from publisher.ingest.check import check as run_check
from publisher.ingest.check_image import Target
from publisher.ingest.findings import Level
from publisher.repository.settings import load_policy
from publisher.sources.revisions import EarlierList, earlier_list
from publisher.times import utc_now

FORMS: Mapping[str, Callable[[Report], str]] = {
    "text": text,
    "json": json_document,
    "github": github,
    "gitlab": gitlab,
    "sarif": sarif,
    "markdown": markdown,
}
"""The forms of the result."""


@click.command()
@wish_lists_argument
@click.option(
    "--base",
    metavar="REVISION|FILE",
    help="Look up only the wishes that were added or altered since this git revision, or this "
    "earlier version of the list. What was wrong before is a note, and not a failure.",
)
@click.option(
    "--all",
    "check_all",
    is_flag=True,
    help="With --base: look up the unchanged wishes too, and report those that fail as notes, with "
    "their owners.",
)
@policy_option
@prefix_option
@click.option(
    "--changed-by",
    "user",
    metavar="USER",
    help="With --base and --policy: the user who made the change. The policy may restrict which "
    "owners' wishes a user may change.",
)
@click.option(
    "--offline", is_flag=True, help="Check the lists only, without requests to registries."
)
@repository_option
@jobs_option
@source_options
@allow_local_option
@quiet_option
@click.option(
    "--output",
    type=click.Choice(list(FORMS)),
    default="text",
    show_default=True,
    help="How to print the result: json is documented in docs/output.md, the others annotate "
    "lines or comment on a pull request, see docs/pull-requests.md.",
)
@click.option(
    "--report",
    "reports",
    multiple=True,
    metavar="FORM=FILE",
    help="Write the result to a file as well, in a form of --output; may be given several times.",
)
@log_options
def check(
    wishlists: tuple[str, ...],
    base: str | None,
    check_all: bool,
    policy: str | None,
    prefix: str,
    user: str | None,
    offline: bool,
    allow_local: bool,
    repository: str | None,
    jobs: int,
    quiet: bool,
    output: str,
    reports: tuple[str, ...],
    **source_settings: str | None,
) -> int:
    """Find the errors in the wish lists WISHLIST... ("-" reads standard input).

    Nothing is published, fetched or changed. Every error is printed with its place and with what to
    write instead. Then each image is looked up in its registry, for the platforms of the wish,
    unless --offline is given. The limits for sizes are those of the repository, if it is readable
    here, and so is the part of each image that is not published yet.

    With --base, only what a change adds or alters is looked up, which suits pull requests: see
    docs/pull-requests.md.

    \b
    publisher check wishlist.yaml
    publisher check --offline lists/*.yaml
    publisher check wishlist.yaml --base origin/main
    publisher check lists/*.yaml --base origin/main --output github --report markdown=comment.md
    """
    files = _report_files(reports)
    if user is not None and (base is None or policy is None):
        raise UsageError(
            "--changed-by has no effect alone",
            why="a policy decides whether a user may make a change",
            hint="give --policy FILE and --base REVISION as well",
        )
    rules = read_policy(policy)
    signatures = signatures_for(rules)
    settings = load_settings(source_settings)
    documents = [(path, read_document(path, settings)) for path in wishlists]
    bases = _bases(wishlists, base)
    with ExitStack() as stack:
        sources = None if offline else stack.enter_context(open_sources(source_settings))
        report = run_check(
            documents,
            sources,
            repository=repository,
            target_of=lambda url: stack.enter_context(_target(url)),
            untrusted=[path for path in wishlists if not may_name_local(path, allow_local)],
            today=utc_now().date(),
            jobs=jobs,
            bases=bases,
            check_all=check_all,
            policy=rules,
            signatures=signatures,
            user=user,
            prefix=prefix,
        )
    for path, form in files.items():
        write_report(path, FORMS[form](report))
    print_as_it_is(text(report, quiet) if output == "text" else FORMS[output](report))
    if report.errors:
        return USAGE
    return SOME_FAILED if report.has(Level.ERROR) else DONE


def _report_files(reports: Sequence[str]) -> dict[str, str]:
    """Return the form of each file that --report names."""
    files = {}
    for each in reports:
        form, equals, path = each.partition("=")
        if form not in FORMS or not equals or not path:
            raise UsageError(
                f"cannot use --report {each}",
                why=f"it is not FORM=FILE with one of the forms {', '.join(FORMS)}",
                hint="write for example --report markdown=comment.md",
            )
        files[path] = form
    return files


def _bases(wishlists: Sequence[str], base: str | None) -> dict[str, EarlierList]:
    """Return the earlier versions of the lists, by name; none without --base."""
    if base is None:
        return {}
    bases = {path: earlier_list(path, base) for path in wishlists}
    if len(wishlists) > 1 and any(each.is_file for each in bases.values()):
        raise UsageError(
            f"cannot compare {len(wishlists)} lists with the file {base}",
            why="it is the earlier version of one list",
            hint="check one list at a time, or give a git revision",
        )
    return bases


@contextmanager
def _target(url: str | None) -> Iterator[Target]:
    """Yield what is known of a repository: the default limits where it is not readable here."""
    if not url:
        yield Target()
        return
    try:
        opened = open_repository(url, may_be_new=True)
    except (PublisherError, OSError) as error:
        yield Target(problem=explain(error).why)
        return
    try:
        try:
            target = Target(load_policy(opened).limits, opened)
        except (PublisherError, OSError) as error:
            target = Target(problem=explain(error).why)
        yield target
    finally:
        opened.close()
