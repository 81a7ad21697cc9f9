"""Readers for the values of wishes: platforms, outputs, durations, dates, tag patterns."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import TypeVar

import yaml

from publisher.durations import parse_duration
from publisher.oci.platform import Platform
from publisher.oci.tag_patterns import InvalidPattern, check_pattern
from publisher.wishlist.model import OUTPUTS
from publisher.yaml_nodes import (
    DATE,
    STRING,
    Problems,
    describe,
    quoted,
    read_text,
    read_texts,
)

_Value = TypeVar("_Value")


def _distinct(
    node: yaml.Node, problems: Problems, what: str, read: Callable[[str], _Value]
) -> tuple[_Value, ...]:
    """Return the distinct values of a list of strings, in its order.

    `read` parses one string and raises ValueError ("MESSAGE; SUGGESTION") or InvalidPattern.
    """
    values: list[_Value] = []
    for text, item in read_texts(node, problems, what):
        try:
            value = read(text)
        except InvalidPattern as error:
            problems.error(item, error.what, error.hint)
            continue
        except ValueError as error:
            message, _, suggestion = str(error).partition("; ")
            problems.error(item, message, suggestion)
            continue
        if value in values:
            problems.warning(item, f"{text!r} is in {what} twice", "remove one of them")
        else:
            values.append(value)
    return tuple(values)


def read_platforms(node: yaml.Node, problems: Problems) -> tuple[Platform, ...]:
    """Read platforms. The image for the first one is published under the plain name."""

    def read(text: str) -> Platform:
        try:
            return Platform.parse(text)
        except ValueError as error:
            raise ValueError(
                f"{text!r} is not a platform; write os/architecture, such as linux/amd64"
            ) from error

    return _distinct(node, problems, "platforms", read)


def read_outputs(node: yaml.Node, problems: Problems) -> tuple[str, ...]:
    """Read outputs; return them in the order of OUTPUTS."""

    def read(text: str) -> str:
        if text in OUTPUTS:
            return text
        near = difflib.get_close_matches(text.lower(), OUTPUTS, 1)
        raise ValueError(
            f"unknown output {text!r}; "
            + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(OUTPUTS)}")
        )

    wanted = _distinct(node, problems, "outputs", read)
    return tuple(output for output in OUTPUTS if output in wanted)


def read_patterns(node: yaml.Node, problems: Problems, what: str) -> tuple[str, ...]:
    """Read tag patterns: globs and version ranges."""
    return _distinct(node, problems, what, check_pattern)


def read_grace(node: yaml.Node, problems: Problems) -> timedelta | None:
    """Read a grace period; return None, with an error, for an invalid one."""
    if isinstance(node, yaml.ScalarNode) and re.fullmatch(r"[0-9]+", node.value):
        problems.error(
            node, f"grace: {node.value} has no unit", f"write {node.value}d for days, or w, h, m, s"
        )
        return None
    text = read_text(node, problems, "grace")
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        message, _, suggestion = str(error).partition("; ")
        problems.error(node, message, suggestion)
        return None


def read_date(node: yaml.Node, problems: Problems, what: str) -> date | None:
    """Read a date, with or without quotes."""
    if isinstance(node, yaml.ScalarNode) and node.tag in (DATE, STRING):
        try:
            if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", node.value):
                return date.fromisoformat(node.value)
        except ValueError:
            problems.error(node, f"the day {node.value} does not exist", "correct the date")
            return None
        problems.error(node, f"{quoted(node.value)} is not a date", "write YYYY-MM-DD")
    else:
        problems.error(node, f"{what} must be a date, but this is {describe(node)}", "YYYY-MM-DD")
    return None
