"""The variables of output formats mean the same as in earlier tools."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.errors import InvalidReference
from publisher.oci.reference import parse_reference
from publisher.wishlist import render_output_format
from publisher.wishlist.thin_name import VARIABLES, unknown_variables

DIGEST = "sha256:" + "0123456789abcdef" * 4
OTHER = "sha256:" + "f" * 64
TAGGED = "https://registry.hub.docker.com/library/fedora:40"
PINNED = f"http://127.0.0.1:5000/team/app@{DIGEST}"
BOTH = f"quay.io/team/app:v1@{DIGEST}"


@pytest.mark.parametrize(
    ("template", "image", "name"),
    [
        (
            "$(scheme)://registry.gitlab.example.org/thin/$(image)",
            TAGGED,
            "https://registry.gitlab.example.org/thin/library/fedora:40",
        ),
        (
            "$(scheme)://$(registry)/$(repository)_thin:$(tag)",
            TAGGED,
            "https://registry.hub.docker.com/library/fedora_thin:40",
        ),
        ("https://r.org/$(repository)$(reference)", TAGGED, "https://r.org/library/fedora:40"),
        ("https://r.org/$(registry)/$(image)", BOTH, "https://r.org/quay.io/team/app:v1"),
        ("$(scheme)://r.org/x:$(tag)", BOTH, "https://r.org/x:v1"),
        ("$(scheme)://r.org/x", PINNED, "http://r.org/x"),
        ("https://r.org/$(image)", PINNED, f"https://r.org/team/app:sha256-{DIGEST[7:]}"),
        ("https://r.org/x:$(digest)", PINNED, f"https://r.org/x:sha256-{DIGEST[7:]}"),
        ("https://r.org/x:$(digest)", TAGGED, f"https://r.org/x:sha256-{OTHER[7:]}"),
        ("https://r.org/x@$(digest)", TAGGED, f"https://r.org/x:sha256-{OTHER[7:]}"),
        ("https://r.org/$(image)", "oci:/srv/layouts/tool:v1", "https://r.org/tool:v1"),
        ("https://r.org/$(registry)/$(image)", "oci:/srv/tool", "https://r.org/local/tool:latest"),
        ("https://r.org/thin:1", TAGGED, "https://r.org/thin:1"),
    ],
)
def test_output_formats_are_filled_in(template: str, image: str, name: str) -> None:
    assert render_output_format(template, parse_reference(image), OTHER) == name


def test_the_name_of_a_wish_replaces_the_missing_registry() -> None:
    reference = parse_reference("oci:/srv/layouts/build-17:v1")
    assert render_output_format("x.org/$(image)", reference, DIGEST, "tool") == "x.org/tool:v1"


def test_unknown_and_unclosed_variables_are_found() -> None:
    assert unknown_variables("$(image) $(imag) $() $(tag") == ["imag", "", "$("]
    assert unknown_variables("".join(f"$({name})" for name in VARIABLES)) == []
    assert unknown_variables("$image $ (tag)") == []


@given(
    st.lists(st.sampled_from([f"$({name})" for name in VARIABLES] + ["-", "x", "/"]), max_size=6),
    st.sampled_from([TAGGED, PINNED, BOTH, "oci:/srv/tool:v1"]),
)
def test_no_variable_is_left_and_what_is_pushed_never_has_a_digest(
    parts: list[str], image: str
) -> None:
    name = render_output_format("r.org/" + "".join(parts), parse_reference(image), DIGEST)
    assert "$" not in name
    try:
        pushed = parse_reference(name)
    except InvalidReference:
        return
    assert pushed.digest is None
