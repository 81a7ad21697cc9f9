"""The options in the configuration of the service, checked as the commands of jobs read them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from publisher.cli.main import publisher
from publisher.service.kinds import JobKind


def check_arguments(kind: JobKind, arguments: Sequence[str]) -> str:
    """Return what is wrong with the options of the command of a job, or "".

    Files that options name are not looked at: the job may run on another host.
    """
    with click.Context(publisher, info_name="publisher") as above:
        command = publisher.get_command(above, kind.command)
        assert command is not None
        with click.Context(command, info_name=kind.command, parent=above) as context:
            try:
                values, rest, _ = command.make_parser(context).parse_args(list(arguments))
                if rest:
                    return f"{rest[0]} is not an option"
                for parameter in command.get_params(context):
                    if parameter.name in values and not isinstance(parameter.type, click.Path):
                        parameter.type_cast_value(context, values[parameter.name])
            except click.UsageError as error:
                return error.format_message()
    return ""
