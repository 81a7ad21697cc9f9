"""Quotas: how much the images of a project may use, and the error of an image that is too much."""

from __future__ import annotations

from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.sizes import human_size, plural


@dataclass(frozen=True, slots=True)
class Usage:
    """What images use: their number, and the bytes that they are charged."""

    images: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Quota:
    """How much the images of the project `name` may use in one repository; None for any amount.

    `name` is "" for wish lists without a project.
    """

    name: str = ""
    images: int | None = None
    bytes: int | None = None

    @property
    def is_limited(self) -> bool:
        """Whether anything is limited."""
        return self.images is not None or self.bytes is not None

    def check(
        self, subject: str, before: Usage, after: Usage, *, is_estimate: bool = False
    ) -> None:
        """Raise QuotaExceeded if `subject` needs more than is left.

        An image that needs nothing more is not refused, also where the quota is exceeded already.

        Args:
            subject: The public name of an image.
            before: What is used without it.
            after: What is used with it.
            is_estimate: Whether this is what is downloaded of some layers, which become larger.
        """
        if self.images is not None and after.images > max(self.images, before.images):
            raise QuotaExceeded(
                f"cannot publish {subject}",
                why=f"{self._of} is {plural(self.images, 'image')}, and {before.images} "
                f"{'is' if before.images == 1 else 'are'} published",
                hint=_HINT if self.images else _LARGER,
            )
        if self.bytes is not None and after.bytes > max(self.bytes, before.bytes):
            limit, used = human_size(self.bytes), human_size(before.bytes)
            fits_alone = after.bytes - before.bytes <= self.bytes
            needed = human_size(after.bytes - before.bytes)
            needed = f"at least {needed}" if is_estimate else needed
            raise QuotaExceeded(
                f"cannot publish {subject}",
                why=f"{self._of} is {limit}, {used} are used, and the image needs {needed} more",
                hint=_HINT if fits_alone else _LARGER,
            )

    @property
    def _of(self) -> str:
        return f"the quota of the project {self.name}" if self.name else "the quota of the lists"


class QuotaExceeded(PublisherError):
    """An image needs more than is left of a quota."""


_LARGER = "ask the administrator for a larger quota"
_HINT = f"remove other wishes, whose images count until they are collected, or {_LARGER}"
