"""What violates the rules of a policy: functions of facts about wishes and images."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import field

from publisher.lazy import dataclass
from publisher.oci.reference import ImageReference, Transport, canonical_name
from publisher.policy.model import PolicyFile, Rules, Setting, SignatureRule, Violation

LOCAL = "local"
"""What images without a registry have in place of its host."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What manifests and configs tell of an image for its requested platforms.

    `size` is that of the distinct compressed layers of the largest one, in bytes. `entries` are
    those of the largest one as far as they are known. `labels` has those of each platform.
    """

    size: int = 0
    entries: int = 0
    labels: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyCheck:
    """The rules of `policy` for the wishes of `owner`."""

    policy: PolicyFile
    owner: str
    rules: Rules = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", self.policy.rules_for(self.owner))

    def wish(self, image: ImageReference, *, has_patterns: bool) -> Iterator[Violation]:
        """Yield what a wish violates, before its registry is asked.

        Args:
            image: The image, or for a wish with patterns the image repository.
            has_patterns: Whether the wish has patterns.
        """
        yield from self._owner()
        yield from self._names(image)
        if self.rules.pinned and (has_patterns or image.digest is None):
            yield self._violation(
                "pinned",
                self.rules.pinned,
                f"{image} is not pinned by a digest",
                "write IMAGE:TAG@DIGEST: `publisher inspect IMAGE` shows the digest",
            )
        if not has_patterns:
            yield from self.tag(image)

    def tag(self, image: ImageReference) -> Iterator[Violation]:
        """Yield the rules that forbid the tag of one image."""
        if image.tag is None or image.digest is not None:
            return
        for setting in self.rules.forbid_tags:
            if fnmatch.fnmatchcase(image.tag, setting.value):
                message = f"the tag {image.tag!r} is forbidden"
                hint = "request the tag of a version, or pin the image by a digest"
                yield self._violation("forbid-tags", setting, message, hint)
                return

    def width(self, tags: int) -> Iterator[Violation]:
        """Yield a violation if the patterns of one wish match more tags than they may."""
        limit = self.rules.max_tags
        if limit and tags > limit.value:
            message = f"its patterns match {tags} tags, more than {limit.value}"
            yield self._violation("max-tags", limit, message, "narrow the patterns, or use exclude")

    def count(self, of_owner: int, of_all: int) -> Iterator[Violation]:
        """Yield a violation if an image is one too many, for its owner or for all together."""
        own, general = self.rules.max_images, self.policy.general.max_images
        hint = "remove another image, or ask the administrator for more"
        if own and of_owner > own.value:
            message = f"{self.owner} has {of_owner} images with it, more than {own.value}"
            yield self._violation("max-images", own, message, hint)
        if general and of_all > general.value:
            message = f"there are {of_all} images with it, more than {general.value}"
            yield self._violation("max-images", general, message, hint)

    def image(self, facts: ImageFacts) -> Iterator[Violation]:
        """Yield what an image violates."""
        for rule, limit, found, unit in (
            ("max-size", self.rules.max_size, facts.size, "bytes"),
            ("max-entries", self.rules.max_entries, facts.entries, "entries"),
        ):
            if limit and found > limit.value:
                message = f"it has {found} {unit}, more than {limit.value}"
                hint = "request a smaller image, or ask the administrator for a higher limit"
                yield self._violation(rule, limit, message, hint)
        for setting in self.rules.labels:
            name, pattern = setting.value
            values = {labels.get(name) for labels in facts.labels}
            if any(v is None or not fnmatch.fnmatchcase(v, pattern) for v in values):
                message = f"it has no label {name} with the value {pattern}"
                hint = "build the image with that label, or request another one"
                yield self._violation("labels", setting, message, hint)

    def signatures(self, image: ImageReference) -> Iterator[Setting[SignatureRule]]:
        """Yield the rules by which the image needs a signature."""
        for setting in self.rules.signatures:
            if _matches(_spellings(image_name(image), image), setting.value.images):
                yield setting

    def unsigned(self, setting: Setting[SignatureRule], why: str) -> Violation:
        """Return the violation of a rule that requires a signature."""
        hint = "sign it: cosign sign --key KEY IMAGE@DIGEST"
        return self._violation("signatures", setting, why, hint)

    def change(self, user: str) -> Iterator[Violation]:
        """Yield a violation if `user` may not change the wishes of the owner."""
        users = self.rules.users
        if users and not _matches([user], users.value):
            message = f"{user} may not change wishes of {self.owner}"
            hint = f"{', '.join(users.value)} may" if users.value else "ask the administrator"
            yield self._violation("users", users, message, hint)

    def _owner(self) -> Iterator[Violation]:
        required = self.policy.only_known_owners
        if required and self.owner not in self.policy.owners:
            name = f"the owner {self.owner!r} is not known" if self.owner else "it has no owner"
            known = ", ".join(self.policy.owners) or "none"
            yield self._violation(
                "known-owners-only", required, name, f"write owner: NAME; known are {known}"
            )

    def _names(self, image: ImageReference) -> Iterator[Violation]:
        rules, hint = self.rules, "request the image from another place"
        for what, name, allowed, denied in (
            ("registries", registry_name(image), rules.allow_registries, rules.deny_registries),
            ("images", image_name(image), rules.allow_images, rules.deny_images),
        ):
            names = _spellings(name, image)
            if allowed and not _matches(names, allowed.value):
                hint = f"allowed are {', '.join(allowed.value) or 'none'}"
                yield self._violation(what, allowed, f"{name} is not allowed", hint)
            for setting in denied:
                if _matches(names, [setting.value]):
                    message = f"{name} is denied"
                    yield self._violation(what, setting, message, hint)
                    break

    def _violation(self, rule: str, setting: Setting[object], message: str, hint: str) -> Violation:
        return Violation(rule, self.policy.name, setting.line, message, hint)


def registry_name(image: ImageReference) -> str:
    """Return the registry as rules name it: one name for all hosts of Docker Hub.

    The port is left out if it is that of the scheme.
    """
    if image.transport is not Transport.REGISTRY:
        return LOCAL
    return canonical_name(image.registry.removesuffix(":80" if image.plain_http else ":443"))


def image_name(image: ImageReference) -> str:
    """Return "registry/repository", without scheme, tag and digest."""
    if image.transport is not Transport.REGISTRY:
        return f"{LOCAL}/{image.repository or image.location.lstrip('/')}"
    return f"{registry_name(image)}/{image.repository}"


def _spellings(name: str, image: ImageReference) -> set[str]:
    """Return the names that patterns may match: `name`, and the one with the port as written."""
    registry = registry_name(image)
    has_port = image.registry.startswith(f"{registry}:")
    return {name, image.registry + name.removeprefix(registry)} if has_port else {name}


def _matches(names: Iterable[str], patterns: Collection[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)
