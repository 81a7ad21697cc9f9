"""The `publisher` command: its commands by name, and how the process starts."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import click

from publisher.cli.failures import EXIT_CODES_HELP, run_reporting_failures

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_COMMANDS = {
    "adopt": "publisher.cli.adopt:adopt_command",
    "check": "publisher.cli.check:check",
    "completion": "publisher.cli.completion:completion",
    "diff": "publisher.cli.contents:diff",
    "doctor": "publisher.cli.doctor:doctor",
    "du": "publisher.cli.du:du",
    "expand": "publisher.cli.expand:expand",
    "export": "publisher.cli.export:export",
    "find": "publisher.cli.contents:find",
    "fmt": "publisher.cli.fmt:fmt",
    "gc": "publisher.cli.gc:gc",
    "harbor": "publisher.cli.harbor:harbor",
    "import": "publisher.cli.convert:import_command",
    "ingest": "publisher.cli.ingest:ingest",
    "ingest-image": "publisher.cli.ingest_image:ingest_image",
    "init": "publisher.cli.init:init",
    "inspect": "publisher.cli.inspect:inspect",
    "list": "publisher.cli.images:list_command",
    "lock": "publisher.cli.lock:lock",
    "log": "publisher.cli.log:log",
    "login": "publisher.cli.login:login",
    "logout": "publisher.cli.login:logout",
    "ls": "publisher.cli.contents:ls",
    "modulefile": "publisher.cli.modulefile:modulefile",
    "notify": "publisher.cli.notify:notify",
    "oci-runtime": "publisher.cli.oci_runtime:oci_runtime_command",
    "packages": "publisher.cli.packages:packages",
    "pin": "publisher.cli.pin:pin",
    "plan": "publisher.cli.plan:plan",
    "prune": "publisher.cli.prune:prune",
    "reconcile": "publisher.cli.reconcile:reconcile",
    "remove": "publisher.cli.schedule:remove",
    "restore": "publisher.cli.schedule:restore",
    "run": "publisher.cli.run:run",
    "runs": "publisher.cli.runs:runs",
    "sbom": "publisher.cli.sbom:sbom",
    "schedule": "publisher.cli.schedule:schedule",
    "serve": "publisher.cli.serve:serve",
    "show": "publisher.cli.images:show",
    "site": "publisher.cli.site:site",
    "snapshotter": "publisher.cli.snapshotter:snapshotter",
    "stats": "publisher.cli.stats:stats",
    "status": "publisher.cli.status:status",
    "tags": "publisher.cli.inspect:tags",
    "thin": "publisher.cli.thin:thin",
    "token": "publisher.cli.token:token",
    "trace": "publisher.cli.trace:trace",
    "unpin": "publisher.cli.pin:unpin",
    "verify": "publisher.cli.verify:verify",
    "version": "publisher.cli.version:version",
    "wait": "publisher.cli.wait:wait",
    "worker": "publisher.cli.worker:worker",
}
"""The module and function of each command."""


class _LazyGroup(click.Group):
    """Imports the module of a command when the command is used, which keeps the start short."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List every command with its whole summary; click would load it, and cut the sentence."""
        from publisher.cli.summaries import GROUPS, SUMMARIES

        width = max(map(len, SUMMARIES))
        with formatter.section("Commands"):
            for title, names in GROUPS.items():
                with formatter.section(title):
                    formatter.write_dl([(name.ljust(width), SUMMARIES[name]) for name in names])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that begin with `incomplete`; click would load each of them."""
        from click.shell_completion import CompletionItem

        from publisher.cli.summaries import SUMMARIES

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        found = [CompletionItem(name, help=SUMMARIES[name]) for name in names]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not (name in _COMMANDS or name.startswith("-") or ctx.resilient_parsing):
            import difflib

            similar = difflib.get_close_matches(name, _COMMANDS, n=3, cutoff=0.5)
            question = f" Did you mean {' or '.join(similar)}?" if similar else ""
            raise click.UsageError(f"No such command {name!r}.{question}", ctx)
        return super().resolve_command(ctx, args)


def _print_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from publisher.cli.version import version_line

        click.echo(version_line())
        context.exit()


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES_HELP,
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def publisher() -> None:
    """Publish container images, unpacked, to a file system that many machines mount read-only.

    A wish list names the images to publish. `publisher check` finds the errors in a list,
    `publisher ingest` publishes its images, and `publisher list` and `publisher show` describe
    what is published.

    \b
    First steps:
      publisher check wishlist.yaml
      publisher ingest wishlist.yaml --repository dir:/srv/images
      publisher list --repository dir:/srv/images
    """
    # The command is loaded: see publisher.__main__.
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _ensure_utf_8() -> None:
    """Restart the process in Python's UTF-8 mode if the locale encodes file names differently.

    A name in a layer is bytes, and becomes the same bytes in the tree whatever the locale is.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONUTF8": "1"})


def main() -> None:
    """Run the command line, and exit with one of the documented codes."""
    _ensure_utf_8()
    if "_PUBLISHER_COMPLETE" in os.environ:
        importlib.import_module("publisher.cli.completion")  # its shells differ from click's
    sys.exit(run_reporting_failures(publisher))
