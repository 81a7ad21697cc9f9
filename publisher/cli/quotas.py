"""The options of quotas: how much the images of a project may use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from publisher.cli.failures import UsageError
from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.repository import Repository
from publisher.sizes import parse_size
from publisher.sources.wish_lists import is_remote, list_identity, project_identity
from publisher.wishlist.quota import Quota

if TYPE_CHECKING:
    from publisher.browse.statistics.quota import RunQuota

_Function = TypeVar("_Function", bound=Callable[..., Any])

_log = logging.getLogger(__name__)


class _Size(click.ParamType[int]):
    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            return value if isinstance(value, int) else parse_size(str(value))
        except ValueError as error:
            self.fail(f"{value!r} {error}, such as 500 GB", param, ctx)


_OPTIONS = (
    click.option(
        "--project",
        metavar="NAME",
        default="",
        help="The project whose images these are, for its quota. It takes the place of the wish "
        "list of a single image.",
    ),
    click.option(
        "--quota-images",
        type=click.IntRange(min=0),
        metavar="N",
        help="Refuse images beyond this number: those that the lists, and the project, request "
        "together. An image counts once, whatever its platforms.",
    ),
    click.option(
        "--quota-bytes",
        type=_Size(),
        metavar="SIZE",
        help="Refuse images with which all of these use more than SIZE, such as '500 GB', before "
        "their layers are downloaded. Layers that other lists use as well count in part.",
    ),
    click.option(
        "--quota-list",
        "quota_lists",
        multiple=True,
        metavar="LIST",
        help="A further wish list whose images count; may be given several times.",
    ),
)


def quota_options(function: _Function) -> _Function:
    """The options, as the parameters `project`, `quota_images`, `quota_bytes`, `quota_lists`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class QuotaOptions:
    """A quota, and the identities of the lists whose images count for it."""

    quota: Quota
    lists: frozenset[str]

    @classmethod
    def of(
        cls,
        project: str,
        images: int | None,
        size: int | None,
        further: Iterable[str],
        lists: Iterable[str],
    ) -> QuotaOptions | None:
        """Return the quota that the options state; None if they limit nothing.

        Args:
            project: The name of the project, or "".
            images: How many images there may be, or None.
            size: How many bytes they may use, or None.
            further: The lists that `--quota-list` names.
            lists: The identities of the lists of the run, "" for one without a name.

        Raises:
            UsageError: A list has no name, so that its images could not be found again.
        """
        quota = Quota(project, images, size)
        if not quota.is_limited:
            return None
        further = tuple(further)
        for each in further:
            if not (is_remote(each) or Path(each).exists()):
                _log.warning("no file %s: if it is misspelt, its images do not count", each)
        own = {project_identity(project)} if project else set()
        found = frozenset({*lists, *map(list_identity, further), *own})
        if "" in found or not found:
            raise UsageError(
                "cannot count what the quota is for",
                why="the images have neither a wish list with a name nor a project",
                hint="name the list as a file or an address, or add --project NAME",
            )
        return cls(quota, found)

    def run_quota(self, repository: Repository) -> RunQuota:
        """Return what refuses images of a run that publishes to the repository."""
        from publisher.browse.statistics.quota import RunQuota  # most runs have no quota

        return RunQuota(self.quota, self.lists, repository, _warn)


def _warn(name: str, error: PublisherError) -> None:
    _log.warning("%s does not count for the quota: %s", name, error)
