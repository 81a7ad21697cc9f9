"""The `publisher` command: parse options, call a use case, render its result. No logic here."""

from __future__ import annotations

import importlib
import os
import sys

import click

from publisher.cli.failures import EXIT_CODES_HELP, run_reporting_failures

_COMMANDS = {
    "adopt": "publisher.cli.adopt:adopt_command",
    "diff": "publisher.cli.contents:diff",
    "doctor": "publisher.cli.doctor:doctor",
    "find": "publisher.cli.contents:find",
    "ls": "publisher.cli.contents:ls",
    "check": "publisher.cli.check:check",
    "gc": "publisher.cli.gc:gc",
    "ingest": "publisher.cli.ingest:ingest",
    "ingest-image": "publisher.cli.ingest:ingest_image",
    "init": "publisher.cli.init:init",
    "inspect": "publisher.cli.inspect:inspect",
    "tags": "publisher.cli.inspect:tags",
    "login": "publisher.cli.login:login",
    "logout": "publisher.cli.login:logout",
    "list": "publisher.cli.images:list_command",
    "log": "publisher.cli.log:log",
    "plan": "publisher.cli.plan:plan",
    "pin": "publisher.cli.pin:pin",
    "prune": "publisher.cli.prune:prune",
    "remove": "publisher.cli.schedule:remove",
    "restore": "publisher.cli.schedule:restore",
    "schedule": "publisher.cli.schedule:schedule",
    "unpin": "publisher.cli.pin:unpin",
    "show": "publisher.cli.images:show",
    "modulefile": "publisher.cli.modulefile:modulefile",
    "run": "publisher.cli.run:run",
    "thin": "publisher.cli.thin:thin",
    "verify": "publisher.cli.verify:verify",
    "version": "publisher.cli.version:version",
    "completion": "publisher.cli.completion:completion",
}


class _LazyGroup(click.Group):
    """Imports a command's module when it is asked for, so that each starts without the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES_HELP,
)
def publisher() -> None:
    """Publish container images, unpacked, to a filesystem that many machines mount read-only.

    People ask for images in a wish list. `publisher check` says whether a list is sound, `publisher
    ingest` publishes what it wishes, `publisher list` and `publisher show` tell what is there.

    \b
    First steps:
      publisher check wishlist.yaml
      publisher ingest wishlist.yaml --repository dir:/srv/images
      publisher list --repository dir:/srv/images
    """


def _insist_on_utf_8() -> None:
    """Begin anew in Python's UTF-8 mode where the locale would have file names spelled otherwise.

    A name in a layer is bytes, and has to become the same bytes in a tree, whoever publishes it.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONUTF8": "1"})


def main() -> None:
    """Run the command line, and exit with one of the documented codes."""
    _insist_on_utf_8()
    sys.exit(run_reporting_failures(publisher))
