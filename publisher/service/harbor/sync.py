"""Makes Harbor match the configuration; an action that fails does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from publisher.errors import PublisherError, failure_text
from publisher.service.harbor.client import HarborClient, HarborError
from publisher.service.harbor.decide import decide
from publisher.service.harbor.model import (
    Action,
    ActionKind,
    FoundProject,
    Result,
    Status,
    WantedProject,
)

_log = logging.getLogger(__name__)


class Synchronization:
    """One run.

    Args:
        client: The requests to Harbor.
        user: Their user.
        store: Stores the name and secret of a robot account in a file.
    """

    def __init__(
        self, client: HarborClient, user: str, store: Callable[[Path, str, str], None]
    ) -> None:
        self._client = client
        self._user = user
        self._store = store

    def run(
        self, wanted: Sequence[WantedProject], *, dry_run: bool, prune: bool
    ) -> tuple[Result, ...]:
        """Make Harbor match; return all actions, and what became of them.

        Args:
            wanted: The projects as they should be.
            dry_run: Change nothing.
            prune: Remove what the configuration does not have; otherwise it is reported.

        Raises:
            HarborError: The projects cannot be listed.
            SourceError: Harbor does not answer.
        """
        found, unread = self._read(wanted)
        readable = [each for each in wanted if each.name not in {r.action.project for r in unread}]
        results = list(unread)
        lost: set[str] = set()
        for action in decide(readable, found, self._user):
            if action.kind is ActionKind.SKIP_MEMBER or (action.kind.removes and not prune):
                results.append(Result(action, Status.REPORTED))
            elif dry_run:
                results.append(Result(action, Status.PLANNED))
            elif action.project in lost:
                error = "the project could not be created"
                results.append(Result(action, Status.FAILED, error))
            else:
                results.append(self._execute(action))
                is_new = action.kind is ActionKind.CREATE_PROJECT
                if is_new and results[-1].status is Status.FAILED:
                    lost.add(action.project)
        return tuple(results)

    def _read(
        self, wanted: Iterable[WantedProject]
    ) -> tuple[tuple[FoundProject, ...], tuple[Result, ...]]:
        """Return what Harbor has, and the wanted projects whose parts cannot be read."""
        names = {each.name for each in wanted}
        found, unread = [], []
        for project in self._client.projects():
            if project.name in names:
                try:
                    project = self._parts(project)
                except PublisherError as error:
                    action = Action(ActionKind.READ_PROJECT, project.name)
                    unread.append(Result(action, Status.FAILED, failure_text(error, project.name)))
            found.append(project)
        unreadable = {each.action.project for each in unread}
        return tuple(each for each in found if each.name not in unreadable), tuple(unread)

    def _parts(self, project: FoundProject) -> FoundProject:
        return replace(
            project,
            members=self._client.members(project.name),
            quota=self._client.quota(project.identifier),
            robots=self._client.robots(project.identifier),
        )

    def _execute(self, action: Action) -> Result:
        try:
            self._change(action)
        except HarborError as error:
            if error.status == 404 and action.kind.removes:
                return Result(action, Status.DONE)  # removed by another program meanwhile
            return Result(action, Status.FAILED, str(error))
        except (PublisherError, OSError) as error:
            return Result(action, Status.FAILED, failure_text(error, action.project))
        _log.info("%s %s %s", action.kind, action.project, action.subject)
        return Result(action, Status.DONE)

    def _change(self, action: Action) -> None:
        client, kind = self._client, action.kind
        project, identifier = action.project, action.identifier
        match kind:
            case ActionKind.CREATE_PROJECT:
                client.create_project(project, action.storage)
            case ActionKind.ADD_MEMBER:
                client.add_member(project, action.member, action.subject, action.role)
            case ActionKind.CHANGE_ROLE:
                client.change_role(project, identifier, action.role)
            case ActionKind.SET_QUOTA:
                client.set_quota(identifier, action.storage or 0)
            case ActionKind.UPDATE_ROBOT:
                client.update_robot(project, identifier, action.subject)
            case ActionKind.CREATE_ROBOT | ActionKind.RENEW_ROBOT:
                self._log_in(action)
            case _:
                self._remove(action)

    def _log_in(self, action: Action) -> None:
        """Create the robot account or its new secret, and store it at once: it is not shown again.

        If it cannot be stored, the next run gives the account another secret.
        """
        if action.kind is ActionKind.CREATE_ROBOT:
            created = self._client.create_robot(action.project)
            name, secret = created.name, created.secret
        else:
            name = action.subject
            secret = self._client.renew_robot(action.identifier)
        assert action.credentials is not None
        self._store(action.credentials, name, secret)

    def _remove(self, action: Action) -> None:
        if action.kind is ActionKind.REMOVE_MEMBER:
            self._client.remove_member(action.project, action.identifier)
        elif action.kind is ActionKind.REMOVE_ROBOT:
            self._client.delete_robot(action.identifier)
        else:
            self._client.delete_project(action.project)
