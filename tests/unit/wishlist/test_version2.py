"""Version 2, key by key."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from publisher.errors import InvalidReference
from publisher.oci.platform import Platform
from publisher.oci.reference import ImageReference, Transport, parse_reference
from publisher.wishlist import Wish, WishListError, parse_wish_list, wish_for

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")

EXAMPLE = """\
version: 2
repository: dir:/srv/images            # or cvmfs:images.example.org
thin: 'https://registry.example.org/thin/$(image)'
defaults: {platforms: [linux/amd64], outputs: [flat, layers], grace: 30d}
images:
  - docker.io/library/debian:stable    # a plain string is a whole wish
  - image: quay.io/stimela/casa
    tags: ['1.7.*', '>=1.8,<2']        # globs and version ranges, matched against the registry
    exclude: ['*-rc*']
    platforms: [linux/amd64, linux/arm64]
    outputs: [flat, layers, thin, podman]
    owner: astro
    note: for the survey pipeline
    expires: 2027-01-01
  - image: oci:/srv/builds/tool:v3
    name: casa                         # optional, for images without a registry
"""


def problems_of_images(images: str, head: str = "") -> list[str]:
    """Return the problems of `images`, which begin on line 3 without a `head`."""
    text = f"version: 2\n{head}images:\n{images}"
    try:
        problems = parse_wish_list(text, "l").problems
    except WishListError as error:
        problems = error.problems
    return [str(problem).removeprefix("l:") for problem in problems]


def test_the_example_is_read_with_every_key() -> None:
    wish_list = parse_wish_list(EXAMPLE, "l")
    assert wish_list.problems == ()
    assert (wish_list.version, wish_list.repository) == (2, "dir:/srv/images")
    assert wish_list.wishes == (
        Wish(parse_reference("docker.io/library/debian:stable"), line=6, column=5),
        Wish(
            ImageReference(Transport.REGISTRY, "quay.io", "stimela/casa"),
            tags=("1.7.*", ">=1.8,<2"),
            exclude=("*-rc*",),
            platforms=(AMD64, ARM64),
            outputs=("flat", "layers", "thin", "podman"),
            grace=timedelta(days=30),
            owner="astro",
            note="for the survey pipeline",
            expires=date(2027, 1, 1),
            thin="https://registry.example.org/thin/$(image)",
            line=7,
            column=5,
        ),
        Wish(parse_reference("oci:/srv/builds/tool:v3"), name="casa", line=15, column=5),
    )


def test_defaults_apply_to_wishes_without_their_own_settings() -> None:
    wish_list = parse_wish_list(
        "version: 2\n"
        "defaults: {platforms: [linux/aarch64], outputs: [podman, flat], grace: 36h}\n"
        "images:\n"
        "  - debian\n"
        "  - {image: alpine, platforms: [linux/amd64], outputs: [layers], grace: 1w}\n",
        "l",
    )
    debian, alpine = wish_list.wishes
    assert (debian.platforms, debian.outputs, debian.grace) == (
        (ARM64,),
        ("flat", "podman"),
        timedelta(hours=36),
    )
    assert (alpine.platforms, alpine.outputs, alpine.grace) == (
        (AMD64,),
        ("layers",),
        timedelta(days=7),
    )


def test_only_wishes_with_the_output_thin_get_a_thin_name() -> None:
    head = "thin: https://example.org/thin/$(image)\n"
    wish_list = parse_wish_list(
        f"version: 2\n{head}images:\n  - debian\n  - {{image: alpine, outputs: [thin]}}\n", "l"
    )
    assert [wish.thin is not None for wish in wish_list.wishes] == [False, True]
    (warning,) = problems_of_images("  - debian\n", head)
    assert warning.startswith("2:7: warning: no image requests a thin image")


@pytest.mark.parametrize(
    ("entry", "reported"),
    [
        ("{image: debian, platform: [a/b]}", "unknown key 'platform' in a wish (did you mean "),
        ("{image: debian, tag: '1'}", "unknown key 'tag' in a wish (put the tag into 'image'"),
        ("{image: debian, thin: x}", "(\"'thin' belongs to the whole list, not to one image\""),
        ("{image: debian, 7: x}", "unknown key '7' in a wish (known keys are image, tags"),
        ("{tags: ['1.*']}", "the wish names no image (add image:"),
        (
            "{image: 'a:1', tags: ['1.*']}",
            "'a:1' names one image already, and 'tags' requests others ",
        ),
        ("{image: 'a:1.*', tags: ['1.*']}", "(write docker.io/library/a, or remove 'tags')"),
        ("{image: a, tags: [1.10]}", "YAML reads 1.10 as a number (write it in quotes: '1.10')"),
        ("{image: a, tags: [12:30:45]}", "(write it in quotes: '12:30:45')"),
        ("{image: a, tags: [2024-01-01]}", "as a date (write it in quotes: '2024-01-01')"),
        (
            "{image: a, tags: '1.*'}",
            "tags must be a list, but this is a string (write tags: ['1.*'])",
        ),
        ("{image: a, tags: []}", "tags is an empty list"),
        ("{image: a, tags: ['>=1.8 <2']}", "'>=1.8 <2' is not a version range (write it as "),
        ("{image: a, tags: ['~1.2']}", "'~1.2' is not a version range"),
        ("{image: a, tags: ['=1.2']}", "'=1.2' is not a version range"),
        ("{image: a, tags: ['1.[0']}", "the '[' in '1.[0' is not closed"),
        ("{image: a, tags: ['^1.2']}", "'^1.2' can match no tag (write a tag, a glob such as"),
        ("{image: a, tags: ['1 2']}", "'1 2' can match no tag"),
        ("{image: a, exclude: ['1']}", "and the wish has no 'tags' (add tags: ['*'], or remove"),
        ("{image: a, platforms: [linux]}", "'linux' is not a platform (write os/architecture"),
        ("{image: a, platforms: linux/amd64}", "(write platforms: ['linux/amd64'])"),
        ("{image: a, platforms: []}", "platforms is an empty list"),
        ("{image: a, outputs: [flatt]}", "unknown output 'flatt' (did you mean 'flat'?)"),
        ("{image: a, outputs: [sif]}", "unknown output 'sif' (known are flat, layers, thin"),
        ("{image: a, outputs: [thin]}", "has no 'thin' (add a line such as thin:"),
        ("{image: a, grace: 30}", "grace: 30 has no unit (write 30d for days"),
        ("{image: a, grace: soon}", "'soon' is not a duration (write a number and a unit"),
        ("{image: a, grace: 1.5}", "grace must be a string, but YAML reads 1.5 as a number"),
        ("{image: a, grace: 99999w}", "'99999w' is longer than a hundred years"),
        ("{image: a, name: ../x}", "'../x' cannot be an image's name: '..' is not allowed"),
        ("{image: a, name: .flat}", "'.flat' cannot be an image's name: '.flat' cannot be"),
        ("{image: a, name: 'x:1'}", "'x:1' cannot be an image's name: 'x:1' cannot be a part"),
        ("{image: a, owner: no}", "YAML reads no as a Boolean (write it in quotes: 'no')"),
        ("{image: a, owner: }", "owner has no value (write one, or remove the line)"),
        ('{image: a, note: "a\\e[31m"}', "note contains control characters"),
        ("{image: a, expires: 2027-02-30}", "the day 2027-02-30 does not exist"),
        ("{image: a, expires: 2027}", "expires must be a date, but this is a number"),
        ("{image: a, expires: 2027-01-01 10:00:00}", "is not a date (write YYYY-MM-DD)"),
        ("{image: a, expires: never}", "'never' is not a date (write YYYY-MM-DD)"),
        ("[a]", "a wish must be a string or a mapping with the key 'image', but this is a list"),
        ("a: 1", "but a space follows its ':' (write 'a:1')"),
        ("debian: stable", "but a space follows its ':' (write 'debian:stable')"),
        ("imag: debian", "unknown key 'imag' in a wish (did you mean 'image'?)"),
        (
            "quay.io/a/b:>=1.8,<2",
            "'>=1.8,<2' is a pattern, and a tag in 'image' takes only '*' "
            "(write {image: quay.io/a/b, tags: ['>=1.8,<2']})",
        ),
        ("'quay.io/a/b: >=1.8'", "(write {image: quay.io/a/b, tags: ['>=1.8']})"),
        ("quay.io/a/b:1.[0-9]", "(write {image: quay.io/a/b, tags: ['1.[0-9]']})"),
        ("debian:~=1.8", "(write {image: docker.io/library/debian, tags: ['~=1.8']})"),
        ("debian:1.?", "(write {image: docker.io/library/debian, tags: ['1.?']})"),
        ("{image: 'a:!=1', outputs: [flat]}", "tags: ['!=1']}"),
        (
            "{<<: {grace: 3d, owner: x}, image: a}",
            "merge keys ('<<') are not supported (write its keys (grace, owner) here instead)",
        ),
        ("{<<: [{grace: 3d}], image: a}", "(write its keys here instead)"),
        (
            "'quay.io/a/b:v1|v2'",
            "'v1|v2' is a pattern, and a tag in 'image' takes only '*' "
            "(write {image: quay.io/a/b, tags: ['v1', 'v2']})",
        ),
        ("'a:{1,2}'", "(write {image: docker.io/library/a, tags: ['1', '2']})"),
        ("'a:^(1|2|3)$'", "(write {image: docker.io/library/a, tags: ['1', '2', '3']})"),
        (
            "https://quay.io/repository/a/b?tab=tags&tag=v1",
            "it is a page of the quay.io website (write quay.io/a/b:v1)",
        ),
        ("quay.io/a/b: 1.0", "but a space follows its ':' (write 'quay.io/a/b:1.0')"),
        (
            "oci:/srv/.hidden",
            "cannot name oci:/srv/.hidden: '.hidden' has a part that",
        ),
        ("https://local/x:1", "'local' is a reserved name in the published tree"),
        ("quay.io/x:1*2 3", "it contains white space"),
    ],
)
def test_a_mistake_in_a_wish_is_explained_and_affects_only_this_wish(
    entry: str, reported: str
) -> None:
    text = f"version: 2\nimages:\n  - {entry}\n  - debian:stable\n"
    wish_list = parse_wish_list(text, "l")
    assert [str(wish) for wish in wish_list.wishes] == ["docker.io/library/debian:stable"]
    assert any(reported.strip('("') in str(problem) for problem in wish_list.unusable)
    for problem in wish_list.unusable:
        assert (problem.line, problem.file) == (3, "l")
        assert problem.subject
        assert problem.suggestion or "hundred years" in problem.message


@pytest.mark.parametrize(
    ("head", "reported"),
    [
        ("repository: images.example.org\n", "2:13: error: 'images.example.org' may be the name"),
        ("repository: s3:bucket\n", "2:13: error: cannot use repository 's3:bucket'"),
        ("repository: 7\n", "2:13: error: repository must be a string"),
        ("thin: 'https://x.org/$(imag)'\n", "2:7: error: unknown variable $(imag) (known are"),
        ("thin: 'https://x.org/$(image'\n", "2:7: error: a '$(' that is not closed"),
        ("defaults: [a]\n", "2:11: error: 'defaults' must be a mapping, but this is a list"),
        ("defaults: {grace: x}\n", "2:19: error: 'x' is not a duration"),
        ("defaults: {name: x}\n", "2:12: error: unknown key 'name' in 'defaults' ('name' belongs"),
        ("defaults: {outputs: [thin]}\n", "2:21: error: a thin image is requested"),
        ("cvmfs_repo: x\n", "2:1: error: unknown key 'cvmfs_repo' in a wish list of version 2 ("),
        ("platforms: [a/b]\n", "(put 'platforms' under 'defaults')"),
        ("image: x\n", "(did you mean 'images'?)"),
    ],
)
def test_a_mistake_about_all_images_makes_the_list_unusable(head: str, reported: str) -> None:
    text = f"version: 2\n{head}images: [debian]\n"
    with pytest.raises(WishListError) as caught:
        parse_wish_list(text, "l")
    assert reported in caught.value.why
    assert caught.value.what == "cannot use wish list l"


def test_all_problems_of_a_file_come_at_once_in_its_order() -> None:
    with pytest.raises(WishListError) as caught:
        parse_wish_list(
            "version: 2\nthn: x\nimages:\n  - A B\n  - {image: a, tags: [1], grace: x}\n"
            "  - debian\n  - debian\ndefaults: 7\n",
            "l",
        )
    assert [problem.line for problem in caught.value.problems] == [2, 4, 5, 5, 7, 8]


def test_credentials_in_a_list_are_refused_and_never_repeated() -> None:
    reported = problems_of_images(
        "  - https://me:s3cret@quay.io/a:1\n  - {image: 'me:s3cret@quay.io/a:1'}\n"
    )
    assert len(reported) == 2
    assert "s3cret" not in "".join(reported)
    wish_list = parse_wish_list("version: 2\nimages: ['https://me:s3cret@quay.io/a']\n", "l")
    assert "s3cret" not in wish_list.unusable[0].subject


@pytest.mark.parametrize(
    "text",
    [
        "images: [{'https://ann:s3cret@quay.io/x': 1, image: debian}]",
        "images: [{'https://ann:s3cret@quay.io/x': 1, tags: ['1']}]",
        "images: [debian]\nrepository: https://ann:s3cret@quay.io/x",
        "images: [debian]\ndefaults: {outputs: [thin]}\nthin: 'https://ann:s3cret@quay.io/$(image)'",
        "images: [{image: 'oci:x:1', name: 'https://ann:s3cret@x'}]",
    ],
)
def test_credentials_anywhere_else_in_a_list_are_not_repeated_either(text: str) -> None:
    try:
        reported = parse_wish_list(f"version: 2\n{text}\n", "l").problems
    except WishListError as error:
        reported = error.problems
    assert reported
    assert not [str(problem) for problem in reported if "s3cret" in f"{problem} {problem.subject}"]


@pytest.mark.parametrize(
    ("entry", "warned"),
    [
        ("debian:latest", True),
        ("https://docker.io/library/debian", True),
        ("debian@sha256:" + "0" * 64, False),
        ("debian:stable", False),
        ("index.docker.io/debian", False),
        ("debian:*", False),
    ],
)
def test_two_wishes_with_the_same_public_path_are_a_warning(entry: str, warned: bool) -> None:
    reported = problems_of_images(f"  - debian\n  - {entry}\n")
    assert bool(reported) is warned
    assert all("4:5: warning:" in text and "on line 3" in text for text in reported)


def test_a_repetition_is_found_anywhere_in_the_list() -> None:
    (reported,) = problems_of_images("  - debian\n  - alpine\n  - busybox\n  - debian\n")
    assert reported.startswith(
        "6:5: warning: docker.io/library/debian:latest is already listed on "
    )


@pytest.mark.parametrize(
    ("head", "entry", "reported"),
    [
        (
            "",
            "{image: 'quay.io/a/b:1', name: x}",
            "3:36: warning: 'name' has no effect on an image of a registry, which is published as "
            "quay.io/a/b:1 (remove 'name'; it is for images without a registry (oci:, "
            "docker-daemon: …))",
        ),
        ("", "{image: quay.io/a/b, tags: ['1'], name: x}", "published as quay.io/a/b:TAG (remove"),
        (
            "defaults: {outputs: [thin]}\nthin: x.example.org/thin\n",
            "debian",
            "3:7: warning: the name of thin images has no variables: all of them would have the "
            "same name (write 'x.example.org/thin/$(image)')",
        ),
        (
            "",
            "quay/team/app:1",
            "3:5: warning: a name on Docker Hub has two parts, and quay/team/app has more (did you "
            "mean quay.io/team/app?)",
        ),
        ("", "a/b/c:1", "and a/b/c has more (begin with the host of the registry)"),
    ],
)
def test_what_has_no_effect_or_another_one_is_a_warning(
    head: str, entry: str, reported: str
) -> None:
    (problem,) = problems_of_images(f"  - {entry}\n", head)
    assert reported in problem
    assert "warning" in problem


def test_a_value_given_twice_is_a_warning() -> None:
    (reported,) = problems_of_images("  - {image: a, platforms: [linux/amd64, linux/x86_64]}\n")
    assert reported == ("3:41: warning: 'linux/x86_64' is in platforms twice (remove one of them)")


def test_a_note_may_have_several_lines() -> None:
    wish_list = parse_wish_list(
        "version: 2\nimages:\n  - image: a\n    note: |\n      one\n      two\n", "l"
    )
    assert wish_list.wishes[0].note == "one\ntwo\n"


def test_a_wish_can_be_made_without_a_list() -> None:
    assert wish_for("debian") == Wish(parse_reference("debian"))
    wish = wish_for("oci:layout:1", platforms=["linux/arm64", "linux/aarch64"], name="tools")
    assert (wish.platforms, wish.name) == ((ARM64,), "tools")
    with pytest.raises(InvalidReference, match="pattern"):
        wish_for("debian:*")
    with pytest.raises(InvalidReference, match="cannot be an image's name"):
        wish_for("oci:layout", name="..")
    with pytest.raises(InvalidReference, match="such as linux/amd64"):
        wish_for("debian", platforms=["linux"])
