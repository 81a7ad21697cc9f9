"""`publisher runs`."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from publisher.browse.values import run_value
from publisher.cli.failures import DONE, OTHER_RUN
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, repository_option
from publisher.cli.rendering import echo, message, print_json
from publisher.cli.state import open_state
from publisher.errors import printable
from publisher.sizes import human_size
from publisher.state import RunRecord
from publisher.times import format_time

RECORDED = ("doctor", "gc", "ingest", "ingest-image", "prune", "verify")
"""The commands whose runs are recorded."""


@click.command()
@click.argument("commands", nargs=-1, metavar="[COMMAND]...", type=click.Choice(RECORDED))
@click.option("--failed", is_flag=True, help="Show only runs that did not end with 0, or with 5.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many runs to show, the latest first.",
)
@repository_option
@output_option
@log_options
def runs(
    commands: tuple[str, ...], failed: bool, limit: int, repository: str | None, output: str
) -> int:
    """Show the runs that this machine recorded: when, with which exit code, what they did.

    The runs of ingest, ingest-image, prune, gc, verify and doctor are recorded, also those that
    changed nothing or failed: see docs/administration.md. COMMAND selects some of them. The
    repository is not read, so that it may be unusable.

    \b
    publisher runs --repository dir:/srv/images
    publisher runs --failed prune gc --repository dir:/srv/images
    publisher runs --output json | jq -r '.runs[] | select(.exitCode == 3) | .error'
    """
    with open_state(repository) as state:
        is_known = os.path.exists(state.path)
        found = [
            run
            for run in state.runs()
            if (not commands or run.command in commands)
            and not (failed and run.exit_code in (DONE, OTHER_RUN))
        ][:limit]
    if output == "json":
        values = [run_value(run) | _details(run) for run in found]
        print_json("runs/1", {"runs": values, "hasState": is_known})
        return DONE
    width = max((len(run.command) for run in found), default=0)
    for run in found:
        echo(f"{format_time(run.ended)}  {run.command:{width}}  {_describe(run)}")
    if not is_known:
        message("this machine has no state of a run")
    elif not found:
        message("no run is selected")
    return DONE


def _describe(run: RunRecord) -> str:
    """Return how a run ended, what it did, and for which lists, in one line."""
    seconds = (run.ended - run.started).total_seconds()
    parts = [f"{run.exit_code:3}  {seconds:5.0f} s  {_counts(run)}".rstrip()]
    if run.bytes_fetched:
        parts.append(f"{human_size(run.bytes_fetched)} fetched")
    if run.error:
        parts.append(run.error)
    if run.lists:
        parts.append(f"of {', '.join(run.lists)}")
    return printable("; ".join(parts))


def _counts(run: RunRecord) -> str:
    words = {"waiting": "still scheduled"} if run.command == "gc" else {}
    return ", ".join(f"{count} {words.get(what, what)}" for what, count in run.counts.items())


def _details(run: RunRecord) -> dict[str, object]:
    return {
        "startedAt": format_time(run.started),
        "lists": [printable(each) for each in run.lists],
        "counts": dict(run.counts),
        "bytesFetched": run.bytes_fetched,
        "steps": {step: round(seconds, 3) for step, seconds in run.seconds.items()},
    }


def describe_last(runs: Sequence[RunRecord]) -> list[str]:
    """Return a line about the last run, and about the last run of each command if it failed."""
    return [
        f"last run: {run.command}, ended {format_time(run.ended)} with code {run.exit_code}"
        + (f": {run.error}" if run.error else "")
        for number, run in enumerate(runs)
        if number == 0 or run.exit_code not in (DONE, OTHER_RUN)
    ]
