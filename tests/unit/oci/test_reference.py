"""References: every form is read, printed canonically, and refused with a reason that helps."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import docker.auth
import docker.utils
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from publisher.errors import InvalidReference
from publisher.oci.reference import (
    ImageReference,
    Transport,
    api_host,
    parse_pattern,
    parse_reference,
    parse_repository,
)

HEX = "0123456789abcdef" * 4
SHA256 = f"sha256:{HEX}"
SHA512 = f"sha512:{HEX}{HEX}"


def registry(host: str, path: str, **others: Any) -> ImageReference:
    return ImageReference(Transport.REGISTRY, registry=host, repository=path, **others)


@pytest.mark.parametrize(
    ("text", "reference", "canonical"),
    [
        (
            "https://registry.example.org:5000/path/to/name:v1",
            registry("registry.example.org:5000", "path/to/name", tag="v1"),
            "registry.example.org:5000/path/to/name:v1",
        ),
        (
            f"https://quay.io/a/b:1@{SHA256}",
            registry("quay.io", "a/b", tag="1", digest=SHA256),
            f"quay.io/a/b:1@{SHA256}",
        ),
        (
            f"quay.io/a/b@{SHA512}",
            registry("quay.io", "a/b", digest=SHA512),
            f"quay.io/a/b@{SHA512}",
        ),
        (
            "http://127.0.0.1:5000/x",
            registry("127.0.0.1:5000", "x", tag="latest", plain_http=True),
            "http://127.0.0.1:5000/x:latest",
        ),
        (
            "docker://quay.io/a/b:1",
            registry("quay.io", "a/b", tag="1"),
            "quay.io/a/b:1",
        ),
        (
            "docker://debian:stable",
            registry("docker.io", "library/debian", tag="stable"),
            "docker.io/library/debian:stable",
        ),
        (
            "debian",
            registry("docker.io", "library/debian", tag="latest"),
            "docker.io/library/debian:latest",
        ),
        (
            "rootproject/root:6.32",
            registry("docker.io", "rootproject/root", tag="6.32"),
            "docker.io/rootproject/root:6.32",
        ),
        (
            f"debian@{SHA256}",
            registry("docker.io", "library/debian", digest=SHA256),
            f"docker.io/library/debian@{SHA256}",
        ),
        (
            "https://registry.hub.docker.com/debian:stable",
            registry("registry.hub.docker.com", "library/debian", tag="stable"),
            "registry.hub.docker.com/library/debian:stable",
        ),
        (
            "[::1]:5000/x:1",
            registry("[::1]:5000", "x", tag="1"),
            "[::1]:5000/x:1",
        ),
        (
            "https://[2001:DB8::1]/x:1",
            registry("[2001:db8::1]", "x", tag="1"),
            "[2001:db8::1]/x:1",
        ),
        ("localhost/x:1", registry("localhost", "x", tag="1"), "localhost/x:1"),
        ("localhost:5000/x:1", registry("localhost:5000", "x", tag="1"), "localhost:5000/x:1"),
        (
            "https://registry/x:1",
            registry("registry", "x", tag="1"),
            "https://registry/x:1",
        ),
        ("Quay.IO/a/b:RC1", registry("quay.io", "a/b", tag="RC1"), "quay.io/a/b:RC1"),
        (
            "oci:/srv/layout:v1",
            ImageReference(Transport.OCI, location="/srv/layout", tag="v1"),
            "oci:/srv/layout:v1",
        ),
        (
            "oci:./layout/",
            ImageReference(Transport.OCI, location="layout"),
            "oci:layout",
        ),
        (
            f"oci:layout@{SHA256}",
            ImageReference(Transport.OCI, location="layout", digest=SHA256),
            f"oci:layout@{SHA256}",
        ),
        (
            "oci-archive:/tmp/Image.tar:v1",
            ImageReference(Transport.OCI_ARCHIVE, location="/tmp/Image.tar", tag="v1"),
            "oci-archive:/tmp/Image.tar:v1",
        ),
        (
            "docker-daemon:name",
            ImageReference(Transport.DOCKER_DAEMON, repository="name", tag="latest"),
            "docker-daemon:name:latest",
        ),
        (
            "docker-daemon:Localhost:5000/team/name:v1",
            ImageReference(
                Transport.DOCKER_DAEMON, repository="localhost:5000/team/name", tag="v1"
            ),
            "docker-daemon:localhost:5000/team/name:v1",
        ),
        (
            "docker-archive:/tmp/saved.tar",
            ImageReference(Transport.DOCKER_ARCHIVE, location="/tmp/saved.tar"),
            "docker-archive:/tmp/saved.tar",
        ),
        (
            "docker-archive:/tmp/saved.tar:team/name:v1",
            ImageReference(
                Transport.DOCKER_ARCHIVE,
                location="/tmp/saved.tar",
                repository="team/name",
                tag="v1",
            ),
            "docker-archive:/tmp/saved.tar:team/name:v1",
        ),
        (
            "docker-archive:/tmp/a:b/saved:1.tar:",
            ImageReference(Transport.DOCKER_ARCHIVE, location="/tmp/a:b/saved:1.tar"),
            "docker-archive:/tmp/a:b/saved:1.tar:",
        ),
        (
            "docker-archive:/tmp/saved:1.tar::localhost:5000/name:v1",
            ImageReference(
                Transport.DOCKER_ARCHIVE,
                location="/tmp/saved:1.tar",
                repository="localhost:5000/name",
                tag="v1",
            ),
            "docker-archive:/tmp/saved:1.tar::localhost:5000/name:v1",
        ),
    ],
)
def test_every_form_is_read_and_printed_canonically(
    text: str, reference: ImageReference, canonical: str
) -> None:
    assert parse_reference(text) == reference
    assert str(reference) == canonical
    assert parse_reference(canonical) == reference


@pytest.mark.parametrize(
    ("text", "why", "hint"),
    [
        ("", "empty", "docker.io/library/debian:stable"),
        ("quay.io/a/../b:1", "'..' is not allowed", "without it"),
        ("quay.io/../../etc:1", "'..' is not allowed", "without it"),
        ("https://../x:1", "'..' is not a host name", "letters"),
        ("https://.layers/x:1", "'.layers' is not a host name", "letters"),
        (".flat/x:1", "'.flat' is not a host name", "letters"),
        ("quay.io/.metadata:1", "'.metadata' cannot be a part", "lower-case"),
        ("quay.io/a/.:1", "'.' is not allowed", "without it"),
        ("quay.io/a b:1", "white space", "remove it"),
        ("quay.io/a:1\n", "white space", "remove it"),
        ("quay.io/a\x00:1", "control character", "remove"),
        ("quay.io/a\u202eb:1", "control character", "remove"),
        ("quay.io/d\u0435bian:1", "U+0435", "letters a to z"),
        ("quay.io\\a:1", "backslash", "'/'"),
        ("https://quay.io/a/b?tab=tags", "query", "write quay.io/a/b"),
        ("https://quay.io/a/b#readme", "query or fragment", "write quay.io/a/b"),
        ("quay.io/MyTeam/App:1", "upper-case", "write quay.io/myteam/app:1"),
        ("Debian:stable", "upper-case", "write debian:stable"),
        ("quay.io/a/b:1.*", "pattern", "wish lists"),
        ("quay.io/*/b:1", "only allowed in the tag", "name each"),
        ("quay.io/a//b:1", "empty", "doubled"),
        ("https://quay.io/a/b/", "empty", "at an end"),
        ("https://quay.io", "missing", "HOST/PATH/NAME:TAG"),
        ("https://quay.io/", "missing", "HOST/PATH/NAME:TAG"),
        ("quay.io/a:", "tag after ':' is empty", "remove the ':'"),
        ("quay.io/a:-x", "'-x' cannot be a tag", "begin with neither"),
        ("quay.io/a:.x", "'.x' cannot be a tag", "begin with neither"),
        ("quay.io/a:1:2", "another ':'", "separates"),
        ("quay.io/a:1/b", "only allowed at the end", "HOST/PATH/NAME:TAG"),
        ("quay.io/a:" + "1" * 129, "longer than 128", "shorter"),
        ("quay.io/" + "a" * 250, "longer than 255", "shorten"),
        ("quay.io/" + "a" * 200 + ":" + "1" * 60, "file name", "shorter"),
        ("quay.io/" + "a" * 5000, "longer than 4096", "HOST"),
        ("quay.io/a@sha256:abc", "3 characters instead of 64", "whole digest"),
        ("quay.io/a@sha256:" + "x" * 64, "other characters", "whole digest"),
        (f"quay.io/a@sha256:{HEX.upper()}", "upper-case", f"write {SHA256}"),
        ("quay.io/a@md5:0123456789abcdef0123456789abcdef", "is not supported", "sha256"),
        ("quay.io:70000/a", "'70000' is not a port", "65535"),
        ("quay.io:0500/a", "'0500' is not a port", "leading zeros"),
        ("quay.io:" + "9" * 5000 + "/a", "longer", "HOST"),
        ("quay.io:/a", "not a host name", ":PORT"),
        ("[::g]:5000/a", "not a host name", "[::1]:5000"),
        ("[1:2:3]:5000/a", "not an IPv6 address", "[::1]:5000"),
        ("quay_io.example/a", "not a host name", "letters"),
        ("https://quay.io./a", "not a host name", "letters"),
        ("a" * 64 + ".example.org/a", "longer than 63", "correct"),
        ("ftp://quay.io/a", "'ftp' is not a transport", "https://"),
        ("dir:/srv/image", "'dir' is not a transport", "oci:"),
        ("oci://srv/image", "'oci' is not a transport", "oci:"),
        ("https://hub.docker.com/r/rootproject/root", "website", "docker.io/rootproject/root"),
        ("https://hub.docker.com/_/debian", "website", "docker.io/library/debian"),
        ("oci:", "no directory", "oci:DIRECTORY:TAG"),
        ("oci:../layout", "'..'", "without it"),
        ("oci:layout:", "tag after ':' is empty", "remove"),
        ("docker-archive::name:1", "no directory or file", "FILE"),
        ("docker-daemon:", "missing", "HOST"),
        ("docker-daemon:a:1.*", "registries only", "one tag"),
        (f"docker-daemon:a@{SHA256}", "its own digests", "tag"),
    ],
)
def test_a_malformed_reference_is_refused_with_the_reason(text: str, why: str, hint: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_reference(text)
    assert why in caught.value.why
    assert hint in caught.value.hint
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text",
    [
        "https://me:s3cret@quay.io/a/b:1",
        "https://s3cret@quay.io/a/b:1",
        "me:s3cret@quay.io/a/b",
        "https://me:s3/cret@quay.io/a/b:1",
        "https://me:s3cret?@quay.io/a/b:1",
        "https://me:s3cret @quay.io/a/b:1",
        " https://me:s3cret@quay.io/a/b:1",
        "https://me:s3cret#@quay.io/a/b:1",
        "ftp://me:s3cret@quay.io/a/b:1",
        f"https://me:s3cret@quay.io/a/b@{SHA256}",
        "https://me:s3cret@quay.io/a/b@sha256:abc",
        "oci:me:s3cret@quay.io/a/b",
        "docker-daemon:me:s3cret@quay.io/a/b:1",
        "https://me:s3cret\\@quay.io/a/b:1",
    ],
)
def test_credentials_are_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_reference(text)
    error = caught.value
    assert "s3" not in f"{error} {error.what} {error.why} {error.hint}"


@pytest.mark.parametrize(
    "host",
    ["docker.io", "index.docker.io", "registry.hub.docker.com", "hub.docker.com"],
)
def test_every_spelling_of_docker_hub_has_one_api_host_and_its_library(host: str) -> None:
    reference = parse_reference(f"{host}/debian:stable")
    assert (reference.registry, reference.repository) == (host, "library/debian")
    assert api_host(reference.registry) == "registry-1.docker.io"
    assert parse_reference(f"{host}/team/app").repository == "team/app"


def test_other_registries_are_their_own_api_host_and_have_no_library() -> None:
    reference = parse_reference("quay.io/app:1")
    assert reference.repository == "app"
    assert api_host("quay.io") == "quay.io"
    assert api_host("docker.io:5000") == "docker.io:5000"


def test_a_pattern_is_returned_beside_a_reference_without_a_tag() -> None:
    reference, pattern = parse_pattern("https://registry.hub.docker.com/library/redis:7.*-alpine")
    assert reference == registry("registry.hub.docker.com", "library/redis")
    assert pattern == "7.*-alpine"
    assert reference.with_tag("7.2-alpine") == registry(
        "registry.hub.docker.com", "library/redis", tag="7.2-alpine"
    )
    assert parse_pattern("quay.io/a:1") == (registry("quay.io", "a", tag="1"), None)


def test_a_pattern_cannot_be_pinned() -> None:
    with pytest.raises(InvalidReference, match="one image, and a pattern many"):
        parse_pattern(f"quay.io/a:1.*@{SHA256}")


def test_an_image_repository_alone_has_neither_tag_nor_digest() -> None:
    assert parse_repository("quay.io/a") == registry("quay.io", "a")
    for text in ("quay.io/a:1", "quay.io/a:1.*", f"quay.io/a@{SHA256}", "oci:layout:1"):
        with pytest.raises(InvalidReference, match="already names one image"):
            parse_repository(text)


def test_a_tag_is_replaced_only_by_a_valid_one() -> None:
    reference = parse_reference(f"quay.io/a:1@{SHA256}")
    assert reference.with_tag("2") == registry("quay.io", "a", tag="2")
    for tag in ("", "*", "../x", "a/b", f"1@{SHA256}", "1" * 129):
        with pytest.raises(InvalidReference):
            reference.with_tag(tag)


# --- properties -----------------------------------------------------------------------------

label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
host = st.one_of(
    st.lists(label, min_size=1, max_size=3).map(".".join),
    st.just("localhost"),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.ip_addresses(v=4).map(str),
)
port = st.one_of(st.just(""), st.integers(1, 65535).map(lambda number: f":{number}"))
component = st.from_regex(r"[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
path = st.lists(component, min_size=1, max_size=4).map("/".join)
# A first component with a dot is taken for a host, which may have no '_'.
hostless = path.filter(lambda text: "." not in text.split("/")[0])
tag = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
digest = st.one_of(
    st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True),
    st.from_regex(r"sha512:[0-9a-f]{128}", fullmatch=True),
)
location = st.from_regex(
    r"/?[A-Za-z0-9_ü.-]{1,5}(/[A-Za-z0-9_ü.-]{1,5}){0,2}", fullmatch=True
).filter(lambda text: ".." not in text.split("/"))


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Any well-formed reference, in any of its spellings."""
    suffix = draw(st.one_of(st.just(""), tag.map(lambda text: f":{text}")))
    pin = draw(st.one_of(st.just(""), digest.map(lambda text: f"@{text}")))
    name = draw(hostless)
    full = f"{draw(host)}{draw(port)}/{name}"
    match draw(st.sampled_from(["url", "short", "layout", "engine", "archive"])):
        case "url":
            return draw(st.sampled_from(["https://", "http://"])) + full + suffix + pin
        case "short":
            return (
                draw(st.sampled_from(["", "docker://"]))
                + draw(st.sampled_from([name, full]))
                + suffix
                + pin
            )
        case "layout":
            return draw(st.sampled_from(["oci:", "oci-archive:"])) + draw(location) + suffix + pin
        case "engine":
            return f"docker-daemon:{name}{suffix}"
        case _:
            place = draw(location)
            chosen = [
                place,
                f"{place}:{name}{suffix}",
                f"{place}:1:",
                f"{place}:1::{name}{suffix}",
            ]
            return "docker-archive:" + draw(st.sampled_from(chosen))


@given(texts())
def test_what_is_printed_is_read_back_as_the_same_reference(text: str) -> None:
    reference = parse_reference(text)
    assert parse_reference(str(reference)) == reference
    assert str(parse_reference(str(reference))) == str(reference)


@given(st.one_of(st.text(max_size=60), texts().flatmap(lambda t: st.text().map(t.__add__))))
@example("https://hub.docker.com/r/a/b")
@example("http://[")
def test_any_text_is_read_or_refused_and_what_is_read_is_safe_as_a_path(text: str) -> None:
    try:
        reference, pattern = parse_pattern(text)
    except InvalidReference as error:
        assert error.why and error.hint
        return
    if pattern is None:
        assert parse_reference(str(reference)) == reference
    name = f"{reference.repository}:{reference.tag or reference.digest or 'latest'}"
    if reference.transport is Transport.REGISTRY:
        name = f"{reference.registry}/{name}"
        assert name.isascii()
        assert name == str(PurePosixPath(name))
    for part in name.split("/") if reference.repository else ():
        assert part
        assert not part.startswith(".")
        assert len(part.encode()) <= 255


@given(
    st.sampled_from(["", "localhost", "a.b", "a.b:5000", "localhost:1", "quay.io", "a"]),
    hostless,
    tag,
)
def test_short_names_are_split_as_docker_splits_them(first: str, name: str, word: str) -> None:
    text = f"{first}/{name}:{word}" if first else f"{name}:{word}"
    repository, expected_tag = docker.utils.parse_repository_tag(text)
    index, remote = docker.auth.resolve_repository_name(repository)
    reference = parse_reference(text)
    assert reference.tag == expected_tag
    assert reference.registry == index
    assert reference.repository.removeprefix("library/") == remote.removeprefix("library/")
