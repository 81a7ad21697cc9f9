"""How commands end: exit codes, error messages, interruption."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import signal
import sys

import click

from publisher.cli.streams import STANDARD_OUTPUT, prepare_streams
from publisher.errors import PublisherError, explain, is_process_limit
from publisher.log_context import event

DONE = 0
SOME_FAILED = 1
USAGE = 2
REPOSITORY_UNUSABLE = 3
CHANGES_PENDING = 4
OTHER_RUN = 5
TIMED_OUT = 6
INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT, as shells report it

EXIT_CODES_HELP = """\b
Exit codes:
  0    all done
  1    some images failed, each named with its cause
  2    wrong usage, or a wish list with errors
  3    the repository is busy or unusable
  4    plan --detailed-exitcode, fmt --check: something would change
  5    ingest: another run is at work on the same list
  6    wait: the time is over
  70   unexpected error: a defect of the publisher
  130  interrupted; the next run goes on from there
"""

_CODES = {
    "publisher.repository.errors.RepositoryError": REPOSITORY_UNUSABLE,
    "publisher.tree.record.InvalidRecord": REPOSITORY_UNUSABLE,
    "publisher.state.overlap.OtherRun": OTHER_RUN,
    "publisher.wishlist.model.WishListError": USAGE,
    "publisher.policy.model.InvalidPolicy": USAGE,
    "publisher.notify.model.InvalidNotifications": USAGE,
    "publisher.service.configuration.InvalidServiceConfiguration": USAGE,
    "publisher.errors.InvalidReference": USAGE,
    "publisher.cli.failures.UsageError": USAGE,
}
"""The codes of errors and of those derived from them, by the names of their classes.

The names, since most commands need few of these modules, and loading them takes long.
"""

_LOG = logging.getLogger(__name__)


def exit_code(error: PublisherError) -> int:
    """Return the documented exit code for an error that ended the whole command."""
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return next((_CODES[name] for name in names if name in _CODES), SOME_FAILED)


def code_of(error: BaseException) -> int:
    """Return the documented exit code for any exception that ended a command."""
    if isinstance(error, PublisherError):
        return exit_code(error)
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return INTERRUPTED
    is_of_system = isinstance(error, OSError) or is_process_limit(error)
    return REPOSITORY_UNUSABLE if is_of_system else INTERNAL_ERROR


class UsageError(PublisherError):
    """The command line, or a file that it names, requests something impossible."""


def run_reporting_failures(command: click.Command) -> int:
    """Run `command` with the process' arguments; return the exit code.

    Whatever the command raises becomes a message on stderr. A traceback is printed with --debug
    only.
    """
    prepare_streams()
    code = _code_of_run(command)
    _LOG.info("the command ends with %d", code, extra=event("command-ended", exitCode=code))
    return code


def _code_of_run(command: click.Command) -> int:
    # Like SIGINT, SIGTERM raises KeyboardInterrupt unless the command handles both itself.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = command.main(prog_name="publisher", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return code_of(error)
    except (click.Abort, KeyboardInterrupt) as error:
        click.echo("publisher: interrupted; the next run goes on from there", err=True)
        return code_of(error)
    except PublisherError as error:
        _LOG.debug("the command ended with an error", exc_info=True)
        _report(error)
        return code_of(error)
    except OSError as error:
        _LOG.debug("the command ended with a system error", exc_info=True)
        explained = explain(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            explained.hint = (
                "free space on the file system of the output, or write to another one"
                if error.filename == STANDARD_OUTPUT
                else "free 100 kB on that file system; `publisher gc` then frees more"
            )
        _report(explained)
        return code_of(error)
    except Exception as error:  # noqa: BLE001 - the last resort: no user sees a traceback
        _LOG.debug("the command ended with an unexpected error", exc_info=True)
        _report(explain(error) if is_process_limit(error) else _unexpected(error))
        return code_of(error)
    return code if isinstance(code, int) else DONE


def _unexpected(error: Exception) -> PublisherError:
    cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return PublisherError(
        "cannot complete the command",
        why=f"unexpected error: {cause}",
        hint="run the command again with --debug, and report its output as a defect",
    )


def _report(error: PublisherError) -> None:
    if logging.getLogger().handlers:  # without any, Python would print the record
        data = event("command-failed", what=error.what, why=error.why, hint=error.hint)
        _LOG.error("%s", error, extra=data)
    print_error(error)
    if _json_is_requested():
        from publisher.error_values import error_value

        click.echo(
            json.dumps({"schema": "publisher/error/1", "error": error_value(error)}, indent=1)
        )


def print_error(error: PublisherError) -> None:
    """Print an error to stderr, as at the end of a command."""
    click.echo(f"publisher: {error.what}", err=True)
    if error.why:
        click.echo(f"  why: {error.why}", err=True)
    if error.hint:
        click.echo(f"  try: {error.hint}", err=True)


def _json_is_requested() -> bool:
    # The error may have come before the options were parsed into a context.
    arguments = sys.argv[1:]
    return "--output=json" in arguments or ("--output", "json") in itertools.pairwise(arguments)
