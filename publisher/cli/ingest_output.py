"""The result of an ingest: text or JSON, and the exit code."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.cli.failures import DONE, INTERRUPTED, REPOSITORY_UNUSABLE, SOME_FAILED, USAGE
from publisher.cli.rendering import echo, failed_line, print_json
from publisher.errors import printable
from publisher.ingest.lists import Part
from publisher.ingest.report import Outcome, Report, Status, failed_report, joined_reports
from publisher.sizes import human_size, plural
from publisher.times import format_time


def render_parts(parts: Sequence[Part], new_failures: bool, quiet: bool, output: str) -> int:
    """Print the result of an ingest, and return the exit code.

    An error that ended it is in the JSON document only; as text, the caller prints it once.
    """
    reports = [part.report for part in parts]
    if output == "json":
        reports += [failed_report(each.unfinished, each.error) for each in parts if each.error]
    report = joined_reports(reports)
    code = render(report, quiet, output, new_failures=new_failures)
    return code if all(part.is_usable for part in parts) else REPOSITORY_UNUSABLE


def render(report: Report, quiet: bool, output: str, *, new_failures: bool = False) -> int:
    """Print a report, and return the exit code.

    With `new_failures`, only failures of images that are new count, and are printed. A list that
    cannot be read always counts, and is not printed only with `quiet`.
    """
    if output == "json":
        print_json(
            "ingest/1",
            {
                "outcomes": [_outcome_value(outcome) for outcome in report.outcomes],
                "seconds": round(report.seconds, 3),
                "interrupted": report.interrupted,
            },
        )
    else:
        lists = () if quiet else report.of_lists
        printed = (each for each in report.failed if each in lists or each.is_new_failure)
        _print_summary(report, list(printed) if new_failures else report.failed, quiet)
    return code_of(report, new_failures)


def code_of(report: Report, new_failures: bool) -> int:
    """Return the exit code of an ingest; with `new_failures`, only new failures count."""
    if report.interrupted:
        return INTERRUPTED
    if report.of_lists:
        return USAGE
    failed = any(each.is_new_failure or not new_failures for each in report.failed)
    return SOME_FAILED if failed else DONE


def _outcome_value(outcome: Outcome) -> dict[str, object]:
    return {
        "name": outcome.name,
        "reference": outcome.reference,
        "status": str(outcome.status),
        "wishList": outcome.wish_list,
        "line": outcome.line,
        "column": outcome.column,
        "digest": outcome.digest,
        "layersFetched": outcome.layers_fetched,
        "layersReused": outcome.layers_reused,
        "bytesFetched": outcome.bytes_fetched,
        "dropped": outcome.dropped or {},
        "error": outcome.error,
        "remark": outcome.remark,
        "cause": outcome.cause,
        "failingSince": outcome.failing_since and format_time(outcome.failing_since),
        "nextTry": outcome.next_try and format_time(outcome.next_try),
        "news": outcome.news and str(outcome.news),
    }


def _print_summary(report: Report, failed: Sequence[Outcome], quiet: bool) -> None:
    if not quiet:
        for outcome in report.outcomes:
            if outcome.status not in (Status.UNCHANGED, Status.WAITING, Status.FAILED):
                echo(_describe(outcome))
        counts = [
            f"{report.count(status)} {status}" for status in Status if report.count(status)
        ] or [_nothing(report)]
        echo(f"{', '.join(counts)} in {report.seconds:.1f} s")
    for outcome in failed:
        place = outcome.wish_list, outcome.line, outcome.column
        status = "waiting" if outcome.status is Status.WAITING else "failed"
        error = outcome.error + _put_off_text(outcome)
        echo(failed_line(outcome.name, error, *place, status=status), err=True)
    if report.interrupted:
        echo("publisher: interrupted; the next run goes on from there", err=True)


def _nothing(report: Report) -> str:
    """Return why a report has no outcomes."""
    if report.interrupted:
        return "nothing done"
    return "nothing selected" if report.is_partial else "nothing requested"


def _put_off_text(outcome: Outcome) -> str:
    """Return since when an image fails, and when it is tried again, if it is put off."""
    if outcome.status is not Status.WAITING or not (outcome.failing_since and outcome.next_try):
        return ""
    since, at = format_time(outcome.failing_since), format_time(outcome.next_try)
    return f" (failing since {since}, next try at {at}, or now with --retry-failed)"


def _describe(outcome: Outcome) -> str:
    text = (
        f"{outcome.status}: {outcome.name}  {plural(outcome.layers_fetched, 'layer')} fetched "
        f"({human_size(outcome.bytes_fetched)}), {outcome.layers_reused} already stored"
    )
    if outcome.dropped:
        dropped = ", ".join(f"{what} {count}x" for what, count in sorted(outcome.dropped.items()))
        text += f"\n  dropped by policy: {printable(dropped)}"
    return text
