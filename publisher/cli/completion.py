"""`publisher completion`, and what the shells complete."""

from __future__ import annotations

import os

import click
from click.shell_completion import (
    BashComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from publisher.cli.failures import UsageError

# Readline splits words at the characters of COMP_WORDBREAKS, of which image names contain the
# colon, and replaces only the part behind the last one. The line is therefore split by `_Bash`, and
# what precedes the last colon is removed from each answer. Files are completed (-o default)
# wherever the publisher has no answer.
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}" word before="" response completion type value

    response=$(env COMP_WORDS="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null)
    word="${line##*[[:space:]]}"
    case "$COMP_WORDBREAKS" in *:*) before="${word%%"${word##*[:=]}"}" ;; esac

    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        if [[ $type == dir ]]; then
            compopt -o dirnames
        elif [[ $type == plain ]]; then
            COMPREPLY+=("${value#"$before"}")
        fi
    done
}

complete -o nosort -o default -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    """Bash, with image names that contain colons, and with files where nothing else fits."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        incomplete = "" if not words or line[-1:].isspace() else words.pop()
        return words[1:], incomplete


add_completion_class(_Bash)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL: commands, options, published images, files.

    Images are those of the repository that --repository or PUBLISHER_REPOSITORY names.

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
