"""The reference of the commands, from their options and help: for the site and as man pages."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

import click

from docs.handbook.text import code, escaped
from publisher.cli.main import publisher
from publisher.cli.summaries import SUMMARIES

_VERBATIM = "\b\n"


@dataclass(frozen=True, slots=True)
class CommandPage:
    """The page of a command: its name with hyphens, one sentence about it, its Markdown."""

    name: str
    summary: str
    text: str


def command_pages() -> list[CommandPage]:
    """Return a page for `publisher` itself and for each of its commands."""
    top = click.Context(publisher, info_name="publisher", max_content_width=100)
    return [_page(top), *_pages_below(top)]


def _pages_below(parent: click.Context) -> Iterator[CommandPage]:
    group = parent.command
    assert isinstance(group, click.Group)
    for name in sorted(group.list_commands(parent)):
        command = group.get_command(parent, name)
        assert command is not None
        if command.hidden:
            continue
        context = click.Context(command, parent=parent, info_name=name, max_content_width=100)
        yield _page(context)
        if isinstance(command, click.Group):
            yield from _pages_below(context)


def _page(context: click.Context) -> CommandPage:
    command = context.command
    help_text = inspect.cleandoc((command.help or "").partition("\f")[0])
    first, *others = help_text.split("\n\n")
    summary = SUMMARIES.get(command.name or "") or " ".join(first.split()).rstrip(".")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [
        f"# {context.command_path}",
        f"## Synopsis\n\n```text\n{usage}\n```",
        "## Description",
        *(_paragraph(each) for each in (first, *others)),
    ]
    if isinstance(command, click.Group):
        names = [n for n in sorted(command.list_commands(context)) if _is_shown(context, n)]
        links = [
            f"[{escaped(n)}]({f'{context.command_path} {n}'.replace(' ', '-')}.md)\n"
            f": {escaped(_summary(context, n))}\n"
            for n in names
        ]
        parts += ["## Commands", *links]
    records = [
        record
        for each in command.get_params(context)
        if (record := each.get_help_record(context)) and record[1]
    ]
    if records:
        parts += ["## Options", *(f"{code(names)}\n: {escaped(text)}\n" for names, text in records)]
    if command.epilog:
        parts += _epilog(command.epilog)
    return CommandPage(
        context.command_path.replace(" ", "-"), summary, "\n\n".join(parts).rstrip() + "\n"
    )


def _is_shown(context: click.Context, name: str) -> bool:
    assert isinstance(context.command, click.Group)
    command = context.command.get_command(context, name)
    return command is not None and not command.hidden


def _summary(context: click.Context, name: str) -> str:
    if context.parent is None:
        return SUMMARIES[name]
    assert isinstance(context.command, click.Group)
    command = context.command.get_command(context, name)
    return command.get_short_help_str(200) if command else ""


def _paragraph(text: str) -> str:
    """Return a paragraph of help as Markdown; click prints those with a mark as they are."""
    if not text.startswith(_VERBATIM):
        return escaped(" ".join(text.split()))
    lines = text.removeprefix(_VERBATIM).splitlines()
    if lines and lines[0].endswith(":") and lines[1:] and lines[1].startswith(" "):
        return f"{escaped(lines[0])}\n\n{_verbatim(inspect.cleandoc(chr(10).join(lines[1:])))}"
    return _verbatim("\n".join(lines))


def _verbatim(text: str) -> str:
    if re.match(r"(?:\w+=\S+ )*publisher\b", text):
        examples = re.sub(r"^(?=\S)", "$ ", text, flags=re.MULTILINE)
        return f"```console\n{examples}\n```"
    return f"```text\n{text}\n```"


def _epilog(text: str) -> list[str]:
    heading, _, lines = text.removeprefix(_VERBATIM).partition("\n")
    rows = [line.strip().partition("  ") for line in lines.splitlines() if line.strip()]
    return [
        f"## {heading.rstrip(':')}",
        *(f"{code(number)}\n: {escaped(meaning.strip())}\n" for number, _, meaning in rows),
    ]
