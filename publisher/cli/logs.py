"""The log: the options of all commands, and where and in which form its lines are written.

Without an option, warnings go to stderr, but no events: what the command prints anyway is not
repeated there.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import click

from publisher.cli.failures import UsageError
from publisher.cli.log_streams import EventStream
from publisher.errors import printable
from publisher.lazy import dataclass
from publisher.log_context import current_image, event

_F = TypeVar("_F", bound=Callable[..., Any])

_LEVELS = ("error", "warning", "info", "debug")
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
"""The priorities of syslog(3), which journald reads at the beginning of a line."""

_log = logging.getLogger(__name__)


def log_options(command: _F) -> _F:
    """`--debug`, `--log-level`, `--log-format`, `--log-file`: set up the log before the command.

    The values are not passed to it.
    """
    options = [
        click.option(
            "--debug",
            is_flag=True,
            help="Log every request and step, the same as --log-level debug. Never shows a secret.",
        ),
        click.option(
            "--log-level",
            type=click.Choice(_LEVELS),
            help="What to log: errors, also warnings and retries, also steps, also requests.  "
            "[default: warning; info with --log-file]",
        ),
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="The form of the lines of the log. With json, all lines on stderr have it.",
        ),
        click.option(
            "--log-file",
            metavar="FILE",
            type=click.Path(dir_okay=False),
            help="Append the log to FILE instead of stderr. At 10 MB it is renamed to FILE.1; 5 "
            "such files are kept.",
        ),
    ]

    @functools.wraps(command)
    def with_log(*arguments: Any, **values: Any) -> Any:
        context = click.get_current_context()
        debug, level = values.pop("debug"), values.pop("log_level")
        form, path = values.pop("log_format"), values.pop("log_file")
        level = level or ("debug" if debug else None)
        _set_up(Settings((context.info_name or "").strip(), level, form, path))
        return command(*arguments, **values)

    changed: Any = with_log
    for option in reversed(options):
        changed = option(changed)
    return cast(_F, changed)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the options; `level` and `file` are None if they are not given."""

    command: str
    level: str | None
    form: str
    file: str | None


def is_shown() -> bool:
    """Return whether the log on stderr has the steps of images, which are then not printed."""
    return any(
        isinstance(handler, _Console) and handler.level <= logging.INFO
        for handler in logging.getLogger().handlers
    )


def is_requested() -> bool:
    """Return whether an option of the log was given to the current command."""
    given = click.get_current_context().params
    is_text = given["log_format"] == "text"
    has_level = given["debug"] or given["log_level"] is not None
    return not is_text or has_level or given["log_file"] is not None


def _set_up(settings: Settings) -> None:
    run = os.urandom(4).hex()
    form = _Json(settings.command, run) if settings.form == "json" else _Text(run)
    console = _Console(sys.stderr, is_requested() and settings.file is None)
    console.setFormatter(_Journal(run) if _is_journal() else _Text(run))
    console.setLevel(logging.WARNING)
    handlers: list[logging.Handler] = [console]
    first = _log.makeRecord(
        *(_log.name, logging.INFO, __file__, 0, "publisher %s begins", (settings.command,), None),
        extra=dict(event("command-started", pid=os.getpid())),
    )
    if settings.file is not None:
        handlers.append(_log_file(settings.file, form, first))
        handlers[-1].setLevel((settings.level or "info").upper())
    else:
        console.setLevel((settings.level or "warning").upper())
        if settings.form == "json":
            console.setFormatter(form)
            sys.stderr = EventStream(sys.stderr, console)
        if console.level <= logging.INFO:
            console.handle(first)
    logging.getLogger().handlers = handlers
    logging.getLogger("publisher").setLevel(min(each.level for each in handlers))


def _log_file(path: str, form: logging.Formatter, first: logging.LogRecord) -> logging.Handler:
    """Open a log file, and write a first line, so that a file that is unusable is an error now."""
    from publisher.cli.log_files import LogFile  # loads modules that few commands need

    try:
        handler = LogFile(os.path.realpath(path))
        handler.setFormatter(form)
        handler.write_first(first)
    except OSError as error:
        raise UsageError(
            f"cannot write the log {path}",
            why=error.strerror or str(error),
            hint="choose another file, or free space there",
        ) from error
    return handler


def line_start(moment: float | None = None, level: int = logging.INFO) -> str:
    """Return with what a line on stderr begins that belongs to no log: its time, in UTC.

    In the journal, which adds the time, it is the priority; an event has both already.

    Args:
        moment: The time, in seconds since 1970; by default now.
        level: How important the line is.
    """
    if _is_journal():
        return f"<{_PRIORITIES.get(level, 6)}>"
    if isinstance(sys.stderr, EventStream):
        return ""
    return f"{_time(time.time() if moment is None else moment)} "


def _is_journal() -> bool:
    """Return whether stderr goes to journald, which adds the time and reads priorities."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


class _Console(logging.StreamHandler[Any]):
    """Lines on stderr; without `with_events`, those that no event of the publisher caused."""

    def __init__(self, stream: Any, with_events: bool) -> None:
        super().__init__(stream)
        self._with_events = with_events

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to print the record."""
        return self._with_events or not hasattr(record, "event")


class _Text(logging.Formatter):
    """One line per record: time, level, logger, the ids of run and image, message."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self._run = run

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and that of a traceback, indented."""
        line = f"{_time(record.created)} {record.levelname} {self._line(record)}"
        return "\n".join([line, *_trace(record)])

    def _line(self, record: logging.LogRecord) -> str:
        image = current_image()
        ids = f"{self._run} {printable(image)}" if image else self._run
        return f"{record.name} [{ids}] {printable(record.getMessage())}"


class _Journal(_Text):
    """Lines for journald, each with its priority, and without the time, which journald adds."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and those of a traceback."""
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in [self._line(record), *_trace(record)])


class _Json(logging.Formatter):
    """One JSON object per record: docs/schemas/event-1.schema.json."""

    def __init__(self, command: str, run: str) -> None:
        super().__init__()
        self._command = command
        self._run = run

    def format(self, record: logging.LogRecord) -> str:
        """Return the object in one line."""
        value: dict[str, object] = {
            "schema": "publisher/event/1",
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            "message": printable(record.getMessage()),
            "command": self._command,
            "run": self._run,
        }
        if image := current_image():
            value["image"] = printable(image)
        value["logger"] = record.name
        if data := getattr(record, "data", None):
            value["data"] = {key: _plain(each) for key, each in data.items()}
        if lines := list(_trace(record)):
            value["traceback"] = lines
        return json.dumps(value)


def _plain(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


def _trace(record: logging.LogRecord) -> Iterator[str]:
    if record.exc_info:
        for part in traceback.format_exception(*record.exc_info):
            for line in part.rstrip("\n").split("\n"):
                yield f"  {printable(line)}"
