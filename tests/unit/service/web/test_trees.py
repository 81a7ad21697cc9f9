from __future__ import annotations

import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from publisher.repository import Repository
from publisher.repository.published import PublishedImage
from publisher.service.web import pages as pages_module
from publisher.site.details import image_files
from publisher.site.pages import FilesPage
from tests.command import succeed
from tests.components import program
from tests.layer_builder import file, image, layer, write_layout
from tests.web_service import Web, run_examples, serve

API = "/api/v1/repositories/main"


@dataclass(frozen=True, slots=True)
class Published:
    web: Web
    tree: Path
    layout: Path

    def publish(self, name: str) -> None:
        arguments = (f"oci:{self.layout}:1", "--name", name, "--repository", self.tree)
        succeed("ingest-image", *arguments)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    root = tmp_path_factory.mktemp("web")
    layout = root / "layout"
    built = image(layer(file("etc/motd", b"hello"), file("usr/bin/tool", b"x" * 1000)))
    write_layout(built, layout, "1")
    with serve({"main": root / "images"}) as web:
        made = Published(web, root / "images", layout)
        for name in ("team/a", "team/b", "team/c"):
            made.publish(name)
        yield made


def test_images_are_listed_in_pages_filtered_and_sorted(published: Published) -> None:
    web = published.web
    everything = web.document(f"{API}/images", "list/1")
    names = [each["name"] for each in everything["images"]]
    assert names == [f"local/team/{letter}:1" for letter in "abc"]
    assert everything["total"] == 3 and everything["next"] is None
    printed = succeed("list", "--repository", published.tree, "--output", "json").json
    assert everything["images"] == printed["images"]

    for order in ("name", "-name", "bytes", "-bytes", "publishedAt"):
        seen: list[str] = []
        path = f"{API}/images?limit=1&sort={order}"
        page = web.document(path, "list/1")
        seen += [each["name"] for each in page["images"]]
        while page["next"]:
            page = web.document(f"{path}&cursor={page['next']}", "list/1")
            seen += [each["name"] for each in page["images"]]
        assert sorted(seen) == names and len(seen) == 3
        if order in ("name", "-name"):
            assert seen == sorted(names, reverse=order == "-name")
    assert web.document(f"{API}/images?name=*/b:1", "list/1")["total"] == 1
    assert web.document(f"{API}/images?pinned=true", "list/1")["images"] == []


def test_one_image_is_as_the_commands_print_it(published: Published) -> None:
    web, name, at = published.web, "local/team/a:1", ("--repository", published.tree)
    for path, kind, command in (
        (f"{API}/images/{name}", "show/1", ("show", name)),
        (f"{API}/images/{name.replace('/', '%2F')}", "show/1", ("show", name)),
        (f"{API}/files/{name}?path=usr/bin", "ls/1", ("ls", name, "usr/bin")),
        (f"{API}/packages/{name}", "packages/1", ("packages", name)),
    ):
        assert web.document(path, kind) == succeed(*command, *at, "--output", "json").json
    [repository] = web.document("/api/v1/repositories", "repositories/1")["repositories"]
    assert repository["name"] == "main" and repository["layers"] == 1
    [found] = web.document(f"{API}/layers?sort=-bytes", "layers/1")["layers"]
    assert found["images"] == 1 and found["bytes"] == 1005
    states = web.document(f"{API}/wishes?status=published", "status/1")
    assert states["total"] == 3 and not states["hasState"]


def test_a_repository_that_cannot_be_read_does_not_hide_the_others(
    published: Published, tmp_path: Path
) -> None:
    with serve({"later": tmp_path / "later", "main": published.tree}) as web:
        [later, main] = web.document("/api/v1/repositories", "repositories/1")["repositories"]
        assert later["name"] == "later" and later["images"] is None
        assert "the directory does not exist" in later["error"]
        assert (main["name"], main["images"], main["error"]) == ("main", 3, "")
        hint = web.problem("/api/v1/repositories/later/images", 503)["hint"]
        assert hint.startswith("queue an ingest") and "--repository" not in hint


def test_errors_name_the_cause_and_the_cure(published: Published) -> None:
    web = published.web
    for path, status, kind in (
        (f"{API}/images/local/team/missing:1", 404, "not-published"),
        (f"{API}/images/..%2F..%2Fetc%00passwd", 404, "not-published"),
        (f"{API}/files/local/team/a:1?path=none", 404, "no-such-path"),
        ("/api/v1/repositories/other/images", 404, "not-found"),
        ("/api/v1/nothing", 404, "not-found"),
        ("/repositories/main/images/none.html", 404, "not-found"),
        (f"{API}/images?limit=0", 400, "bad-request"),
        (f"{API}/images?limit=1&limit=2", 400, "bad-request"),
        (f"{API}/images?wrong=1", 400, "bad-request"),
        (f"{API}/images?cursor=!", 400, "bad-request"),
        (f"{API}/images?sort=size", 400, "bad-request"),
        (f"{API}/images?name={'[' * 600}", 400, "bad-request"),
        (f"{API}/packages/local/team/a:1?package={'[' * 600}", 400, "bad-request"),
        (f"{API}/images?pinned=yes", 400, "bad-request"),
    ):
        found = web.problem(path, status)
        assert found["type"] == f"urn:publisher:problem:{kind}", path
    assert web.problem(f"{API}/images", 405, "DELETE")["type"].endswith(":wrong-method")


def test_a_cursor_of_another_order_is_refused(published: Published) -> None:
    cursor = published.web.document(f"{API}/images?limit=1", "list/1")["next"]
    found = published.web.problem(f"{API}/images?limit=1&sort=bytes&cursor={cursor}", 400)
    assert found["data"] == {"parameter": "cursor"}


def test_an_answer_is_sent_again_only_after_a_change(published: Published) -> None:
    web = published.web
    first = web.get(f"{API}/images")
    tag = first.headers["etag"]
    again = web.get(f"{API}/images", If_None_Match=f'"other", W/{tag}')
    assert again.status_code == 304 and not again.content and again.headers["etag"] == tag
    page = web.get("/repositories/main/index.html")

    published.publish("team/d")
    try:
        changed = web.get(f"{API}/images", If_None_Match=tag)
        assert changed.status_code == 200 and changed.json()["total"] == 4
        new = web.get("/repositories/main/index.html", If_None_Match=page.headers["etag"])
        assert new.status_code == 200 and "team/" in new.text and new.text != page.text
    finally:
        succeed("remove", "local/team/d:1", "--grace", "0d", "--repository", published.tree)
        [entry] = web.document(f"{API}/removals", "schedule/1")["entries"]
        assert entry["name"] == "local/team/d:1"
        succeed("gc", "--repository", published.tree)
    assert web.document(f"{API}/images", "list/1")["total"] == 3


def test_contents_that_vanish_are_reported_and_the_list_stays(
    published: Published, tmp_path: Path
) -> None:
    copy = tmp_path / "images"
    shutil.copytree(published.tree, copy, symlinks=True)
    with serve({"main": copy}) as web:
        assert web.document(f"{API}/images", "list/1")["total"] == 3
        for folder in (copy / ".layers").iterdir():
            shutil.rmtree(folder)
        assert web.problem(f"{API}/files/local/team/a:1", 409)["type"].endswith(":no-contents")
        shutil.rmtree(copy)
        assert web.document(f"{API}/images", "list/1")["total"] == 3  # as it was read last


def test_the_pages_of_the_site_are_live(published: Published) -> None:
    web = published.web
    start = web.get("/")
    assert start.status_code == 307
    pages, seen = [start.headers["location"].removeprefix("/")], set()
    folder = "/repositories/main/"
    while pages:
        path = pages.pop()
        address = path if path.startswith("/") else f"/{path}"
        if address in seen:
            continue
        seen.add(address)
        found = web.get(address)
        assert found.status_code == 200, address
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert found.headers["x-content-type-options"] == "nosniff"
        if not found.headers["content-type"].startswith("text/html"):
            continue
        base = address.rpartition("/")[0]
        for link in _links(found.text):
            parts = [*base.split("/"), *link.split("?")[0].split("#")[0].split("/")]
            pages.append(_normal(parts))
    assert {folder + each for each in ("index.html", "wishes.html", "space.html")} <= seen
    assert sum("/contents/" in each for each in seen) >= 2
    assert sum("/images/" in each for each in seen) == 3


def _links(text: str) -> list[str]:
    found = re.findall(r'(?:href|src)="([^"#][^"]*)"', text)
    return [each for each in found if "://" not in each]


def _normal(parts: list[str]) -> str:
    path: list[str] = []
    for part in parts:
        if part == "..":
            path.pop()
        elif part:
            path.append(part)
    return "/" + "/".join(path)


def test_the_description_has_every_route(published: Published) -> None:
    found = published.web.get("/api/v1/openapi.json")
    document = json.loads(found.text)
    assert document["openapi"] == "3.1.0"
    operations = [each["get"]["operationId"] for each in document["paths"].values()]
    assert len(operations) == len(set(operations)) == 10


def test_the_examples_of_the_documentation_work(published: Published) -> None:
    program("curl")
    names = {
        "repositories/images": "repositories/main",
        "docker.io/library/debian:12": "local/team/a:1",
    }
    printed = run_examples(published.web, "Repositories and images", **names)
    assert len(printed) == 9 and all(printed)


def test_pages_of_files_are_made_once_for_requests_at_the_same_time_and_not_for_missing_ones(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    together = threading.Event()

    def slow(repository: Repository, image: PublishedImage) -> list[tuple[str, FilesPage]]:
        calls.append(image.name)
        together.wait(60)
        return image_files(repository, image)

    monkeypatch.setattr(pages_module, "image_files", slow)
    with serve({"main": published.tree}) as web:
        [page] = set(re.findall(r"contents/[0-9a-f]+/index.html", _an_image(web)))
        found: list[int] = []
        address = f"/repositories/main/{page}"
        missing = address.replace("index", "none")

        def get(path: str) -> None:
            found.append(web.get(path).status_code)

        threads = [
            threading.Thread(target=get, args=(path,))
            for path in (address, missing)
            for _ in "1234"
        ]
        for thread in threads:
            thread.start()
        while not calls:
            time.sleep(0.01)
        together.set()
        for thread in threads:
            thread.join()
        assert sorted(found) == [200] * 4 + [404] * 4
        get(missing)
        assert len(calls) == 1


def _an_image(web: Web) -> str:
    index = web.get("/repositories/main/index.html").text
    path = re.findall(r'href="(images/[^"]+)"', index)[0]
    return web.get(f"/repositories/main/{path}").text


def test_a_request_with_two_lengths_is_refused(published: Published) -> None:
    address = published.web.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), 60) as client:
        client.sendall(
            b"GET /api/v1/repositories HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )
        received = b""
        while part := client.recv(65536):
            received += part
    assert received.startswith(b"HTTP/1.1 400") and b"connection: close" in received.lower()
