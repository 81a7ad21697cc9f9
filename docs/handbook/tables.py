"""Pages with one table each: metrics, exit codes, environment variables."""

from __future__ import annotations

import click

from docs.handbook.text import code, escaped, table
from publisher.cli.failures import EXIT_CODES_HELP
from publisher.cli.main import publisher
from publisher.metrics.families import FAMILIES

_VARIABLES_WITHOUT_OPTION = {
    "PUBLISHER_STATE": "The directory for the state of runs. See docs/administration.md.",
    "PUBLISHER_REGISTRIES": "The hosts of the registries to which requests are sent, separated by "
    "spaces; others are refused. A value without a name is an error. Jobs of the service have "
    "those of their project.",
    "DOCKER_CONFIG": "The directory with the file `config.json` that has credentials.",
}


def metrics_page() -> str:
    """Return the page about the metrics in the files of `--metrics-file`."""
    rows = [
        (
            code(f"{family.name}_total" if family.is_counter else family.name),
            "counter" if family.is_counter else "gauge",
            ", ".join(code(label) for label in (*family.scope, *family.labels)),
            escaped(family.meaning),
        )
        for family in FAMILIES
    ]
    return (
        "# Metrics\n\nThe metrics that `--metrics-file` writes. Times are in seconds since 1970, "
        "sizes in bytes. [administration](/docs/administration.md) describes how they are used.\n\n"
        + table(("metric", "type", "labels", "meaning"), rows)
    )


def exit_codes() -> list[tuple[int, str]]:
    """Return the exit codes with their meanings, as `publisher --help` lists them."""
    lines = EXIT_CODES_HELP.split("Exit codes:\n")[1].splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    return [(int(number), meaning) for number, meaning in pairs]


def exit_codes_page() -> str:
    """Return the page about exit codes."""
    rows = [(code(str(number)), escaped(meaning)) for number, meaning in exit_codes()]
    return (
        "# Exit codes\n\nAll commands end with one of these. "
        "[Output](/docs/output.md) describes what a job can do for each.\n\n"
        + table(("code", "meaning"), rows)
    )


def variables() -> dict[str, tuple[str, list[str]]]:
    """Return the environment variables: the option that each replaces, and its commands."""
    found: dict[str, tuple[str, list[str]]] = {}
    top = click.Context(publisher, info_name="publisher")
    for name in sorted(publisher.list_commands(top)):
        command = publisher.get_command(top, name)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option) and isinstance(option.envvar, str):
                found.setdefault(option.envvar, (option.opts[-1], []))[1].append(name)
    return found


def variables_page() -> str:
    """Return the page about environment variables."""
    rows = [
        (
            code(name),
            f"The default of {code(option)} of: "
            + ", ".join(f"[{n}](/reference/commands/publisher-{n}.md)" for n in names),
        )
        for name, (option, names) in variables().items()
    ]
    rows += [(code(name), escaped(text)) for name, text in _VARIABLES_WITHOUT_OPTION.items()]
    return "# Environment variables\n\n" + table(("variable", "meaning"), sorted(rows))
