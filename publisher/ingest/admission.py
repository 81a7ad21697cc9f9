"""Apply a policy file and a prefix of public names to the wishes and images of one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from publisher.errors import InvalidReference, PublisherError
from publisher.oci.reference import ImageReference, Transport
from publisher.sources import Source
from publisher.tree import layout
from publisher.wishlist import Wish
from publisher.wishlist.model import Request

if TYPE_CHECKING:  # the rules are loaded if there is a policy file
    from publisher.oci.image import PlatformImage
    from publisher.policy import PolicyFile, Violation
    from publisher.policy.model import SignatureRule
    from publisher.policy.rules import PolicyCheck


class PolicyViolated(PublisherError):
    """A policy does not allow a wish or an image.

    `rule` and `line` are those of the file `policy` that is violated first.
    """

    def __init__(self, subject: object, violations: Sequence[Violation]) -> None:
        first = violations[0]
        why = "; ".join(violation.why for violation in violations)
        super().__init__(f"cannot publish {subject}", why=why, hint=first.hint)
        self.rule = first.rule
        self.policy = first.file
        self.line = first.line


class OutsidePrefix(PublisherError):
    """The public name of an image is not below the prefix of the run."""


class Signatures(Protocol):
    """Verifies the signatures of images: see `ingest.signatures`."""

    def why_unsigned(
        self, source: Source, digest: str, rules: Sequence[SignatureRule]
    ) -> Sequence[str]:
        """Return for each rule "" if the image `digest` is signed as it requires, else why not."""


class RunQuota(Protocol):
    """Refuses images that are more than is left of a quota: see `browse.statistics.quota`."""

    @property
    def rules(self) -> object:
        """What is allowed: when it changes, images that were refused are tried again."""

    def counted(
        self, name: str, wish_list: str, layers: Mapping[str, int]
    ) -> AbstractContextManager[Callable[[], None]]:
        """Count an image until the block ends with an exception; raise QuotaExceeded.

        Returns a context with a function that counts the unpacked layers, and raises it as well.
        """


class Admission:
    """Decides what may be published. Safe to use from several threads.

    Args:
        policy: The rules; without them, all may be.
        signatures: Verifies signatures, if the rules require any.
        requests: All wishes of the run, in the order in which they count for limits of numbers. A
            wish with patterns counts as one image until its tags are known.
        prefix: The directory of the published tree in which all public names have to be, such as
            "registry.example.org/astro"; "" for any.
    """

    def __init__(
        self,
        policy: PolicyFile | None = None,
        signatures: Signatures | None = None,
        requests: Iterable[Request] = (),
        prefix: str = "",
    ) -> None:
        self.policy = policy
        self._prefix = prefix
        self._signatures = signatures
        self._positions: dict[tuple[str, int, int], tuple[int, int]] = {}
        counts: Counter[str] = Counter()
        for number, request in enumerate(requests, 1):
            owner = request.wish.owner
            counts[owner] += 1
            self._positions[_place(request)] = counts[owner], number

    @property
    def rules(self) -> tuple[object, ...]:
        """What decides: when it changes, images that were refused are tried again."""
        return self.policy, self._prefix

    def check_wish(self, request: Request) -> None:
        """Refuse a wish that is not allowed itself; nothing is requested.

        Raises:
            OutsidePrefix: Its images would be published elsewhere than below the prefix.
            PolicyViolated: The policy does not allow it.
        """
        self._check_prefix(request.wish)
        check = self._check(request.wish)
        if check is not None:
            wish = request.wish
            found = [*check.wish(wish.image, has_patterns=bool(wish.tags))]
            found += check.count(*self._position(request))
            _refuse(wish, found)

    def _check_prefix(self, wish: Wish) -> None:
        if not self._prefix:
            return
        try:
            name = layout.without_tag(layout.public_name(wish.image, wish.name))
        except InvalidReference:
            return  # its images have no names, which is reported as their failure
        if not name.startswith(f"{self._prefix}/"):
            raise OutsidePrefix(
                f"cannot publish {wish}",
                why=f"its public name {name} is not below {self._prefix}/",
                hint=_hint_of_prefix(wish, self._prefix),
            )

    def check_width(self, request: Request, tags: int) -> None:
        """Raise PolicyViolated if the patterns of a wish match too many tags."""
        check = self._check(request.wish)
        if check is not None and request.wish.tags:
            of_owner, of_all = self._position(request)
            found = [*check.width(tags), *check.count(of_owner + tags - 1, of_all + tags - 1)]
            _refuse(request.wish, found)

    def check_tag(self, wish: Wish, image: ImageReference) -> None:
        """Raise PolicyViolated if the tag of one image of a wish is forbidden."""
        check = self._check(wish)
        if check is not None:
            _refuse(image, list(check.tag(image)))

    def check_images(
        self,
        wish: Wish,
        reference: ImageReference,
        source: Source,
        images: Sequence[PlatformImage],
        entries: int = 0,
    ) -> None:
        """Raise PolicyViolated if an image is not allowed; signatures are read from its source.

        Args:
            wish: The wish that requests the image.
            reference: The image.
            source: Its source.
            images: The image for each of its platforms.
            entries: How many entries it has, as far as they are known.
        """
        check = self._check(wish)
        if check is None:
            return
        from publisher.policy.rules import ImageFacts

        facts = ImageFacts(
            max(each.manifest.size for each in images),
            entries,
            tuple(each.config.container.labels for each in images),
        )
        _refuse(reference, list(check.image(facts)))
        required = list(check.signatures(reference))
        if not required:
            return
        assert self._signatures is not None
        # cosign signs what the reference names: an index, or the manifest of a single image.
        digest = images[0].source_digest
        reasons = self._signatures.why_unsigned(source, digest, [each.value for each in required])
        unsigned = zip(required, reasons, strict=True)
        _refuse(reference, [check.unsigned(setting, why) for setting, why in unsigned if why])

    def check_entries(self, wish: Wish, image: ImageReference, count: Callable[[], int]) -> None:
        """Raise PolicyViolated if an image has too many entries, which `count` returns.

        They are known once its layers are unpacked; `count` is called only if there is a limit.
        """
        check = self._check(wish)
        if check is not None and check.rules.max_entries is not None:
            from publisher.policy.rules import ImageFacts

            _refuse(image, list(check.image(ImageFacts(entries=count()))))

    def _check(self, wish: Wish) -> PolicyCheck | None:
        if self.policy is None:
            return None
        from publisher.policy.rules import PolicyCheck

        return PolicyCheck(self.policy, wish.owner)

    def _position(self, request: Request) -> tuple[int, int]:
        return self._positions.get(_place(request), (1, 1))


def _place(request: Request) -> tuple[str, int, int]:
    return request.wish_list, request.wish.line, request.wish.column


def _hint_of_prefix(wish: Wish, prefix: str) -> str:
    top, _, rest = prefix.partition("/")
    if wish.image.transport is not Transport.REGISTRY and top == layout.LOCAL:
        return f"write name: {rest}/NAME in the wish" if rest else "write name: NAME in the wish"
    return f"request an image of {prefix}/, or ask the administrator for another prefix"


def _refuse(subject: object, violations: Sequence[Violation]) -> None:
    if violations:
        raise PolicyViolated(subject, violations)
