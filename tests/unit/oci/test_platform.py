"""Platforms and their spellings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.oci.platform import Platform


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/amd64/v1", Platform("linux", "amd64")),
        ("linux/amd64/v3", Platform("linux", "amd64", "v3")),
        ("linux/x86_64", Platform("linux", "amd64")),
        ("linux/arm64", Platform("linux", "arm64")),
        ("linux/arm64/v8", Platform("linux", "arm64")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("linux/arm", Platform("linux", "arm", "v7")),
        ("linux/arm/v6", Platform("linux", "arm", "v6")),
        ("linux/riscv64", Platform("linux", "riscv64")),
    ],
)
def test_all_spellings_of_a_platform_give_one_value(text: str, platform: Platform) -> None:
    assert Platform.parse(text) == platform
    assert Platform.parse(str(platform)) == platform


@pytest.mark.parametrize(
    "text",
    ["", "linux", "linux/", "/amd64", "linux/a/b/c", "Linux/AMD64", "linux/a b", "linux/amd64\n"],
)
def test_a_malformed_platform_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="os/architecture"):
        Platform.parse(text)


PLATFORMS = st.builds(
    Platform,
    os=st.sampled_from(["linux", "windows", "unknown"]),
    architecture=st.sampled_from(["amd64", "x86_64", "arm64", "aarch64", "arm", "unknown"]),
    variant=st.sampled_from(["", "v1", "v2", "v6", "v7", "v8"]),
)


@given(PLATFORMS)
def test_a_normalized_platform_stays_the_same(platform: Platform) -> None:
    once = platform.normalized()
    assert once.normalized() == once
