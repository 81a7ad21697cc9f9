"""Read wish lists of version 2: see `schemas/wishlist-2.schema.json` and `docs/wishlist.md`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import yaml

from publisher.errors import InvalidReference
from publisher.lazy import dataclass
from publisher.oci.platform import Platform
from publisher.oci.reference import ImageReference, Transport
from publisher.oci.reference_grammar import check_local_name
from publisher.tree.schedule import DEFAULT_GRACE
from publisher.wishlist import wishes as shared
from publisher.wishlist.fields import (
    read_date,
    read_grace,
    read_outputs,
    read_patterns,
    read_platforms,
)
from publisher.wishlist.model import (
    DEFAULT_OUTPUTS,
    DEFAULT_PLATFORMS,
    Wish,
    WishList,
)
from publisher.yaml_nodes import Problems, describe, place, read_mapping, read_text

KEYS = ("version", "repository", "thin", "defaults", "images")
DEFAULT_KEYS = ("platforms", "outputs", "grace")
WISH_KEYS = (
    *("image", "tags", "exclude", "platforms", "outputs", "grace"),
    *("name", "owner", "note", "expires"),
)
_VERSION_1 = {
    "cvmfs_repo": "version 2 calls it 'repository'; write repository: cvmfs:NAME",
    "output_format": "version 2 calls it 'thin'",
    "input": "version 2 calls it 'images'",
    "user": "version 2 has no user: credentials belong to registries",
} | {key: f"put {key!r} under 'defaults'" for key in DEFAULT_KEYS}
_OF_WISHES = {key: f"{key!r} belongs to single images" for key in WISH_KEYS}
_OF_LISTS = {"tag": "put the tag into 'image', or patterns into 'tags'"} | {
    key: f"{key!r} belongs to the whole list, not to one image" for key in KEYS
}


@dataclass(frozen=True, slots=True)
class _Defaults:
    """The settings for wishes that do not have them."""

    platforms: tuple[Platform, ...] = DEFAULT_PLATFORMS
    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    grace: timedelta = DEFAULT_GRACE


def parse_version2(root: yaml.MappingNode, problems: Problems) -> WishList:
    """Read the mapping of a version 2 wish list."""
    fields = read_mapping(root, problems, "in a wish list of version 2", KEYS, _VERSION_1)
    repository = thin = None
    if "repository" in fields:
        text = read_text(fields["repository"], problems, "repository")
        if text is not None:
            repository = shared.read_repository_url(fields["repository"], text, problems)
    if "thin" in fields:
        thin = shared.check_thin(fields["thin"], problems)
    reader = _Reader(problems, thin, has_thin="thin" in fields)
    defaults = reader.defaults(fields.get("defaults"))
    wishes = []
    for node in shared.read_entries(fields, "images", root, problems):
        errors = problems.errors()
        wish = reader.wish(node, defaults)
        if wish is not None and problems.errors() == errors:
            wishes.append((wish, node))
    if thin is not None:
        shared.warn_of_constant_thin(fields["thin"], thin, problems)
    if thin is not None and wishes and not any(wish.thin for wish, _ in wishes):
        problems.warning(
            fields["thin"],
            "no image requests a thin image",
            "add thin to the 'outputs' of images or of 'defaults', or remove this line",
        )
    return shared.finish(2, "", repository, wishes, problems)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the wishes of one list, whose thin images are named by `thin`."""

    problems: Problems
    thin: str | None
    has_thin: bool  # also True if `thin` has an error

    def defaults(self, node: yaml.Node | None) -> _Defaults:
        if node is None:
            return _Defaults()
        if not isinstance(node, yaml.MappingNode):
            self.problems.error(
                node,
                f"'defaults' must be a mapping, but this is {describe(node)}",
                "write defaults: {platforms: [linux/amd64], outputs: [flat, layers], grace: 30d}",
            )
            return _Defaults()
        fields = read_mapping(node, self.problems, "in 'defaults'", DEFAULT_KEYS, _OF_WISHES)
        return self._common(fields, _Defaults())

    def wish(self, node: yaml.Node, defaults: _Defaults) -> Wish | None:
        """Return the wish of one entry; report errors, and return None for some of them."""
        if isinstance(node, yaml.MappingNode):
            if shared.explain_broken_text(node, self.problems, (*WISH_KEYS, *_OF_LISTS)):
                return None
            fields = read_mapping(node, self.problems, "in a wish", WISH_KEYS, _OF_LISTS)
        elif isinstance(node, yaml.ScalarNode):
            fields = {"image": node}
        else:
            shared.wrong_kind(node, self.problems, 2)
            return None
        common = self._common(fields, defaults)
        tags, exclude = self._patterns(fields, "tags"), self._patterns(fields, "exclude")
        texts = {
            key: read_text(fields[key], self.problems, key)
            for key in ("name", "owner", "note")
            if key in fields
        }
        self._check_name(fields.get("name"), texts.get("name"))
        expires = None
        if "expires" in fields:
            expires = read_date(fields["expires"], self.problems, "expires")
        image = self._image(node, fields)
        if image is None:
            return None
        reference, pattern = image
        if exclude and not (tags or pattern):
            self.problems.error(
                fields["exclude"],
                "'exclude' removes tags that 'tags' matches, and the wish has no 'tags'",
                "add tags: ['*'], or remove 'exclude'",
            )
        if texts.get("name") and reference.transport is Transport.REGISTRY:
            self._warn_of_name(fields["name"], reference)
        line, column = place(node)
        return Wish(
            image=reference,
            tags=tags or pattern,
            exclude=exclude,
            platforms=common.platforms,
            outputs=common.outputs,
            grace=common.grace,
            name=texts.get("name"),
            owner=texts.get("owner") or "",
            note=texts.get("note") or "",
            expires=expires,
            thin=self.thin if "thin" in common.outputs else None,
            line=line,
            column=column,
        )

    def _common(self, fields: Mapping[str, yaml.Node], defaults: _Defaults) -> _Defaults:
        platforms, outputs, grace = defaults.platforms, defaults.outputs, defaults.grace
        if "platforms" in fields:
            platforms = read_platforms(fields["platforms"], self.problems) or platforms
        if "outputs" in fields:
            outputs = read_outputs(fields["outputs"], self.problems) or outputs
            if "thin" in outputs and not self.has_thin:
                self.problems.error(
                    fields["outputs"],
                    "a thin image is requested, but the list has no 'thin'",
                    "add a line such as thin: 'https://registry.example.org/thin/$(image)'",
                )
        if "grace" in fields:
            read = read_grace(fields["grace"], self.problems)
            grace = grace if read is None else read
        return _Defaults(platforms, outputs, grace)

    def _patterns(self, fields: Mapping[str, yaml.Node], key: str) -> tuple[str, ...]:
        return read_patterns(fields[key], self.problems, key) if key in fields else ()

    def _image(
        self, node: yaml.Node, fields: Mapping[str, yaml.Node]
    ) -> tuple[ImageReference, tuple[str, ...]] | None:
        if "image" not in fields:
            self.problems.error(node, "the wish names no image", "add image: HOST/PATH/NAME")
            return None
        if "tags" not in fields:
            return shared.read_image(fields["image"], self.problems, 2)
        reference = shared.read_repository_of_tags(fields["image"], self.problems)
        return None if reference is None else (reference, ())

    def _warn_of_name(self, node: yaml.Node, reference: ImageReference) -> None:
        tag = f":{reference.tag or 'TAG'}" if reference.digest is None else ""
        self.problems.warning(
            node,
            "'name' has no effect on an image of a registry, which is published as "
            f"{reference.registry}/{reference.repository}{tag}",
            "remove 'name'; it is for images without a registry (oci:, docker-daemon: …)",
        )

    def _check_name(self, node: yaml.Node | None, name: str | None) -> None:
        if node is None or name is None:
            return
        try:
            check_local_name(name)
        except InvalidReference as error:
            self.problems.error(node, f"{error.what}: {error.why}", error.hint)
