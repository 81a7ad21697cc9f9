"""The wishes of a list, and the part of them that a run works on: `--only`, `--changed`."""

from __future__ import annotations

from fnmatch import fnmatchcase

from publisher.errors import InvalidReference
from publisher.lazy import dataclass
from publisher.problems import Problem
from publisher.tree import layout
from publisher.wishlist.model import Request


@dataclass(frozen=True, slots=True)
class ListedRequests:
    """The requests of one wish list, and the errors of its other wishes.

    `repository` is the URL of the one that it is for, `identity` its name in records.
    """

    identity: str
    repository: str | None
    requests: tuple[Request, ...]
    unusable: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which wishes and images a run works on; by default all.

    Args:
        only: Glob patterns, of which one has to match the text of a wish or the public name of an
            image; empty for all.
        changed: Only wishes that are new, or whose settings differ from those that were tried.
    """

    only: tuple[str, ...] = ()
    changed: bool = False

    @property
    def is_partial(self) -> bool:
        """Whether images may be left out."""
        return bool(self.only) or self.changed

    def matches(self, text: str) -> bool:
        """Return whether the text of a wish, or the name of an image, is selected."""
        return not self.only or any(fnmatchcase(text, pattern) for pattern in self.only)

    def whole(self, request: Request) -> bool:
        """Return whether all images of a wish are selected."""
        return self.matches(str(request.wish)) or self.matches(_name(request))

    def may_match(self, request: Request) -> bool:
        """Return whether the wish or one of its images may be selected.

        Which tags a pattern of the wish list matches is not known here. The name without a tag has
        to match what is before the tag in one of the patterns.
        """
        if self.whole(request):
            return True
        before_tags = map(layout.without_tag, self.only)
        name = _name(request)
        return bool(request.wish.tags) and any(fnmatchcase(name, each) for each in before_tags)


def _name(request: Request) -> str:
    """Return the public name of the image of a wish, or "" if it cannot be published.

    That of a wish with tag patterns has no tag.
    """
    try:
        name = layout.public_name(request.wish.image, request.wish.name)
    except InvalidReference:
        return ""
    return layout.without_tag(name) if request.wish.tags else name
