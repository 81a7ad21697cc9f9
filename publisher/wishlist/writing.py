"""Write wishes as a list of version 2: behind `publisher export`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import yaml

from publisher.durations import duration_text
from publisher.wishlist.document import Document, Item, Value
from publisher.wishlist.formatting import format_document
from publisher.wishlist.model import DEFAULT_OUTPUTS, DEFAULT_PLATFORMS, Wish
from publisher.yaml_nodes import STRING

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
    items = [Item(Value(yaml.ScalarEvent, "2", "tag:yaml.org,2002:int"), _scalar("version"))]
    items.append(Item(_scalar(repository), _scalar("repository")))
    if thin is not None:
        items.append(Item(_scalar(thin), _scalar("thin")))
    if defaults:
        items.append(Item(_mapping(defaults), _scalar("defaults")))
    images = [Item(_value(wish, usual)) for wish in wishes]
    items.append(
        Item(Value(yaml.SequenceStartEvent, items=images, one_per_line=True), _scalar("images"))
    )
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
    texts = {"name": wish.name, "owner": wish.owner, "note": wish.note}
    fields |= {key: text for key, text in texts.items() if text}
    return _scalar(str(wish.image)) if len(fields) == 1 else _mapping(fields)


def _mapping(fields: Mapping[str, Text]) -> Value:
    items = []
    for key, content in fields.items():
        if isinstance(content, str):
            value = _scalar(content)
        else:
            value = Value(yaml.SequenceStartEvent, items=[Item(_scalar(each)) for each in content])
        items.append(Item(value, _scalar(key)))
    return Value(yaml.MappingStartEvent, items=items)


def _scalar(text: str) -> Value:
    return Value(yaml.ScalarEvent, text, STRING)
