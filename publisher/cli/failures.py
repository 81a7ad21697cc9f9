"""How commands end: exit codes, error messages, interruption."""

from __future__ import annotations

import errno
import itertools
import json
import signal
import sys

import click

from publisher.cli.streams import prepare_streams
from publisher.errors import InvalidReference, PublisherError
from publisher.repository import RepositoryError
from publisher.tree.record import InvalidRecord
from publisher.wishlist import WishListError

DONE = 0
SOME_FAILED = 1
USAGE = 2
REPOSITORY_UNUSABLE = 3
INTERRUPTED = 130

EXIT_CODES_HELP = """\b
Exit codes:
  0    all done
  1    some images failed, each named with its cause
  2    wrong usage, or a wish list with errors
  3    the repository is busy or unusable
  130  interrupted; the next run goes on from there
"""


def exit_code(error: PublisherError) -> int:
    """The documented exit code for an error that ended the whole command."""
    if isinstance(error, RepositoryError | InvalidRecord):
        return REPOSITORY_UNUSABLE
    if isinstance(error, WishListError | InvalidReference | UsageError):
        return USAGE
    return SOME_FAILED


class UsageError(PublisherError):
    """The command line, or a file it names, asks for something that cannot be."""


def run_reporting_failures(command: click.Command) -> int:
    """Run `command` with the process' arguments; turn what it raises into a message and a code."""
    prepare_streams()
    # As SIGINT does: whoever has nothing to do first ends by this exception, with our exit code.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("publisher: interrupted; the next run goes on from there", err=True)
        return INTERRUPTED
    except PublisherError as error:
        _report(error)
        return exit_code(error)
    except OSError as error:
        why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "make a little room (100 kB); then `publisher gc` makes more" if full else ""
        _report(PublisherError("cannot go on", why=why, hint=hint))
        return REPOSITORY_UNUSABLE
    return code if isinstance(code, int) else DONE


def _report(error: PublisherError) -> None:
    click.echo(f"publisher: {error.what}", err=True)
    if error.why:
        click.echo(f"  why: {error.why}", err=True)
    if error.hint:
        click.echo(f"  try: {error.hint}", err=True)
    if _wants_json():
        value = {"what": error.what, "why": error.why, "hint": error.hint}
        click.echo(json.dumps({"schema": "publisher/error/1", "error": value}, indent=1))


def _wants_json() -> bool:
    # The error may have come before the options were parsed into a context.
    arguments = sys.argv[1:]
    return "--output=json" in arguments or ("--output", "json") in itertools.pairwise(arguments)
