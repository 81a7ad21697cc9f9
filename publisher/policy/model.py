"""The rules of a policy file, as values with their places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field, fields, replace
from typing import Any, Generic, TypeVar

from publisher.lazy import dataclass
from publisher.problems import InvalidFile

T = TypeVar("T", covariant=True)


class InvalidPolicy(InvalidFile):
    """A policy file has mistakes, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """A value of a policy file, and its line from 1."""

    value: T
    line: int


@dataclass(frozen=True, slots=True)
class Signer:
    """An identity that `issuer`, an OpenID Connect provider, has confirmed.

    `subject` is a glob for an address: of mail, or of a workflow.
    """

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class SignatureRule:
    """The images whose repository matches `images` need a signature by one of `keys` or `signers`.

    `keys` are the paths of public keys in PEM form. `trusted_root` is the path of the file with the
    certificates and logs of Sigstore that confirm signers; "" for those of the public instance.
    """

    images: tuple[str, ...]
    keys: tuple[str, ...] = ()
    signers: tuple[Signer, ...] = ()
    trusted_root: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules for the wishes of one owner, or of all.

    Patterns of registries and images are globs, in which `*` matches "/" as well. An image is
    matched by "registry/repository", without its tag. Sizes are compressed, in bytes, for one
    image. `max_images` counts all images of the owner, or of all owners. `max_tags` is for one wish
    with patterns. `labels` are pairs of a name and a glob for its value.
    """

    allow_registries: Setting[tuple[str, ...]] | None = None
    deny_registries: tuple[Setting[str], ...] = ()
    allow_images: Setting[tuple[str, ...]] | None = None
    deny_images: tuple[Setting[str], ...] = ()
    forbid_tags: tuple[Setting[str], ...] = ()
    pinned: Setting[bool] | None = None
    max_size: Setting[int] | None = None
    max_entries: Setting[int] | None = None
    max_images: Setting[int] | None = None
    max_tags: Setting[int] | None = None
    labels: tuple[Setting[tuple[str, str]], ...] = ()
    signatures: tuple[Setting[SignatureRule], ...] = ()
    users: Setting[tuple[str, ...]] | None = None

    def overriding(self, general: Rules) -> Rules:
        """Return these rules, and of the general ones those that these do not replace.

        What the general rules deny, forbid or require remains so. `max_images` and `users` are not
        inherited: the general number is that of all owners together.
        """
        merged: dict[str, Any] = {}
        for each in fields(self):
            own, inherited = getattr(self, each.name), getattr(general, each.name)
            if isinstance(own, tuple):
                merged[each.name] = (*inherited, *own)
            elif own is None and each.name not in ("max_images", "users"):
                merged[each.name] = inherited
        return replace(self, **merged)


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """The policy file `name`: general rules, and those of owners.

    With `only_known_owners`, every wish needs an owner that the file names.
    """

    name: str
    general: Rules = field(default_factory=Rules)
    owners: Mapping[str, Rules] = field(default_factory=dict)
    only_known_owners: Setting[bool] | None = None

    def rules_for(self, owner: str) -> Rules:
        """Return the rules for the wishes of `owner`, "" for none."""
        own = self.owners.get(owner)
        if own is None:
            return replace(self.general, max_images=None)
        return own.overriding(self.general)

    def signature_rules(self) -> Iterator[SignatureRule]:
        """Yield all rules about signatures."""
        for rules in (self.general, *self.owners.values()):
            for setting in rules.signatures:
                yield setting.value


@dataclass(frozen=True, slots=True)
class Violation:
    """What a wish or image violates: the rule and its line in the policy file.

    `message` is the cause, and `hint` what to do.
    """

    rule: str
    file: str
    line: int
    message: str
    hint: str

    @property
    def why(self) -> str:
        """The message with the rule and its place."""
        return f"{self.message} (rule {self.rule}, {self.file}:{self.line})"
