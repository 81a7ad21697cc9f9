"""The paths of pages are safe and unique, and links from outside are those of the web."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.site.addresses import image_page
from publisher.site.commands import run_commands
from publisher.site.compose import sharing
from publisher.site.rendering import is_web_address

NAMES = st.text(st.characters(exclude_characters="\0"), max_size=300)


@given(NAMES, NAMES)
def test_each_name_has_a_safe_path_of_its_own(one: str, other: str) -> None:
    assert re.fullmatch(r"images/[a-z0-9][a-z0-9.-]*-[0-9a-f]{24}\.html", image_page(one))
    assert (image_page(one) == image_page(other)) == (one == other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://example.org/a?b=c#d", True),
        ("http://example.org", True),
        ("HTTPS://example.org", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("file:///etc/passwd", False),
        ("//example.org/a", False),
        ("https://", False),
        ("https://[", False),
        ("https://example.org/\u202ea", False),
        ("java\nscript:alert(1)", False),
        ("", False),
    ],
)
def test_only_addresses_of_the_web_become_links(text: str, expected: bool) -> None:
    assert is_web_address(text) is expected


def test_the_commands_are_those_of_the_outputs_and_quote_what_they_need() -> None:
    name, url = "registry.example.org/a/b:1", "dir:/srv/my images"
    commands = run_commands(
        name,
        "/srv/my images",
        url,
        ("flat", "layers", "podman", "squashfs", "thin", "sbom"),
        has_flat=True,
        has_program=True,
        thin="registry.example.org/thin/a/b:1",
    )
    lines = {command.runtime: command.lines for command in commands}
    assert lines["Apptainer"] == f"apptainer run '/srv/my images/{name}'"
    assert lines["To try it"] == f"publisher run --repository 'dir:/srv/my images' {name}"
    assert lines["Podman, from its store"] == f"podman run --rm {name}"
    assert lines["As one file"].startswith(f"cp -L '/srv/my images/squashfs/{name}' image.squashfs")
    assert f"'/srv/my images/.metadata/{name}/sbom.cdx.json' " in lines["Bills of materials"]
    assert "thin/a/b:1" in lines["Docker, as a thin image"]
    assert f"--snapshotter publisher {name}" in lines["containerd, with the snapshotter"]
    assert lines["Docker, with the snapshotter"] == f"docker run --rm {name}"
    assert lines["Kubernetes, with the snapshotter"].endswith(f" --restart=Never --image={name}")
    local = run_commands("local/a:1", "/i", "/i", ("podman",), has_flat=False, has_program=False)
    assert [command.lines for command in local] == ["podman run --rm localhost/a:1 sh"]
    layers = ("layers",)
    assert not run_commands("local/a b:1", "/i", "/i", layers, has_flat=False, has_program=True)
    second = run_commands(
        ".multiarch/arm64/a/b:1",
        "/i",
        "/i",
        ("flat", "layers", "podman"),
        has_flat=True,
        has_program=False,
    )
    assert {command.runtime for command in second} >= {"Apptainer", "Podman", "To try it"}
    assert all(".multiarch/arm64/a/b:1" in command.lines for command in second)


def test_ranges_of_sharing_change_rarely() -> None:
    texts = {count: sharing(count) for count in (1, 2, 9, 10, 99, 100, 999, 1000, 5000)}
    assert len(set(texts.values())) == 5
    assert texts[2] == texts[9] == "2 to 9 images"
    assert texts[10] == texts[99] == "10 to 99 images"
