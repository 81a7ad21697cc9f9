"""Check wish lists, and whether their images can be published: behind `publisher check`.

Nothing is changed: lists are parsed, and the manifests and configs of their images are read from
their sources. With earlier versions of the lists, only the wishes that a change adds or alters are
looked up, and what is wrong with the others is a note.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date

from publisher.errors import failure_text
from publisher.ingest.admission import Admission, OutsidePrefix, PolicyViolated, Signatures
from publisher.ingest.check_image import CheckedImage, ImageCheck, Target
from publisher.ingest.check_lists import CheckedList, forbidden_changes, read_lists
from publisher.ingest.findings import (
    POLICY,
    Finding,
    Level,
    Rule,
    in_order,
    of_wish,
    rule_of,
    what_to_do,
)
from publisher.ingest.wanted import RequestedImage
from publisher.ingest.work import WishWork, for_all_images
from publisher.lazy import dataclass
from publisher.policy import PolicyFile
from publisher.sources.open import Sources
from publisher.sources.revisions import EarlierList
from publisher.tree import layout
from publisher.wishlist import Places, Problem, Severity, Wish
from publisher.wishlist.changes import Change
from publisher.wishlist.model import Request
from publisher.wishlist.overlaps import Overlaps
from publisher.wishlist.places import NameTaken, same_terms
from publisher.wishlist.wishes import public_names

UNTOUCHED = (Change.KEPT, Change.TERMS)
"""The changes of wishes that request the same image in the same way as before."""


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check; `images` is empty if no sources were given.

    `findings` has all that was found, in the order of the lists. `seconds` is the time that the
    check took.
    """

    lists: tuple[CheckedList, ...]
    images: tuple[CheckedImage, ...]
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def wishes(self) -> int:
        """How many usable wishes the lists have."""
        return sum(len(each.wishes) for each in self.lists)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems of the lists; with earlier versions, those that the change introduces."""
        return tuple(problem for each in self.lists for problem in each.problems)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The errors among `problems`."""
        return tuple(p for p in self.problems if p.severity is Severity.ERROR)

    @property
    def failed(self) -> tuple[CheckedImage, ...]:
        """The images that cannot be published, without those of unchanged wishes."""
        return tuple(i for i in self.images if i.error and i.change not in UNTOUCHED)

    @property
    def download_size(self) -> int:
        """The compressed size in bytes of all layers, each counted once."""
        return sum({d: s for image in self.images for d, s in image.layers.items()}.values())

    @property
    def new_size(self) -> int | None:
        """The part of `download_size` that is not published yet; None if that is unknown."""
        found = [image.new_layers for image in self.images if not image.error]
        known = [layers for layers in found if layers is not None]
        if not found or len(known) < len(found):
            return None
        return sum({d: s for layers in known for d, s in layers.items()}.values())

    def has(self, level: Level) -> bool:
        """Return whether one of the findings has this level."""
        return any(finding.level is level for finding in self.findings)


def check(
    documents: Sequence[tuple[str, bytes]],
    sources: Sources | None = None,
    *,
    repository: str | None = None,
    untrusted: Collection[str] = (),
    today: date | None = None,
    jobs: int = 8,
    target_of: Callable[[str | None], Target] = lambda repository: Target(),
    bases: Mapping[str, EarlierList] | None = None,
    check_all: bool = False,
    policy: PolicyFile | None = None,
    signatures: Signatures | None = None,
    user: str | None = None,
    prefix: str = "",
) -> Report:
    """Check wish lists, given as names and contents, and with `sources` their images too.

    Args:
        documents: The lists.
        sources: Where the images come from; without them, only the lists are checked.
        repository: Replaces the repository that each list names.
        untrusted: The lists that may not name files or the container engine of this host.
        today: A wish that has expired by this day causes a warning.
        jobs: How many images are processed at a time.
        target_of: Returns the target for the URL of a repository, which is None if none is named.
        bases: The earlier versions of the lists, by name. Without them, every wish is looked up.
        check_all: Look up the unchanged wishes as well.
        policy: The rules for wishes and images.
        signatures: Verifies signatures, if the policy requires any.
        user: The user who made the change, for the rules of owners.
        prefix: The directory of the published tree in which all public names have to be.
    """
    began = time.monotonic()
    lists = read_lists(documents, bases or {}, repository, untrusted, today)
    targets = {url: target_of(url) for url in dict.fromkeys(each.repository for each in lists)}
    findings = [finding for each in lists for finding in each.findings()]
    if sources is not None:
        findings += [f for each in lists for f in _unreadable(each, targets[each.repository])]
    work = _in_order_of_claims(lists)
    admission = Admission(policy, signatures, [each.request for each in work], prefix)
    checks = _Checks(targets, admission)
    rejected = [image for each in work for image in checks.reject(each)]
    refused = {(image.wish_list, image.line, image.column) for image in rejected}
    asked = [
        each
        for each in work
        if each.place not in refused and (check_all or each.change not in UNTOUCHED)
    ]
    images: list[CheckedImage] = []
    if sources is not None:
        wishes = [checks.of_wish(each, sources) for each in asked]
        images = for_all_images(
            wishes, sources, jobs=jobs, admission=admission, with_repeated=True
        ).items
    order = {each.name: number for number, each in enumerate(lists)}
    images = sorted(
        [*rejected, *images], key=lambda image: (order[image.wish_list], image.line, image.column)
    )
    findings += [finding for image in images for finding in image.findings]
    if policy is not None:
        findings += [] if check_all else checks.denied_earlier(policy)
        findings += forbidden_changes(lists, policy, user)
    found = in_order(findings, list(order))
    return Report(tuple(lists), tuple(images), found, time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class _Work:
    """One wish of a list, and its change; None without an earlier version of the list."""

    request: Request
    wish_list: CheckedList
    change: Change | None

    @property
    def place(self) -> tuple[str, int, int]:
        return self.request.wish_list, self.request.wish.line, self.request.wish.column


def _in_order_of_claims(lists: Sequence[CheckedList]) -> list[_Work]:
    """Return the wishes, the unchanged ones first: of two in conflict, the new one fails."""
    work = [
        _Work(Request(wish, each.name), each, change)
        for each in lists
        for wish, change in each.wishes
    ]
    return sorted(work, key=lambda each: each.change is not Change.KEPT)


class _Checks:
    """The state that all wishes of one check share."""

    def __init__(
        self,
        targets: Mapping[str | None, Target],
        admission: Admission,
    ) -> None:
        self._admission = admission
        self._denied: dict[tuple[str, int], list[Wish]] = defaultdict(list)
        self._targets = targets
        self._places = {url: Places() for url in targets}
        self._listed: dict[tuple[str, str], Wish] = {}
        self._overlaps: dict[str, Overlaps] = defaultdict(Overlaps)

    def reject(self, work: _Work) -> list[CheckedImage]:
        """Return the failure of a wish that cannot be published, without any request.

        A policy or the prefix does not allow it, or the list has an earlier version, and the wish
        conflicts with one before it.
        """
        wish, name = work.request.wish, work.request.wish_list
        try:
            self._admission.check_wish(work.request)
        except OutsidePrefix as error:
            return [_failed(work, str(wish), str(wish.image), error)]
        except PolicyViolated as error:
            if work.change not in UNTOUCHED:
                return [_failed(work, str(wish), str(wish.image), error)]
            self._denied[error.rule, error.line].append(wish)
        if work.change is None:
            return []
        names = public_names(wish)
        known = [self._listed.get((name, each)) for each in names]
        for each in names:
            self._listed.setdefault((name, each), wish)
        other = known[0] if work.change is not Change.KEPT else None
        if other is not None and None not in known and same_terms(other, wish):
            message = f"{wish} is already listed on line {other.line}"
            return [_failure(work, Rule.DUPLICATE, message, "remove this line")]
        overlaps = self._overlaps[name]
        if not wish.tags:
            try:
                overlaps.find(wish, wish.image)
                self._places[work.wish_list.repository].claim(names[0], wish.image, wish, name)
            except NameTaken as error:
                return [_failed(work, names[0], str(wish.image), error)]
        overlaps.add(wish)
        return []

    def of_wish(self, work: _Work, sources: Sources) -> _WishCheck:
        """Return the check of all images of one wish."""
        is_new = work.change not in (*UNTOUCHED, None)
        url = work.wish_list.repository
        overlaps = self._overlaps[work.wish_list.name] if is_new else None
        image_check = ImageCheck(sources, self._targets[url], self._admission, overlaps)
        return _WishCheck(work, self._places[url], image_check)

    def denied_earlier(self, policy: PolicyFile) -> list[Finding]:
        """Return a note for each rule of the policy that unchanged wishes violate."""
        return [
            Finding(
                f"{POLICY}{rule}",
                Level.NOTE,
                policy.name,
                line,
                1,
                f"not part of this change: {_violators(len(wishes))} the rule {rule}, "
                f"for example {wishes[0]}; what is published of them stays",
                "with this policy, ingest publishes no newer image for them",
                earlier=True,
            )
            for (rule, line), wishes in self._denied.items()
        ]


class _WishCheck(WishWork[CheckedImage]):
    """Checks all images of one wish."""

    def __init__(self, work: _Work, places: Places, image_check: ImageCheck) -> None:
        super().__init__(work.request, places)
        self._work = work
        self._image_check = image_check

    def act(self, image: RequestedImage) -> CheckedImage:
        return self._image_check.run(image, self._work.change)

    def failed(self, name: str, reference: str, error: Exception) -> CheckedImage:
        return _failed(self._work, name, reference, error)


def _violators(number: int) -> str:
    return "1 unchanged wish violates" if number == 1 else f"{number} unchanged wishes violate"


def _failed(work: _Work, name: str, reference: str, error: Exception) -> CheckedImage:
    hint = what_to_do(error)
    message = failure_text(error, name).removesuffix(f" ({hint})")
    failure = _failure(work, rule_of(error), message, hint)
    return replace(failure, name=name, reference=reference)


def _failure(work: _Work, rule: str, message: str, hint: str) -> CheckedImage:
    wish, wish_list = work.request.wish, work.request.wish_list
    finding = of_wish(rule, Level.ERROR, wish_list, wish, message, hint)
    return CheckedImage(
        layout.public_name(wish.image, wish.name) if not wish.tags else str(wish),
        str(wish.image),
        wish_list,
        wish.line,
        wish.column,
        error=finding.text,
        owner=wish.owner,
        change=work.change,
        findings=(finding.as_earlier() if work.change in UNTOUCHED else finding,),
    )


def _unreadable(checked: CheckedList, target: Target) -> list[Finding]:
    if not target.problem or checked.base is None:
        return []
    message = f"what {checked.repository} has already is unknown: {target.problem}"
    return [Finding(Rule.COMPARISON, Level.NOTE, checked.name, 0, 0, message)]
