"""Write wishes as a list of version 2: behind `publisher export`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import yaml

from publisher.durations import duration_text
from publisher.wishlist.document import Document, Item, Value, pair, scalar, texts, version_2
from publisher.wishlist.formatting import format_document
from publisher.wishlist.model import DEFAULT_OUTPUTS, DEFAULT_PLATFORMS, Wish

Text = str | tuple[str, ...]


def write_wish_list(wishes: Sequence[Wish], repository: str, thin: str | None = None) -> str:
    """Return a list of version 2 with these wishes; the most frequent options are its defaults.

    Args:
        wishes: At least one wish; all without patterns.
        repository: The URL of the repository.
        thin: The name of thin images, if a wish has the output "thin".
    """
    options = [_options(wish) for wish in wishes]
    usual = {
        key: Counter(each[key] for each in options).most_common(1)[0][0]
        for key in ("platforms", "outputs", "grace")
    }
    builtin = {
        "platforms": tuple(map(str, DEFAULT_PLATFORMS)),
        "outputs": DEFAULT_OUTPUTS,
        "grace": duration_text(Wish(wishes[0].image).grace),
    }
    defaults = {key: value for key, value in usual.items() if value != builtin[key]}
    items = [version_2(), pair("repository", scalar(repository))]
    if thin is not None:
        items.append(pair("thin", scalar(thin)))
    if defaults:
        items.append(pair("defaults", _mapping(defaults)))
    images = [Item(_value(wish, usual)) for wish in wishes]
    items.append(pair("images", Value(yaml.SequenceStartEvent, items=images, one_per_line=True)))
    return format_document(Document(Value(yaml.MappingStartEvent, items=items)))


def _options(wish: Wish) -> dict[str, Text]:
    return {
        "platforms": tuple(map(str, wish.platforms)),
        "outputs": wish.outputs,
        "grace": duration_text(wish.grace),
    }


def _value(wish: Wish, usual: Mapping[str, Text]) -> Value:
    """Return a wish: a string, if it has no options of its own."""
    fields: dict[str, Text] = {"image": str(wish.image)}
    fields |= {key: value for key, value in _options(wish).items() if value != usual[key]}
    own = {"name": wish.name, "owner": wish.owner, "note": wish.note}
    fields |= {key: text for key, text in own.items() if text}
    return scalar(str(wish.image)) if len(fields) == 1 else _mapping(fields)


def _mapping(fields: Mapping[str, Text]) -> Value:
    items = [
        pair(key, scalar(content) if isinstance(content, str) else texts(content))
        for key, content in fields.items()
    ]
    return Value(yaml.MappingStartEvent, items=items)
