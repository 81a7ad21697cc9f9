"""The published JSON Schema and the parser agree on what a wish list of version 2 is."""

from __future__ import annotations

import copy
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from publisher.wishlist import WishListError, parse_wish_list
from tests.unit.wishlist.test_version2 import EXAMPLE

SCHEMA = json.loads(files("publisher").joinpath("schemas/wishlist-2.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
ROOT = Path(__file__).parents[3]


class _DatesAreTexts(yaml.SafeLoader):
    """Reads YAML as an editor does that checks it against a JSON Schema: JSON has no dates."""


_DatesAreTexts.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def conforms(document: Any) -> bool:
    return VALIDATOR.is_valid(document)


def accepts(document: Any) -> bool:
    """Whether the parser finds no error; JSON is YAML, so that a value can be handed to it."""
    try:
        return not parse_wish_list(json.dumps(document), "l").unusable
    except WishListError:
        return False


def test_the_schema_is_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("text", [EXAMPLE, (ROOT / "wishlist.yaml").read_text()])
def test_the_documented_lists_conform_and_are_read(text: str) -> None:
    VALIDATOR.validate(yaml.load(text, _DatesAreTexts))
    assert parse_wish_list(text, "l").problems == ()


def test_the_examples_in_the_documentation_are_read() -> None:
    blocks = (ROOT / "docs/wishlist.md").read_text().split("```yaml\n")[1:]
    lists = [block.split("```")[0] for block in blocks]
    assert len(lists) >= 3
    for text in lists:
        assert parse_wish_list(text, "docs").problems == ()
        if "version: 2" in text:
            VALIDATOR.validate(yaml.load(text, _DatesAreTexts))


image = st.sampled_from(
    ["debian", "quay.io/team/app:v1", "oci:/srv/layout:v1", "docker.io/library/debian:1.*"]
)
platforms = st.lists(
    st.sampled_from(["linux/amd64", "linux/arm64", "linux/arm/v6"]), min_size=1, max_size=2
)
outputs = st.lists(
    st.sampled_from(["flat", "layers", "thin", "podman", "squashfs", "sbom"]),
    min_size=1,
    max_size=3,
)
grace = st.sampled_from(["30d", "36h", "1d12h", "0s"])
text = st.sampled_from(["me", "for the survey", "a\nb"])
wish = st.one_of(
    image,
    st.fixed_dictionaries(
        {"image": image},
        optional={
            "platforms": platforms,
            "outputs": outputs,
            "grace": grace,
            "name": st.sampled_from(["tool", "team/tool"]),
            "owner": text,
            "note": text,
            "expires": st.just("2027-01-01"),
        },
    ),
    st.fixed_dictionaries(
        {
            "image": st.just("quay.io/team/app"),
            "tags": st.lists(st.sampled_from(["1.*", ">=1,<2", "latest"]), min_size=1),
        },
        optional={"exclude": st.lists(st.sampled_from(["*-rc*", "<1"]), min_size=1)},
    ),
)
documents = st.fixed_dictionaries(
    {
        "version": st.just(2),
        "images": st.lists(wish, min_size=1, max_size=3),
        "thin": st.just("https://example.org/thin/$(image)"),
    },
    optional={
        "repository": st.sampled_from(["dir:/srv/images", "/srv/images", "cvmfs:a.example.org"]),
        "defaults": st.fixed_dictionaries(
            {}, optional={"platforms": platforms, "outputs": outputs, "grace": grace}
        ),
    },
)
JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 7, 1.5, "", " ", "!!", [], ["", 1], {}, {"a": 1}, [[]], [None]]
)


@given(documents)
def test_schema_and_parser_accept_valid_lists(document: dict[str, Any]) -> None:
    VALIDATOR.validate(document)
    assert parse_wish_list(json.dumps(document), "l").unusable == ()


@pytest.mark.parametrize(
    "document",
    [
        {"version": 2},
        {"images": ["debian"]},
        {"version": 1, "images": ["debian"]},
        {"version": "2", "images": ["debian"]},
        {"version": 2, "images": []},
        {"version": 2, "images": "debian"},
        {"version": 2, "images": [7]},
        {"version": 2, "images": [""]},
        {"version": 2, "images": [{"tags": ["1"]}]},
        {"version": 2, "images": ["debian"], "imges": []},
        {"version": 2, "images": ["debian"], "repository": "name"},
        {"version": 2, "images": ["debian"], "thin": 7},
        {"version": 2, "images": ["debian"], "defaults": {"owner": "me"}},
        {"version": 2, "images": ["debian"], "defaults": []},
    ]
    + [
        {"version": 2, "images": [{"image": "debian", key: value}]}
        for key, value in (
            ("tags", []),
            ("tags", "1"),
            ("tags", [1.1]),
            ("exclude", [None]),
            ("platforms", ["linux"]),
            ("platforms", []),
            ("outputs", ["sif"]),
            ("outputs", "flat"),
            ("grace", 30),
            ("grace", "30"),
            ("name", "a b"),
            ("owner", False),
            ("note", ""),
            ("expires", "2027"),
            ("expires", 2027),
            ("thin", "x"),
        )
    ],
)
def test_schema_and_parser_refuse_invalid_lists(document: Any) -> None:
    assert not conforms(document)
    assert not accepts(document)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, item in value.items():
            found += places(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            found += places(item, (*path, number))
    return found


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A right document in which one thing was replaced, removed, misspelt or added."""
    document = copy.deepcopy(draw(documents))
    path = draw(st.sampled_from(places(document)))
    if not path:
        return draw(JUNK)
    parent: Any = document
    for step in path[:-1]:
        parent = parent[step]
    match draw(st.sampled_from(["replace", "remove", "misspell", "add"])):
        case "remove":
            del parent[path[-1]]
        case "misspell" if isinstance(parent, dict):
            parent[f"{path[-1]}s"] = parent.pop(path[-1])
        case "add" if isinstance(parent, dict):
            parent["other"] = draw(JUNK)
        case _:
            parent[path[-1]] = draw(JUNK)
    return document


@given(mutated())
def test_the_parser_never_accepts_what_the_schema_refuses(document: Any) -> None:
    if accepts(document):
        VALIDATOR.validate(document)


@given(mutated())
@example({"version": 2, "images": [{"image": "example.org/x:1", "outputs": ["thin"]}]})
def test_the_parser_refuses_more_only_where_a_schema_cannot_express_it(document: Any) -> None:
    if not conforms(document) or accepts(document):
        return
    try:
        problems = parse_wish_list(json.dumps(document), "l").unusable
    except WishListError as error:
        problems = tuple(p for p in error.problems if p.severity == "error")
    beyond = (
        "is not an image reference|can match no tag|is not a version range|no 'tags'|no 'thin'|"
        "cannot be an image's"
    )
    for problem in problems:
        assert re.search(beyond, problem.message), problem
