"""The page for new wishes: what it shows, and which users may use it for which list."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlencode

import pytest

from publisher.service.access import Access, Token
from publisher.service.configuration import ListConfiguration, RepositoryConfiguration
from publisher.service.projects import Project
from publisher.service.verbs import Verb
from publisher.service.web.application import application
from publisher.service.web.context import Context
from publisher.service.web.wish_pages import Checked, Finding, WishTools, wish_routes
from publisher.wishlist import WishListError, parse_wish_list
from publisher.wishlist.model import Wish
from publisher.wishlist.quota import Quota
from tests import asgi

SOURCE = "git+https://github.com/astro/wishes.git//lists/astro.yaml@main"
EDIT = 'href="https://github.com/astro/wishes/edit/main/lists/astro.yaml"'


def token(name: str, *verbs: Verb, projects: tuple[str, ...] = ()) -> Token:
    hashed = hashlib.sha256(f"secret-{name}".encode()).hexdigest()
    return Token(name, hashed, frozenset(verbs), projects=projects)


TOKENS = (
    token("all", Verb.SUBMIT),
    token("astro", Verb.SUBMIT, projects=("astro",)),
    token("reader", Verb.READ),
)


@dataclass(slots=True)
class Service:
    """The application with two lists, and a check whose result is given."""

    result: Checked = field(default_factory=lambda: Checked((), 2_000_000, 1_000_000))
    checked: list[tuple[str, str]] = field(default_factory=list)
    registries: tuple[str, ...] = ()
    quota: Quota = field(default_factory=Quota)

    def wishes(self, source: str) -> tuple[Wish, ...]:
        if source != SOURCE:
            raise WishListError(f"cannot read wish list {source}", why="it is away")
        text = b"version: 2\nimages: ['quay.io/astro/app:1']\n"
        return parse_wish_list(text, source, allow_local=False).wishes

    def check(
        self, repository: RepositoryConfiguration, wish_list: ListConfiguration, document: str
    ) -> Checked:
        self.checked.append((f"{repository.name}/{wish_list.name}", document))
        return self.result

    def send(self, user: str, fields: dict[str, str] | None = None) -> asgi.Answer:
        lists = (
            ListConfiguration("astro", SOURCE, project="astro"),
            ListConfiguration("bio", "/srv/wishes/bio.yaml", project="bio"),
        )
        repositories = (RepositoryConfiguration("images", "dir:/r", lists),)
        projects = (Project("astro", registries=self.registries, quota=self.quota), Project("bio"))
        access = Access(tokens=TOKENS, projects=projects)
        context = Context(list, lambda: access, None, lambda: repositories)
        app = application(context, wish_routes(context, WishTools(self.wishes, self.check)))
        headers = {"authorization": f"Bearer secret-{user}"} if user else {}
        if fields is None:
            return asgi.request(app, "GET", "/new-wish?list=images/astro", headers)
        headers["content-type"] = "application/x-www-form-urlencoded"
        body = urlencode(fields).encode()
        return asgi.request(app, "POST", "/new-wish", headers, body)


def astro(image: str, **more: str) -> dict[str, str]:
    return {"list": "images/astro", "image": image, **more}


def test_the_form_has_the_lists_of_the_user() -> None:
    service = Service()
    found = service.send("all")
    assert found.status_code == 200 and found.header("cache-control") == "no-store"
    assert 'value="images/astro" selected' in found.text and "images/bio" in found.text
    found = service.send("astro")
    assert "images/astro" in found.text and "images/bio" not in found.text
    assert service.send("reader").status_code == 403
    assert service.send("").status_code == 401


def test_an_image_that_can_be_published_has_its_lines_and_a_link_to_the_forge() -> None:
    service = Service()
    found = service.send("astro", astro("quay.io/astro/tools:2", note="<b>a note</b>"))
    assert found.status_code == 200, found.text
    assert "The image can be published" in found.text and EDIT in found.text
    assert "2.0 MB, of which 1.0 MB are not published yet" in found.text
    assert ">  - image: quay.io/astro/tools:2\n    note: " in found.text
    assert "<b>" not in found.text and "&lt;b&gt;a note" in found.text
    [(name, document)] = service.checked
    assert name == "images/astro" and document.startswith("version: 2\nimages:\n")


def test_what_the_check_finds_is_shown() -> None:
    service = Service()
    service.result = Checked((Finding("error", "no such <tag>", "correct it"),))
    found = service.send("astro", astro("quay.io/astro/tools:3"))
    assert "The wish cannot be added" in found.text and EDIT not in found.text
    assert "error: no such &lt;tag&gt; (correct it)" in found.text
    service.result = Checked((Finding("note", "the tag moves"),), 5, None)
    found = service.send("astro", astro("quay.io/astro/tools:latest"))
    assert "can be published" in found.text and "note: the tag moves" in found.text


def test_a_quota_that_is_not_checked_is_named() -> None:
    for quota, is_named in ((Quota(images=1), True), (Quota(), False)):
        found = Service(quota=quota).send("astro", astro("quay.io/astro/tools:2"))
        assert ("The quota of the project astro was not checked" in found.text) == is_named


def test_no_host_is_asked_that_the_list_does_not_name() -> None:
    service = Service()
    for image in ("169.254.169.254/meta/data:1", "localhost:6379/a:1", "http://quay.io/a/b:1"):
        found = service.send("astro", astro(image))
        assert found.status_code == 200 and "Not checked" in found.text and EDIT in found.text
    assert "the list has this wish already, in line 2" in (
        service.send("astro", astro("quay.io/astro/app:1")).text
    )
    assert service.checked == []


def test_the_registries_of_the_project_are_asked_and_no_others() -> None:
    service = Service(registries=("ghcr.io",))
    found = service.send("astro", astro("quay.io/astro/tools:2"))
    assert "the project astro may not use the registry quay.io" in found.text
    assert "The wish cannot be added" in found.text and service.checked == []
    found = service.send("astro", astro("ghcr.io/astro/tools:2"))  # no wish of the list names it
    assert "The image can be published" in found.text and len(service.checked) == 1


def test_a_defect_ends_one_request_with_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    service = Service(result=cast(Checked, None))
    found = service.send("astro", astro("quay.io/astro/tools:3"))
    assert found.status_code == 500 and found.json()["type"] == "urn:publisher:problem:unexpected"
    assert "unexpected error at POST /new-wish" in caplog.text
    assert service.send("astro").status_code == 200

    def broken() -> Access:
        raise RuntimeError("a defect of the guard")

    refused = asgi.request(application(Context(list, broken)), "GET", "/api/v1/repositories")
    assert refused.status_code == 500 and refused.json()["hint"]


def test_mistakes_and_other_lists_are_refused() -> None:
    service = Service()
    found = service.send("astro", astro("oci:/etc/passwd:1", note="kept"))
    assert found.status_code == 400 and "on the host of the service" in found.text
    assert 'aria-invalid="true"' in found.text and 'value="kept"' in found.text
    other = {"list": "images/bio", "image": "quay.io/a/b:1"}
    assert service.send("astro", other).status_code == 403
    assert service.send("reader", astro("quay.io/a/b:1")).status_code == 403
    for name in ("", "images", "images/none", "none/astro", "images/astro/x"):
        found = service.send("all", {"list": name, "image": "quay.io/a/b:1"})
        assert found.status_code == 404, name
    away = service.send("all", other)
    assert away.status_code == 503 and "/srv/wishes" not in away.text, away.text
    assert away.header("retry-after") == "5"
    assert service.checked == []
