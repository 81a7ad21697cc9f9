"""Read images, and check all wishes of a list together, for both versions."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import yaml

from publisher.errors import InvalidReference, PublisherError, presentable
from publisher.lazy import pattern
from publisher.oci.known_hosts import host_like
from publisher.oci.reference import (
    HUB,
    ImageReference,
    parse_pattern,
    parse_reference,
    parse_repository,
)
from publisher.oci.tag_patterns import InvalidPattern, check_pattern
from publisher.tree import layout
from publisher.wishlist.model import Wish, WishList
from publisher.wishlist.thin_name import VARIABLES, render_output_format, unknown_variables
from publisher.yaml_nodes import Problems, describe, place, quoted, read_text

_ALTERNATIVES = pattern(
    r"(?P<image>[^\s@]*[^\s@:]):[\^]?[({]?(?P<tags>[\w.-]+(?:[|,][\w.-]+)+)[)}]?[$]?", re.ASCII
)
_PATTERN_AS_TAG = pattern(r"(?P<image>[^\s@]*[^\s@:]):(?P<pattern>[^@/]*[<>=!~?\[\]][^@/]*)")
DUPLICATE = "duplicate-wish"
"""The rule of a wish that repeats another one of its list."""

_SOME_DIGEST = "sha256:" + "0" * 64


def _subject(entry: yaml.Node) -> str:
    """Return the name of a wish in messages: its image, or its line."""
    if isinstance(entry, yaml.MappingNode):
        texts = [value for key, value in entry.value if key.value == "image"]
        entry = texts[0] if texts else entry
    if isinstance(entry, yaml.ScalarNode) and entry.value:
        return presentable(entry.value)
    return f"the wish on line {place(entry)[0]}"


def read_image(
    node: yaml.Node, problems: Problems, version: int
) -> tuple[ImageReference, tuple[str, ...]] | None:
    """Return an image's reference, and its tag as a pattern if it is one."""
    text = read_text(node, problems, "an image")
    if text is None:
        return None
    if " - " in text:
        problems.error(
            node,
            f"YAML reads several lines as one string: {quoted(presentable(text))}",
            "put each '- ' exactly under the one above",
        )
        return None
    try:
        reference, pattern = parse_pattern(text)
        return reference, () if pattern is None else (check_pattern(pattern),)
    except InvalidReference as error:
        if not _explain_pattern(node, text, problems, version):
            problems.error(node, f"{error.what}: {error.why}", error.hint)
    except InvalidPattern as error:
        problems.error(node, error.what, error.hint)
    return None


def _explain_pattern(node: yaml.Node, text: str, problems: Problems, version: int) -> bool:
    """Report a glob or version range in the tag of `image`, where only '*' is allowed."""
    if found := _ALTERNATIVES.fullmatch(text):
        texts = re.split("[|,]", found["tags"])
    elif found := _PATTERN_AS_TAG.fullmatch(text):
        texts = [found["pattern"].strip()]
    else:
        return False
    try:
        image, patterns = parse_repository(found["image"]), [check_pattern(each) for each in texts]
    except (InvalidReference, InvalidPattern):
        return False
    write = f"write {{image: {image}, tags: [{', '.join(map(quoted, patterns))}]}}"
    problems.error(
        node,
        f"{'|'.join(patterns)!r} is a pattern, and a tag in 'image' takes only '*'",
        write if version == 2 else f"{write} in a list of version 2, or use '*'",
    )
    return True


def read_repository_of_tags(node: yaml.Node, problems: Problems) -> ImageReference | None:
    """Return the image repository that `tags` applies to; it must have no tag itself."""
    text = read_text(node, problems, "an image")
    if text is None:
        return None
    try:
        return parse_repository(text)
    except InvalidReference as error:
        message, hint = f"{error.what}: {error.why}", error.hint
    try:
        reference, _ = parse_pattern(text)
        bare = replace(reference, tag=None, digest=None)
        message = f"{presentable(text)!r} names one image already, and 'tags' requests others"
        hint = f"write {bare}, or remove 'tags'"
    except InvalidReference as error:
        message, hint = f"{error.what}: {error.why}", error.hint
    problems.error(node, message, hint)
    return None


def explain_broken_text(node: yaml.Node, problems: Problems, known: Sequence[str]) -> bool:
    """Report an image that YAML reads as a mapping because a space follows its ':'.

    `known` are the keys that a mapping in this place may have.
    """
    if not (isinstance(node, yaml.MappingNode) and len(node.value) == 1):
        return False
    key, value = node.value[0]
    if not (isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)):
        return False
    is_key = key.value in known or difflib.get_close_matches(key.value.lower(), known, 1)
    if is_key and not set("/.@") & set(key.value):
        return False
    if value.value:
        message = "an image must be one string, but a space follows its ':'"
        whole = presentable(f"{key.value}:{value.value}")
    else:
        message = "no tag follows the ':'"
        whole = presentable(key.value)
    problems.error(node, message, f"write {quoted(whole)}")
    return True


def read_repository_url(node: yaml.Node, text: str, problems: Problems) -> str | None:
    """Return the URL of the repository to publish to."""
    if ":" not in text and "/" not in text:
        problems.error(
            node,
            f"{text!r} may be the name of a CVMFS repository or a directory",
            f"write cvmfs:{text}, or dir:/PATH for a directory",
        )
        return None
    try:
        return str(layout.RepositoryURL.parse(text))
    except PublisherError as error:
        problems.error(node, f"{error.what}: {error.why}", error.hint)
        return None


def check_thin(node: yaml.Node, problems: Problems) -> str | None:
    """Return the output format of thin images' names, if its variables are known."""
    template = read_text(node, problems, "the name of thin images")
    if template is None:
        return None
    for name in unknown_variables(template):
        message = f"unknown variable $({name})" if name != "$(" else "a '$(' that is not closed"
        known = ", ".join(f"$({variable})" for variable in VARIABLES)
        problems.error(node, message, f"known are {known}")
        return None
    return template


def warn_of_constant_thin(node: yaml.Node, template: str, problems: Problems) -> None:
    """Warn of a name of thin images that has no variables."""
    if "$(" not in template:
        problems.warning(
            node,
            "the name of thin images has no variables: all of them would have the same name",
            f"write {quoted(presentable(template.rstrip('/') + '/$(image)'))}",
        )


def check_wishes(wishes: Sequence[tuple[Wish, yaml.Node]], problems: Problems) -> list[Wish]:
    """Return the usable wishes; report unusable and repeated ones."""
    good: list[Wish] = []
    published: dict[str, int] = {}
    pushed: dict[str, int] = {}
    for wish, node in wishes:
        problems.subject = presentable(str(wish))
        try:
            names = public_names(wish)
            thin = thin_names(wish)
        except InvalidReference as error:
            problems.error(node, f"{error.what}: {error.why}", error.hint)
            continue
        twice = [published[name] for name in names if name in published]
        if twice:
            problems.warning(
                node,
                f"{wish} is already listed on line {twice[0]}",
                "remove one of the two",
                rule=DUPLICATE,
            )
        elif "$(" in (wish.thin or "") and (
            len(set(thin)) < len(thin) or any(name in pushed for name in thin)
        ):
            problems.warning(
                node,
                f"the thin image of {wish} would have the name {thin[0]}, as another one has",
                "use $(image) in the name of thin images",
            )
        _warn_of_hub_name(wish, node, problems)
        published |= {name: wish.line for name in names if name not in published}
        pushed |= dict.fromkeys(thin, wish.line)
        good.append(wish)
    problems.subject = ""
    return good


def _warn_of_hub_name(wish: Wish, node: yaml.Node, problems: Problems) -> None:
    """Warn of a name that Docker Hub cannot have, which usually lacks the host."""
    reference = wish.image
    if reference.registry != HUB or reference.repository.count("/") < 2:
        return
    first, _, rest = reference.repository.partition("/")
    host = host_like(first)
    problems.warning(
        node,
        f"a name on Docker Hub has two parts, and {reference.repository} has more",
        f"did you mean {host}/{rest}?" if host else "begin with the host of the registry",
    )


def public_names(wish: Wish) -> list[str]:
    """Return the public name of a wish's image; for patterns, one name for each pattern.

    Raises InvalidReference if the image cannot have a public name.
    """
    if not wish.tags:
        return [layout.public_name(wish.image, wish.name)]
    path = layout.public_name(wish.image.with_tag("x"), wish.name).removesuffix("x")
    return [path + pattern for pattern in wish.tags]


def thin_names(wish: Wish) -> list[str]:
    """Return the thin image's name; for patterns, the names of two made-up tags."""
    if wish.thin is None:
        return []
    images = [wish.image.with_tag(tag) for tag in "12"] if wish.tags else [wish.image]
    names = [render_output_format(wish.thin, image, _SOME_DIGEST, wish.name) for image in images]
    for name in names:
        try:
            parse_reference(name)
        except InvalidReference as error:
            raise InvalidReference(
                f"the thin image of {wish} cannot be called {presentable(name)!r}",
                why=error.why,
                hint=f"change the name of thin images: {presentable(wish.thin)!r}",
            ) from error
    return names


def finish(
    version: int,
    user: str,
    repository: str | None,
    wishes: Sequence[tuple[Wish, yaml.Node]],
    problems: Problems,
) -> WishList:
    """Return the wish list; raise WishListError if an error concerns more than single wishes."""
    good = check_wishes(wishes, problems)
    found = problems.sorted()
    wish_list = WishList(problems.name, version, user, repository, tuple(good), found)
    if any(not problem.subject for problem in wish_list.unusable):
        raise problems.failure()
    return wish_list


def read_entries(
    fields: Mapping[str, yaml.Node], key: str, root: yaml.Node, problems: Problems
) -> Iterator[yaml.Node]:
    """Yield the entries under `key`; errors that are reported meanwhile concern this entry."""
    node = fields.get(key)
    if node is None:
        problems.error(
            root, f"the list of images is missing: there is no key {key!r}", f"add {key}:"
        )
    elif not isinstance(node, yaml.SequenceNode):
        problems.error(
            node,
            f"{key!r} must be a list of images, but this is {describe(node)}",
            "put each image on a line of its own, after '- '",
        )
    elif not node.value:
        problems.error(node, f"{key!r} is an empty list", "name at least one image")
    else:
        for entry in node.value:
            problems.subject = _subject(entry)
            yield entry
    problems.subject = ""


def wrong_kind(node: yaml.Node, problems: Problems, version: int) -> None:
    """Report an entry that is neither a string nor (in version 2) a mapping."""
    kinds = "a string" if version == 1 else "a string or a mapping with the key 'image'"
    problems.error(
        node,
        f"a wish must be {kinds}, but this is {describe(node)}",
        "write for example docker.io/library/debian:stable",
    )
