"""Documents that are almost right: what parsers must refuse in their own words."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 2**63, 10**400, 1.5, float("inf"), float("nan")])
    | st.text(max_size=8)
    | st.sampled_from(["sha256:" + "0" * 64, "sha256:0", "\ud800", "\0", "../..", "x" * 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@st.composite
def mutated(draw: st.DrawFn, *documents: Any) -> bytes:
    """The bytes of one of the JSON `documents`, with a few places changed, removed or repeated.

    Sometimes the text itself is damaged as well: cut off, or with bytes exchanged.
    """
    value = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(0, 3))):
        holder, key = draw(st.sampled_from(_places({"": value})))
        if key == "":
            value = draw(JSON_VALUES)
            continue
        match draw(st.sampled_from(["replace", "delete", "repeat"])):
            case "delete":
                del holder[key]
            case "repeat" if isinstance(holder, list):
                holder.append(holder[key])
            case _:
                holder[key] = draw(JSON_VALUES)
    data = json.dumps(value).encode()
    if draw(st.integers(0, 4)) == 0:
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, len(data)))
        data = data[:start] + draw(st.binary(max_size=8)) + data[end:]
    return data


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or number) below `value`."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    places = [(value, key) for key in keys]
    for key in keys:
        if isinstance(value[key], dict | list):
            places += _places(value[key])
    return places


def nested(depth: int, around: str = '{"a":', after: str = "}") -> bytes:
    """Valid JSON of this many levels, which exhausts the stack of recursive programs."""
    return (around * depth + "0" + after * depth).encode()
