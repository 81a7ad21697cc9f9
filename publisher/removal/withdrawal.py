"""Decide which published images are no longer requested, and which are requested again. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from publisher.lazy import dataclass

DEFAULT_SHARE = 0.2
"""The share of the lists' images that may be scheduled without confirmation."""


@dataclass(frozen=True, slots=True)
class Guard:
    """How many images may be scheduled at once: `share` of those in question, or at least one.

    `at_most` is a number of images instead. `off` allows any number.
    """

    share: float = DEFAULT_SHARE
    at_most: int | None = None
    off: bool = False

    def allowed(self, in_question: int) -> int:
        """Return the largest number of images that may be scheduled."""
        if self.off:
            return in_question
        return max(1, int(in_question * self.share)) if self.at_most is None else self.at_most

    def objection(self, decision: Decision) -> str:
        """Return why the decision may not be executed; "" if it may."""
        count, allowed = len(decision.withdrawn), self.allowed(decision.in_question)
        if count <= allowed:
            return ""
        return (
            f"{count} of {decision.in_question} images are not requested any more, and at most "
            f"{allowed} are scheduled without confirmation"
        )


@dataclass(frozen=True, slots=True)
class Image:
    """One published image: its wish lists, and whether it is scheduled or pinned."""

    name: str
    manifest_digest: str
    lists: frozenset[str]
    scheduled: bool = False
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The images to be scheduled (`withdrawn`), and those to be taken off the schedule.

    `kept` are images that stay although the given lists no longer request them, each with the
    reason. `lists` maps images that only some of their lists still request to those lists.
    `in_question` counts the images about which the given lists decide, without those that are
    scheduled already; `others` counts images of other lists, and images published by hand.
    """

    withdrawn: tuple[str, ...]
    requested_again: tuple[str, ...]
    lists: Mapping[str, frozenset[str]]
    kept: Mapping[str, str]
    in_question: int
    others: int

    @property
    def names(self) -> tuple[str, ...]:
        """The images that change."""
        return (*self.withdrawn, *self.requested_again, *self.lists)


def decide(
    images: Iterable[Image],
    requested: Mapping[str, frozenset[str]],
    given: frozenset[str],
    *,
    whole: bool = False,
) -> Decision:
    """Decide which of `images` are withdrawn, requested again, or kept.

    Args:
        images: The published images.
        requested: The requested public names, each with the `given` lists that request it.
        given: The lists that decide.
        whole: Whether they decide about all images, also those of other lists.
    """
    withdrawn: list[str] = []
    requested_again: list[str] = []
    kept: dict[str, str] = {}
    lists: dict[str, frozenset[str]] = {}
    in_question = others = 0
    for image in images:
        requesting = requested.get(image.name, frozenset())
        if image.scheduled:
            if requesting:
                requested_again.append(image.name)
            continue
        if not whole and not image.lists & given:
            others += 1
            continue
        in_question += 1
        remaining = requesting if whole else (image.lists - given) | requesting
        if remaining and image.lists and image.lists != remaining:
            lists[image.name] = remaining
        reason = _reason_to_keep(image, requesting, remaining)
        if reason:
            kept[image.name] = reason
        elif not remaining:
            withdrawn.append(image.name)
    return Decision(tuple(withdrawn), tuple(requested_again), lists, kept, in_question, others)


def _reason_to_keep(image: Image, requesting: frozenset[str], remaining: frozenset[str]) -> str:
    """Return why an image stays that the given lists withdrew; "" where there is no such reason.

    `requesting` are the given lists that request it, `remaining` all lists that do.
    """
    if requesting:
        return ""
    if remaining:
        return f"{', '.join(sorted(remaining))} requests it, which was not given"
    return "it is pinned" if image.pinned else ""


def unknown_lists(given: frozenset[str], images: Iterable[Image]) -> tuple[str, ...]:
    """Return those of `given` that no image records; nothing if no image records any list."""
    known = frozenset[str]().union(*(image.lists for image in images))
    return tuple(sorted(given - known - {""})) if known else ()
