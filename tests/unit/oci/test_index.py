"""Image indexes, and the choice of an image for a platform."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.errors import InvalidManifest
from publisher.oci.descriptor import Descriptor
from publisher.oci.digest import digest_hex
from publisher.oci.index import ImageIndex, parse_index
from publisher.oci.media_types import (
    OCI_INDEX,
    OCI_MANIFEST,
)
from publisher.oci.platform import Platform
from tests.oci_documents import (
    IN_TOTO,
    document,
    index,
)

PLATFORMS = st.builds(
    Platform,
    os=st.sampled_from(["linux", "windows", "unknown"]),
    architecture=st.sampled_from(["amd64", "x86_64", "arm64", "aarch64", "arm", "unknown"]),
    variant=st.sampled_from(["", "v1", "v2", "v6", "v7", "v8"]),
)


@pytest.mark.parametrize("key", ["layers", "config"])
def test_an_index_with_the_fields_of_a_manifest_is_refused(key: str) -> None:
    with pytest.raises(InvalidManifest, match="fields of an image manifest"):
        parse_index(document({**index("linux/amd64"), key: []}, OCI_INDEX))


def _index_of(platforms: list[Platform]) -> ImageIndex:
    return ImageIndex(
        tuple(
            Descriptor(OCI_MANIFEST, f"sha256:{number:064x}", 1, platform)
            for number, platform in enumerate(platforms)
        )
    )


@given(st.lists(PLATFORMS, max_size=6), PLATFORMS)
def test_the_chosen_image_is_the_best_that_is_offered(
    platforms: list[Platform], wanted: Platform
) -> None:
    def rank(offered: Platform) -> int | None:
        """0 is best; None does not serve."""
        if "unknown" in (offered.os, offered.architecture):
            return None
        mine, theirs = wanted.normalized(), offered.normalized()
        if (mine.os, mine.architecture) != (theirs.os, theirs.architecture):
            return None
        if mine.variant == theirs.variant:
            return 0
        if not theirs.variant:
            return 1
        return None if mine.variant else 2

    ranked = [(r, n) for n, p in enumerate(platforms) if (r := rank(p)) is not None]
    chosen = _index_of(platforms).choose(wanted)
    if not ranked:
        assert chosen is None
    else:
        assert chosen is not None
        assert int(digest_hex(chosen.digest), 16) == min(ranked)[1]


def test_the_order_of_an_index_does_not_matter_for_different_platforms() -> None:
    platforms = ["linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7", "windows/amd64"]
    for order in itertools.permutations(platforms):
        found = parse_index(document(index(*order), OCI_INDEX))
        for wanted in platforms:
            chosen = found.choose(Platform.parse(wanted))
            assert chosen is not None
            assert chosen.digest == f"sha256:{order.index(wanted):064x}"


def test_attestations_and_other_artifacts_are_never_chosen() -> None:
    value = index("unknown/unknown", "linux/amd64", "linux/amd64")
    value["manifests"][1]["mediaType"] = IN_TOTO
    found = parse_index(document(value, OCI_INDEX))
    chosen = found.choose(Platform.parse("linux/amd64"))
    assert chosen is not None
    assert chosen.digest == f"sha256:{2:064x}"
    assert found.choose(Platform("unknown", "unknown")) is None


def test_a_nested_index_is_listed_but_is_not_an_image() -> None:
    value = index("linux/amd64", "linux/arm64")
    value["manifests"][0] |= {"mediaType": OCI_INDEX, "platform": None}
    found = parse_index(document(value, OCI_INDEX))
    assert [d.digest for d in found.nested()] == [f"sha256:{0:064x}"]
    assert [d.digest for d in found.images()] == [f"sha256:{1:064x}"]
