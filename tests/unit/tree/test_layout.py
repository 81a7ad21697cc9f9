"""Places in the tree: safe, unambiguous, and reachable through links."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from publisher.errors import InvalidReference, PublisherError
from publisher.oci.platform import Platform
from publisher.oci.reference import ImageReference, Transport, parse_reference
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL, public_name

HEX = "0123456789abcdef" * 4
SHA256 = f"sha256:{HEX}"
SHA512 = f"sha512:{HEX}{HEX}"

DIGESTS = st.one_of(
    st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format),
    st.text("0123456789abcdef", min_size=128, max_size=128).map("sha512:{}".format),
)
HOSTS = st.tuples(
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True),
    st.sampled_from(["", ".org", ".example.org", ":5000", ".org:80"]),
).map("".join)
PATHS = st.lists(
    st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-+)[a-z0-9]{1,5}){0,2}", fullmatch=True),
    min_size=1,
    max_size=3,
).map("/".join)
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
FILES = st.lists(
    st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/:@"), min_size=1),
    min_size=1,
    max_size=3,
).map("/".join)
ENDINGS = st.one_of(
    st.just(""),
    TAGS.map(":{}".format),
    DIGESTS.map("@{}".format),
    st.tuples(TAGS, DIGESTS).map(lambda pair: f":{pair[0]}@{pair[1]}"),
)


@st.composite
def registry_references(draw: st.DrawFn) -> ImageReference:
    scheme = draw(st.sampled_from(["https", "http"]))
    return _parsed(f"{scheme}://{draw(HOSTS)}/{draw(PATHS)}{draw(ENDINGS)}")


@st.composite
def local_references(draw: st.DrawFn) -> ImageReference:
    match draw(st.sampled_from([t for t in Transport if t is not Transport.REGISTRY])):
        case Transport.DOCKER_DAEMON:
            return _parsed(f"docker-daemon:{draw(PATHS)}:{draw(TAGS)}")
        case Transport.DOCKER_ARCHIVE:
            name = draw(st.just("") | PATHS.map(":{}:1".format))
            return _parsed(f"docker-archive:/{draw(FILES)}{name}")
        case transport:
            return _parsed(f"{transport}:{draw(FILES)}{draw(ENDINGS)}")


def references() -> st.SearchStrategy[ImageReference]:
    """References of every transport, in the forms that people write."""
    return registry_references() | local_references()


def _parsed(text: str) -> ImageReference:
    try:
        return parse_reference(text)
    except InvalidReference:
        assume(False)
        raise


def _named(reference: ImageReference, **others: Any) -> str:
    try:
        return public_name(reference, **others)
    except InvalidReference:
        assume(False)
        raise


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:stable", "docker.io/library/debian:stable"),
        ("index.docker.io/library/debian:stable", "index.docker.io/library/debian:stable"),
        ("quay.io/a/b:1", "quay.io/a/b:1"),
        ("quay.io:5000/a/b:1", "quay.io:5000/a/b:1"),
        ("http://localhost:5000/b:1", "localhost:5000/b:1"),
        (f"quay.io/a/b@{SHA256}", f"quay.io/a/b@{SHA256}"),
        (f"quay.io/a/b:1@{SHA256}", "quay.io/a/b:1"),
        ("oci:/images/tool:1", "local/tool:1"),
        ("oci:/images/tool/", "local/tool:latest"),
        ("oci:tool.tar:1", "local/tool.tar:1"),
        ("oci-archive:/images/tool.tar.gz:1", "local/tool:1"),
        ("docker-archive:/images/tool.tgz", "local/tool:latest"),
        ("docker-archive:/images/x.tar:team/tool:2", "local/team/tool:2"),
        ("docker-daemon:team/tool:2", "local/team/tool:2"),
    ],
)
def test_an_image_is_public_where_people_look_for_it(text: str, name: str) -> None:
    assert public_name(parse_reference(text)) == name


def test_a_wish_may_name_an_image_that_has_no_registry() -> None:
    assert public_name(parse_reference("oci:/x/build-1234:1"), "casa") == "local/casa:1"


def test_the_name_of_a_wish_does_not_replace_a_registry() -> None:
    assert public_name(parse_reference("quay.io/a/b:1"), "casa") == "quay.io/a/b:1"


@pytest.mark.parametrize(
    ("platform", "directory"),
    [("linux/amd64", "amd64"), ("linux/arm64", "arm64"), ("linux/arm/v6", "arm:v6")],
)
def test_each_of_several_platforms_has_a_place_of_its_own(platform: str, directory: str) -> None:
    name = public_name(parse_reference("quay.io/a/b:1"), platform=Platform.parse(platform))
    assert name == f".multiarch/{directory}/quay.io/a/b:1"


@given(references(), st.sampled_from([None, "linux/amd64", "linux/arm/v6"]))
def test_no_reference_leads_out_of_the_tree_or_into_its_metadata(
    reference: ImageReference, platform: str | None
) -> None:
    name = _named(reference, platform=Platform.parse(platform) if platform else None)
    assert posixpath.normpath(name) == name
    assert not name.startswith("/")
    components = name.split("/")
    if platform:
        assert components[0] == layout.MULTIARCH
        components = components[2:]
    assert len(components) >= 2
    assert not any(component.startswith(".") for component in components)
    assert all(len(os.fsencode(component)) <= 255 for component in components)
    assert all(component.isprintable() for component in components)


@given(registry_references())
def test_a_public_name_is_a_reference_to_the_image_itself(reference: ImageReference) -> None:
    again = parse_reference(f"https://{_named(reference)}")
    assert (again.registry, again.repository) == (reference.registry, reference.repository)
    assert again.tag == reference.tag
    assert again.digest == (None if reference.tag else reference.digest)


@given(registry_references(), references())
def test_images_of_registries_never_share_a_place_with_others(
    one: ImageReference, other: ImageReference
) -> None:
    key_one, key_other = (
        (r.transport, r.registry, r.repository, r.tag or r.digest) for r in (one, other)
    )
    name_one, name_other = _named(one), _named(other)
    assert (name_one == name_other) == (key_one == key_other)
    # A link cannot be a directory on the way to another link at the same time.
    assert not name_one.startswith(f"{name_other}/")
    assert not name_other.startswith(f"{name_one}/")


@pytest.mark.parametrize("host", ["local", "remove-schedule.json", "repository.json", "any.json"])
def test_a_registry_cannot_take_a_name_that_the_tree_uses(host: str) -> None:
    with pytest.raises(InvalidReference, match=host):
        public_name(parse_reference(f"https://{host}/x:1"))


@pytest.mark.parametrize(
    "text", ["oci:.:1", "oci:/:1", "oci:/x/.hidden:1", "oci-archive:/x/.tar.gz", "oci:.tar/..x"]
)
def test_an_image_without_a_usable_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="give the wish a name"):
        public_name(parse_reference(text))


@pytest.mark.parametrize("letter", ["x", "ü"])
def test_a_name_that_no_file_system_can_hold_is_refused_before_anything_is_done(
    letter: str,
) -> None:
    location = "/images/" + letter * (200 // len(letter.encode()))
    assert public_name(parse_reference(f"oci:{location}:{'1' * 54}"))
    with pytest.raises(InvalidReference, match="give the wish a name"):
        public_name(parse_reference(f"oci:{location}:{'1' * 55}"))


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../x",
        "a/../../x",
        "/x",
        "x/",
        ".flat",
        "a//b",
        "",
        "a b",
        "x:y",
        "x@y",
        "x\n",
        "x" * 256,
    ],
)
def test_a_name_given_to_a_wish_cannot_lead_elsewhere(name: str) -> None:
    with pytest.raises(InvalidReference, match="give the wish a name"):
        public_name(parse_reference("oci:/images/tool:1"), name)


def test_a_platform_cannot_lead_elsewhere() -> None:
    for text in ("linux/..", "linux/.", "../..", "linux/amd64/..", "linux/.flat"):
        with pytest.raises(ValueError, match="not os/architecture"):
            Platform.parse(text)


@given(references(), DIGESTS)
def test_a_public_link_resolves_to_the_flat_image(reference: ImageReference, digest: str) -> None:
    name = _named(reference)
    target = layout.link_target(name, digest)
    assert not target.startswith("/")
    place = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    assert place == layout.flat_image(digest)


def test_a_public_link_works_wherever_the_tree_is_mounted(tmp_path: Path) -> None:
    name = ".multiarch/arm:v7/quay.io:5000/a/b/c:1"
    for root in (tmp_path / "here", tmp_path / "a/b/c/d"):
        flat = root / layout.flat_image(SHA256)
        flat.mkdir(parents=True)
        (root / name).parent.mkdir(parents=True)
        (root / name).symlink_to(layout.link_target(name, SHA256))
        assert (root / name).resolve() == flat.resolve()


@given(DIGESTS, DIGESTS)
def test_different_digests_have_different_places_in_256_directories(one: str, other: str) -> None:
    for place in (
        layout.flat_image,
        layout.layer_directory,
        layout.layer_tree,
        layout.layer_index,
        layout.layer_origin,
        layout.retired_directory,
    ):
        assert (place(one) == place(other)) == (one == other)
        shard = one.partition(":")[2]
        assert f"/{shard[:2]}/{shard}" in place(one)
        assert ":" not in place(one)


def test_the_places_are_the_ones_of_the_contract() -> None:
    assert layout.flat_image(SHA256) == f".flat/01/{HEX}"
    assert layout.layer_tree(SHA256) == f".layers/01/{HEX}/layerfs"
    assert layout.layer_origin(SHA256) == f".layers/01/{HEX}/.metadata/origin.json"
    assert layout.manifest_file("quay.io/a/b:1") == ".metadata/quay.io/a/b:1/manifest.json"
    assert layout.REMOVE_SCHEDULE == ".metadata/remove-schedule.json"
    assert layout.link_target("quay.io/a/b:1", SHA256) == f"../../.flat/01/{HEX}"


@pytest.mark.parametrize(
    ("text", "kind", "location"),
    [
        ("dir:/srv/images", "dir", "/srv/images"),
        ("/srv/images", "dir", "/srv/images"),
        ("images", "dir", "images"),
        ("./with:colon", "dir", "./with:colon"),
        ("dir:C:\\odd", "dir", "C:\\odd"),
        ("cvmfs:images.example.org", "cvmfs", "images.example.org"),
    ],
)
def test_repository_urls_are_read(text: str, kind: str, location: str) -> None:
    assert RepositoryURL.parse(text) == RepositoryURL(kind, location)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "dir:/srv/images"),
        ("dir:", "dir:/srv/images"),
        ("cvmfs:", "cvmfs:images.example.org"),
        ("cvmfs:/cvmfs/images.example.org/", "write cvmfs:images.example.org"),
        ("s3:bucket", "dir:/srv/images"),
        ("https://example.org/x", "dir:/srv/images"),
    ],
)
def test_other_repository_urls_are_refused_with_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(PublisherError) as caught:
        RepositoryURL.parse(text)
    assert hint in caught.value.hint


@given(st.text())
def test_a_repository_url_is_read_back_from_its_own_text_or_refused(text: str) -> None:
    try:
        url = RepositoryURL.parse(text)
    except PublisherError:
        return
    assert RepositoryURL.parse(str(url)) == url


@pytest.mark.parametrize(
    ("part", "hidden"),
    [(".flat", True), (".publisher", True), (".multiarch", False), ("local", False)],
)
def test_no_public_name_begins_with_a_hidden_part(part: str, hidden: bool) -> None:
    assert layout.is_hidden(part) == hidden
    assert layout.is_public_name(f"{part}/arm64/x/y:1") != hidden


@pytest.mark.parametrize("name", ["local/app:1", ".multiarch/arm64/example.org/app:1"])
def test_a_name_without_a_registry_is_never_a_reference(name: str) -> None:
    assert layout.is_never_a_reference(name)
    assert not layout.is_never_a_reference(f"example.org/{name}")
