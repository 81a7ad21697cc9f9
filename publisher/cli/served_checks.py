"""Checks of new wishes, by `publisher check` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from publisher.errors import PublisherError
from publisher.service.configuration import (
    ListConfiguration,
    RepositoryConfiguration,
    ServiceConfiguration,
)
from publisher.service.jobs.child import publisher_program
from publisher.service.jobs.command import job_environment
from publisher.service.jobs.credentials import project_options
from publisher.service.kinds import JobKind
from publisher.service.web.wish_pages import Checked, Finding

SECONDS = 60.0
"""How long a check may take."""

_MOST_BYTES = 1024 * 1024
_MOST_FINDINGS = 50


class CheckFailed(PublisherError):
    """A check did not end in time, or without a result."""


class ServedChecks:
    """Runs checks, with the credentials that jobs of the list have, and no others."""

    def __init__(self, configuration: Callable[[], ServiceConfiguration]) -> None:
        self._configuration = configuration

    def __call__(
        self, repository: RepositoryConfiguration, wish_list: ListConfiguration, document: str
    ) -> Checked:
        """Return the result for a list with one wish; raise CheckFailed."""
        configuration = self._configuration()
        options = [f"--repository={repository.url}", *_policy(repository)]
        if wish_list.project:
            project = configuration.project(wish_list.project)
            if project is None:  # the configuration was reloaded just now
                raise CheckFailed(
                    "cannot check the wish",
                    why=f"the configuration has no project {wish_list.project}",
                    hint="open the page again",
                )
            options += project_options(project)
        environment = job_environment(configuration, os.environ, wish_list.project)
        with tempfile.TemporaryDirectory(prefix="publisher-check-") as directory:
            path = Path(directory) / "wish.yaml"
            path.write_text(document, encoding="utf-8")
            program = publisher_program(
                ["check", "--output=json", "--jobs=1", *options, "--", str(path)]
            )
            output = Path(directory) / "output"
            _run(program, environment, output)
            with output.open("rb") as file:
                return _checked(file.read(_MOST_BYTES))


def _policy(repository: RepositoryConfiguration) -> list[str]:
    """Return the option --policy that ingests of the lists have."""
    arguments = repository.arguments.get(JobKind.INGEST_LIST, ())
    for number, each in enumerate(arguments):
        if each.startswith("--policy="):
            return [each]
        if each == "--policy" and number + 1 < len(arguments):
            return [each, arguments[number + 1]]
    return []


def _run(program: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
    with output.open("wb") as file:
        try:
            subprocess.run(
                program,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.DEVNULL,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CheckFailed(
                "cannot check the wish",
                why=f"its registry did not answer within {SECONDS:g} seconds",
                hint="try again later",
            ) from error


def _hint(text: str) -> str:
    """Return a hint, unless it names a command: users of the page need not have a shell."""
    return "" if "`publisher " in text else text


def _checked(content: bytes) -> Checked:
    try:
        value: Any = json.loads(content)
        if value["schema"] != "publisher/check/1":
            raise CheckFailed(
                "cannot check the wish",
                why=str(value["error"]["why"])[:500],
                hint="ask the administrator of the service",
            )
        findings = tuple(
            Finding(str(each["level"]), str(each["message"]), _hint(str(each["hint"])))
            for each in value["findings"][:_MOST_FINDINGS]
        )
        return Checked(findings, value["downloadBytes"], value["newBytes"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckFailed(
            "cannot check the wish",
            why="the check ended without a result",
            hint="ask the administrator of the service",
        ) from error
