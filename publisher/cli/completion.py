"""`publisher completion`: the shell's side of completing commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from publisher.cli.failures import UsageError


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash: publisher completion bash > ~/.local/share/bash-completion/completions/publisher
    zsh:  publisher completion zsh > "${fpath[1]}/_publisher"
    fish: publisher completion fish > ~/.config/fish/completions/publisher.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise UsageError(f"cannot complete for {shell}")
    root = context.find_root()
    click.echo(found(root.command, {}, "publisher", "_PUBLISHER_COMPLETE").source())
