"""The database in the configuration of the service, with its mistakes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from publisher.yaml_nodes import Problems, read_named_file, read_text

_MAX_BYTES = 4 * 1024 * 1024
_SCHEMES = ("postgresql", "sqlite")
_EMBEDDED = "jobs.sqlite"


def parse_database(
    found: Mapping[str, yaml.Node],
    state: Path | None,
    problems: Problems,
    read_file: Callable[[str], bytes],
) -> str | None:
    """Return the URL of the database for SQLAlchemy, or None after reporting a mistake.

    Args:
        found: The values of the keys of the configuration.
        state: The directory for the state, which has the database if none is named.
        problems: Collects the mistakes.
        read_file: Returns the first bytes of the file with the URL, or raises OSError.
    """
    node = found.get("database")
    in_file = found.get("database-file")
    if in_file is not None:
        if node is not None:
            message = "the database is given twice"
            problems.error(in_file, message, "keep one of database, database-file")
            return None
        path = read_text(in_file, problems, "database-file")
        if path is None:
            return None
        text = read_named_file(in_file, path, problems, read_file, _MAX_BYTES)
        return None if text is None else _database_url(in_file, text, problems)
    if node is None:
        return None if state is None else f"sqlite:///{state / _EMBEDDED}"
    text = read_text(node, problems, "database")
    if text is not None and re.match(r"[^/]*//[^/]*:[^/]*@|.*[?&]password=", text):
        message = "the database URL has a password"
        problems.error(node, message, "write the URL to a file; name it: database-file")
        return None
    return None if text is None else _database_url(node, text, problems)


def _database_url(node: yaml.Node, text: str, problems: Problems) -> str | None:
    """Return a URL of SQLAlchemy; messages do not quote `text`, which may have a password."""
    if text.isprintable() and text.startswith("/"):
        return f"sqlite:///{os.path.normpath(text)}"
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    scheme, separator, rest = text.partition("://")
    if not (separator and rest and text.isprintable() and scheme in _SCHEMES):
        message = "the database is neither a path nor a URL of PostgreSQL"
        write = "write /PATH/jobs.sqlite, or postgresql://USER@HOST/NAME"
        problems.error(node, message, write)
        return None
    try:
        make_url(text)
    except (ValueError, ArgumentError):
        message = "the URL of the database is malformed"
        write = "correct the port; write special characters of a password as %XX"
        problems.error(node, message, write)
        return None
    if scheme == "sqlite" and not rest.startswith("//"):
        message = "the path of the SQLite database is not absolute"
        problems.error(node, message, "write only the path, such as /PATH/jobs.sqlite")
        return None
    return text
