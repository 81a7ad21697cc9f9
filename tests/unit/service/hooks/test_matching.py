"""Which wishes a push is about."""

from __future__ import annotations

from fnmatch import fnmatchcase

from publisher.ingest.selection import Selection
from publisher.oci.reference import parse_repository
from publisher.service.hooks.matching import matching_patterns
from publisher.service.hooks.model import Push
from publisher.wishlist import parse_wish_list
from publisher.wishlist.model import Request, Wish

DIGEST = f"sha256:{'ab' * 32}"
LIST = f"""\
version: 2
images:
  - docker.io/library/debian:12
  - quay.io/astro/app:1.*
  - image: quay.io/astro/tool
    tags: ['*']
    exclude: ['*-dev']
    platforms: [linux/amd64, linux/arm64]
  - quay.io/astro/fixed:1@{DIGEST}
  - http://127.0.0.1:5000/app:1
  - http://[::1]:5000/app:1
  - oci:/srv/app:1
  - quay.io/astrology/app:1
"""


def wishes() -> tuple[Wish, ...]:
    found = parse_wish_list(LIST.encode(), "list.yaml", allow_local=True)
    assert not found.problems, found.problems
    return found.wishes


def patterns(image: str, tag: str | None = None, digest: str | None = None) -> tuple[str, ...]:
    return matching_patterns([Push(parse_repository(image), tag, digest)], wishes())


def test_the_wish_for_the_pushed_image_is_selected_and_no_other() -> None:
    assert patterns("index.docker.io/library/debian", "12") == ("docker.io/library/debian:12",)
    assert patterns("https://docker.io/debian", "12") == ("docker.io/library/debian:12",)
    assert patterns("docker.io/library/debian", "13") == ()
    assert patterns("docker.io/library/debian") == ()
    assert patterns("quay.io/library/debian", "12") == ()
    assert patterns("127.0.0.1:5000/app", "1") == ("http://127.0.0.1:5000/app:1",)
    assert patterns("127.0.0.1:5001/app", "1") == ()


def test_of_a_pattern_only_the_pushed_tag_is_selected_for_all_platforms() -> None:
    assert patterns("quay.io/astro/app", "1.5") == ("quay.io/astro/app:1.5",)
    assert patterns("quay.io/astro/app", "2.0") == ()
    assert patterns("quay.io/astro/tool", "3-dev") == ()
    assert patterns("quay.io/astro/tool", "3") == (
        "quay.io/astro/tool:3",
        ".multiarch/arm64/quay.io/astro/tool:3",
    )


def test_a_wish_with_a_digest_is_selected_by_it() -> None:
    wish = f"quay.io/astro/fixed:1@{DIGEST}"
    assert patterns("quay.io/astro/fixed", None, DIGEST) == (wish,)
    assert patterns("quay.io/astro/fixed", "1", f"sha256:{'cd' * 32}") == ()
    assert patterns("quay.io/astro/fixed", "1") == ()


def test_below_a_project_all_wishes_are_selected() -> None:
    push = Push(parse_repository("quay.io/astro"), is_prefix=True)
    found = matching_patterns([push], wishes())
    chosen = Selection(only=found)
    selected = [str(each) for each in wishes() if chosen.whole(Request(each))]
    assert selected == [str(each) for each in wishes() if "quay.io/astro/" in str(each)]


def test_patterns_are_escaped() -> None:
    [pattern] = patterns("[::1]:5000/app", "1")
    assert fnmatchcase("http://[::1]:5000/app:1", pattern)
    assert not fnmatchcase("http://::5000/app:1", pattern)
