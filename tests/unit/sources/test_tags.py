from __future__ import annotations

import pytest

from publisher.errors import PublisherError
from publisher.oci.tag_patterns import InvalidPattern
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.open import Sources
from publisher.sources.tags import NoMatchingTags, expand_tags
from tests.registry import OwnRegistry, json_reply
from tests.registry_faults import cut, endless_tags, html, huge, status
from tests.registry_images import open_image, sample_image


def test_patterns_that_match_nothing_are_an_error_with_some_existing_tags(
    registry: OwnRegistry, sources: Sources
) -> None:
    for tag in ("1.7.0", "1.7.12", "1.8", "1.8.1", "1.10.0", "2.0", "latest"):
        registry.add("library/x", tag, sample_image())
    source = open_image(sources, registry, "library/x")
    with pytest.raises(NoMatchingTags, match=r"3\.\*: of its 7 tags, the nearest are "):
        expand_tags(source, ["3.*"])
    with pytest.raises(NoMatchingTags) as caught:
        expand_tags(source, ["1.8.[5-9]*"])
    assert set(caught.value.nearest[:2]) == {"1.8", "1.8.1"}
    assert len(caught.value.nearest) == 5
    with pytest.raises(NoMatchingTags, match=r"1\.\* without \*") as caught:
        expand_tags(source, ["1.*"], ["*"])
    assert (caught.value.patterns, caught.value.exclude) == (("1.*",), ("*",))
    registry.tags["library/x"].clear()
    with pytest.raises(NoMatchingTags, match="it has no tags"):
        expand_tags(source, ["*"])


@pytest.mark.parametrize("pattern", [">=", ">=one", "<2;", "=>1", ">1 <2"])
def test_a_malformed_version_range_is_refused_before_any_request(
    registry: OwnRegistry, sources: Sources, pattern: str
) -> None:
    with pytest.raises(InvalidPattern, match="version range"):
        expand_tags(open_image(sources, registry), [pattern])
    assert registry.count() == 0


def test_all_pages_of_tags_are_read(sources: Sources) -> None:
    built = sample_image()
    with OwnRegistry(page=7) as registry:
        tags = [f"1.{n}" for n in range(50)]
        for tag in tags:
            registry.add("library/x", tag, built)
        assert sorted(open_image(sources, registry).tags()) == sorted(tags)
        assert registry.count("GET", "/tags/list") == 8
        assert expand_tags(open_image(sources, registry), [">=1.48"]) == ["1.48", "1.49"]


@pytest.mark.parametrize(
    "link",
    [
        '<?last=1.4&n=5>; rel="next"',
        "</v2/library/x/tags/list?last=1.4&n=5>; rel=next",
        '<http://registry.internal:1/v2/library/x/tags/list?last=1.4&n=5>; rel="next"',
    ],
)
def test_a_link_to_the_next_page_may_have_any_form(
    registry: OwnRegistry, sources: Sources, link: str
) -> None:
    registry.page = 5
    for n in range(10):
        registry.add("library/x", f"1.{n}", sample_image())
    registry.misbehave(lambda request, reply: reply.with_headers(link=link), times=1)
    assert len(list(open_image(sources, registry).tags())) == 10


def test_a_link_that_is_malformed_is_an_error(registry: OwnRegistry, sources: Sources) -> None:
    registry.add("library/x", "latest", sample_image())
    registry.misbehave(lambda request, reply: reply.with_headers(link='<http://[>; rel="next"'))
    with pytest.raises(SourceError, match="link to the next page is malformed"):
        list(open_image(sources, registry).tags())


def test_a_missing_page_does_not_mean_that_the_image_is_missing(
    registry: OwnRegistry, sources: Sources
) -> None:
    registry.add("library/x", "latest", sample_image())
    registry.misbehave(
        lambda request, reply: reply.with_headers(link='</v2/gone/x/tags/list>; rel="next"'),
        path="/library/x/",
    )
    with pytest.raises(SourceError, match="a page that the list links to does not exist") as caught:
        list(open_image(sources, registry).tags())
    assert not isinstance(caught.value, ImageNotFound)
    with pytest.raises(ImageNotFound):
        list(open_image(sources, registry, "gone/x").tags())


def test_an_empty_page_is_not_the_end(registry: OwnRegistry, sources: Sources) -> None:
    for n in range(3):
        registry.add("library/x", f"1.{n}", sample_image())
    first = json_reply(200, {"name": "library/x", "tags": None}).with_headers(
        link='</v2/library/x/tags/list?last=0>; rel="next"'
    )
    registry.misbehave(lambda request, reply: first, times=1)
    assert sorted(open_image(sources, registry).tags()) == ["1.0", "1.1", "1.2"]


def test_a_list_of_tags_that_never_ends_is_an_error(
    registry: OwnRegistry, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.sources.registry.endpoint.MAX_PAGES", 50)
    registry.add("library/x", "latest", sample_image())
    registry.misbehave(endless_tags())
    with pytest.raises(SourceError, match="does not end"):
        list(open_image(sources, registry).tags())
    assert registry.count() == 50


def test_a_page_that_names_itself_as_the_next_is_an_error(
    registry: OwnRegistry, sources: Sources
) -> None:
    registry.add("library/x", "latest", sample_image())
    registry.misbehave(
        lambda request, reply: reply.with_headers(link=f'<{request.target}>; rel="next"')
    )
    with pytest.raises(SourceError, match="has no new tag"):
        list(open_image(sources, registry).tags())
    assert registry.count() == 2


def test_a_page_of_tags_that_breaks_off_is_requested_again(
    registry: OwnRegistry, sources: Sources
) -> None:
    registry.add("library/x", "latest", sample_image())
    registry.misbehave(cut(5), times=2)
    registry.misbehave(status(502), times=1, skip=2)
    assert list(open_image(sources, registry).tags()) == ["latest"]


def test_an_image_repository_without_tags_has_none(registry: OwnRegistry, sources: Sources) -> None:
    registry.misbehave(lambda request, reply: json_reply(200, {"name": "x", "tags": None}))
    assert list(open_image(sources, registry).tags()) == []


@pytest.mark.parametrize(
    "fault",
    [
        html(),
        huge(20_000_000),
        lambda request, reply: json_reply(200, []),
        lambda request, reply: json_reply(200, {"tags": "latest"}),
        status(500),
    ],
)
def test_an_answer_that_is_not_a_list_of_tags_is_an_error(
    registry: OwnRegistry, sources: Sources, fault: object
) -> None:
    registry.add("library/x", "latest", sample_image())
    registry.misbehave(fault)  # type: ignore[arg-type]
    with pytest.raises(PublisherError):
        list(open_image(sources, registry).tags())


def test_names_that_cannot_be_tags_are_left_out(registry: OwnRegistry, sources: Sources) -> None:
    odd = ["ok", "../../etc", "a b", "", "x" * 200, 7, None, "\x1b[31m", ".hidden"]
    registry.misbehave(lambda request, reply: json_reply(200, {"tags": odd}))
    assert list(open_image(sources, registry).tags()) == ["ok"]
